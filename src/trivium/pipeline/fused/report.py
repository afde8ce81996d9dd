"""How good a classifier is on a table: figures with intervals, what each modality adds, what it bears."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trivium.fusion.estimators import BlockClassifier
from trivium.fusion.kernels.selection import macro_f1
from trivium.fusion.transfer import BlockTransferClassifier
from trivium.pipeline.evaluation.metrics import confusion_matrix
from trivium.pipeline.fused.robustness import Figure, Robustness, robustness, told, with_interval


@dataclass(frozen=True, slots=True, kw_only=True)
class Added:
    """What one modality adds."""

    rows: int  # that have it
    without: Figure  # macro-F1 of all rows if it is left out
    mean: float  # what it adds to the probability of the class that is right, on average over those rows
    changed: float  # share of those rows whose class is another without it


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassifierReport:
    """What was found."""

    metric = "macro-F1"
    rows: int
    labels: Sequence[str]
    unknown: int  # rows whose label the classifier does not know: they count as wrong
    accuracy: Figure
    macro_f1: Figure
    per_class: Mapping[str, float]  # F1
    matrix: NDArray[np.int64] = field(repr=False)
    added: Mapping[str, Added]
    ways: Mapping[str, str]  # which way predicts rows with which modalities
    robustness: Robustness  # of macro-F1

    def to_json(self) -> dict[str, Any]:
        """Return all of it as JSON has it."""
        return {
            "rows": self.rows,
            "unknown_labels": self.unknown,
            "accuracy": self.accuracy[0],
            "macro_f1": self.macro_f1[0],
            "interval": {"accuracy": list(self.accuracy[1:]), "macro_f1": list(self.macro_f1[1:])},
            "per_class": dict(self.per_class),
            "confusion": {"labels": list(self.labels), "matrix": self.matrix.tolist()},
            "modalities": {
                name: {
                    "rows": of.rows,
                    "macro_f1_without": of.without[0],
                    "interval_without": list(of.without[1:]),
                    "mean_added_to_right_class": of.mean,
                    "share_changed": of.changed,
                }
                for name, of in self.added.items()
            },
            "ways": dict(self.ways),
            **self.robustness.to_json(),
        }

    def lines(self) -> list[str]:
        """Return the report for people."""
        lines = [
            f"{self.rows:,} rows, {len(self.labels)} classes",
            f"macro-F1  {told(self.macro_f1)}",
            f"accuracy  {told(self.accuracy)}",
        ]
        if self.unknown:
            lines.append(f"{self.unknown:,} rows have a label that the classifier does not know, and count as wrong")
        lines += ["", "what each modality adds (macro-F1 without it; added to the right class; rows that change):"]
        for name, of in self.added.items():
            lines.append(f"  {name:6} {told(of.without)}  {of.mean:+.3f}  {of.changed:.1%} of {of.rows:,}")
        lines += self.robustness.lines(self.metric, factor=100)
        if self.ways:
            lines += ["", "ways chosen: " + ", ".join(f"{names}: {way}" for names, way in self.ways.items())]
        return lines

    def draw(self, folder: Path) -> str:
        """Draw what was taken for what; return the picture's name."""
        from trivium.pipeline.evaluation.pictures import draw_matrix

        title = f"macro-F1 {100 * self.macro_f1[0]:.1f} of {self.rows:,}"
        draw_matrix(self.matrix, self.labels, folder / "confusion.png", title=title)
        return "confusion.png"


def report_on(
    model: BlockClassifier | BlockTransferClassifier, table: NDArray[np.float32], labels: Sequence[Any], *, seed: int
) -> ClassifierReport:
    """Measure a classifier on rows that it was not fitted to.

    Args:
        model: Fitted.
        table: What it takes, shape (n, width); NaN where a modality is missing.
        labels: Of the rows, as it knows them.
        seed: Of the intervals, of which rows lose a modality, and of noise.
    """
    known = {str(label): place for place, label in enumerate(model.classes_)}
    truth = np.array([known.get(str(label), len(known)) for label in labels], np.int64)
    classes = len(known) + 1  # the last: none that is known
    macro = partial(macro_f1, classes=classes)
    whole = model.predict_proba(table)
    predicted = whole.argmax(axis=1).astype(np.int64)
    added = {}
    for name, parts in model.contributions(table).items():
        has = ~np.isnan(table[:, model.blocks_[name][0]])
        if not has.any():
            continue
        without = (whole - parts).argmax(axis=1).astype(np.int64)
        right = has & (truth < len(known))
        added[name] = Added(
            rows=int(has.sum()),
            without=with_interval(truth, without, macro, seed=seed),
            mean=float(parts[right, truth[right]].mean()) if right.any() else 0.0,
            changed=float((without != predicted)[has].mean()),
        )
    return ClassifierReport(
        rows=len(table),
        labels=list(known),
        unknown=int((truth == len(known)).sum()),
        accuracy=with_interval(truth, predicted, _accuracy, seed=seed),
        macro_f1=with_interval(truth, predicted, macro, seed=seed),
        per_class={label: _f1(truth, predicted, place) for label, place in known.items()},
        matrix=confusion_matrix(truth, predicted, classes=classes)[: len(known), : len(known)],
        added=added,
        ways={"+".join(names): of.way for names, of in model.models().items()},
        robustness=robustness(
            table,
            model.blocks_,
            lambda changed: macro(truth, model.predict_proba(changed).argmax(axis=1).astype(np.int64)),
            seed=seed,
        ),
    )


def _accuracy(truth: NDArray[Any], predicted: NDArray[Any]) -> float:
    return float((truth == predicted).mean())


def _f1(truth: NDArray[np.int64], predicted: NDArray[np.int64], label: int) -> float:
    total = int((truth == label).sum() + (predicted == label).sum())
    return 2 * int(((truth == label) & (predicted == label)).sum()) / total if total else float("nan")
