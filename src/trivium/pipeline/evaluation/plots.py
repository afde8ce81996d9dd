"""Figures as pictures: recall as a heat map, confusion, reliability. Needs matplotlib, which is optional.

Drawn through matplotlib's objects with the Agg canvas: no window, no global state, whatever the user's settings.
"""

import importlib.util
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from trivium.encoders.base import MODALITIES, Modality
from trivium.encoders.files.writing import write_file
from trivium.fusion.blocks import Integers, Numbers
from trivium.pipeline.evaluation.calibration import Reliability
from trivium.pipeline.evaluation.recall import DEPTHS, Evaluation
from trivium.pipeline.evaluation.zero_shot import ZeroShot

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MISSING = "the picture is left out: it needs matplotlib, run pip install 'trivium[plots]'"
COLOURS = "Blues"  # one hue: more is darker, also in print and for the colour-blind
DARK = 0.6  # of the scale; above it, writing is white
MAX_NAMED_CLASSES = 60  # more names than that cannot be read
MAX_COUNTED_CLASSES = 25
DPI = 130


def can_draw() -> bool:
    """Whether matplotlib is installed; it is not imported."""
    return importlib.util.find_spec("matplotlib") is not None


def draw_recall(found: Evaluation, target: Path) -> None:
    """Draw recall at each depth: rows are what is asked with, columns what is asked for."""
    modalities: list[Modality] = [modality for modality in MODALITIES if modality in found.galleries]
    figure = _figure(2.4 + 3.0 * len(DEPTHS), 3.6)
    for place, (depth, axes) in enumerate(zip(DEPTHS, figure.subplots(1, len(DEPTHS), squeeze=False)[0], strict=True)):
        shares = np.full((len(modalities), len(modalities)), np.nan)
        for (query, gallery), figures in found.recall.items():
            shares[modalities.index(query), modalities.index(gallery)] = figures.at[depth]
        axes.imshow(shares, cmap=COLOURS, vmin=0, vmax=1)
        _name(axes, [f"{m}\n({found.galleries[m]:,})" for m in modalities], list(modalities) if place == 0 else [])
        axes.set_title(f"R@{depth}", fontsize=10)
        for row, column in np.ndindex(shares.shape):
            share = shares[row, column]
            _write(axes, row, column, "–" if np.isnan(share) else f"{share:.1%}", is_dark=bool(share > DARK))
    figure.supylabel("asked with", fontsize=9)
    figure.supxlabel("asked for (items)", fontsize=9)
    figure.suptitle(f"{found.space.name} on {found.table.name}", fontsize=11, parse_math=False)
    _save(figure, target)


def draw_confusion(found: ZeroShot, target: Path) -> None:
    """Draw what a space took for what."""
    title = f"{found.space.name} on {found.table.name}: {found.accuracy:.1%} of {found.items:,}"
    draw_matrix(found.matrix, found.labels, target, title=title)


def draw_matrix(matrix: Integers, labels: Sequence[str], target: Path, *, title: str) -> None:
    """Draw what was taken for what: each row is a class, dark where many of its items went."""
    classes = len(labels)
    side = min(max(4.5, 1.8 + 0.34 * classes), 16.0)
    figure = _figure(side + 0.8, side)
    axes = figure.subplots()
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap=COLOURS, vmin=0, vmax=1)
    if classes <= MAX_NAMED_CLASSES:
        short = [label if len(label) <= 30 else f"{label[:29]}…" for label in labels]
        _name(axes, short, short)
        axes.tick_params(axis="x", rotation=90)
    if classes <= MAX_COUNTED_CLASSES:
        for row, column in np.ndindex(shares.shape):
            if count := int(matrix[row, column]):
                _write(axes, row, column, f"{count:,}", is_dark=bool(shares[row, column] > DARK), size=7)
    axes.set_xlabel("taken for", fontsize=9)
    axes.set_ylabel("is", fontsize=9)
    axes.set_title(title, fontsize=10, parse_math=False)
    _save(figure, target)


def draw_lines(
    lines: Mapping[str, Sequence[tuple[float, float]]], target: Path, *, title: str, across: str, up: str
) -> None:
    """Draw named lines through points (across, up)."""
    figure = _figure(5.2, 3.8)
    axes = figure.subplots()
    for name, points in lines.items():
        axes.plot([x for x, _ in points], [y for _, y in points], marker="o", markersize=4, linewidth=1, label=name)
    axes.set_xlabel(across, fontsize=9)
    axes.set_ylabel(up, fontsize=9)
    axes.set_title(title, fontsize=10, parse_math=False)
    for text in axes.legend(fontsize=7).get_texts():
        text.set_parse_math(False)
    _save(figure, target)


def draw_predictions(truth: Numbers, predicted: Numbers, target: Path, *, title: str) -> None:
    """Draw what was said (n,) against what is true (n,): on the diagonal where it was right."""
    figure = _figure(5.2, 4.8)
    axes = figure.subplots()
    ends = [min(truth.min(), predicted.min()), max(truth.max(), predicted.max())]
    axes.plot(ends, ends, color="0.6", linewidth=1, linestyle="--")
    axes.scatter(truth, predicted, s=9, alpha=0.5, linewidths=0)
    axes.set_xlabel("is", fontsize=9)
    axes.set_ylabel("predicted", fontsize=9)
    axes.set_title(title, fontsize=10, parse_math=False)
    _save(figure, target)


def draw_reliability(curves: Mapping[str, Reliability], target: Path, *, title: str) -> None:
    """Draw what came true against what was said: on the diagonal where probabilities mean what they say."""
    figure = _figure(5.2, 4.8)
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="0.6", linewidth=1, linestyle="--")
    for name, curve in curves.items():
        said = [found.probability for found in curve.bins]
        came_true = [found.relevant for found in curve.bins]
        label = f"{name}: ECE {curve.ece:.3f} ({curve.count:,})"
        axes.plot(said, came_true, marker="o", markersize=4, linewidth=1, label=label)
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    axes.set_xlabel("said to be relevant with probability", fontsize=9)
    axes.set_ylabel("share that was", fontsize=9)
    axes.set_title(title, fontsize=10, parse_math=False)
    for text in axes.legend(fontsize=7, loc="upper left").get_texts():
        text.set_parse_math(False)
    _save(figure, target)


def _figure(width: float, height: float) -> "Figure":
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=DPI, layout="constrained")


def _name(axes: "Axes", columns: list[str], rows: list[str]) -> None:
    axes.set_xticks(range(len(columns)), columns, fontsize=8, parse_math=False)
    axes.set_yticks(range(len(rows)), rows, fontsize=8, parse_math=False)
    axes.tick_params(length=0)


def _write(axes: "Axes", row: int, column: int, text: str, *, is_dark: bool, size: int = 9) -> None:
    colour = "white" if is_dark else "black"
    axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=size, parse_math=False)


def _save(figure: "Figure", target: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    with warnings.catch_warnings():  # labels in scripts that its font has no letters for
        warnings.simplefilter("ignore")
        FigureCanvasAgg(figure)
        write_file(
            target, lambda file: figure.savefig(file, format="png", metadata={"Software": None}), own_folder=True
        )
