"""Zero-shot transfer: a classifier that learnt from one modality's vectors of a space judges those of another.

Vectors of each modality share a large common part, by which modalities can be told apart (Liang et al., "Mind the gap",
NeurIPS 2022). Each modality is therefore centred by itself, on vectors without labels, before the classifier sees it
(Zhang et al., "Diagnosing and rectifying vision models using language", ICLR 2023: the gap is close to a constant).
"""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from trivium.encoders.base import Modality, Vectors, unit_rows

Matrix = NDArray[np.float32]
Centring = Literal["mean", "none"]
MOST_STEPS = 1_000  # of L-BFGS; it stops where nothing changes


class TransferClassifier:
    """Logistic regression over a space, whatever modality asks; needs `trivium[learn]`."""

    def __init__(self, *, ridge: float = 0.01, centring: Centring = "mean") -> None:
        """Say how it will learn.

        Args:
            ridge: Of the weights' squares, 1 / C of scikit-learn's; small, as unit vectors are not standardised.
            centring: ``none`` takes vectors as they are: to see what centring does.
        """
        from sklearn.linear_model import LogisticRegression

        self._classifier: Any = LogisticRegression(C=1 / ridge, max_iter=MOST_STEPS)
        self._centring = centring
        self._centres: dict[Modality, Matrix] = {}

    @property
    def classes(self) -> list[str]:
        """The labels that it knows, in the order of the probabilities."""
        return list(self._classifier.classes_)

    def fit(self, vectors: Vectors, labels: Sequence[str], *, modality: Modality) -> "TransferClassifier":
        """Learn from one modality, (n, d), and centre it.

        Raises:
            ValueError: If the rows and labels differ in number, or there are fewer than two classes.
        """
        self.centre(vectors, modality=modality)
        self._classifier.fit(self._centred(vectors, modality), list(labels))
        return self

    def centre(self, vectors: Vectors, *, modality: Modality) -> "TransferClassifier":
        """Learn where a modality's vectors (n, d) lie; no labels are needed."""
        self._centres[modality] = vectors.mean(axis=0)
        return self

    def predict_proba(self, vectors: Vectors, *, modality: Modality) -> Matrix:
        """Return each class's probability, shape (n, classes).

        Raises:
            ValueError: If the modality was not centred.
        """
        found: Matrix = self._classifier.predict_proba(self._centred(vectors, modality))
        return found

    def predict(self, vectors: Vectors, *, modality: Modality) -> list[str]:
        """Return the most probable class of each row."""
        return [self.classes[place] for place in self.predict_proba(vectors, modality=modality).argmax(axis=1)]

    def score(self, vectors: Vectors, labels: Sequence[str], *, modality: Modality) -> float:
        """Return the share of rows whose label is found."""
        said = self.predict(vectors, modality=modality)
        return float(np.mean([a == b for a, b in zip(said, labels, strict=True)]))

    def _centred(self, vectors: Vectors, modality: Modality) -> Matrix:
        if self._centring == "none":
            return vectors
        if modality not in self._centres:
            known = ", ".join(self._centres) or "none"
            raise ValueError(f"{modality} was not centred, only {known}: call centre() with vectors of it first")
        return unit_rows(vectors - self._centres[modality])
