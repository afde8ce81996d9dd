"""Explanations of pictures as pictures: what held up the score glows, the rest is grey."""

import os
import re
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from trivium.encoders.files.writing import make_folder, write_file
from trivium.pipeline.explain.drops import Explanation

if TYPE_CHECKING:
    from trivium.pipeline.search.retrieval import Hit

LONGEST_SIDE = 1024  # pixels of an overlay
MAX_NAME = 60  # characters of a file's name
HEATS = (0.0, 0.55, 1.0)  # and their colours
COLOURS = ((255, 214, 64), (255, 120, 20), (214, 10, 30))
MOST_COLOUR = 0.6  # share of the colour where it is hottest: the picture stays visible
GREY_SHARE, GREY_LIGHT = 0.8, 0.9  # what is cold loses its colours, and some of its light


def overlay(picture: NDArray[np.uint8], regions: NDArray[np.float32]) -> Image.Image:
    """Draw heat over a picture.

    Args:
        picture: Pixels (h, w, 3).
        regions: Drop of each cell, (rows, columns); the largest is hottest, 0 and below are cold.
    """
    image = Image.fromarray(picture)
    image.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    heat = heat_of(regions, (image.height, image.width))[..., np.newaxis]  # (h, w, 1)
    colours = np.asarray(image, np.float32)
    grey = np.asarray(image.convert("L"), np.float32)[..., np.newaxis] * GREY_LIGHT
    ground = colours + (grey - colours) * GREY_SHARE * (1 - heat)
    channels = zip(*COLOURS, strict=True)
    colour = np.stack([np.interp(heat[..., 0], HEATS, channel) for channel in channels], axis=-1)  # (h, w, 3)
    mixed = ground + (colour - ground) * MOST_COLOUR * heat
    return Image.fromarray(np.clip(mixed + 0.5, 0, 255).astype(np.uint8))


def heat_of(regions: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    """Return each pixel's share of the largest drop, 0 to 1, shape ``size``: smooth from cell to cell."""
    warm = np.maximum(regions, 0)
    if not warm.max() > 0:
        return np.zeros(size, np.float32)
    cells = Image.fromarray((warm / warm.max()).astype(np.float32))
    smooth = np.asarray(cells.resize((size[1], size[0]), Image.Resampling.BICUBIC))
    return np.asarray(np.clip(smooth, 0, 1), np.float32)


def write_overlays(explanations: Sequence[Explanation], hits: "Sequence[Hit]", folder: Path) -> list[Explanation]:
    """Write an overlay for each explanation that has regions: ``01-NAME.png`` for the first hit.

    Args:
        explanations: Of the first of the hits, in their order.
        hits: Give the files their names.
        folder: Made if it does not exist, and if there is an overlay; files of these names are replaced.

    Returns:
        The explanations, with the overlays' paths.

    Raises:
        OSError: If they cannot be written: the folder or a file in it is a link, say.
    """
    told = []
    for place, (explanation, hit) in enumerate(zip(explanations, hits, strict=False), start=1):
        if explanation.regions is not None and explanation.picture is not None:
            make_folder(folder)
            file = folder / f"{place:02}-{_plain(hit.path)}.png"
            drawn = overlay(explanation.picture, explanation.regions)
            write_file(file, partial(drawn.save, format="PNG"), own_folder=True)
            explanation = replace(explanation, overlay=os.fspath(file))
        told.append(explanation)
    return told


def _plain(path: str) -> str:
    """Return a file's name without its suffix and without what a shell or another system would trip over."""
    stem = os.path.splitext(os.path.basename(path))[0]
    return re.sub(r"[^A-Za-z0-9_-]+", "_", stem)[:MAX_NAME] or "picture"
