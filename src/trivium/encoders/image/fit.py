"""Pictures on their way to a network: RGB pixels, and the square that they are brought to.

The square is made by the same code on the processor and on a device.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from trivium.encoders.base import DecodeError
from trivium.encoders.decoding.pictures import as_rgb, decode_image
from trivium.encoders.files.reading import item_bytes

if TYPE_CHECKING:
    from torch import Tensor


MOST_PIXELS_LONG = 400_000  # of a side; JPEG has 65,535. Of longer strips each second row is taken, or each third ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """How pictures become squares of uint8: as open_clip's own transform does, to the same rounding of sizes."""

    side: int
    mode: str  # squash: all of it; shortest: the middle, cut out; longest: all of it, with edges
    is_bilinear: bool = False  # else bicubic; antialiased either way
    fill: int = 0  # of the edges

    def __call__(self, pictures: "Tensor") -> "Tensor":
        """Bring (n, 3, h, w) to (n, 3, side, side), on the device where they lie."""
        side = self.side
        # What is first made narrow is as long as before: of a strip of 60 million pixels that took 40 GB.
        down, across = (-(-length // MOST_PIXELS_LONG) for length in pictures.shape[-2:])
        pictures = pictures[..., ::down, ::across]
        if self.mode == "squash":
            return self._resized(pictures, side, side)
        if self.mode == "longest":
            ratio = max(pictures.shape[-2:]) / side
            height, width = (max(1, round(length / ratio)) for length in pictures.shape[-2:])
            top, left = (side - height) // 2, (side - width) // 2
            edges = (left, side - width - left, top, side - height - top)
            return _padded(self._resized(pictures, height, width), edges, self.fill)
        pictures = _without_far_ends(pictures)
        short = min(pictures.shape[-2:])
        height, width = (int(side * length / short) for length in pictures.shape[-2:])
        top, left = round((height - side) / 2), round((width - side) / 2)
        return self._resized(pictures, height, width)[..., top : top + side, left : left + side]

    def of_pixels(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Bring (h, w, 3) to (3, side, side)."""
        import torch

        if not pixels.flags.writeable:  # torch has no read-only tensors, and warns
            pixels = pixels.copy()
        picture = torch.from_numpy(pixels).permute(2, 0, 1).unsqueeze(0)  # (1, 3, h, w) in channels-last memory
        return np.ascontiguousarray(self(picture)[0].numpy())

    def _resized(self, pictures: "Tensor", height: int, width: int) -> "Tensor":
        # torchvision has SIMD code for uint8 whose channels lie together, as decoders give them: 7 times as fast as
        # Pillow.
        from torchvision.transforms.v2 import InterpolationMode
        from torchvision.transforms.v2.functional import resize

        mode = InterpolationMode.BILINEAR if self.is_bilinear else InterpolationMode.BICUBIC
        resized: Tensor = resize(pictures, [height, width], interpolation=mode, antialias=True)
        return resized


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


def _without_far_ends(pictures: "Tensor") -> "Tensor":
    """Cut the ends off a strip, which the crop would lose anyway: a strip of one pixel's height is scaled by 224."""
    height, width = pictures.shape[-2:]
    short = min(height, width)
    if max(height, width) <= 8 * short:
        return pictures
    top, left = (max(0, (length - 2 * short) // 2) for length in (height, width))
    return pictures[..., top : top + 2 * short, left : left + 2 * short]


def _padded(pictures: "Tensor", edges: tuple[int, int, int, int], fill: int) -> "Tensor":
    from torch.nn.functional import pad

    return pad(pictures, edges, value=fill)
