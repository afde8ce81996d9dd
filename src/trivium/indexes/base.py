"""What every index promises: vectors under ids, nearest neighbours by inner product, best first."""

from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from trivium.encoders.base import Vectors

Ids: TypeAlias = NDArray[np.int64]  # (n,), unique, 0 or more


@dataclass(frozen=True, slots=True)
class Hits:
    """Neighbours of q queries, best first; entries past ``counts`` are padding."""

    ids: NDArray[np.int64]  # (q, k), -1 is padding
    scores: NDArray[np.float32]  # (q, k), inner product in [-1, 1]
    counts: NDArray[np.int64]  # (q,), 0 to k

    def of(self, query: int) -> tuple[Ids, NDArray[np.float32]]:
        """Ids and scores of one query, without padding."""
        found = self.counts[query]
        return self.ids[query, :found], self.scores[query, :found]


class VectorIndex(Protocol):
    """Nearest neighbours among vectors of one width."""

    @property
    def dim(self) -> int:
        """Numbers per vector."""
        ...

    def __len__(self) -> int:
        """Return the number of vectors."""
        ...

    def search(self, queries: Vectors, *, k: int, among: Ids | None = None) -> Hits:
        """Find the k best ids for each query (q, d), only ``among`` the given ids if there are any given."""
        ...


def checked_vectors(vectors: NDArray[Any], *, dim: int, name: str) -> Vectors:
    """Return ``vectors`` as contiguous float32 (n, dim).

    FAISS stores NaN rows silently and never returns them, and asserts without a message on a wrong width.

    Raises:
        ValueError: If the shape is not (n, dim) or a value is not finite.
    """
    if vectors.ndim != 2 or vectors.shape[1] != dim:
        raise ValueError(f"{name} must have shape (n, {dim}), got {vectors.shape}")
    with np.errstate(over="ignore"):  # what overflows here is reported below
        vectors = np.ascontiguousarray(vectors, dtype=np.float32)
    bad = ~np.isfinite(vectors).all(axis=1)
    if bad.any():
        raise ValueError(
            f"{name} has NaN or infinity in {int(bad.sum())} of {len(vectors)} rows, first at row {int(bad.argmax())}"
        )
    return vectors


def checked_ids(ids: NDArray[Any], *, count: int) -> Ids:
    """Return ``ids`` as int64 (count,).

    Raises:
        ValueError: If there are not ``count`` of them, or one is no integer, negative, or there twice.
    """
    if ids.shape != (count,):
        raise ValueError(f"ids must have shape ({count},), one for each vector, got {ids.shape}")
    if not np.issubdtype(ids.dtype, np.integer):
        raise ValueError(f"ids must be integers, got {ids.dtype}")
    if count and not 0 <= int(ids.min()) <= int(ids.max()) <= np.iinfo(np.int64).max:
        raise ValueError(f"ids must be 0 or more and fit 64 bits, got {int(ids.min())} to {int(ids.max())}")
    unique, counts = np.unique(ids, return_counts=True)
    if len(unique) != count:
        raise ValueError(f"ids must be unique, {int(unique[counts.argmax()])} occurs {int(counts.max())} times")
    return np.ascontiguousarray(ids, dtype=np.int64)
