"""Threads: results in order, settings restored whatever happens, and a fork that does not hang."""

import multiprocessing
import threading
from functools import partial

import faiss
import numpy as np
import pytest

from trivium.indexes import ArraySource, FaissIndex, parallel
from trivium.indexes.parallel import faiss_threads, products_for_batches, run_all

DEFAULT = 128_000


def threshold() -> int:
    return int(faiss.cvar.distance_compute_blas_threshold)


def test_results_in_order() -> None:
    assert run_all([partial(int, text) for text in "3142"]) == [3, 1, 4, 2]


def test_one_thread_each() -> None:
    with faiss_threads(2):
        assert run_all([faiss.omp_get_max_threads] * 4) == [1, 1, 1, 1]
        assert faiss.omp_get_max_threads() == 2


@pytest.mark.parametrize("place", [0, 1, 2])
def test_what_a_task_raises_comes_out(place: int) -> None:
    tasks = [partial(int, text) for text in ("1", "2", "3")]
    tasks[place] = partial(int, "x")
    with pytest.raises(ValueError, match="invalid literal"):
        run_all(tasks)


def test_threads_are_restored() -> None:
    with pytest.raises(ValueError, match="invalid literal"), faiss_threads(2):
        int("x")
    with faiss_threads(2):
        assert faiss.omp_get_max_threads() == 2
    assert faiss.omp_get_max_threads() == 1


def test_threads_are_this_threads_own() -> None:
    seen: list[int] = []
    with faiss_threads(3):
        other = threading.Thread(target=lambda: seen.append(faiss.omp_get_max_threads()))
        other.start()
        other.join()
        assert faiss.omp_get_max_threads() == 3
    assert seen != [3]


def test_products_from_a_few_queries_on() -> None:
    with products_for_batches(4):
        assert threshold() == DEFAULT
    with products_for_batches(5):
        assert threshold() == 1
        with products_for_batches(100):
            assert threshold() == 1
        assert threshold() == 1
    assert threshold() == DEFAULT


def test_the_users_threshold_is_restored() -> None:
    faiss.cvar.distance_compute_blas_threshold = 777
    try:
        with pytest.raises(RuntimeError, match="oh"), products_for_batches(5):
            raise RuntimeError("oh")
        assert threshold() == 777
    finally:
        faiss.cvar.distance_compute_blas_threshold = DEFAULT


def test_the_last_of_several_threads_restores() -> None:
    inside, leave = threading.Barrier(2), threading.Event()

    def hold() -> None:
        with products_for_batches(5):
            inside.wait(timeout=30)
            leave.wait(timeout=30)

    other = threading.Thread(target=hold)
    other.start()
    with products_for_batches(5):
        inside.wait(timeout=30)
    assert threshold() == 1, "the other thread is still at it"
    leave.set()
    other.join()
    assert threshold() == DEFAULT


def _search_in_child(index: FaissIndex, queries: np.ndarray, answers: "multiprocessing.Queue[list[int]]") -> None:
    with faiss_threads(2):
        answers.put(index.search(queries, k=1).ids[:, 0].tolist())


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_search_after_a_fork(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pool's threads do not come along: waiting for them would be for ever."""
    monkeypatch.setattr("trivium.indexes.flat_scan._SEGMENT_NUMBERS", 1)
    vectors = np.eye(8, dtype=np.float32)
    index = FaissIndex.build("flat", ArraySource(np.arange(8), vectors))
    with faiss_threads(2):
        index.search(vectors[:1], k=1)
    assert parallel._pool is not None
    context = multiprocessing.get_context("fork")
    answers: multiprocessing.Queue[list[int]] = context.Queue()
    child = context.Process(target=_search_in_child, args=(index, vectors[3:4], answers))
    child.start()
    assert answers.get(timeout=30) == [3]
    child.join(timeout=30)
    assert child.exitcode == 0
