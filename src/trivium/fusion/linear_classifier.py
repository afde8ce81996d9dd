"""A linear classifier of vectors: standardised, multinomial logistic regression with a ridge, by L-BFGS; seedless.

Sources: Hastie, Tibshirani, Friedman, "The elements of statistical learning", 2009, section 4.4 (the model and its
ridge); Liu, Nocedal, "On the limited memory BFGS method for large scale optimization", 1989.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from trivium.fusion.labels import softmax

Matrix = NDArray[np.float32]
MIN_DEVIATION = 1e-2  # of a number, as a share of the mean one: what hardly varies is not blown up


class LinearClassifier:
    """Labels of vectors; what it learns has a single best answer, so no seed."""

    def __init__(self, *, ridge: float = 1.0, steps: int = 200, standardise: bool = True) -> None:
        """Say how it will learn.

        Args:
            ridge: Of the weights' squares, as a share of one text's loss; 1 / C of scikit-learn's.
            steps: At most so many of L-BFGS.
            standardise: Bring each number to mean 0 and deviation 1 first; vectors of a space may stay as they are.

        Raises:
            ValueError: If ``ridge`` is not above 0.
        """
        if not 0 < ridge < float("inf"):
            raise ValueError(f"ridge must be above 0, got {ridge}")
        self._ridge, self._steps, self._standardise = ridge, steps, standardise
        self.classes: list[str] = []

    def fit(self, x: Matrix, labels: Sequence[str]) -> "LinearClassifier":
        """Learn.

        Args:
            x: Shape (n, d).
            labels: Of the rows, at least two different ones.

        Raises:
            ValueError: If the rows and labels differ in number, or there are fewer than two classes.
        """
        import torch

        self.classes = sorted(set(labels))
        if len(labels) != len(x) or len(self.classes) < 2:
            got = f"{len(labels)} labels of {len(self.classes)} classes"
            raise ValueError(f"{len(x)} rows need as many labels of at least two classes, got {got}")
        place = {label: number for number, label in enumerate(self.classes)}
        truth = torch.tensor([place[label] for label in labels])
        self._mean = x.mean(axis=0)
        deviation = x.std(axis=0) if self._standardise else np.ones(x.shape[1], np.float32)
        self._scale = np.maximum(deviation, max(MIN_DEVIATION * float(deviation.mean()), 1e-9)).astype(np.float32)
        given = torch.from_numpy(np.ascontiguousarray((x - self._mean) / self._scale, np.float32))
        weight = torch.zeros(x.shape[1], len(self.classes), requires_grad=True)
        bias = torch.zeros(len(self.classes), requires_grad=True)
        solver = torch.optim.LBFGS(
            [weight, bias], max_iter=self._steps, history_size=20, tolerance_grad=1e-6, line_search_fn="strong_wolfe"
        )

        def loss() -> torch.Tensor:
            solver.zero_grad()
            found = torch.nn.functional.cross_entropy(given @ weight + bias, truth)
            found = found + self._ridge * weight.square().sum() / (2 * len(x))
            found.backward()  # type: ignore[no-untyped-call]
            return found

        solver.step(loss)  # type: ignore[no-untyped-call, unused-ignore]
        self._weight, self._bias = weight.detach().numpy(), bias.detach().numpy()
        return self

    def predict_proba(self, x: Matrix) -> Matrix:
        """Return each class's probability, shape (n, classes)."""
        scores = ((x - self._mean) / self._scale) @ self._weight + self._bias
        return np.asarray(softmax(scores.astype(np.float32)), np.float32)

    def predict(self, x: Matrix) -> list[str]:
        """Return the most probable class of each row."""
        return [self.classes[place] for place in self.predict_proba(x).argmax(axis=1)]

    def score(self, x: Matrix, labels: Sequence[str]) -> float:
        """Return the share of rows whose label is found."""
        return float(np.mean([said == label for said, label in zip(self.predict(x), labels, strict=True)]))


def chosen_ridge(x: Matrix, labels: Sequence[str], *, ridges: Sequence[float], seed: int, folds: int = 4) -> float:
    """Return the ridge with the best accuracy in cross-validation on the training rows."""
    order = np.random.default_rng(seed).permutation(len(x))
    of = np.asarray(labels)
    best, found = -1.0, ridges[0]
    for ridge in ridges:
        scores = []
        for fold in range(folds):
            held = order[fold::folds]
            rest = np.setdiff1d(order, held)
            if len(set(of[rest])) < 2:
                continue
            scores.append(LinearClassifier(ridge=ridge).fit(x[rest], list(of[rest])).score(x[held], list(of[held])))
        if scores and np.mean(scores) > best:
            best, found = float(np.mean(scores)), ridge
    return found
