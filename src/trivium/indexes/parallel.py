"""Python threads for FAISS calls, one core each.

FAISS's own threads (OpenMP) meet at a barrier after every block of work. When another process has one of the cores,
each barrier costs a time slice: 64 exact queries on 100,000 x 512 took 100 ms on one thread and 256 to 1,400 ms on two
beside one busy process (FAISS 1.15.1, 2 cores). A few independent calls that only meet at the end do not suffer that.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from threading import Lock
from typing import TypeVar

from trivium.indexes.untyped import faiss

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
