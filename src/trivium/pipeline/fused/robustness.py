"""How sure a figure is, and what becomes of it when modalities go missing or noisy: for classes and numbers alike."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from trivium.pipeline.evaluation.metrics import CONFIDENCE

RESAMPLES = 1_000
SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)  # of rows that lose a modality
NOISES = (0.0, 0.5, 1.0, 1.5, 2.0)  # deviations of each number
Figure = tuple[float, float, float]  # value, and its 95 % interval
Curves: TypeAlias = Mapping[str, Sequence[tuple[float, float]]]  # modality -> (how much, figure)
Metric: TypeAlias = Callable[[NDArray[Any], NDArray[Any]], float]  # of the truth (n,) and what was predicted (n,)


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

    def lines(self, metric: str, *, factor: float) -> list[str]:
        """Return it for people; figures are shown times a factor."""
        lines = []
        for title, curves, unit in (("missing", self.missing, "of rows"), ("noisy", self.noisy, "deviations")):
            lines += ["", f"{metric} where a modality is {title}:"]
            for name, points in curves.items():
                lines.append(f"  {name:6} " + "  ".join(f"{x:g}: {factor * y:.1f}" for x, y in points) + f"  ({unit})")
        return lines


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


def with_interval(truth: NDArray[Any], predicted: NDArray[Any], metric: Metric, *, seed: int) -> Figure:
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
