"""How good a classifier is on a table: figures with intervals, what each modality adds, what it bears."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trivium.fusion.block_estimators import BlockClassifier
from trivium.fusion.blocks import Numbers, Places
from trivium.fusion.selection import macro_f1
from trivium.pipeline.evaluation.metrics import CONFIDENCE, confusion_matrix

RESAMPLES = 1_000
SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)  # of rows that lose a modality
NOISES = (0.0, 0.5, 1.0, 1.5, 2.0)  # deviations of each number
Figure = tuple[float, float, float]  # value, and its 95 % interval


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

    rows: int
    labels: Sequence[str]
    unknown: int  # rows whose label the classifier does not know: they count as wrong
    accuracy: Figure
    macro_f1: Figure
    per_class: Mapping[str, float]  # F1
    matrix: NDArray[np.int64] = field(repr=False)
    added: Mapping[str, Added]
    ways: Mapping[str, str]  # which way predicts rows with which modalities
    missing: Mapping[str, Sequence[tuple[float, float]]]  # modality -> (share hidden, macro-F1)
    noisy: Mapping[str, Sequence[tuple[float, float]]]  # modality -> (deviations, macro-F1)

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
            "missing": {name: [list(point) for point in points] for name, points in self.missing.items()},
            "noisy": {name: [list(point) for point in points] for name, points in self.noisy.items()},
        }


def report_on(
    model: BlockClassifier, table: NDArray[np.float32], labels: Sequence[Any], *, seed: int
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
    whole = model.predict_proba(table)
    predicted = whole.argmax(axis=1).astype(np.int64)
    per_class = {label: _f1(truth, predicted, place) for label, place in known.items()}
    random = np.random.default_rng(seed)
    added = {}
    for name, parts in model.contributions(table).items():
        without = (whole - parts).argmax(axis=1).astype(np.int64)
        start, _ = model.blocks_[name]
        has = ~np.isnan(table[:, start])
        right = has & (truth < len(known))
        added[name] = Added(
            rows=int(has.sum()),
            without=_figure(truth, without, classes, seed, _macro),
            mean=float(parts[right, truth[right]].mean()) if right.any() else 0.0,
            changed=float((without != predicted)[has].mean()) if has.any() else 0.0,
        )
    deviations = {name: np.nanstd(table[:, a:b], axis=0) for name, (a, b) in model.blocks_.items() if added[name].rows}
    order = random.permutation(len(table)) / len(table)

    def tried(changed: NDArray[np.float32]) -> float:
        return _macro(truth, model.predict_proba(changed).argmax(axis=1).astype(np.int64), classes)

    missing: dict[str, list[tuple[float, float]]] = {}
    noisy: dict[str, list[tuple[float, float]]] = {}
    for name, deviation in deviations.items():
        a, b = model.blocks_[name]
        noise = random.normal(size=(len(table), b - a)).astype(np.float32) * deviation
        for share in SHARES:
            hidden = table.copy()
            hidden[order < share, a:b] = np.nan
            missing.setdefault(name, []).append((share, tried(hidden)))
        for level in NOISES:
            disturbed = table.copy()
            disturbed[:, a:b] += np.float32(level) * noise
            noisy.setdefault(name, []).append((level, tried(disturbed)))
    return ClassifierReport(
        rows=len(table),
        labels=list(known),
        unknown=int((truth == len(known)).sum()),
        accuracy=_figure(truth, predicted, classes, seed, _accuracy),
        macro_f1=_figure(truth, predicted, classes, seed, _macro),
        per_class=per_class,
        matrix=confusion_matrix(truth, predicted, classes=classes)[: len(known), : len(known)],
        added=added,
        ways={"+".join(names): of.way for names, of in model.models().items()},
        missing=missing,
        noisy=noisy,
    )


def report_lines(found: ClassifierReport) -> list[str]:
    """Return the report as lines for people."""
    lines = [
        f"{found.rows:,} rows, {len(found.labels)} classes",
        f"macro-F1  {_told(found.macro_f1)}",
        f"accuracy  {_told(found.accuracy)}",
    ]
    if found.unknown:
        lines.append(f"{found.unknown:,} rows have a label that the classifier does not know, and count as wrong")
    lines += ["", "what each modality adds (macro-F1 without it; added to the right class; rows that change):"]
    for name, of in found.added.items():
        lines.append(f"  {name:6} {_told(of.without)}  {of.mean:+.3f}  {of.changed:.1%} of {of.rows:,}")
    for title, curves, unit in (("missing", found.missing, "of rows"), ("noisy", found.noisy, "deviations")):
        lines += ["", f"macro-F1 where a modality is {title}:"]
        for name, points in curves.items():
            lines.append(f"  {name:6} " + "  ".join(f"{x:g}: {100 * y:.1f}" for x, y in points) + f"  ({unit})")
    if found.ways:
        lines += ["", "ways chosen: " + ", ".join(f"{names}: {way}" for names, way in found.ways.items())]
    return lines


def bootstrap(
    truth: Places, predicted: Places, classes: int, seed: int, metric: Callable[[Places, Places, int], float]
) -> tuple[float, float]:
    """Return the 95 % interval of a metric by drawing rows again and again (percentiles; Efron, Tibshirani 1993)."""
    random = np.random.default_rng(seed)
    values: Numbers = np.empty(RESAMPLES)
    for place in range(RESAMPLES):
        rows = random.integers(0, len(truth), len(truth))
        values[place] = metric(truth[rows], predicted[rows], classes)
    low, high = np.quantile(values, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)


def _figure(
    truth: Places, predicted: Places, classes: int, seed: int, metric: Callable[[Places, Places, int], float]
) -> Figure:
    return (metric(truth, predicted, classes), *bootstrap(truth, predicted, classes, seed, metric))


def _macro(truth: Places, predicted: Places, classes: int) -> float:
    return macro_f1(truth, predicted, classes=classes)


def _accuracy(truth: Places, predicted: Places, classes: int) -> float:
    del classes
    return float((truth == predicted).mean())


def _f1(truth: Places, predicted: Places, label: int) -> float:
    total = int((truth == label).sum() + (predicted == label).sum())
    return 2 * int(((truth == label) & (predicted == label)).sum()) / total if total else float("nan")


def _told(figure: Figure) -> str:
    return f"{100 * figure[0]:.1f} ({100 * figure[1]:.1f} to {100 * figure[2]:.1f})"
