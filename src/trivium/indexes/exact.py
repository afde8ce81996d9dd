"""Exact search over stored vectors, chunk by chunk: the reference that recall is measured against."""

from functools import partial
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from trivium.encoders.base import Vectors
from trivium.indexes.base import Hits, Ids, Stored, VectorSource, checked_vectors
from trivium.indexes.idset import IdSet
from trivium.indexes.parallel import products_for_batches, run_all, threads_allowed
from trivium.indexes.ranking import merge_hits
from trivium.indexes.untyped import faiss

_PIECE_ROWS = 8192  # a thread's share of a chunk is at least this: 16 MiB of float32 at d = 512


def exact_search(
    source: VectorSource,
    queries: Vectors,
    *,
    k: int,
    among: IdSet | None = None,
    without: IdSet | None = None,
) -> Hits:
    """Compare ``queries``, shape (q, d), with every vector of ``source``, one chunk in memory at a time.

    Args:
        source: The vectors; float16 ones are compared as float32.
        queries: Unit vectors, shape (q, d).
        k: At least 1; may be more than there are vectors.
        among: Ids to choose from; all if not given.
        without: Ids to leave out.

    Returns:
        Hits of shape (q, at most k), best first, ties by rising id; of equal scores at the end of a row, any.

    Raises:
        ValueError: If ``k`` is below 1, or the queries have another width or are not finite.
    """
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    queries = checked_vectors(queries, dim=source.dim, name="queries")
    best = Hits.none(len(queries))
    if not len(queries):
        return best
    with products_for_batches(len(queries)):
        for ids, vectors in source.chunks():
            wanted = _wanted(ids, among, without)
            if wanted is not None:
                ids, vectors = ids[wanted], vectors[wanted]
            if len(ids):
                best = merge_hits([best, *_search_chunk(ids, vectors, queries, k)], k=k)
    return best


def _wanted(ids: Ids, among: IdSet | None, without: IdSet | None) -> NDArray[np.bool_] | None:
    """Which of the ids to compare with; None for all."""
    if among is None and without is None:
        return None
    wanted = np.ones(len(ids), bool) if among is None else among.contains(ids)
    return wanted if without is None else wanted & ~without.contains(ids)


def _search_chunk(ids: Ids, vectors: Stored, queries: Vectors, k: int) -> list[Hits]:
    parts = max(1, min(threads_allowed(), len(ids) // _PIECE_ROWS))
    bounds = [len(ids) * part // parts for part in range(parts + 1)]
    return run_all(
        [partial(_search_piece, ids[start:stop], vectors[start:stop], queries, k) for start, stop in pairwise(bounds)]
    )


def _search_piece(ids: Ids, vectors: Stored, queries: Vectors, k: int) -> Hits:
    width = min(k, len(ids))
    scores, positions = faiss.knn(
        queries, np.ascontiguousarray(vectors, dtype=np.float32), width, metric=faiss.METRIC_INNER_PRODUCT
    )
    found = positions >= 0  # all but vectors that are not finite
    return Hits(
        np.where(found, ids[positions], -1),
        np.where(found, scores, np.float32(-np.inf)),
        found.sum(axis=1),
    )
