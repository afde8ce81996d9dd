"""What is told of an aligned space: a training record as JSON, a model card, and the curves of loss and recall."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from trivium.pipeline.align.alignment import Aligned, Plan
from trivium.pipeline.align.pairs import Source
from trivium.pipeline.escaping import markdown_table, plain
from trivium.version import __version__

CURVE = "curve.png"


def training_record(
    aligned: Aligned, plan: Plan, sources: Sequence[Source], backbones: Mapping[str, str]
) -> dict[str, Any]:
    """Return what was done and seen, fit for JSON."""
    training = aligned.training
    return {
        "trivium": __version__,
        "method": plan.method,
        "backbones": dict(backbones),
        "kept": list(plan.kept),
        "recipe": asdict(plan.recipe) if training is not None else None,
        "seed": plan.recipe.seed,
        "tables": [
            {
                "name": source.table.path.name,
                "weight": source.weight,
                "rows": len(source.table.rows),
                "refused": len(source.table.refused),
            }
            for source in sources
        ],
        "pairs": {name: {"trained": trained, "held_out": held} for name, (trained, held) in aligned.pairs.items()},
        "recall": {name: dict(recalls) for name, recalls in aligned.recall.items()},
        "closed_form_recall": {name: dict(recalls) for name, recalls in aligned.closed_form_recall.items()},
        "best_epoch": None if training is None else training.best_epoch,
        "temperature": None if training is None else training.temperature,
        "losses": [] if training is None else training.losses,
        "scores": [] if training is None else training.scores,
        "seconds": {name: round(seconds, 1) for name, seconds in aligned.seconds.items()},
    }


def model_card(name: str, record: Mapping[str, Any], *, has_curve: bool) -> str:
    """Write the record for people, as Markdown."""
    lines = [f"# {plain(name)}", "", "A space of frozen encoders and projection heads, aligned with Trivium.", ""]
    heads = [
        (modality, backbone, "as it was" if modality in record["kept"] else record["method"])
        for modality, backbone in record["backbones"].items()
    ]
    lines += markdown_table(("modality", "backbone", "head"), heads)
    tables = [(t["name"], f"{t['rows']:,}", f"{t['refused']:,}", f"{t['weight']:g}") for t in record["tables"]]
    lines += ["", "## Trained on", "", *markdown_table(("table", "rows", "left out", "weight"), tables)]
    pairs = [(two, f"{n['trained']:,}", f"{n['held_out']:,}") for two, n in record["pairs"].items()]
    lines += ["", *markdown_table(("pairs", "trained on", "held out"), pairs)]
    lines += ["", "## Held-out pairs", ""]
    lines += [
        "These chose the epoch and the calibration: for an honest figure run `trivium evaluate` on other data.",
        "",
    ]
    recalls = []
    for direction, recall in record["recall"].items():
        first = record["closed_form_recall"].get(direction, {})
        cells = [f"{recall[k]:.1%}" for k in ("R@1", "R@5", "R@10")]
        cells += [f"{first[k]:.1%}" if k in first else "" for k in ("R@1", "R@10")]
        recalls.append((direction, *cells))
    lines += markdown_table(("direction", "R@1", "R@5", "R@10", "closed form: R@1", "R@10"), recalls)
    if record["best_epoch"] is not None:
        told = ", ".join(f"{what} {seconds:g} s" for what, seconds in record["seconds"].items())
        lines += ["", f"Best epoch {record['best_epoch']} of {len(record['losses'])}; {told}."]
    if has_curve:
        lines += ["", f"![loss and recall by epoch]({CURVE})"]
    return "\n".join(lines) + "\n"


def draw_curve(record: Mapping[str, Any]) -> bytes:
    """Draw the loss and the validation recall of each epoch, as a PNG; needs matplotlib."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3), layout="constrained")
    FigureCanvasAgg(figure)
    epochs = range(1, len(record["losses"]) + 1)
    for axes, key, label in zip(
        figure.subplots(1, 2), ("losses", "scores"), ("loss", "mean recall, held out"), strict=True
    ):
        axes.plot(epochs, record[key], marker="." if len(epochs) < 40 else None)
        axes.axvline(record["best_epoch"], color="grey", linewidth=0.8, linestyle=":")
        axes.set_xlabel("epoch")
        axes.set_title(label, fontsize=10)
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=130)
    return drawn.getvalue()
