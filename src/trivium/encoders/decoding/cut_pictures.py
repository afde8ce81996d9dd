"""Pictures whose files are cut off: which of their rows are there, told by decoding them twice.

A decoder that runs out of data leaves pixels as it found them, or makes some up. What is there comes out the same
whatever lies where the rest should be, and so two decodings with something else there tell which rows to believe.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile

from trivium.encoders.decoding.sources import Source

JPEGS = ("JPEG", "MPO")  # as Pillow names those of phones that hold another picture behind the first
# Formats whose decoders leave alone what they have no data for. libwebp's and libheif's give nothing at all.
LEFT_ALONE = ("PNG", "BMP", "TIFF", "GIF")
LEAST_SHARE = 0.5  # of the rows; more must be there
STRIP_ROWS = 64
# Behind a JPEG that is cut off: nothing, or numbers that decode to anything but nothing. A decoder looks for as many as
# it lacks, and where the file has restart markers for the next of eight.
END = b"\xff\xd9"
JUNK = b"".join(b"\x5a\xa5\x3c\x69" * 32 + bytes([0xFF, 0xD0 + count % 8]) for count in range(64)) + END
START_OF_SCAN = b"\xff\xda"
# Programs that download set a file's size first, and leave zeros; samples do not end in so many.
ZEROS = bytes(32)


class Rescued(NamedTuple):
    """What is there of a picture: in the mode and of the size that it has, so far as its rows go."""

    image: Image.Image  # loaded
    there: NDArray[np.bool_]  # (h,), which rows are; all of them where only their details are not
    is_whole: bool  # nothing but what follows the pixels is missing

    @property
    def share(self) -> float:
        """Of the rows that are there."""
        return float(self.there.mean())


def ends_in_zeros(data: Source) -> bool:
    """Whether a file ends in zeros where a JPEG has its end marker: decoders take them for pixels."""
    return data[max(0, len(data) - len(ZEROS)) :] == ZEROS and not data[:].rstrip(b"\0").endswith(END)


def rescued(data: Source, reopened: Callable[[Source], ImageFile.ImageFile]) -> Rescued | None:
    """Decode what is there of a file that is cut off.

    Args:
        data: The file.
        reopened: Opens it, or a changed form of it; does not load it yet.

    Returns:
        What is there; None if that cannot be told of this format.
    """
    image = reopened(data)
    if image.format in JPEGS:
        return _of_jpeg(data[:], reopened)
    # A frame that has transparent pixels, GIF's decoder fills with these first.
    if image.format not in LEFT_ALONE or (image.format == "GIF" and "transparency" in image.info):
        return None
    first, second = (_filled(reopened(data), value) for value in (0, 255))
    there = _equal_rows(first, second)
    return Rescued(first, there, bool(there.all()))


def _of_jpeg(data: bytes, reopened: Callable[[Source], ImageFile.ImageFile]) -> Rescued:
    if data.endswith(ZEROS):
        data = data.rstrip(b"\0")
    data = data.rstrip(b"\xff")  # the first half of a marker
    first, second = (reopened(data + behind) for behind in (END, JUNK))
    first.load()
    second.load()
    there = _equal_rows(first, second)
    if there.all():
        return Rescued(first, there, is_whole=True)
    if _scans(data) > 1:  # the first of several has something of each row, the others add details or colours
        return Rescued(first, np.ones_like(there), is_whole=False)
    there[there.argmin() :] = False  # rows below may be alike by chance
    return Rescued(first, there, is_whole=False)


def _scans(data: bytes) -> int:
    """Count a JPEG's scans that have begun; those of a preview in its metadata are none of its."""
    place = 2
    while data[place : place + 1] == b"\xff" and data[place : place + 2] != START_OF_SCAN:
        place += 2 + max(2, int.from_bytes(data[place + 2 : place + 4]))
    return data.count(START_OF_SCAN, place)


def _filled(image: ImageFile.ImageFile, value: int) -> ImageFile.ImageFile:
    """Load a picture as far as it goes, into one that is full of a value."""
    bands = len(image.getbands())
    image.im = Image.new(image.mode, image.size, value if bands == 1 else (value,) * bands).im
    try:
        image.load()
    except OSError:  # which is why we are here
        image.tile = []  # else it would try again
    return image


def _equal_rows(first: Image.Image, second: Image.Image) -> NDArray[np.bool_]:
    """Say which rows of two pictures are the same, (h,)."""
    width, height = first.size
    equal = np.zeros(height, np.bool_)
    for top in range(0, height, STRIP_ROWS):
        box = (0, top, width, min(top + STRIP_ROWS, height))
        one, other = (np.asarray(image.crop(box)) for image in (first, second))
        equal[top : box[3]] = (one == other).reshape(len(one), -1).all(axis=1)
    return equal
