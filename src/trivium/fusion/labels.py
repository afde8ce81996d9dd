"""The label bridge: what a frozen classifier sees, said in the vectors of its labels.

An item becomes the convex combination of the text vectors of its likeliest classes, weighted by their
probabilities (ConSE: Norouzi et al., "Zero-Shot Learning by Convex Combination of Semantic Embeddings",
ICLR 2014). No pairs are needed: the classifier's own label names carry its knowledge into the text space.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from trivium.encoders.base import Features, Vectors, unit_rows


class LabelBridge:
    """Class probabilities to text-space vectors; several heads are averaged."""

    def __init__(self, label_vectors: Mapping[str, Vectors], *, top: int) -> None:
        """Keep the label vectors.

        Args:
            label_vectors: For each head of the backbone the vectors of its classes, in rank order, shape (c, d).
            top: How many of the likeliest classes of each head take part, at least 1.

        Raises:
            ValueError: If there is no head, ``top`` is below 1, or the heads differ in width.
        """
        if top < 1:
            raise ValueError(f"top must be at least 1, got {top}")
        if len({vectors.shape[1] for vectors in label_vectors.values()}) != 1:
            raise ValueError(f"the heads' label vectors must share one width, got {_shapes(label_vectors)}")
        self._label_vectors = dict(label_vectors)
        self._top = top

    def __call__(self, features: Features, /) -> Vectors:
        """Return unit vectors, shape (n, d).

        Raises:
            ValueError: If a head is missing from ``features`` or has another number of classes.
        """
        parts = []
        for head, vectors in self._label_vectors.items():
            if head not in features.probabilities or features.probabilities[head].shape[1] != len(vectors):
                raise ValueError(
                    f"head '{head}' has {len(vectors)} labels, the backbone gives {_shapes(features.probabilities)}"
                )
            parts.append(likeliest(features.probabilities[head], self._top) @ vectors)  # (n, d)
        return unit_rows(np.mean(parts, axis=0))


def likeliest(probabilities: NDArray[np.float32], top: int) -> NDArray[np.float32]:
    """Keep each row's ``top`` largest entries of ``probabilities`` (n, c), scaled to sum 1; the rest become 0."""
    classes = probabilities.shape[1]
    kept = probabilities.copy()
    if top < classes:
        others = np.argpartition(probabilities, classes - top, axis=1)[:, : classes - top]
        np.put_along_axis(kept, others, 0.0, axis=1)
    return kept / kept.sum(axis=1, keepdims=True)


def _shapes(arrays: Mapping[str, NDArray[np.float32]]) -> str:
    return ", ".join(f"{name} {array.shape}" for name, array in arrays.items()) or "none"
