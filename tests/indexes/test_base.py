"""The checks in front of FAISS, which would store NaN silently and dies without a message on a wrong width."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from trivium.indexes import ArraySource, Hits, checked_ids, checked_vectors


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
