"""Every vector compared with every query, as fast as FAISS's parts allow: of a flat index, and of stored vectors.

Measured with FAISS 1.15.1, d = 512, 2 cores (milliseconds; "FAISS" is `IndexFlatIP.search` with its defaults):

| vectors | queries | FAISS | here |
|---|---|---|---|
| 10,000 | 1 | 1.2 | 0.5 |
| 20,000 | 1 | 4.7 | 1.4 |
| 100,000 | 1 | 18 | 6.6 |
| 100,000 | 8 | 45 | 23 |
| 100,000 | 64 | 362 | 50 to 84 |

FAISS gives one query to several threads as matrix products with a single column, which are slow; and compares small
batches query by query. Here each thread takes a segment of the vectors, with products from 5 queries on.

The threads are Python's, one core each. FAISS's own (OpenMP) meet at a barrier after every block of work. When another
process has one of the cores, each barrier costs a time slice: 64 exact queries on 100,000 x 512 took 100 ms on one
thread and 256 to 1,400 ms on two beside one busy process. A few independent calls that only meet at the end do not
suffer that.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from itertools import pairwise
from threading import Lock
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from trivium.encoders.base import Vectors
from trivium.indexes.anatomy import Found, faiss
from trivium.indexes.base import Hits, Ids, IdSet, Stored, VectorSource, best_first, checked_vectors, merge_hits

T = TypeVar("T")

# 100,000 x 512 on one thread, query by query and with products: 42 and 43 ms for 4 queries, 75 and 34 ms for 8.
PRODUCTS_FROM = 5

_NOTHING = nullcontext()  # single queries are many: making a context takes 2 microseconds
_lock = Lock()
_pool: ThreadPoolExecutor | None = None
_calls = 0  # under `products_for_batches` at this moment
_users_threshold = 0


def threads_allowed() -> int:
    """How many threads this thread's FAISS calls may use: the cores, ``OMP_NUM_THREADS``, or what the user has set."""
    return int(faiss.omp_get_max_threads())


def faiss_threads(count: int) -> AbstractContextManager[None]:
    """Let FAISS use ``count`` threads; the setting is this thread's own, other threads keep theirs."""
    before = threads_allowed()
    return _NOTHING if count == before else _threads(count, before)


@contextmanager
def _threads(count: int, before: int) -> Iterator[None]:
    faiss.omp_set_num_threads(count)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)


def products_for_batches(queries: int) -> AbstractContextManager[None]:
    """Let FAISS compare with matrix products when there are enough queries for that to be the faster way.

    FAISS does so by itself from q * d = 128,000 on; below, it compares query by query, up to 6 times slower. The
    threshold belongs to the process: the first call in sets it, the last call out restores it.
    """
    return _NOTHING if queries < PRODUCTS_FROM else _products()


@contextmanager
def _products() -> Iterator[None]:
    global _calls, _users_threshold
    with _lock:
        if not _calls:
            _users_threshold = faiss.cvar.distance_compute_blas_threshold
            faiss.cvar.distance_compute_blas_threshold = 1
        _calls += 1
    try:
        yield
    finally:
        with _lock:
            _calls -= 1
            if not _calls:
                faiss.cvar.distance_compute_blas_threshold = _users_threshold


def run_all(tasks: Sequence[Callable[[], T]]) -> list[T]:
    """Run at least one task, beside each other, each on a thread that FAISS uses alone; results come in order.

    Raises:
        Exception: What the first task that failed raised.
    """
    global _pool
    with _lock:
        if _pool is None:
            _pool = ThreadPoolExecutor(
                max_workers=os.cpu_count() or 1,
                thread_name_prefix="trivium-search",
                initializer=faiss.omp_set_num_threads,
                initargs=(1,),
            )
        pool = _pool
    # The caller's thread takes the last task: one hand-over less.
    futures = [pool.submit(task) for task in tasks[:-1]]
    with faiss_threads(1):
        last = tasks[-1]()
    return [*(future.result() for future in futures), last]


def _forget_pool() -> None:
    """Drop what a fork has copied: the threads did not come along, and the lock may be held by one of them."""
    global _lock, _pool, _calls
    if _calls:
        faiss.cvar.distance_compute_blas_threshold = _users_threshold
    _lock, _pool, _calls = Lock(), None, 0


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_pool)


# Numbers compared (n d, times q / 8 for batches) that pay for handing half to another thread, about 0.2 ms.
_SEGMENT_NUMBERS = 4_000_000


def flat_search(flat: Any, queries: Vectors, *, k: int, positions: NDArray[np.int64] | None = None) -> Found:
    """Compare ``queries`` with all of ``flat``, or with its vectors at ``positions``.

    Args:
        flat: A `faiss.IndexFlat`.
        queries: Shape (q, d), q at least 1.
        k: From 1 to the number of vectors compared.
        positions: Unique, shape (m,), m at least 1.

    Returns:
        Scores and positions, shape (q, k), best first; of equal scores at the end of a row, any.
    """
    count = flat.ntotal if positions is None else len(positions)
    work = count * flat.d * max(1.0, len(queries) / 8)
    parts = min(threads_allowed(), int(work / _SEGMENT_NUMBERS) + 1, max(1, count // k))
    bounds = [count * part // parts for part in range(parts + 1)]
    if parts == 1:
        with products_for_batches(len(queries)), faiss_threads(1):
            return _segment(flat, queries, k, positions, 0, count)
    with products_for_batches(len(queries)):
        found = run_all(
            [partial(_segment, flat, queries, k, positions, start, stop) for start, stop in pairwise(bounds)]
        )
    scores, places = (np.concatenate(arrays, axis=1) for arrays in zip(*found, strict=True))
    places, scores = best_first(places, scores, k=k)
    return scores, places


def _segment(flat: Any, queries: Vectors, k: int, positions: NDArray[np.int64] | None, start: int, stop: int) -> Found:
    """Compare with the vectors from ``start`` to ``stop``, or with those at such a stretch of ``positions``."""
    if positions is not None:
        chosen = np.ascontiguousarray(positions[start:stop])
        selector = faiss.IDSelectorArray(len(chosen), faiss.swig_ptr(chosen))
    elif stop - start < flat.ntotal:
        selector = faiss.IDSelectorRange(start, stop)  # FAISS compares with just that stretch of memory
    else:
        everything: Found = flat.search(queries, k)
        return everything
    found: Found = flat.search(queries, k, params=faiss.SearchParameters(sel=selector))
    return found


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
