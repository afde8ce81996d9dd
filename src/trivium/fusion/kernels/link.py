"""Links: what experts' scores mean. Fitted to scores of rows that the experts were not fitted to."""

from dataclasses import dataclass

import numpy as np
from sklearn.linear_model import LogisticRegression, Ridge

from trivium.fusion.kernels.blocks import Numbers, Places

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
