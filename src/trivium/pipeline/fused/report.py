"""How good a model is on a table: figures with intervals, what each modality adds, what becomes of it without one."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from trivium.fusion.blocks import Numbers
from trivium.fusion.estimators import BlockClassifier, BlockRegressor
from trivium.fusion.kernels.selection import macro_f1, r_squared
from trivium.fusion.transfer import BlockTransferClassifier
from trivium.pipeline.evaluation.metrics import CONFIDENCE, confusion_matrix

RESAMPLES = 1_000
SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)  # of rows that lose a modality
NOISES = (0.0, 0.5, 1.0, 1.5, 2.0)  # deviations of each number
Figure = tuple[float, float, float]  # value, and its 95 % interval
Curves: TypeAlias = Mapping[str, Sequence[tuple[float, float]]]  # modality -> (how much, figure)
Measure: TypeAlias = Callable[[NDArray[Any], NDArray[Any]], float]  # of the truth (n,) and what was predicted (n,)


@dataclass(frozen=True, slots=True, kw_only=True)
class Robustness:
    """What a figure is with a modality hidden from a share of rows, and with noise of some deviations."""

    missing: Curves = field(repr=False)
    noisy: Curves = field(repr=False)

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        told = {"missing": self.missing, "noisy": self.noisy}
        return {
            title: {name: [list(point) for point in points] for name, points in curves.items()}
            for title, curves in told.items()
        }

    def lines(self, metric: str) -> list[str]:
        """Return it for people; figures are shown times 100."""
        lines = []
        for title, curves, unit in (("missing", self.missing, "of rows"), ("noisy", self.noisy, "deviations")):
            lines += ["", f"{metric} where a modality is {title}:"]
            for name, points in curves.items():
                lines.append(f"  {name:6} " + "  ".join(f"{x:g}: {100 * y:.1f}" for x, y in points) + f"  ({unit})")
        return lines


@dataclass(frozen=True, slots=True, kw_only=True)
class AddedToClasses:
    """What one modality adds to a classifier."""

    rows: int  # that have it
    without: Figure  # macro-F1 of all rows if it is left out
    mean: float  # what it adds to the probability of the class that is right, on average over those rows
    changed: float  # share of those rows whose class is another without it


@dataclass(frozen=True, slots=True, kw_only=True)
class AddedToNumbers:
    """What one modality adds to a regressor."""

    rows: int  # that have it
    without: Figure  # R squared of all rows if it is left out
    moved: float  # by how much it moves a prediction, on average over those rows


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassifierReport:
    """What was found of a classifier."""

    metric = "macro-F1"
    rows: int
    labels: Sequence[str]
    unknown: int  # rows whose label the classifier does not know: they count as wrong
    accuracy: Figure
    macro_f1: Figure
    per_class: Mapping[str, float]  # F1
    matrix: NDArray[np.int64] = field(repr=False)
    added: Mapping[str, AddedToClasses]
    ways: Mapping[str, str]  # which way predicts rows with which modalities
    robustness: Robustness  # of macro-F1

    def to_json(self) -> dict[str, Any]:
        """Return all of it as JSON has it."""
        return {
            "rows": self.rows,
            "unknown_labels": self.unknown,
            **_figures_json({"accuracy": self.accuracy, "macro_f1": self.macro_f1}),
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
        return [*lines, *self.robustness.lines(self.metric), *_ways_lines(self.ways)]

    def draw(self, folder: Path) -> str:
        """Draw what was taken for what; return the picture's name."""
        from trivium.pipeline.evaluation.plots import draw_matrix

        title = f"macro-F1 {100 * self.macro_f1[0]:.1f} of {self.rows:,}"
        draw_matrix(self.matrix, self.labels, folder / "confusion.png", title=title)
        return "confusion.png"


