"""What a projection promises, and those without training: identity, another origin, a linear map, a label bridge."""

from collections.abc import Mapping
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from trivium.encoders.base import Features, Vectors, unit_rows


class Projection(Protocol):
    """A map from one backbone's features into a space."""

    def __call__(self, features: Features, /) -> Vectors:
        """Return unit vectors, shape (n, d), one for each row of ``features``."""
        ...


class IdentityProjection:
    """The backbone's own space is the joint space: its pooled vectors, scaled to length 1."""

    def __call__(self, features: Features, /) -> Vectors:
        """Return ``features.pooled`` with rows of length 1, shape (n, d)."""
        return unit_rows(features.pooled)


class CentredProjection:
    """The backbone's own space with another origin: unit(unit(x) - mean).

    Vectors of one modality share a large common part; taking its mean away per modality closes much of the gap
    between modalities (Liang et al., "Mind the Gap", NeurIPS 2022).
    """

    def __init__(self, mean: NDArray[np.float32]) -> None:
        """Keep the new origin, shape (d,)."""
        self._mean = mean.astype(np.float32)

    def __call__(self, features: Features, /) -> Vectors:
        """Map pooled features (n, d) to unit vectors (n, d)."""
        return unit_rows(unit_rows(features.pooled) - self._mean)


class LinearProjection:
    """One matrix: x -> unit(x W + b)."""

    def __init__(self, weight: NDArray[np.float32], bias: NDArray[np.float32] | None = None) -> None:
        """Keep ``weight``, shape (d_in, d), and ``bias``, shape (d,).

        Raises:
            ValueError: If the shapes do not fit each other or a value is not finite.
        """
        bias = np.zeros(weight.shape[-1], np.float32) if bias is None else bias
        if weight.ndim != 2 or bias.shape != (weight.shape[1],):
            raise ValueError(f"weight must be (d_in, d) and bias (d,), got {weight.shape} and {bias.shape}")
        if not (np.isfinite(weight).all() and np.isfinite(bias).all()):
            raise ValueError("the projection's weight or bias holds NaN or infinity")
        self._weight, self._bias = weight.astype(np.float32), bias.astype(np.float32)

    def __call__(self, features: Features, /) -> Vectors:
        """Map pooled features (n, d_in) to unit vectors (n, d)."""
        return unit_rows(features.pooled @ self._weight + self._bias)


class LabelBridge:
    """Class scores to text-space vectors: what a frozen classifier sees, said in the vectors of its labels.

    An item becomes the convex combination of the text vectors of its classes, weighted by their probabilities; several
    heads are averaged. No pairs are needed: the classifier's own label names carry its knowledge into the text space.

    Two things differ from the paper, both measured (docs/benchmarks.md, "The label bridge"). The probabilities are
    softened by a temperature and all classes take part: classes that are nearly right say what the item is like. And
    the mean label vector is taken away first: label vectors share a large common part, in which a softened combination
    would drown.

    Source:
        ConSE: Norouzi et al., "Zero-Shot Learning by Convex Combination of Semantic Embeddings", ICLR 2014.
    """

    def __init__(self, label_vectors: Mapping[str, NDArray[np.float32]], *, temperature: float) -> None:
        """Keep the label vectors.

        Args:
            label_vectors: For each head of the backbone the vectors of its classes, in rank order, shape (c, d).
            temperature: Divides the logits before the softmax; above 0, 1 leaves the classifier's own probabilities.

        Raises:
            ValueError: If there is no head, the heads differ in width, or ``temperature`` is not above 0.
        """
        if not temperature > 0:
            raise ValueError(f"temperature must be above 0, got {temperature}")
        if len({vectors.shape[1] for vectors in label_vectors.values()}) != 1:
            raise ValueError(f"the heads' label vectors must share one width, got {_shapes(label_vectors)}")
        self._label_vectors = dict(label_vectors)
        self._temperature = temperature

    def __call__(self, features: Features, /) -> Vectors:
        """Return unit vectors, shape (n, d).

        Raises:
            ValueError: If a head is missing from ``features`` or has another number of classes.
        """
        parts = []
        for head, vectors in self._label_vectors.items():
            if head not in features.logits or features.logits[head].shape[1] != len(vectors):
                raise ValueError(
                    f"head '{head}' has {len(vectors)} labels, the backbone has {_shapes(features.logits)}"
                )
            parts.append(softmax(features.logits[head] / self._temperature) @ vectors)  # (n, d)
        return unit_rows(np.mean(parts, axis=0))


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Turn scores (n, c) into probabilities, rows summing to 1."""
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities: NDArray[np.float32] = powers / powers.sum(axis=1, keepdims=True)
    return probabilities


def _shapes(arrays: Mapping[str, NDArray[np.float32]]) -> str:
    return ", ".join(f"{name} {array.shape}" for name, array in arrays.items()) or "none"
