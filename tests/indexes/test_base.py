"""The checks in front of FAISS, which would store NaN silently and dies without a message on a wrong width."""

import gc
from typing import Any
from weakref import ref

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from trivium.indexes import ArraySource, Hits, IdSet, checked_ids, checked_vectors, merge_hits


def test_vectors_become_contiguous_float32() -> None:
    given = np.asfortranarray(np.arange(6, dtype=np.float64).reshape(2, 3))
    found = checked_vectors(given, dim=3, name="vectors")
    assert found.dtype == np.float32
    assert found.flags.c_contiguous
    assert found.tolist() == given.tolist()


def test_no_vectors() -> None:
    assert checked_vectors(np.empty((0, 3)), dim=3, name="vectors").shape == (0, 3)


@pytest.mark.parametrize("shape", [(3,), (2, 4), (0, 2), (1, 2, 3)])
def test_vectors_of_a_wrong_shape(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=rf"queries must have shape \(n, 3\), got \({shape[0]},"):
        checked_vectors(np.zeros(shape, np.float32), dim=3, name="queries")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_vectors_must_be_finite(bad: float) -> None:
    vectors = np.zeros((4, 2), np.float32)
    vectors[1, 0] = vectors[3, 1] = bad
    with pytest.raises(ValueError, match="vectors has NaN or infinity in 2 of 4 rows, first at row 1"):
        checked_vectors(vectors, dim=2, name="vectors")


def test_vectors_must_be_finite_as_float32() -> None:
    # Finite in float64, infinite in the float32 that is stored; NumPy only warns.
    with np.errstate(over="ignore"), pytest.raises(ValueError, match="NaN or infinity in 1 of 1 rows"):
        checked_vectors(np.array([[1e300]]), dim=1, name="vectors")


def test_ids_become_int64() -> None:
    found = checked_ids(np.array([7, 0], np.int32), count=2)
    assert found.dtype == np.int64
    assert found.tolist() == [7, 0]


def test_no_ids() -> None:
    assert checked_ids(np.empty(0, np.int64), count=0).shape == (0,)


@pytest.mark.parametrize("ids", [[1, 2], [[1], [2], [3]], []])
def test_one_id_for_each_vector(ids: list[int]) -> None:
    with pytest.raises(ValueError, match=r"ids must have shape \(3,\), one for each vector, got"):
        checked_ids(np.array(ids, np.int64), count=3)


def test_ids_must_not_be_negative() -> None:
    with pytest.raises(ValueError, match="ids must be 0 or more and fit 64 bits, got -5"):
        checked_ids(np.array([3, -5]), count=2)


def test_ids_must_be_unique() -> None:
    with pytest.raises(ValueError, match="ids must be unique, 9 occurs 3 times"):
        checked_ids(np.array([4, 9, 9, 4, 9]), count=5)


@pytest.mark.parametrize("ids", [np.array([1.5, 2.5]), np.array([1, 2**63], np.uint64)])
def test_ids_must_be_whole_numbers_of_64_bits(ids: NDArray[np.int64]) -> None:
    with pytest.raises(ValueError, match="ids must"):
        checked_ids(ids, count=2)


def test_hits_of_one_query_have_no_padding() -> None:
    hits = Hits(
        ids=np.array([[5, 2, 8], [3, -1, -1], [-1, -1, -1]]),
        scores=np.array([[0.9, 0.5, 0.1], [0.7, -np.inf, -np.inf], [-np.inf] * 3], np.float32),
        counts=np.array([3, 1, 0]),
    )
    found = [hits.of(query) for query in range(3)]
    assert [ids.tolist() for ids, _ in found] == [[5, 2, 8], [3], []]
    assert [scores.tolist() for _, scores in found] == [
        np.array([0.9, 0.5, 0.1], np.float32).tolist(),
        [np.float32(0.7)],
        [],
    ]


