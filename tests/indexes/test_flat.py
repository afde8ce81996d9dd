"""The exact index against brute force in NumPy. Numbers are quarters: float32 sums of them are exact, ties too."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from trivium.indexes import FlatIndex, Hits

QUARTERS = st.integers(-4, 4).map(lambda number: number / 4)
DIM = 3


def rows(count: int) -> st.SearchStrategy[NDArray[np.float32]]:
    return arrays(np.float32, (count, DIM), elements=QUARTERS)


@st.composite
def collections(draw: st.DrawFn) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Up to 12 vectors under unique ids in any order, some beyond 32 bits."""
    ids = draw(st.lists(st.integers(0, 20) | st.integers(2**40, 2**40 + 3), unique=True, max_size=12))
    return np.array(ids, np.int64), draw(rows(len(ids)))


def check(
    hits: Hits,
    ids: NDArray[np.int64],
    vectors: NDArray[np.float32],
    queries: NDArray[np.float32],
    k: int,
    among: set[int] | None = None,
) -> None:
    """Compare hits with brute force: the same scores in order; of equal ones any ids, but right and only once."""
    assert len(hits.ids) == len(hits.scores) == len(hits.counts) == len(queries)
    for number, query in enumerate(queries):
        scores = {
            int(id_): float(sum(query * vector))
            for id_, vector in zip(ids, vectors, strict=True)
            if among is None or int(id_) in among
        }
        best = sorted(scores.values(), reverse=True)[:k]
        found_ids, found_scores = hits.of(number)
        assert found_scores.tolist() == best
        assert len(set(found_ids.tolist())) == len(found_ids)
        assert [scores[int(id_)] for id_ in found_ids] == best
        padding = int(hits.counts[number])
        assert (hits.ids[number, padding:] == -1).all()
        assert np.isneginf(hits.scores[number, padding:]).all()


@given(collections(), st.integers(0, 3).flatmap(rows), st.integers(1, 15))
def test_equals_brute_force(
    made: tuple[NDArray[np.int64], NDArray[np.float32]], queries: NDArray[np.float32], k: int
) -> None:
    ids, vectors = made
    index = FlatIndex(ids, vectors, dim=DIM)
    assert len(index) == len(ids)
    check(index.search(queries, k=k), ids, vectors, queries, k)


@given(
    collections(),
    rows(2),
    st.integers(1, 15),
    st.lists(st.integers(0, 25) | st.integers(2**40, 2**40 + 5), max_size=10),
)
def test_among_equals_brute_force(
    made: tuple[NDArray[np.int64], NDArray[np.float32]], queries: NDArray[np.float32], k: int, among: list[int]
) -> None:
    """The ids to choose from may be unknown to the index or named twice."""
    ids, vectors = made
    hits = FlatIndex(ids, vectors, dim=DIM).search(queries, k=k, among=np.array(among, np.int64))
    check(hits, ids, vectors, queries, k, set(among))


@given(collections(), rows(2))
def test_bytes_round_trip(made: tuple[NDArray[np.int64], NDArray[np.float32]], queries: NDArray[np.float32]) -> None:
    ids, vectors = made
    index = FlatIndex(ids, vectors, dim=DIM)
    again = FlatIndex.from_bytes(index.to_bytes())
    assert (again.dim, len(again)) == (DIM, len(ids))
    first, second = index.search(queries, k=5), again.search(queries, k=5)
    assert first.ids.tolist() == second.ids.tolist()
    assert first.scores.tolist() == second.scores.tolist()
    assert again.to_bytes() == index.to_bytes()


def small() -> FlatIndex:
    return FlatIndex(np.array([10, 20, 30]), np.eye(3, dtype=np.float32), dim=3)


def test_more_wanted_than_there_are() -> None:
    ids, scores = small().search(np.array([[3, 2, 1]], np.float32), k=1_000_000_000_000).of(0)
    assert ids.tolist() == [10, 20, 30]
    assert scores.tolist() == [3, 2, 1]


@pytest.mark.parametrize("k", [0, -1])
def test_k_below_1(k: int) -> None:
    with pytest.raises(ValueError, match=f"k must be at least 1, got {k}"):
        small().search(np.eye(3, dtype=np.float32), k=k)


def test_empty_index() -> None:
    index = FlatIndex(np.empty(0, np.int64), np.empty((0, 3), np.float32), dim=3)
    hits = index.search(np.eye(3, dtype=np.float32), k=5)
    assert len(index) == 0
    assert hits.ids.shape == hits.scores.shape == (3, 0)
    assert hits.counts.tolist() == [0, 0, 0]
    assert hits.of(2)[0].tolist() == []


def test_no_queries() -> None:
    hits = small().search(np.empty((0, 3), np.float32), k=2)
    assert len(hits.ids) == len(hits.counts) == 0


def test_among_none_of_the_index() -> None:
    hits = small().search(np.eye(3, dtype=np.float32), k=2, among=np.array([11, 12]))
    assert hits.counts.tolist() == [0, 0, 0]


def test_types_of_the_hits() -> None:
    hits = small().search(np.eye(3, dtype=np.float32), k=2)
    assert [str(part.dtype) for part in (hits.ids, hits.scores, hits.counts)] == ["int64", "float32", "int64"]


def test_vectors_are_copied() -> None:
    vectors = np.eye(3, dtype=np.float32)
    index = FlatIndex(np.arange(3), vectors, dim=3)
    vectors[:] = 0
    assert index.search(np.eye(3, dtype=np.float32), k=1).scores.tolist() == [[1], [1], [1]]


@pytest.mark.parametrize(
    ("ids", "vectors", "message"),
    [
        ([1, 2], np.eye(3), r"ids must have shape \(3,\), one for each vector, got \(2,\)"),
        ([1, 2, 1], np.eye(3), "ids must be unique, 1 occurs 2 times"),
        ([1, -2, 3], np.eye(3), "ids must be 0 or more and fit 64 bits, got -2"),
        ([1, 2, 3], np.ones((3, 4)), r"vectors must have shape \(n, 3\), got \(3, 4\)"),
        ([1, 2, 3], np.diag([1, np.nan, 1]), "vectors has NaN or infinity in 1 of 3 rows, first at row 1"),
    ],
)
def test_bad_content(ids: list[int], vectors: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FlatIndex(np.array(ids), vectors, dim=3)


def test_bad_queries() -> None:
    with pytest.raises(ValueError, match=r"queries must have shape \(n, 3\), got \(1, 2\)"):
        small().search(np.ones((1, 2), np.float32), k=1)
    with pytest.raises(ValueError, match=r"queries must have shape \(n, 3\), got \(3,\)"):
        small().search(np.ones(3, np.float32), k=1)
    with pytest.raises(ValueError, match="queries has NaN or infinity in 1 of 1 rows, first at row 0"):
        small().search(np.full((1, 3), np.nan, np.float32), k=1)
