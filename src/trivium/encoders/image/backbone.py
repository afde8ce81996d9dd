"""Networks of pictures: pooled features, and the scores of a classifier where there is one."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from trivium.encoders.base import Backbone, Features, Modality, Prepared
from trivium.encoders.devices import picture_mode
from trivium.encoders.files import stopping
from trivium.encoders.image.fit import Fit, rgb_pixels
from trivium.encoders.networks.contract import Network, device_kind

if TYPE_CHECKING:
    from trivium.encoders.image.on_gpu import DevicePictures

PICTURES_PER_PASS = {"cpu": 8, "gpu": 4096}  # on a GPU the network cuts them itself, by its memory


class ImageBackbone(Backbone):
    """A network that takes squares of uint8."""

    modality: Modality = "image"

    def __init__(
        self,
        network: Network,
        fit: Fit,
        *,
        dim: int,
        heads: Mapping[str, int],
        layers: Mapping[str, int],
        on_device: "DevicePictures | None" = None,
    ) -> None:
        """Take a network.

        Args:
            network: Gives pooled features, for each head its scores, and inner layers.
            fit: What it takes.
            dim: Width of the pooled features.
            heads: How many classes each has.
            layers: How wide each is.
            on_device: Does the rest of the work where the network runs; None where the processor does it.
        """
        self.dim = dim
        self.side: int | None = fit.side
        self._network = network
        self._fit = fit
        self._heads = heads
        self._layers = layers
        self._on_device = on_device
        self._pictures_per_pass = PICTURES_PER_PASS[device_kind(network.device)]

    def prepare(self, item: Any, /) -> Prepared:
        """Decode a picture to the network's input size, uint8, shape (3, side, side).

        Args:
            item: A path, a file's bytes, a PIL image, or an array (h, w, 3) of uint8.

        Raises:
            DecodeError: See `decode_image`.
        """
        return self._fit.of_pixels(rgb_pixels(item, side=self._fit.side))

    def takes_file(self, data: bytes, /) -> bool:
        """Whether the device decodes this file."""
        return self._on_device is not None and self._on_device.takes_file(data)

    def prepare_file(self, content: Any, /) -> Prepared:
        """Prepare a file that the device decodes, or what `prepare` takes: to be resized there, unless it is large."""
        return self.prepare(content) if self._on_device is None else self._on_device.prepare(content)

    def features(self, batch: Sequence[Prepared], /) -> Features:
        """Return pooled features, shape (n, dim), not normalised, scores {head: (n, classes)} and inner layers.

        Raises:
            DecodeError: If one was left to the device, which cannot decode it, and neither can the sandbox.
        """
        widths = (self.dim, *self._heads.values(), *self._layers.values())
        arrays = [np.empty((len(batch), width), np.float32) for width in widths]
        for start in range(0, len(batch), self._pictures_per_pass):
            stopping.check()
            rows = slice(start, start + self._pictures_per_pass)
            found = self._network(self._together(batch[rows]))
            for whole, part in zip(arrays, found, strict=True):
                whole[rows] = part
        pooled, *others = arrays
        count = len(self._heads)
        return Features(
            pooled=pooled,
            logits=dict(zip(self._heads, others[:count], strict=True)),
            layers=dict(zip(self._layers, others[count:], strict=True)),
        )

    def _together(self, batch: Sequence[Prepared]) -> Any:
        """Return what the network takes: an array, or a tensor that is on its device."""
        return np.stack(batch) if self._on_device is None else self._on_device(batch)


def image_backbone(
    network: Network, fit: Fit, *, dim: int, heads: Mapping[str, int], layers: Mapping[str, int]
) -> ImageBackbone:
    """Build a backbone whose device does as much as TRIVIUM_GPU_PICTURES says.

    Raises:
        DeviceError: See `devices.picture_mode`.
    """
    mode = picture_mode()
    on_device = None
    if mode != "cpu" and device_kind(network.device) == "gpu":
        from trivium.encoders.image.on_gpu import DevicePictures, jpeg_decoder

        decodes = mode == "jpeg" and network.device.startswith("cuda")
        decode = jpeg_decoder(network.device) if decodes else None
        on_device = DevicePictures(fit, network.device, decode=decode)
    return ImageBackbone(network, fit, dim=dim, heads=heads, layers=layers, on_device=on_device)
