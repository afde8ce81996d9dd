"""Several vectors of one space combined into one: the sum of a query's parts, the mean of a row's modalities."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from trivium.encoders.base import Vectors, unit_rows

# Below this length the direction of a sum is rounding noise: float32 unit vectors cancel to about 1e-7.
SHORTEST_SUM = 1e-4
ROWS_AT_ONCE = 1024  # of means: what a processor's cache holds


def weighted_sum(vectors: Vectors, weights: Sequence[float]) -> NDArray[np.float32]:
    """Combine unit vectors (n, d) into one unit vector (d,); a negative weight means "less of this".

    Raises:
        ValueError: If the numbers of vectors and weights differ, a weight is not finite, or the parts cancel out.
    """
    if len(vectors) != len(weights) or not len(weights):
        raise ValueError(f"as many weights as vectors are needed, at least one, got {len(weights)} and {len(vectors)}")
    if not np.isfinite(weights).all():
        raise ValueError(f"weights must be finite, got {list(weights)}")
    largest = float(np.abs(weights).max()) or 1.0  # only the proportions matter
    total = (np.asarray(weights, np.float64) / largest) @ vectors.astype(np.float64)  # (d,)
    if np.linalg.norm(total) < SHORTEST_SUM:
        raise ValueError(f"the parts of the query cancel out (weights {list(weights)}): nothing is left to search for")
    vector: NDArray[np.float32] = unit_rows(total[np.newaxis])[0]
    return vector


def unit_means(parts: Sequence[tuple[NDArray[np.int64], Vectors]], *, count: int, dim: int) -> Vectors:
    """Return the mean of each row's vectors, scaled to length 1, shape (count, dim); zeros of a row that has none.

    Args:
        parts: Rows of a modality, shape (n_i,), each once, and their vectors, shape (n_i, dim).
        count: Rows of the result.
        dim: Numbers of a vector.
    """
    found = np.zeros((count, dim), np.float32)
    for rows, vectors in parts:
        found[rows] += vectors
    for start in range(0, count, ROWS_AT_ONCE):
        some = found[start : start + ROWS_AT_ONCE]
        lengths = np.sqrt(np.einsum("nd,nd->n", some, some))
        some /= np.where(lengths > 0, lengths, 1)[:, np.newaxis]
    return found