@dataclass(frozen=True, slots=True, kw_only=True)
class RegressionReport:
    """What was found of a regressor; errors are in the numbers' own unit."""

    metric = "R²"
    rows: int
    r_squared: Figure
    mean_absolute_error: Figure
    root_mean_square_error: Figure
    spread: float  # the truth's standard deviation: the error of one who always says the mean
    added: Mapping[str, AddedToNumbers]
    ways: Mapping[str, str]  # which way predicts rows with which modalities
    robustness: Robustness  # of R squared
    truth: Numbers = field(repr=False)
    predicted: Numbers = field(repr=False)

    def to_json(self) -> dict[str, Any]:
        """Return all of it as JSON has it, but the numbers themselves."""
        return {
            "rows": self.rows,
            **_figures_json(
                {
                    "r_squared": self.r_squared,
                    "mean_absolute_error": self.mean_absolute_error,
                    "root_mean_square_error": self.root_mean_square_error,
                }
            ),
            "standard_deviation": self.spread,
            "modalities": {
                name: {
                    "rows": of.rows,
                    "r_squared_without": of.without[0],
                    "interval_without": list(of.without[1:]),
                    "mean_moved": of.moved,
                }
                for name, of in self.added.items()
            },
            "ways": dict(self.ways),
            **self.robustness.to_json(),
        }

    def lines(self) -> list[str]:
        """Return the report for people."""
        as_is = partial(told, factor=1, digits=3)
        lines = [
            f"{self.rows:,} rows, standard deviation {self.spread:,.4g}",
            f"R²                   {as_is(self.r_squared)}",
            f"mean absolute error  {as_is(self.mean_absolute_error)}",
            f"root mean square     {as_is(self.root_mean_square_error)}",
            "",
            "what each modality adds (R² without it; by how much it moves a prediction):",
        ]
        for name, of in self.added.items():
            lines.append(f"  {name:6} {as_is(of.without)}  {of.moved:,.4g} in each of {of.rows:,} rows")
        return [*lines, *self.robustness.lines("100 R²"), *_ways_lines(self.ways)]

    def draw(self, folder: Path) -> str:
        """Draw what was said against what is true; return the picture's name."""
        from trivium.pipeline.evaluation.plots import draw_predictions

        title = f"R² {self.r_squared[0]:.3f} of {self.rows:,}"
        draw_predictions(self.truth, self.predicted, folder / "predictions.png", title=title)
        return "predictions.png"


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
        added[name] = AddedToClasses(
            rows=int(has.sum()),
            without=with_interval(truth, without, macro, seed=seed),
            mean=float(parts[right, truth[right]].mean()) if right.any() else 0.0,
            changed=float((without != predicted)[has].mean()),
        )
    matrix = confusion_matrix(truth, predicted, classes=classes)
    total = matrix.sum(axis=0) + matrix.sum(axis=1)
    f1 = np.divide(2 * np.diag(matrix), total, out=np.full(classes, np.nan), where=total > 0)
    return ClassifierReport(
        rows=len(table),
        labels=list(known),
        unknown=int((truth == len(known)).sum()),
        accuracy=with_interval(truth, predicted, _accuracy, seed=seed),
        macro_f1=with_interval(truth, predicted, macro, seed=seed),
        per_class=dict(zip(known, f1[:-1].tolist(), strict=True)),
        matrix=matrix[: len(known), : len(known)],
        added=added,
        ways=_ways(model),
        robustness=robustness(
            table,
            model.blocks_,
            lambda changed: macro(truth, model.predict_proba(changed).argmax(axis=1).astype(np.int64)),
            seed=seed,
        ),
    )


