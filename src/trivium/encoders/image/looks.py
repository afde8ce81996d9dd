"""How pictures look at a glance: a small copy of them to show, and a hash that is near where they look alike.

The hash is pHash: the signs of a picture's 64 lowest frequencies against their median. Twenty lines of NumPy here;
`imagehash`, the library for it, brings SciPy and PyWavelets for the same. Made in this process, of pixels that the
sandbox has decoded, and not in there: a file that took over its decoder could else put what it likes before a browser.
"""

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from trivium.encoders.base import PLAIN_LOOKS

THUMBNAIL_SIDE = 256  # pixels of the longer side
QUALITY, METHOD = 70, 1  # of WebP; method 4, the default, takes three times as long for a seventh less
HASHED_SIDE, FREQUENCIES = 32, 8
LEAST_CONTRAST = 4.0  # of 255: between the darkest and the lightest of the pixels that are hashed
# Rows are the cosines of a discrete cosine transform (DCT-II), of the lowest frequencies only.
_COSINES = np.cos(np.pi * np.outer(np.arange(FREQUENCIES), 2 * np.arange(HASHED_SIDE) + 1) / (2 * HASHED_SIDE))


def small_picture(pixels: NDArray[np.uint8]) -> Image.Image:
    """Return a copy whose longer side is at most `THUMBNAIL_SIDE`, of pixels (h, w, 3)."""
    height, width = pixels.shape[:2]
    step = max(1, min(height, width) // (4 * THUMBNAIL_SIDE))  # of what is far too large, each second pixel or third
    image = Image.fromarray(np.ascontiguousarray(pixels[::step, ::step]))
    factor = THUMBNAIL_SIDE / max(width, height)
    if factor >= 1:
        return image
    size = max(1, round(width * factor)), max(1, round(height * factor))
    return image.resize(size, Image.Resampling.BICUBIC, reducing_gap=2.0)


def perceptual_hash(small: Image.Image) -> int:
    """Return 64 bits as a signed integer, `PLAIN_LOOKS` if there is nothing to tell the picture by."""
    grey = small.convert("L").resize((HASHED_SIDE, HASHED_SIDE), Image.Resampling.LANCZOS)
    values = np.asarray(grey, np.float64)
    if np.ptp(values) < LEAST_CONTRAST:
        return PLAIN_LOOKS
    frequencies = _COSINES @ values @ _COSINES.T
    bits = frequencies > np.median(frequencies)
    return int.from_bytes(np.packbits(bits).tobytes(), "big", signed=True)


def thumbnail(small: Image.Image) -> bytes:
    """Return it as a WebP file."""
    file = io.BytesIO()
    small.save(file, "WEBP", quality=QUALITY, method=METHOD)
    return file.getvalue()
