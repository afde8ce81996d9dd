"""Pictures: EfficientNet-Lite0 features (1280-d) and its 1,000 ImageNet classes, by timm and torchvision.

Source: Tan & Le, "EfficientNet", ICML 2019; the Lite0 variant and its preprocessing are Google's.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torchvision.transforms import v2

from trivium.encoders.base import DecodeError, Features, Modality, Prepared
from trivium.encoders.files import item_bytes
from trivium.encoders.image_decoding import as_rgb, decode_image

SIDE = 224  # pixels; what the network was trained on
# The checkpoint expects (x - 127) / 128 on 0..255 (Google's Lite models, not the ImageNet mean and deviation).
OFFSET, SCALE = 127.0, 128.0
CPU_PICTURES_PER_PASS = 8  # the fastest of 1 to 32 on two cores (docs/benchmarks.md)


class EfficientNetLite0:
    """The ImageNet classifier, cut open: pooled features and class scores."""

    modality: Modality = "image"
    dim = 1280

    def __init__(self, folder: Path, *, device: str = "cpu") -> None:
        """Load from ``folder`` (model.safetensors with timm's names)."""
        import timm
        from safetensors.torch import load_file

        self._device = torch.device(device)
        model: Any = timm.create_model("tf_efficientnet_lite0", pretrained=False)
        model.load_state_dict(load_file(folder / "model.safetensors"))
        self._model = model.eval().to(self._device).to(memory_format=torch.channels_last)

    def prepare(self, item: Any, /) -> Prepared:
        """Decode a picture to the network's input size, uint8, shape (3, 224, 224).

        Args:
            item: A path, a file's bytes, a PIL image, or an array (h, w, 3) of uint8.

        Raises:
            DecodeError: See `decode_image`.
        """
        image = _as_image(item)
        return np.asarray(_fit(v2.functional.pil_to_tensor(image)))

    @torch.inference_mode()
    def features(self, batch: Sequence[Prepared], /) -> Features:
        """Return pooled features (n, 1280) and class scores ``imagenet`` (n, 1000)."""
        if not batch:
            return Features(
                pooled=np.empty((0, self.dim), np.float32),
                logits={"imagenet": np.empty((0, 1000), np.float32)},
            )
        size = CPU_PICTURES_PER_PASS if self._device.type == "cpu" else len(batch)
        parts = [self._pass(batch[start : start + size]) for start in range(0, len(batch), size)]
        pooled, logits = (torch.cat(tensors).cpu().numpy() for tensors in zip(*parts, strict=True))
        return Features(pooled=pooled, logits={"imagenet": logits})

    def _pass(self, batch: Sequence[Prepared]) -> tuple[torch.Tensor, torch.Tensor]:
        pixels = torch.from_numpy(np.stack(batch)).to(self._device)  # (n, 3, h, w) uint8
        x = ((pixels.float() - OFFSET) / SCALE).contiguous(memory_format=torch.channels_last)
        pooled = self._model.forward_head(self._model.forward_features(x), pre_logits=True)  # (n, 1280)
        return pooled, self._model.classifier(pooled)  # (n, 1000)


def _as_image(item: Any) -> Image.Image:
    if isinstance(item, Image.Image):
        return as_rgb(item)
    if isinstance(item, np.ndarray):
        if item.dtype != np.uint8 or item.ndim != 3 or item.shape[2] != 3:
            raise DecodeError(f"an array must be uint8 of shape (h, w, 3), got {item.dtype} {item.shape}")
        if not item.size:
            raise DecodeError(f"the picture has no pixels: {item.shape}")
        return Image.fromarray(item)
    return decode_image(item_bytes(item))


def _fit(pixels: torch.Tensor) -> torch.Tensor:
    """Bring (3, h, w) to (3, 224, 224): the whole picture, squeezed to a square.

    The usual cut of 224 from 256 loses what stands at the edge, and was measurably worse (docs/benchmarks.md, "Which
    part of a picture").
    """
    squeezed: torch.Tensor = v2.functional.resize(
        pixels, [SIDE, SIDE], interpolation=v2.InterpolationMode.BICUBIC, antialias=True
    )
    return squeezed
