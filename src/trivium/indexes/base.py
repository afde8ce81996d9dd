"""What every index promises: vectors under ids, nearest neighbours by inner product, best first."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from trivium.encoders.base import Vectors

Ids: TypeAlias = NDArray[np.int64]  # (n,), unique, 0 or more
Stored: TypeAlias = NDArray[np.float16] | NDArray[np.float32]  # (n, d), vectors as they lie on disk

CHUNK_ROWS = 65_536  # the most rows of one chunk: 128 MiB of float32 at d = 512


class IdSet:
    """An immutable set of ids: what a filter lets through, or what has been deleted.

    Keep one over many searches: it remembers where its ids lie in each index. Equality is identity: two sets of the
    same ids are two keys.
    """

    __slots__ = ("__weakref__", "_ids", "_places")

    def __init__(self, ids: NDArray[Any]) -> None:
        """Hold ``ids``, shape (n,), in any order, repeated or not; they are copied.

        Raises:
            ValueError: If they are no integers, not one row of them, or one is below 0 or beyond 64 bits.
        """
        ids = np.asarray(ids)
        if ids.ndim != 1:
            raise ValueError(f"ids must have shape (n,), got {ids.shape}")
        if len(ids):
            _check_integers(ids)
        self._ids: Ids = np.unique(ids).astype(np.int64)
        self._ids.flags.writeable = False
        self._places: WeakKeyDictionary[Any, tuple[int, Any]] = WeakKeyDictionary()

    @property
    def ids(self) -> Ids:
        """The ids, rising, each once; not to be written to."""
        return self._ids

    def __len__(self) -> int:
        return len(self._ids)

    def __repr__(self) -> str:
        return f"IdSet of {len(self)} ids"

    def contains(self, ids: NDArray[np.integer[Any]]) -> NDArray[np.bool_]:
        """Which of ``ids``, any shape, are in the set; the same shape."""
        if not len(self._ids):
            return np.zeros(np.shape(ids), bool)
        places = np.searchsorted(self._ids, ids)
        return np.asarray(self._ids[np.minimum(places, len(self._ids) - 1)] == ids)

    def cached(self, owner: Any, version: int, derive: Callable[["IdSet"], Any]) -> Any:
        """Return what ``derive`` makes of this set for ``owner``, made anew when the owner's version changes.

        The owner is held weakly: what was derived for it goes when it goes.
        """
        known = self._places.get(owner)
        if known is None or known[0] != version:
            known = self._places[owner] = (version, derive(self))
        return known[1]


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
    _check_integers(ids)
    unique, counts = np.unique(ids, return_counts=True)
    if len(unique) != count:
        raise ValueError(f"ids must be unique, {int(unique[counts.argmax()])} occurs {int(counts.max())} times")
    return np.ascontiguousarray(ids, dtype=np.int64)


def _check_integers(ids: NDArray[Any]) -> None:
    if not np.issubdtype(ids.dtype, np.integer):
        raise ValueError(f"ids must be integers, got {ids.dtype}")
    if len(ids) and not 0 <= int(ids.min()) <= int(ids.max()) <= np.iinfo(np.int64).max:
        raise ValueError(f"ids must be 0 or more and fit 64 bits, got {int(ids.min())} to {int(ids.max())}")


def best_first(
    ids: NDArray[np.int64], scores: NDArray[np.float32], *, k: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return the ``k`` best of each row, shape (q, at most k), by falling score, ties by rising id."""
    order = np.lexsort((ids, -scores), axis=-1)[:, :k]
    return np.take_along_axis(ids, order, axis=1), np.take_along_axis(scores, order, axis=1)


def merge_hits(parts: Sequence[Hits], *, k: int) -> Hits:
    """Merge what several indexes found for the same queries: the k best, each id once, with its best score.

    Args:
        parts: At least one; all for the same q queries, in the same order.
        k: Hits wanted per query, at least 1.

    Returns:
        Hits of shape (q, at most k), best first, ties by rising id.

    Raises:
        ValueError: If there are no parts, ``k`` is below 1, or the parts have different numbers of queries.
    """
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    sizes = {len(part.counts) for part in parts}
    if len(sizes) != 1:
        raise ValueError(f"parts must be at least one and of the same queries, got {len(parts)} of {sorted(sizes)}")
    ids = np.concatenate([part.ids for part in parts], axis=1)  # (q, sum of widths)
    scores = np.concatenate([part.scores for part in parts], axis=1)
    if len(parts) > 1 and ids.shape[1] > 1:
        # Equal ids side by side, the best score first: the others become padding.
        order = np.lexsort((-scores, ids), axis=-1)
        ids, scores = np.take_along_axis(ids, order, axis=1), np.take_along_axis(scores, order, axis=1)
        again = np.zeros(ids.shape, bool)
        again[:, 1:] = ids[:, 1:] == ids[:, :-1]
        ids[again], scores[again] = -1, -np.inf
    ids, scores = best_first(ids, scores, k=k)
    counts = (ids >= 0).sum(axis=1)
    width = int(counts.max(initial=0))
    return Hits(ids[:, :width], scores[:, :width], counts)