def report_on_numbers(
    model: BlockRegressor, table: NDArray[np.float32], truth: Numbers, *, seed: int
) -> RegressionReport:
    """Measure a regressor on rows that it was not fitted to.

    Args:
        model: Fitted.
        table: What it takes, shape (n, width); NaN where a modality is missing.
        truth: Of the rows, shape (n,).
        seed: Of the intervals, of which rows lose a modality, and of noise.
    """
    predicted = model.predict(table)
    added = {}
    for name, parts in model.contributions(table).items():
        has = ~np.isnan(table[:, model.blocks_[name][0]])
        if has.any():
            added[name] = AddedToNumbers(
                rows=int(has.sum()),
                without=with_interval(truth, predicted - parts, r_squared, seed=seed),
                moved=float(np.abs(parts[has]).mean()),
            )
    return RegressionReport(
        rows=len(table),
        r_squared=with_interval(truth, predicted, r_squared, seed=seed),
        mean_absolute_error=with_interval(truth, predicted, _mean_absolute, seed=seed),
        root_mean_square_error=with_interval(truth, predicted, _root_mean_square, seed=seed),
        spread=float(np.std(truth)),
        added=added,
        ways=_ways(model),
        robustness=robustness(
            table, model.blocks_, lambda changed: r_squared(truth, model.predict(changed)), seed=seed
        ),
        truth=truth,
        predicted=predicted,
    )


def robustness(
    table: NDArray[np.float32],
    blocks: Mapping[str, tuple[int, int]],
    figure: Callable[[NDArray[np.float32]], float],
    *,
    seed: int,
) -> Robustness:
    """Hide and disturb one modality after the other.

    Args:
        table: Rows (n, width), NaN where a modality is missing.
        blocks: The modalities' columns; those that no row has are passed over.
        figure: What comes of such a table.
        seed: Of which rows lose a modality, and of noise.
    """
    random = np.random.default_rng(seed)
    order = random.permutation(len(table)) / len(table)
    missing: dict[str, list[tuple[float, float]]] = {}
    noisy: dict[str, list[tuple[float, float]]] = {}
    for name, (start, stop) in blocks.items():
        if np.isnan(table[:, start]).all():
            continue
        deviation = np.nanstd(table[:, start:stop], axis=0)
        noise = random.normal(size=(len(table), stop - start)).astype(np.float32) * deviation
        for share in SHARES:
            hidden = table.copy()
            hidden[order < share, start:stop] = np.nan
            missing.setdefault(name, []).append((share, figure(hidden)))
        for level in NOISES:
            disturbed = table.copy()
            disturbed[:, start:stop] += np.float32(level) * noise
            noisy.setdefault(name, []).append((level, figure(disturbed)))
    return Robustness(missing=missing, noisy=noisy)


def with_interval(truth: NDArray[Any], predicted: NDArray[Any], metric: Measure, *, seed: int) -> Figure:
    """Return a metric and its 95 % interval, by drawing rows again and again (percentiles; Efron, Tibshirani 1993)."""
    random = np.random.default_rng(seed)
    values = np.empty(RESAMPLES)
    for place in range(RESAMPLES):
        rows = random.integers(0, len(truth), len(truth))
        values[place] = metric(truth[rows], predicted[rows])
    low, high = np.quantile(values, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return metric(truth, predicted), float(low), float(high)


def told(figure: Figure, *, factor: float = 100, digits: int = 1) -> str:
    """Return a figure and its interval for people."""
    value, low, high = (factor * part for part in figure)
    return f"{value:,.{digits}f} ({low:,.{digits}f} to {high:,.{digits}f})"


def _figures_json(figures: Mapping[str, Figure]) -> dict[str, Any]:
    values = {name: figure[0] for name, figure in figures.items()}
    return {**values, "interval": {name: list(figure[1:]) for name, figure in figures.items()}}


def _ways(model: Any) -> dict[str, str]:
    return {"+".join(names): of.way for names, of in model.models().items()}


def _ways_lines(ways: Mapping[str, str]) -> list[str]:
    return ["", "ways chosen: " + ", ".join(f"{names}: {way}" for names, way in ways.items())] if ways else []


def _accuracy(truth: NDArray[Any], predicted: NDArray[Any]) -> float:
    return float((truth == predicted).mean())


def _mean_absolute(truth: NDArray[Any], predicted: NDArray[Any]) -> float:
    return float(np.abs(truth - predicted).mean())


def _root_mean_square(truth: NDArray[Any], predicted: NDArray[Any]) -> float:
    return float(np.sqrt(((truth - predicted) ** 2).mean()))
