"""Choosing a fusion by validation: every way is tried on rows it was not fitted to, and the simplest good one is taken.

The ways, from simple to rich: each modality alone; the sum of kernels; the sum and the product; late fusion, which is
each modality's own scores stacked; and each of these beside the modalities' agreement. One is preferred to a simpler
one only if it is better by more than chance would have it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression, Ridge

from trivium.fusion.blocks import Numbers, Places
from trivium.fusion.kernels.experts import Plan, Tried

Metric: TypeAlias = Literal["f1_macro", "accuracy", "r2"]
RESAMPLES = 100
# How many deviations of a difference a richer way must be better by. Small: the ways are few, and a sum of kernels that
# is only a little better on validation is so elsewhere too (benchmarks/fusion.py).
MARGIN = 0.25
STRENGTH = 10.0  # of logistic regression: scores are of the size of 1, and there are few of them
TEMPERINGS = (0.0, 0.25, 0.5)


@dataclass(frozen=True, slots=True)
class Link:
    """Scores (n, s) to a column for each class: scores W + b."""

    weight: Numbers  # (s, c)
    bias: Numbers  # (c,)

    def __call__(self, scores: Numbers) -> Numbers:
        """Return (n, c)."""
        return scores @ self.weight + self.bias

    def probabilities(self, scores: Numbers) -> Numbers:
        """Return the softmax of it, rows summing to 1."""
        return softmax(self(scores))

    def tempered(self, shares: Numbers, tempering: float) -> "Link":
        """Return a link whose probabilities are divided by the classes' shares to a power.

        Rare classes are then found more often, which macro-F1 asks for. 1 would make all classes as likely beforehand.
        Source: Menon et al., "Long-tail learning via logit adjustment", ICLR 2021.
        """
        return Link(self.weight, self.bias - tempering * np.log(shares))


def fit_classes(scores: Numbers, labels: Places, *, classes: int) -> Link:
    """Fit probabilities of classes to scores (n, s) and labels (n,), from 0; each class has at least one row."""
    model = LogisticRegression(C=STRENGTH, max_iter=500).fit(scores, labels)
    weight, bias = np.zeros((scores.shape[1], classes)), np.full(classes, -30.0)  # of a class without rows
    if len(model.classes_) == 2:  # scikit-learn keeps the difference of the two
        weight[:, model.classes_[1]], bias[model.classes_] = model.coef_[0], (0.0, model.intercept_[0])
    else:
        weight[:, model.classes_], bias[model.classes_] = model.coef_.T, model.intercept_
    return Link(weight, bias)


def fit_value(scores: Numbers, targets: Numbers, *, mean: float) -> Link:
    """Fit a number to scores (n, s) and targets (n, 1), which were centred by the mean."""
    model = Ridge(alpha=1e-3).fit(scores, targets[:, 0])
    return Link(model.coef_.reshape(-1, 1), np.array([float(model.intercept_) + mean]))


def softmax(scores: Numbers) -> Numbers:
    """Return probabilities, rows summing to 1."""
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True), np.float64)


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """Experts that were tried together."""

    name: str
    plans: tuple[Plan, ...]
    link: Link
    score: float  # by the metric, on validation
    predicted: Numbers  # (n,), classes or numbers


@dataclass(frozen=True, slots=True, kw_only=True)
class Truth:
    """What is to be predicted of some rows."""

    targets: Numbers  # (n, c), as experts are fitted to them
    labels: Places  # (n,), from 0; of a regression all 0
    mean: Numbers  # (c,), what was taken away from the targets: the classes' shares, or a mean
    metric: Metric

    @property
    def is_classes(self) -> bool:
        """Whether classes are predicted, not numbers."""
        return self.metric != "r2"

    @property
    def classes(self) -> int:
        """How many classes there are; 1 of a regression."""
        return int(self.targets.shape[1])

    @property
    def weights(self) -> Numbers:
        """How much each row counts when experts are chosen: rows of rare classes more, for macro-F1."""
        if self.metric != "f1_macro":
            return np.ones(len(self.labels))
        return np.asarray(1 / np.sqrt(self.mean[self.labels]), np.float64)

    def of(self, rows: NDArray[np.bool_] | Places) -> "Truth":
        """Return that of some rows."""
        return Truth(targets=self.targets[rows], labels=self.labels[rows], mean=self.mean, metric=self.metric)


def try_way(name: str, parts: Sequence[Tried], truth: Truth, folds: Places) -> Way:
    """Link the scores of experts to what is to be predicted.

    What is judged comes from links of the other folds, as the scores do from experts: many scores would else seem to be
    better than few.
    """
    scores = np.concatenate([part.scores for part in parts], axis=1)
    plans = tuple(part.plan for part in parts)
    link = _linked(scores, truth)
    said = np.empty_like(truth.targets)
    for fold in np.unique(folds):
        held = folds == fold
        can_tell = not truth.is_classes or len(np.unique(truth.labels[~held])) > 1
        said[held] = (_linked(scores[~held], truth.of(~held)) if can_tell else link)(scores[held])
    if not truth.is_classes:
        actual = truth.targets[:, 0] + truth.mean[0]
        return Way(name=name, plans=plans, link=link, score=r_squared(actual, said[:, 0]), predicted=said[:, 0])
    best = None
    for tempering in TEMPERINGS if truth.metric == "f1_macro" else TEMPERINGS[:1]:
        labels = (said - tempering * np.log(truth.mean)).argmax(axis=1)
        score = judged(truth, labels)
        if best is None or score > best.score:
            own = link.tempered(truth.mean, tempering)
            best = Way(name=name, plans=plans, link=own, score=score, predicted=labels.astype(np.float64))
    assert best is not None
    return best


def simplest(ways: Sequence[Way], truth: Truth, *, seed: int) -> Way:
    """Return the first way that the best one does not beat by more than chance."""
    best = max(ways, key=lambda way: way.score)
    draws = np.random.default_rng(seed).integers(0, len(truth.labels), (RESAMPLES, len(truth.labels)))
    of_best = np.array([_judged_rows(truth, best.predicted, rows) for rows in draws])
    for way in ways:
        if way is best:
            break
        differences = of_best - [_judged_rows(truth, way.predicted, rows) for rows in draws]
        if best.score - way.score <= MARGIN * float(differences.std()):
            return way
    return best


def judged(truth: Truth, labels: Places) -> float:
    """Score predicted labels by the metric."""
    if truth.metric == "accuracy":
        return float((labels == truth.labels).mean())
    return macro_f1(truth.labels, labels, classes=truth.classes)


def judge(truth: Truth) -> Callable[[Numbers], float]:
    """Return what says how wrong scores are: 1 less what a link makes of them."""
    return lambda scores: (
        1 - judged(truth, fit_classes(scores, truth.labels, classes=truth.classes)(scores).argmax(axis=1))
    )


def macro_f1(actual: Places, predicted: Places, *, classes: int) -> float:
    """Return the mean over classes of 2 right / (actual + predicted); a class that is in neither does not count."""
    right = np.bincount(actual[actual == predicted], minlength=classes)
    total = np.bincount(actual, minlength=classes) + np.bincount(predicted, minlength=classes)
    return float(np.mean(2 * right[total > 0] / total[total > 0]))


def r_squared(actual: Numbers, predicted: Numbers) -> float:
    """Return the share of the variance that is explained."""
    spread = float(((actual - actual.mean()) ** 2).sum())
    return 1 - float(((actual - predicted) ** 2).sum()) / spread if spread > 0 else 0.0


def _linked(scores: Numbers, truth: Truth) -> Link:
    if truth.is_classes:
        return fit_classes(scores, truth.labels, classes=truth.classes)
    return fit_value(scores, truth.targets, mean=float(truth.mean[0]))


def _judged_rows(truth: Truth, predicted: Numbers, rows: Places) -> float:
    if truth.is_classes:
        return judged(truth.of(rows), predicted[rows].astype(np.int64))
    actual = truth.targets[:, 0] + truth.mean[0]
    return r_squared(actual[rows], predicted[rows])
