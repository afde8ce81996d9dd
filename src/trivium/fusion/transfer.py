"""Zero-shot transfer: a classifier that learnt from one modality's vectors of a space judges those of another.

Vectors of each modality share a large common part, by which modalities can be told apart (Liang et al., "Mind the gap",
NeurIPS 2022). Each modality is therefore centred by itself, on vectors without labels, before the classifier sees it
(Zhang et al., "Diagnosing and rectifying vision models using language", ICLR 2023: the gap is close to a constant).
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from trivium.encoders.base import Modality, Vectors, unit_rows
from trivium.fusion.linear_classifier import LinearClassifier

Matrix = NDArray[np.float32]
Centring = Literal["mean", "none"]


class TransferClassifier:
    """A linear classifier over a space, whatever modality asks."""

    def __init__(self, *, ridge: float = 0.01, centring: Centring = "mean") -> None:
        """Say how it will learn.

        Args:
            ridge: See `LinearClassifier`; small, as unit vectors are not standardised.
            centring: ``none`` takes vectors as they are: to see what centring does.
        """
        self._classifier = LinearClassifier(ridge=ridge, standardise=False)
        self._centring = centring
        self._centres: dict[Modality, Matrix] = {}

    @property
    def classes(self) -> list[str]:
        """The labels that it knows, in the order of the probabilities."""
        return self._classifier.classes

    def fit(self, vectors: Vectors, labels: Sequence[str], *, modality: Modality) -> "TransferClassifier":
        """Learn from one modality, (n, d), and centre it.

        Raises:
            ValueError: If the rows and labels differ in number, or there are fewer than two classes.
        """
        self.centre(vectors, modality=modality)
        self._classifier.fit(self._centred(vectors, modality), labels)
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
        return self._classifier.predict_proba(self._centred(vectors, modality))

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
