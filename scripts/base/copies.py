"""Pictures that are the same drawing under other bytes: what is held out for tests must not be in the training."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from base.drawings import figure_box
from base.table import Row
from trivium.encoders.base import DecodeError
from trivium.encoders.decoding.pictures import decode_image

SIDE = 16
# Copies were found from 0.947 up (20 of 21 above 0.98), and other drawings up to 0.93; both were looked at.
MIN_LIKENESS = 0.94
# A copy's sides have the same ratio, as nearly as two renderers agree.
MAX_LOG_RATIO = 0.15

Look = tuple[NDArray[np.float32], float]


class HeldOut:
    """Knows the pictures that are held out, and finds them again in other sources."""

    def __init__(self, rows: Iterable[Row], folder: Path) -> None:
        self._folder = folder
        looks = [look for row in rows if row.image and (look := _look(folder / row.image)) is not None]
        self._vectors = np.array([vector for vector, _ in looks], np.float32).reshape(len(looks), SIDE * SIDE)
        self._log_ratios = np.log([ratio for _, ratio in looks])

    def without_copies(self, rows: Sequence[Row]) -> list[Row]:
        """Leave out rows whose picture looks like one that is held out."""
        is_copy = {image: bool(image) and self._is_copy(image) for image in {row.image for row in rows}}
        return [row for row in rows if not is_copy[row.image]]

    def _is_copy(self, image: str) -> bool:
        look = _look(self._folder / image)
        if look is None:
            return False
        vector, ratio = look
        alike = self._vectors @ vector >= MIN_LIKENESS
        return bool((alike & (np.abs(self._log_ratios - np.log(ratio)) <= MAX_LOG_RATIO)).any())


def _look(path: Path) -> Look | None:
    """Return a figure's brightness on a small grid, centred and of length 1, and the ratio of its sides."""
    try:
        picture = decode_image(path.read_bytes())
    except DecodeError:
        return None
    picture = picture.crop(figure_box(picture))
    grid = np.asarray(picture.convert("L").resize((SIDE, SIDE), Image.Resampling.BOX), np.float32).ravel()
    grid -= grid.mean()
    return grid / max(float(np.linalg.norm(grid)), 1e-6), picture.width / picture.height
