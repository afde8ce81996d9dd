"""Scans equal brute force, however many threads share them, and their threads leave nothing behind."""

import multiprocessing
import threading
from functools import partial
from typing import Any

import faiss
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from trivium.indexes import ArraySource, FaissIndex, IdSet, exact_search, scan
from trivium.indexes.scan import faiss_threads, flat_search, products_for_batches, run_all

DIM = 3
QUARTERS = st.integers(-4, 4).map(lambda number: number / 4)
ID = st.integers(0, 20) | st.integers(2**62, 2**62 + 3)


def rows(count: int) -> st.SearchStrategy[NDArray[np.float32]]:
    return arrays(np.float32, (count, DIM), elements=QUARTERS)


@given(
    st.integers(1, 12).flatmap(rows),
    st.integers(1, 7).flatmap(rows),
    st.integers(1, 12),
    st.integers(1, 4),
    st.sets(st.integers(0, 11)),
)
def test_a_flat_scan_equals_brute_force(
    vectors: NDArray[np.float32], queries: NDArray[np.float32], k: int, threads: int, chosen: set[int]
) -> None:
    flat = faiss.IndexFlatIP(DIM)
    flat.add(vectors)
    some = np.array(sorted(number for number in chosen if number < len(vectors)), np.int64)
    positions = some if len(some) else None
    among = some if len(some) else np.arange(len(vectors))
    k = min(k, len(among))
    with pytest.MonkeyPatch.context() as patch, faiss_threads(threads):
        patch.setattr(scan, "_SEGMENT_NUMBERS", 1)
        scores, found = flat_search(flat, queries, k=k, positions=positions)
    truth = queries @ vectors.T
    for row in range(len(queries)):
        assert scores[row].tolist() == sorted(truth[row, among], reverse=True)[:k]
        assert truth[row, found[row]].tolist() == scores[row].tolist()
        assert set(found[row]) <= set(among)
        assert len(set(found[row])) == k


def test_small_scans_stay_on_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: object) -> None:
        raise AssertionError("not worth a thread")

    monkeypatch.setattr(scan, "run_all", refuse)
    flat = faiss.IndexFlatIP(64)
    flat.add(np.eye(64, dtype=np.float32))
    with faiss_threads(2):
        assert flat_search(flat, np.eye(64, dtype=np.float32)[5:6], k=1)[1].tolist() == [[5]]


@given(
    made=st.lists(ID, unique=True, max_size=14).flatmap(lambda ids: st.tuples(st.just(ids), rows(len(ids)))),
    queries=st.integers(0, 7).flatmap(rows),
    k=st.integers(1, 16),
    among=st.none() | st.sets(ID, max_size=10),
    without=st.none() | st.sets(ID, max_size=10),
    chunk=st.integers(1, 15),
    dtype=st.sampled_from([np.float16, np.float32]),
)
def test_equals_brute_force(
    made: tuple[list[int], NDArray[np.float32]],
    queries: NDArray[np.float32],
    k: int,
    among: set[int] | None,
    without: set[int] | None,
    chunk: int,
    dtype: Any,
) -> None:
    ids, vectors = made
    with pytest.MonkeyPatch.context() as patch, faiss_threads(2):
        patch.setattr("trivium.indexes.base.CHUNK_ROWS", chunk)
        patch.setattr("trivium.indexes.scan._PIECE_ROWS", 2)
        hits = exact_search(
            ArraySource(np.array(ids, np.int64), vectors.astype(dtype)),
            queries,
            k=k,
            among=None if among is None else IdSet(np.array(sorted(among), np.int64)),
            without=None if without is None else IdSet(np.array(sorted(without), np.int64)),
        )
    assert len(hits.counts) == len(queries)
    for row, query in enumerate(queries):
        scores = {
            id_: float(query @ vector)
            for id_, vector in zip(ids, vectors, strict=True)
            if (among is None or id_ in among) and (without is None or id_ not in without)
        }
        found_ids, found_scores = hits.of(row)
        assert found_scores.tolist() == sorted(scores.values(), reverse=True)[:k]
        assert [scores[int(id_)] for id_ in found_ids] == found_scores.tolist()
        order = list(zip((-found_scores).tolist(), found_ids.tolist(), strict=True))
        assert order == sorted(set(order))


def test_more_wanted_than_there_are() -> None:
    source = ArraySource(np.array([5, 7]), np.eye(3, dtype=np.float32)[:2])
    ids, scores = exact_search(source, np.array([[1, 2, 0]], np.float32), k=10**12).of(0)
    assert (ids.tolist(), scores.tolist()) == ([7, 5], [2, 1])


def test_a_stored_vector_that_is_not_finite_is_no_hit() -> None:
    vectors = np.array([[1, 0], [np.nan, 0], [0, 1]], np.float32)
    hits = exact_search(ArraySource(np.array([1, 2, 3]), vectors), np.ones((1, 2), np.float32), k=5)
    assert hits.of(0)[0].tolist() == [1, 3]


def test_mistakes() -> None:
    source = ArraySource(np.array([5, 7]), np.eye(3, dtype=np.float32)[:2])
    with pytest.raises(ValueError, match="k must be at least 1, got 0"):
        exact_search(source, np.ones((1, 3), np.float32), k=0)
    with pytest.raises(ValueError, match=r"queries must have shape \(n, 3\), got \(1, 2\)"):
        exact_search(source, np.ones((1, 2), np.float32), k=1)


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
    monkeypatch.setattr("trivium.indexes.scan._SEGMENT_NUMBERS", 1)
    vectors = np.eye(8, dtype=np.float32)
    index = FaissIndex.build("flat", ArraySource(np.arange(8), vectors))
    with faiss_threads(2):
        index.search(vectors[:1], k=1)
    assert scan._pool is not None
    context = multiprocessing.get_context("fork")
    answers: multiprocessing.Queue[list[int]] = context.Queue()
    child = context.Process(target=_search_in_child, args=(index, vectors[3:4], answers))
    child.start()
    assert answers.get(timeout=30) == [3]
    child.join(timeout=30)
    assert child.exitcode == 0