def test_no_hits() -> None:
    hits = Hits.none(3)
    assert hits.ids.shape == hits.scores.shape == (3, 0)
    assert [str(part.dtype) for part in (hits.ids, hits.scores, hits.counts)] == ["int64", "float32", "int64"]
    assert hits.counts.tolist() == [0, 0, 0]


def test_good_vectors_are_not_copied() -> None:
    vectors = np.ones((2, 3), np.float32)
    assert checked_vectors(vectors, dim=3, name="vectors") is vectors


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_arrays_as_a_source(dtype: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trivium.indexes.base.CHUNK_ROWS", 2)
    vectors = np.arange(10, dtype=dtype).reshape(5, 2)
    source = ArraySource(np.array([9, 3, 7, 2**62, 5]), vectors)
    assert (source.count, source.dim) == (5, 2)
    for _ in range(2):
        chunks = list(source.chunks())
        assert [ids.tolist() for ids, _ in chunks] == [[3, 5], [7, 9], [2**62]]
        assert np.concatenate([rows for _, rows in chunks]).tolist() == vectors[[1, 4, 2, 0, 3]].tolist()
        assert all(rows.dtype == dtype for _, rows in chunks)


def test_samples() -> None:
    source = ArraySource(np.arange(100), np.arange(200, dtype=np.float16).reshape(100, 2))
    first = source.sample(10, 3)
    assert first.dtype == np.float32
    assert first.tolist() == source.sample(10, 3).tolist()
    assert first.tolist() != source.sample(10, 4).tolist()
    assert len({row[0] for row in first.tolist()}) == 10
    assert (first[:, 1] - first[:, 0] == 1).all(), "rows stay whole"
    assert np.sort(source.sample(1000, 0)[:, 0]).tolist() == list(range(0, 200, 2))


def test_no_arrays() -> None:
    source = ArraySource(np.empty(0, np.int64), np.empty((0, 4), np.float16))
    assert list(source.chunks()) == []
    assert source.sample(5, 0).shape == (0, 4)


def test_bad_arrays() -> None:
    with pytest.raises(ValueError, match=r"vectors must have shape \(n, d\), got \(3,\)"):
        ArraySource(np.arange(3), np.ones(3, np.float32))
    with pytest.raises(ValueError, match=r"ids must have shape \(3,\), one for each vector, got \(2,\)"):
        ArraySource(np.arange(2), np.ones((3, 2), np.float32))
    with pytest.raises(ValueError, match="ids must be unique, 1 occurs 2 times"):
        ArraySource(np.array([1, 1]), np.ones((2, 2), np.float32))


IDS = st.lists(st.integers(0, 30) | st.integers(2**62, 2**62 + 30), max_size=20)


class Owner:
    """Something that can be referred to weakly."""


@given(IDS, IDS)
def test_a_set_of_ids(ids: list[int], others: list[int]) -> None:
    some = IdSet(np.array(ids, np.int64))
    assert some.ids.tolist() == sorted(set(ids))
    assert some.ids.dtype == np.int64
    assert len(some) == len(set(ids))
    assert some.contains(np.array(others, np.int64)).tolist() == [other in ids for other in others]


def test_contains_keeps_the_shape() -> None:
    some = IdSet(np.array([5, 3, 3]))
    assert some.contains(np.array([[3, 4], [5, -1]])).tolist() == [[True, False], [True, False]]
    assert IdSet(np.empty(0, np.int64)).contains(np.zeros((2, 3), np.int64)).shape == (2, 3)


def test_it_is_not_changed_from_outside() -> None:
    ids = np.array([1, 2, 3])
    some = IdSet(ids)
    ids[0] = 7
    assert some.ids.tolist() == [1, 2, 3]
    with pytest.raises(ValueError, match="read-only"):
        some.ids[0] = 7


def test_what_it_shows() -> None:
    assert repr(IdSet(np.array([4, 4, 5]))) == "IdSet of 2 ids"


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (np.zeros((2, 2), np.int64), r"ids must have shape \(n,\), got \(2, 2\)"),
        (np.array([1.0]), "ids must be integers, got float64"),
        (np.array([3, -2]), "ids must be 0 or more and fit 64 bits, got -2 to 3"),
        (np.array([2**63], np.uint64), "ids must be 0 or more and fit 64 bits, got 9223372036854775808"),
    ],
)
def test_bad_ids(ids: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        IdSet(ids)


def test_an_empty_list_has_no_type_to_complain_of() -> None:
    assert len(IdSet(np.array([]))) == 0


def test_derived_once_for_each_owner_and_version() -> None:
    some, owner, other = IdSet(np.array([1, 2])), Owner(), Owner()
    calls: list[int] = []

    def derive(ids: IdSet) -> int:
        calls.append(len(ids))
        return len(calls)

    assert [some.cached(owner, 1, derive), some.cached(owner, 1, derive)] == [1, 1]
    assert some.cached(other, 1, derive) == 2
    assert some.cached(owner, 2, derive) == 3
    assert some.cached(owner, 1, derive) == 4
    assert calls == [2, 2, 2, 2]


def test_derived_things_go_with_their_owner() -> None:
    some, owner = IdSet(np.array([1, 2])), Owner()
    watched = ref(some.cached(owner, 1, lambda _: Owner()))
    gc.collect()
    assert watched() is not None
    del owner
    gc.collect()
    assert watched() is None


Row = list[tuple[int, float]]
ROW = st.dictionaries(st.integers(0, 9), st.integers(-4, 4).map(lambda n: n / 4), max_size=6).map(
    lambda found: sorted(found.items(), key=lambda hit: (-hit[1], hit[0]))
)


def hits(rows: list[Row]) -> Hits:
    width = max((len(row) for row in rows), default=0)
    ids = np.full((len(rows), width), -1, np.int64)
    scores = np.full((len(rows), width), -np.inf, np.float32)
    for row, found in enumerate(rows):
        for place, (id_, score) in enumerate(found):
            ids[row, place], scores[row, place] = id_, score
    return Hits(ids, scores, np.array([len(row) for row in rows], np.int64))


@given(
    st.integers(0, 3).flatmap(lambda q: st.lists(st.lists(ROW, min_size=q, max_size=q), min_size=1, max_size=4)),
    st.integers(1, 8),
)
def test_merge(parts: list[list[Row]], k: int) -> None:
    merged = merge_hits([hits(rows) for rows in parts], k=k)
    assert merged.ids.shape == merged.scores.shape
    for query in range(len(parts[0])):
        best: dict[int, float] = {}
        for rows in parts:
            for id_, score in rows[query]:
                best[id_] = max(score, best.get(id_, -9))
        wanted = sorted(best.items(), key=lambda hit: (-hit[1], hit[0]))[:k]
        ids, scores = merged.of(query)
        assert list(zip(ids.tolist(), scores.tolist(), strict=True)) == wanted
        assert (merged.ids[query, len(wanted) :] == -1).all()
        assert np.isneginf(merged.scores[query, len(wanted) :]).all()


def test_types() -> None:
    merged = merge_hits([hits([[(1, 0.5)]]), hits([[(2, 0.5)]])], k=2)
    assert [str(part.dtype) for part in (merged.ids, merged.scores, merged.counts)] == ["int64", "float32", "int64"]


def test_bad_parts() -> None:
    with pytest.raises(ValueError, match="k must be at least 1, got 0"):
        merge_hits([hits([])], k=0)
    with pytest.raises(ValueError, match=r"parts must be at least one and of the same queries, got 0 of \[\]"):
        merge_hits([], k=1)
    with pytest.raises(ValueError, match=r"parts must be at least one and of the same queries, got 2 of \[1, 2\]"):
        merge_hits([hits([[]]), hits([[], []])], k=1)
