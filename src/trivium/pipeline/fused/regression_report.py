"""How good a regressor is on a table: figures with intervals, what each modality adds, what it bears."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trivium.fusion.blocks import Numbers
from trivium.fusion.estimators import BlockRegressor
from trivium.fusion.kernels.selection import r_squared
from trivium.pipeline.fused.robustness import Figure, Robustness, robustness, told, with_interval


@dataclass(frozen=True, slots=True, kw_only=True)
class Added:
    """What one modality adds."""

    rows: int  # that have it
    without: Figure  # R squared of all rows if it is left out
    moved: float  # by how much it moves a prediction, on average over those rows


@dataclass(frozen=True, slots=True, kw_only=True)
class RegressionReport:
    """What was found; errors are in the numbers' own unit."""

    metric = "R²"
    rows: int
    r_squared: Figure
    mean_absolute_error: Figure
    root_mean_square_error: Figure
    spread: float  # the truth's standard deviation: the error of one who always says the mean
    added: Mapping[str, Added]
    ways: Mapping[str, str]  # which way predicts rows with which modalities
    robustness: Robustness  # of R squared
    truth: Numbers = field(repr=False)
    predicted: Numbers = field(repr=False)

    def to_json(self) -> dict[str, Any]:
        """Return all of it as JSON has it, but the numbers themselves."""
        figures = {
            "r_squared": self.r_squared,
            "mean_absolute_error": self.mean_absolute_error,
            "root_mean_square_error": self.root_mean_square_error,
        }
        return {
            "rows": self.rows,
            **{name: figure[0] for name, figure in figures.items()},
            "interval": {name: list(figure[1:]) for name, figure in figures.items()},
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
        lines = [
            f"{self.rows:,} rows, standard deviation {self.spread:,.4g}",
            f"R²                   {told(self.r_squared, factor=1, digits=3)}",
            f"mean absolute error  {told(self.mean_absolute_error, factor=1, digits=3)}",
            f"root mean square     {told(self.root_mean_square_error, factor=1, digits=3)}",
            "",
            "what each modality adds (R² without it; by how much it moves a prediction):",
        ]
        for name, of in self.added.items():
            without = told(of.without, factor=1, digits=3)
            lines.append(f"  {name:6} {without}  {of.moved:,.4g} in each of {of.rows:,} rows")
        lines += self.robustness.lines("100 R²", factor=100)
        if self.ways:
            lines += ["", "ways chosen: " + ", ".join(f"{names}: {way}" for names, way in self.ways.items())]
        return lines

    def draw(self, folder: Path) -> str:
        """Draw what was said against what is true; return the picture's name."""
        from trivium.pipeline.evaluation.pictures import draw_predictions

        title = f"R² {self.r_squared[0]:.3f} of {self.rows:,}"
        draw_predictions(self.truth, self.predicted, folder / "predictions.png", title=title)
        return "predictions.png"


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
            added[name] = Added(
                rows=int(has.sum()),
                without=with_interval(truth, predicted - parts, r_squared, seed=seed),
                moved=float(np.abs(parts[has]).mean()),
            )
    return RegressionReport(
        rows=len(table),
        r_squared=with_interval(truth, predicted, r_squared, seed=seed),
        mean_absolute_error=with_interval(truth, predicted, _absolute, seed=seed),
        root_mean_square_error=with_interval(truth, predicted, _root_mean_square, seed=seed),
        spread=float(np.std(truth)),
        added=added,
        ways={"+".join(names): of.way for names, of in model.models().items()},
        robustness=robustness(
            table, model.blocks_, lambda changed: r_squared(truth, model.predict(changed)), seed=seed
        ),
        truth=truth,
        predicted=predicted,
    )


def _absolute(truth: NDArray[Any], predicted: NDArray[Any]) -> float:
    return float(np.abs(truth - predicted).mean())


def _root_mean_square(truth: NDArray[Any], predicted: NDArray[Any]) -> float:
    return float(np.sqrt(((truth - predicted) ** 2).mean()))
