"""Draw the small pictures of docs/fusion.md.

python scripts/fusion_pictures.py

Each fusion is boxes and arrows; what a picture shows is in `PICTURES`, from left to right.
"""

from dataclasses import dataclass
from pathlib import Path

import matplotlib
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

TARGET = Path(__file__).parents[1] / "docs" / "images" / "fusion"
FILL = {"text": "#d7e8f7", "image": "#fbe3cf", "": "#eeeeee", "out": "#dcefd8"}
WIDTH, HEIGHT = 1.5, 0.62


@dataclass(frozen=True)
class Box:
    """A box: its words, where it stands (column, row), and what it is of."""

    words: str
    at: tuple[float, float]
    of: str = ""


@dataclass(frozen=True)
class Picture:
    """Boxes, and arrows between them by their places."""

    boxes: tuple[Box, ...]
    arrows: tuple[tuple[int, int], ...]


TEXT, IMAGE = Box("text", (0, 1), "text"), Box("photo", (0, 0), "image")
PICTURES = {
    "concatenation": Picture(
        (TEXT, IMAGE, Box("[text; photo]", (1, 0.5)), Box("linear", (2, 0.5)), Box("vector", (3, 0.5), "out")),
        ((0, 2), (1, 2), (2, 3), (3, 4)),
    ),
    "gated-units": Picture(
        (
            TEXT,
            IMAGE,
            Box("gates from\nall", (1, 0.5)),
            Box("tanh × gate", (2, 1), "text"),
            Box("tanh × gate", (2, 0), "image"),
            Box("sum", (3, 0.5), "out"),
        ),
        ((0, 2), (1, 2), (2, 3), (2, 4), (0, 3), (1, 4), (3, 5), (4, 5)),
    ),
    "low-rank-tensor": Picture(
        (
            TEXT,
            IMAGE,
            Box("r maps of\n[text; 1]", (1, 1), "text"),
            Box("r maps of\n[photo; 1]", (1, 0), "image"),
            Box("products", (2, 0.5)),
            Box("sum over r", (3, 0.5), "out"),
        ),
        ((0, 2), (1, 3), (2, 4), (3, 4), (4, 5)),
    ),
    "self-attention": Picture(
        (
            TEXT,
            IMAGE,
            Box("class token", (0, 2)),
            Box("softmax(QKᵀ/√d) V\n+ tokens", (1.35, 1)),
            Box("class token", (2.7, 1), "out"),
        ),
        ((0, 3), (1, 3), (2, 3), (3, 4)),
    ),
    "token-encoder": Picture(
        (
            Box("words", (0, 1), "text"),
            Box("patches", (0, 0), "image"),
            Box("one sequence\n+ class token", (1, 0.5)),
            Box("Transformer\nlayers", (2, 0.5)),
            Box("class token", (3, 0.5), "out"),
        ),
        ((0, 2), (1, 2), (2, 3), (3, 4)),
    ),
    "bottleneck": Picture(
        (
            Box("words", (0, 2), "text"),
            Box("patches", (0, 0), "image"),
            Box("few shared\ntokens", (1, 1)),
            Box("Transformer", (1, 2), "text"),
            Box("Transformer", (1, 0), "image"),
            Box("mean of class\ntokens", (2, 1), "out"),
        ),
        ((0, 3), (1, 4), (3, 2), (2, 3), (4, 2), (2, 4), (3, 5), (4, 5)),
    ),
    "cross-attention": Picture(
        (
            Box("words", (0, 1), "text"),
            Box("patches", (0, 0), "image"),
            Box("words ask\npatches", (1.2, 1), "text"),
            Box("patches ask\nwords", (1.2, 0), "image"),
            Box("mean", (2.3, 0.5), "out"),
        ),
        ((0, 2), (1, 2), (1, 3), (0, 3), (2, 4), (3, 4)),
    ),
    "late": Picture(
        (
            TEXT,
            IMAGE,
            Box("classifier", (1, 1), "text"),
            Box("classifier", (1, 0), "image"),
            Box("average, or\na classifier", (2, 0.5)),
            Box("probabilities", (3, 0.5), "out"),
        ),
        ((0, 2), (1, 3), (2, 4), (3, 4), (4, 5)),
    ),
    "sum": Picture(
        (
            TEXT,
            IMAGE,
            Box("w₁ k(text, ·)", (1, 1), "text"),
            Box("w₂ k(photo, ·)", (1, 0), "image"),
            Box("kernel ridge", (2, 0.5)),
            Box("probabilities", (3, 0.5), "out"),
        ),
        ((0, 2), (1, 3), (2, 4), (3, 4), (4, 5)),
    ),
    "agreement": Picture(
        (
            TEXT,
            IMAGE,
            Box("map U", (1, 1), "text"),
            Box("map V", (1, 0), "image"),
            Box("cosine", (2, 0.5)),
            Box("beside the\nsum of kernels", (3, 0.5), "out"),
        ),
        ((0, 2), (1, 3), (2, 4), (3, 4), (4, 5)),
    ),
}


def draw(picture: Picture, target: Path) -> None:
    """Write a picture as SVG."""
    across = max(box.at[0] for box in picture.boxes) * 2.1 + WIDTH + 0.2
    up = max(box.at[1] for box in picture.boxes) * 0.95 + HEIGHT + 0.2
    figure = Figure(figsize=(across * 0.75, up * 0.75))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(-0.1, across - 0.1), ylim=(-0.1, up - 0.1))
    axes.set_axis_off()
    centres = [(box.at[0] * 2.1 + WIDTH / 2, box.at[1] * 0.95 + HEIGHT / 2) for box in picture.boxes]
    for start, stop in picture.arrows:
        (x, y), (to_x, to_y) = centres[start], centres[stop]
        if x == to_x:  # one above the other
            way = 1 if to_y > y else -1
            ends = (x + 0.12 * way, y + way * HEIGHT / 2), (to_x + 0.12 * way, to_y - way * HEIGHT / 2)
        else:
            ends = (x + WIDTH / 2, y), (to_x - WIDTH / 2, to_y)
        axes.annotate("", xy=ends[1], xytext=ends[0], arrowprops={"arrowstyle": "->", "color": "#666666"})
    for box, (x, y) in zip(picture.boxes, centres, strict=True):
        style = "round,pad=0,rounding_size=0.1"
        corner = (x - WIDTH / 2, y - HEIGHT / 2)
        fill = FILL[box.of]
        axes.add_patch(FancyBboxPatch(corner, WIDTH, HEIGHT, boxstyle=style, facecolor=fill, edgecolor="#888888"))
        axes.text(x, y, box.words, ha="center", va="center", fontsize=8)
    FigureCanvasSVG(figure)
    figure.savefig(target, format="svg", metadata={"Date": None, "Creator": None})


def main() -> None:
    """Draw all."""
    TARGET.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "trivium"}):
        for name, picture in PICTURES.items():
            draw(picture, TARGET / f"{name}.svg")


if __name__ == "__main__":
    main()
