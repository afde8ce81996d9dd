"""The streaming reference against brute force; numbers are quarters, which float16 holds and float32 adds exactly."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from trivium.indexes import ArraySource, IdSet, exact_search
from trivium.indexes.parallel import faiss_threads

DIM = 3
QUARTERS = st.integers(-4, 4).map(lambda number: number / 4)
ID = st.integers(0, 20) | st.integers(2**62, 2**62 + 3)


def rows(count: int) -> st.SearchStrategy[NDArray[np.float32]]:
    return arrays(np.float32, (count, DIM), elements=QUARTERS)


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
        patch.setattr("trivium.indexes.exact._PIECE_ROWS", 2)
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
