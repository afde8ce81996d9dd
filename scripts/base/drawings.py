"""Drawings brought to size: a small figure on a large sheet is cut out, what cannot be drawn is told."""

import io
from pathlib import Path

import resvg_py
from PIL import Image

from trivium.encoders.base import DecodeError
from trivium.encoders.decoding.pictures import OUTSIDE_REFERENCE, SVG_PIXELS, decode_image

# A figure that takes less than this of the sheet's longer side is cut out.
MIN_FILLED = 0.7
MAX_SCALE = 8.0
MARGIN = 0.05
# Lighter than this is paper.
PAPER = 250


def cut_out(content: bytes) -> Image.Image | None:
    """Return the figure of a drawing if it is small on its sheet, at a size as if it filled it; else nothing.

    Raises:
        DecodeError: If it cannot be drawn, or there is nothing on the sheet.
    """
    sheet = decode_image(content)
    box = figure_box(sheet)
    if box is None:
        raise DecodeError("an empty sheet")
    filled = max(box[2] - box[0], box[3] - box[1]) / max(sheet.size)
    if filled >= MIN_FILLED:
        return None
    scale = min(MAX_SCALE, 1 / filled)
    side = int(SVG_PIXELS * scale)
    drawing = OUTSIDE_REFERENCE.sub(rb'\1=""', content).decode("utf-8-sig")
    png = resvg_py.svg_to_bytes(svg_string=drawing, width=side, height=side, background="white", dpi=96.0)
    large = Image.open(io.BytesIO(bytes(png))).convert("RGB")
    found = figure_box(large)
    if found is None:
        return None
    margin = int(MARGIN * SVG_PIXELS)
    left, upper, right, lower = found
    return large.crop(
        (max(0, left - margin), max(0, upper - margin), min(side, right + margin), min(side, lower + margin))
    )


def figure_box(picture: Image.Image) -> tuple[int, int, int, int] | None:
    """Return the box around what is not paper; nothing on an empty sheet."""
    return picture.convert("L").point([255 if value < PAPER else 0 for value in range(256)]).getbbox()


def place_drawing(content: bytes, target: Path) -> Path | None:
    """Write a drawing as it is, or its cut-out figure as PNG beside it; nothing if it cannot be drawn."""
    try:
        figure = cut_out(content)
    except DecodeError:
        return None
    target.parent.mkdir(parents=True, exist_ok=True)
    if figure is None:
        target.write_bytes(content)
        return target
    figure.save(target.with_suffix(".png"))
    return target.with_suffix(".png")
