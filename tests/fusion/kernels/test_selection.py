"""Candidates: what their scores mean, how they are judged, and that the simpler one wins a tie."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from trivium.fusion.blocks import (
    Targets,
)
from trivium.fusion.kernels.base_learners import (
    KernelSearch,
)
from trivium.fusion.kernels.selection import (
    CalibrationMap,
    calibrate_classes,
    calibrate_value,
    macro_f1,
    simplest,
    stacked,
)

RANDOM = np.random.default_rng(0)


def test_calibration_maps() -> None:
    scores = RANDOM.normal(size=(300, 2))
    labels = (scores @ np.array([3.0, -1.0]) + 0.3 * RANDOM.normal(size=300) > 0).astype(np.int64)
    calibration = calibrate_classes(scores, labels, classes=3)  # a class that nobody is of
    chances = calibration.probabilities(scores)
    assert_allclose(chances.sum(axis=1), 1)
    assert (chances.argmax(axis=1) == labels).mean() > 0.95
    assert chances[:, 2].max() < 1e-6
    adjusted = CalibrationMap(np.zeros((2, 2)), np.log([0.9, 0.1])).adjusted(np.array([0.9, 0.1]), 1.0)
    assert_allclose(adjusted.probabilities(scores[:1]), [[0.5, 0.5]])
    number = calibrate_value(scores, 2 * scores[:, :1], mean=5.0)
    assert_allclose(number(scores)[:, 0], 5 + 2 * scores[:, 0], atol=1e-3)


def test_macro_f1_as_scikit_learns() -> None:
    from sklearn.metrics import f1_score

    for _ in range(20):
        actual, predicted = RANDOM.integers(0, 4, 30), RANDOM.integers(0, 5, 30)
        assert macro_f1(actual, predicted, classes=6) == pytest.approx(f1_score(actual, predicted, average="macro"))


def test_the_simpler_candidate_is_taken_on_a_tie() -> None:
    labels = np.arange(60) % 2
    targets = Targets(values=np.eye(2)[labels] - 0.5, labels=labels, mean=np.full(2, 0.5), metric="f1_macro")
    folds = np.arange(60) % 5
    trials = KernelSearch({"a": np.array(labels[:, None] * 2.0, np.float64)}, targets.values, targets.weights, folds)
    tried = trials.weighted(["a"])
    candidates = [stacked("first", [tried], targets, folds), stacked("second", [tried], targets, folds)]
    assert simplest(candidates, targets, seed=0).name == "first"
    noise = KernelSearch({"a": RANDOM.normal(size=(60, 1))}, targets.values, targets.weights, np.arange(60) % 5)
    assert (
        simplest([stacked("noise", [noise.weighted(["a"])], targets, folds), candidates[0]], targets, seed=0).name
        == "first"
    )
