"""The data of `text_learning.py`, and how its figures are written."""

import csv
import gzip
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from trivium.pipeline.evaluation.metrics import bootstrap_interval, wilson_interval

DATA = Path(os.environ.get("TRIVIUM_DATA", Path(__file__).parents[2] / "shared" / "data"))
FOLDS = 4
IMDB = {split: DATA / "text" / f"imdb_{split}.csv.gz" for split in ("train", "test")}


@dataclass(frozen=True, slots=True)
class Labelled:
    """Texts and their labels."""

    texts: list[str]
    labels: list[str]


def labelled(split: str) -> Labelled:
    """Read a split of IMDB."""
    with gzip.open(IMDB[split], "rt", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return Labelled([row["text"] for row in rows], [row["label"] for row in rows])


def logistic() -> Any:
    """Return logistic regression of standardised features."""
    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=1_000))


def regression(ridges: Sequence[float]) -> Any:
    """Return the same, its ridge the best of some in four folds."""
    return GridSearchCV(logistic(), {"logisticregression__C": [1 / ridge for ridge in ridges]}, cv=FOLDS)


def table(*parts: str) -> list[dict[str, str]]:
    """Read the rows of a CSV below the data's folder."""
    with DATA.joinpath(*parts).open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def told(*arguments: str) -> dict[str, Any]:
    """Run a command of trivium's, and return what it says as JSON."""
    command = [sys.executable, "-P", "-m", "trivium", *arguments, "--json"]
    finished = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, Any] = json.loads(finished.stdout)
    return found


def accuracy_cell(right: NDArray[np.bool_]) -> str:
    """Write an accuracy with its interval."""
    low, high = wilson_interval(int(right.sum()), len(right))
    return f"{right.mean():.1%} ({low:.1%} to {high:.1%})"


def gain_cell(right: NDArray[np.bool_], base: NDArray[np.bool_]) -> str:
    """Write how much more is right than by a baseline, in points, with the interval over the same items."""
    gains = right.astype(np.float64) - base
    low, high = bootstrap_interval(gains, seed=0)
    return f"{100 * gains.mean():+.1f} ({100 * low:+.1f} to {100 * high:+.1f})"


def mean_cell(values: Sequence[float]) -> str:
    """Write the mean of several seeds' shares, with the 95 % interval of the mean by Student's t."""
    of = np.asarray(values, np.float64)
    t = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776}.get(len(of), 1.96)  # of the degrees of freedom, two-sided
    half = t * of.std(ddof=1) / np.sqrt(len(of)) if len(of) > 1 else 0.0
    return f"{of.mean():.1%} ± {half:.1%}"
