"""What every index promises: vectors under ids, nearest neighbours by inner product, best first."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from trivium.encoders.base import Vectors
from trivium.indexes.idset import IdSet

Ids: TypeAlias = NDArray[np.int64]  # (n,), unique, 0 or more
Stored: TypeAlias = NDArray[np.float16] | NDArray[np.float32]  # (n, d), vectors as they lie on disk

CHUNK_ROWS = 65_536  # the most rows of one chunk: 128 MiB of float32 at d = 512


@dataclass(frozen=True, slots=True)
class Hits:
    """Neighbours of q queries, best first, ties by rising id; entries past ``counts`` are padding."""

    ids: NDArray[np.int64]  # (q, k), -1 is padding
    scores: NDArray[np.float32]  # (q, k), inner product in [-1, 1], -inf is padding
    counts: NDArray[np.int64]  # (q,), 0 to k

    def of(self, query: int) -> tuple[Ids, NDArray[np.float32]]:
        """Ids and scores of one query, without padding."""
        found = self.counts[query]
        return self.ids[query, :found], self.scores[query, :found]

    @classmethod
    def none(cls, queries: int) -> "Hits":
        """No hits for any of the queries."""
        shape = (queries, 0)
        return cls(np.empty(shape, np.int64), np.empty(shape, np.float32), np.zeros(queries, np.int64))


class VectorIndex(Protocol):
    """Nearest neighbours among vectors of one width."""

    @property
    def dim(self) -> int:
        """Numbers per vector."""
        ...

    def __len__(self) -> int:
        """Return the number of vectors."""
        ...

    def search(self, queries: Vectors, *, k: int, among: IdSet | None = None, without: IdSet | None = None) -> Hits:
        """Find the k best ids for each query, shape (q, d), only ``among`` some ids and ``without`` others."""
        ...


class VectorSource(Protocol):
    """Stored vectors, perhaps more than fit into memory, read as often as needed."""

    @property
    def count(self) -> int:
        """How many vectors there are."""
        ...

    @property
    def dim(self) -> int:
        """Numbers per vector."""
        ...

    def chunks(self) -> Iterator[tuple[Ids, Stored]]:
        """Ids and vectors by strictly rising id, at most `CHUNK_ROWS` rows at a time; may be called again."""
        ...

    def sample(self, n: int, seed: int) -> Vectors:
        """At most ``n`` random rows, each at most once, the same ones for the same seed."""
        ...


class ArraySource:
    """A `VectorSource` over arrays."""

    def __init__(self, ids: Ids, vectors: Stored) -> None:
        """Serve ``vectors``, shape (n, d), under ``ids``, shape (n,); they are not copied if the ids rise.

        Raises:
            ValueError: If ``vectors`` is no table, or the ids are not n unique integers of 0 or more.
        """
        if vectors.ndim != 2:
            raise ValueError(f"vectors must have shape (n, d), got {vectors.shape}")
        ids = checked_ids(ids, count=len(vectors))
        if not (ids[1:] > ids[:-1]).all():
            order = np.argsort(ids)
            ids, vectors = ids[order], vectors[order]
        self._ids = ids
        self._vectors = vectors

    @property
    def count(self) -> int:
        """How many vectors there are."""
        return len(self._ids)

    @property
    def dim(self) -> int:
        """Numbers per vector."""
        return int(self._vectors.shape[1])

    def chunks(self) -> Iterator[tuple[Ids, Stored]]:
        """Ids and vectors by rising id."""
        for start in range(0, self.count, CHUNK_ROWS):
            yield self._ids[start : start + CHUNK_ROWS], self._vectors[start : start + CHUNK_ROWS]

    def sample(self, n: int, seed: int) -> Vectors:
        """At most ``n`` random rows."""
        chosen = np.random.default_rng(seed).choice(self.count, size=min(n, self.count), replace=False)
        return np.ascontiguousarray(self._vectors[np.sort(chosen)], dtype=np.float32)


def checked_vectors(vectors: NDArray[Any], *, dim: int, name: str) -> Vectors:
    """Return ``vectors`` as contiguous float32 (n, dim).

    FAISS stores NaN rows silently and never returns them, and asserts without a message on a wrong width.

    Raises:
        ValueError: If the shape is not (n, dim) or a value is not finite.
    """
    if vectors.ndim != 2 or vectors.shape[1] != dim:
        raise ValueError(f"{name} must have shape (n, {dim}), got {vectors.shape}")
    if vectors.dtype != np.float32:
        with np.errstate(over="ignore"):  # what overflows here is reported below
            vectors = vectors.astype(np.float32)
    vectors = np.ascontiguousarray(vectors)
    # Searches come through here one query at a time: the common case is one pass, 2 microseconds at d = 512.
    if not np.isfinite(vectors).all():
        bad = ~np.isfinite(vectors).all(axis=1)
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
