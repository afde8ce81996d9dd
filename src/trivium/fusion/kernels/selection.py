"""Choosing a fusion by validation: candidates are judged on rows they were not fitted to, the simplest good one wins.

A candidate stacks base learners: a calibration map turns their scores into probabilities, or numbers. From simple to
rich: each modality alone; the sum of kernels; the sum and the product; late fusion, which is each modality's own scores
stacked; and each of these beside the modalities' agreement. One is preferred to a simpler one only if it is better by
more than chance would have it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression, Ridge

from trivium.fusion.blocks import Integers, Numbers, Targets
from trivium.fusion.kernels.base_learners import LearnerSettings, OutOfFold

RESAMPLES = 100
# How many deviations of a difference a richer candidate must be better by. Small: candidates are few, and a sum of
# kernels that is only a little better on validation is so elsewhere too (benchmarks/fusion.py).
MARGIN = 0.25
STRENGTH = 10.0  # of logistic regression: scores are of the size of 1, and there are few of them
ADJUSTMENTS = (0.0, 0.25, 0.5)


@dataclass(frozen=True, slots=True)
class CalibrationMap:
    """What base learners' scores mean, (n, s) to a column for each class: scores W + b.

    Fitted to scores of rows that the learners were not fitted to.
    """

    weight: Numbers  # (s, c)
    bias: Numbers  # (c,)

    def __call__(self, scores: Numbers) -> Numbers:
        """Return (n, c)."""
        return scores @ self.weight + self.bias

    def probabilities(self, scores: Numbers) -> Numbers:
        """Return the softmax of it, rows summing to 1."""
        return np.asarray(softmax(self(scores), axis=1), np.float64)

    def adjusted(self, shares: Numbers, adjustment: float) -> "CalibrationMap":
        """Return a map whose probabilities are divided by the classes' shares to a power.

        Rare classes are then found more often, which macro-F1 asks for. 1 would make all classes as likely beforehand.
        Source: Menon et al., "Long-tail learning via logit adjustment", ICLR 2021.
        """
        return CalibrationMap(self.weight, self.bias - adjustment * np.log(shares))


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """Base learners that were stacked, and how well that went."""

    name: str
    learners: tuple[LearnerSettings, ...]
    calibration: CalibrationMap
    score: float  # by the metric, on validation
    predicted: NDArray[Any]  # (n,), classes or numbers


def stacked(name: str, parts: Sequence[OutOfFold], targets: Targets, folds: Integers) -> Candidate:
    """Calibrate the scores of base learners.

    What is judged comes from maps of the other folds, as the scores do from learners: many scores would else seem to be
    better than few.
    """
    scores = np.concatenate([part.scores for part in parts], axis=1)
    learners = tuple(part.settings for part in parts)
    calibration = calibrate(scores, targets)
    said = np.empty_like(targets.values)
    for fold in np.unique(folds):
        held = folds == fold
        can_tell = not targets.is_classes or len(np.unique(targets.labels[~held])) > 1
        said[held] = (calibrate(scores[~held], targets.of(~held)) if can_tell else calibration)(scores[held])
    if not targets.is_classes:
        score = r_squared(targets.numbers, said[:, 0])
        return Candidate(name=name, learners=learners, calibration=calibration, score=score, predicted=said[:, 0])
    tried = []
    for adjustment in ADJUSTMENTS if targets.metric == "f1_macro" else ADJUSTMENTS[:1]:
        labels = (said - adjustment * np.log(targets.mean)).argmax(axis=1)
        own = calibration.adjusted(targets.mean, adjustment)
        score = judged(targets, labels)
        tried.append(Candidate(name=name, learners=learners, calibration=own, score=score, predicted=labels))
    return max(tried, key=lambda candidate: candidate.score)  # the first of equal ones


def simplest(candidates: Sequence[Candidate], targets: Targets, *, seed: int) -> Candidate:
    """Return the first candidate that the best one does not beat by more than chance."""
    best = max(candidates, key=lambda candidate: candidate.score)
    if candidates[0] is best:
        return best
    n = len(targets.labels)
    draws = np.random.default_rng(seed).integers(0, n, (RESAMPLES, n))
    of_best = np.array([judged(targets.of(rows), best.predicted[rows]) for rows in draws])
    for candidate in candidates:
        if candidate is best:
            break
        differences = of_best - [judged(targets.of(rows), candidate.predicted[rows]) for rows in draws]
        if best.score - candidate.score <= MARGIN * float(differences.std()):
            return candidate
    return best


def calibrate(scores: Numbers, targets: Targets) -> CalibrationMap:
    """Fit a map from scores (n, s) to what is to be predicted."""
    if targets.is_classes:
        return calibrate_classes(scores, targets.labels, classes=targets.classes)
    return calibrate_value(scores, targets.values, mean=float(targets.mean[0]))


def calibrate_classes(scores: Numbers, labels: Integers, *, classes: int) -> CalibrationMap:
    """Fit probabilities of classes to scores (n, s) and labels (n,), from 0; each class has at least one row."""
    model = LogisticRegression(C=STRENGTH, max_iter=500).fit(scores, labels)
    weight, bias = np.zeros((scores.shape[1], classes)), np.full(classes, -30.0)  # of a class without rows
    if len(model.classes_) == 2:  # scikit-learn keeps the difference of the two
        weight[:, model.classes_[1]], bias[model.classes_] = model.coef_[0], (0.0, model.intercept_[0])
    else:
        weight[:, model.classes_], bias[model.classes_] = model.coef_.T, model.intercept_
    return CalibrationMap(weight, bias)


def calibrate_value(scores: Numbers, values: Numbers, *, mean: float) -> CalibrationMap:
    """Fit a number to scores (n, s) and values (n, 1), which were centred by the mean."""
    model = Ridge(alpha=1e-3).fit(scores, values[:, 0])
    return CalibrationMap(model.coef_.reshape(-1, 1), np.array([float(model.intercept_) + mean]))


def judged(targets: Targets, predicted: NDArray[Any]) -> float:
    """Score predicted labels, or numbers, (n,) by the metric."""
    if targets.metric == "r2":
        return r_squared(targets.numbers, predicted)
    if targets.metric == "accuracy":
        return float((predicted == targets.labels).mean())
    return macro_f1(targets.labels, predicted, classes=targets.classes)


def judge(targets: Targets) -> Callable[[Numbers], float]:
    """Return what says how wrong scores are: 1 less what a calibration makes of them."""
    return lambda scores: 1 - judged(targets, calibrate(scores, targets)(scores).argmax(axis=1))


# Both are called thousands of times a fit or a report: scikit-learn's take 30 to 100 times as long.
def macro_f1(actual: Integers, predicted: Integers, *, classes: int) -> float:
    """Return the mean over classes of 2 right / (actual + predicted); a class that is in neither does not count."""
    right = np.bincount(actual[actual == predicted], minlength=classes)
    total = np.bincount(actual, minlength=classes) + np.bincount(predicted, minlength=classes)
    return float(np.mean(2 * right[total > 0] / total[total > 0]))


def r_squared(actual: Numbers, predicted: Numbers) -> float:
    """Return the share of the variance that is explained."""
    spread = float(((actual - actual.mean()) ** 2).sum())
    return 1 - float(((actual - predicted) ** 2).sum()) / spread if spread > 0 else 0.0
