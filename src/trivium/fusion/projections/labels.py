"""The label bridge: what a frozen classifier sees, said in the vectors of its labels.

An item becomes the convex combination of the text vectors of its classes, weighted by their probabilities (ConSE:
Norouzi et al., "Zero-Shot Learning by Convex Combination of Semantic Embeddings", ICLR 2014). No pairs are needed:
the classifier's own label names carry its knowledge into the text space.

Two things differ from the paper, both measured (docs/benchmarks.md, "The label bridge"). The probabilities are
softened by a temperature and all classes take part: classes that are nearly right say what the item is like. And the
mean label vector is taken away first: label vectors share a large common part, in which a softened combination
would drown.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from trivium.encoders.base import Features, Vectors, unit_rows


class LabelBridge:
    """Class scores to text-space vectors; several heads are averaged."""

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
