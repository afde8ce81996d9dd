"""Pictures: EfficientNet-Lite0 features (1280-d) and its 1,000 ImageNet classes."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from trivium.encoders.base import Backbone, DecodeError, Features, Modality, Prepared
from trivium.encoders.files import item_bytes
from trivium.encoders.image_decoding import as_rgb, decode_image
from trivium.encoders.networks import Network

SIDE = 224  # pixels; what the network was trained on
PICTURES_PER_PASS = {"cpu": 8, "gpu": 4096}  # on a GPU the network cuts them itself, by its memory


class EfficientNetLite0(Backbone):
    """The ImageNet classifier, cut open: pooled features and class scores."""

    modality: Modality = "image"
    dim = 1280
    side: int | None = SIDE

    def __init__(self, network: Network) -> None:
        self._network = network
        self._pictures_per_pass = PICTURES_PER_PASS["cpu" if network.device.startswith("cpu") else "gpu"]

    def prepare(self, item: Any, /) -> Prepared:
        """Decode a picture to the network's input size, uint8, shape (3, 224, 224).

        Args:
            item: A path, a file's bytes, a PIL image, or an array (h, w, 3) of uint8.

        Raises:
            DecodeError: See `decode_image`.
        """
        return squeezed(rgb_pixels(item, side=SIDE), SIDE)

    def features(self, batch: Sequence[Prepared], /) -> Features:
        """Return pooled features (n, 1280) and class scores ``imagenet`` (n, 1000)."""
        pooled = np.empty((len(batch), self.dim), np.float32)
        logits = np.empty((len(batch), 1000), np.float32)
        for start in range(0, len(batch), self._pictures_per_pass):
            rows = slice(start, start + self._pictures_per_pass)
            pooled[rows], logits[rows] = self._network(np.stack(batch[rows]))
        return Features(pooled=pooled, logits={"imagenet": logits})


def rgb_pixels(item: Any, *, side: int) -> NDArray[np.uint8]:
    """Return the pixels of a path, a file's bytes, a PIL image or an array, shape (h, w, 3).

    Args:
        item: What to decode.
        side: What it will be brought to: a larger JPEG may be decoded at a part of its size (`decode_image`).

    Raises:
        DecodeError: See `decode_image`.
    """
    if isinstance(item, np.ndarray):
        if item.dtype != np.uint8 or item.ndim != 3 or item.shape[2] != 3:
            raise DecodeError(f"an array must be uint8 of shape (h, w, 3), got {item.dtype} {item.shape}")
        if not item.size:
            raise DecodeError(f"the picture has no pixels: {item.shape}")
        return item
    image = as_rgb(item) if isinstance(item, Image.Image) else decode_image(item_bytes(item), side=side)
    return np.asarray(image)


def squeezed(pixels: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Bring (h, w, 3) to (3, side, side): the whole picture, squeezed to a square.

    The usual cut of 224 from 256 loses what stands at the edge, and was measurably worse (docs/benchmarks.md, "Which
    part of a picture").
    """
    return resized(pixels, side, side)


def resized(pixels: NDArray[np.uint8], height: int, width: int, *, bilinear: bool = False) -> NDArray[np.uint8]:
    """Resize (h, w, 3) by antialiased bicubic interpolation, or bilinear, to (3, height, width).

    torchvision has SIMD code for uint8 whose channels lie together, as decoders give them: 7 times as fast as Pillow.
    """
    import torch
    from torchvision.transforms.v2 import InterpolationMode
    from torchvision.transforms.v2.functional import resize

    if not pixels.flags.writeable:  # torch has no read-only tensors, and warns
        pixels = pixels.copy()
    tensor = torch.from_numpy(pixels).permute(2, 0, 1).unsqueeze(0)  # (1, 3, h, w) in channels-last memory
    mode = InterpolationMode.BILINEAR if bilinear else InterpolationMode.BICUBIC
    out = resize(tensor, [height, width], interpolation=mode, antialias=True)
    return np.ascontiguousarray(out[0].numpy())
