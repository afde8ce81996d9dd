"""Filling an index: the source is not trusted blindly, progress is told, samples are bounded."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import faiss
import numpy as np
import pytest

from trivium.indexes import KINDS, ArraySource, FaissIndex

if TYPE_CHECKING:
    from tests.indexes.conftest import Data


class Odd:
    """A source that says one thing and gives another."""

    def __init__(self, chunks: list[tuple[Any, Any]], count: int, dim: int = 2) -> None:
        self._chunks, self.count, self.dim = chunks, count, dim

    def chunks(self) -> Iterator[tuple[Any, Any]]:
        yield from self._chunks

    def sample(self, n: int, seed: int) -> Any:
        return np.concatenate([vectors for _, vectors in self._chunks])[:n].astype(np.float32)


ONES = np.ones((2, 2), np.float32)


@pytest.mark.parametrize(
    ("chunks", "count", "message"),
    [
        ([([1, 2], ONES)], 3, "the source announced 3 vectors and gave 2"),
        ([([2, 1], ONES)], 2, "the source must give rising ids, one for each vector; it does not after -1"),
        ([([1, 2], ONES), ([2, 3], ONES)], 4, "rising ids, one for each vector; it does not after 2"),
        ([([1], ONES)], 2, "rising ids, one for each vector; it does not after -1"),
        ([([-1, 2], ONES)], 2, "rising ids, one for each vector; it does not after -1"),
        ([([1, 2], np.ones((2, 3)))], 2, r"vectors must have shape \(n, 2\), got \(2, 3\)"),
        ([([1, 2], ONES * np.nan)], 2, "vectors has NaN or infinity in 2 of 2 rows, first at row 0"),
    ],
)
def test_inconsistent_sources(chunks: Any, count: int, message: str) -> None:
    source = Odd([(np.array(ids), vectors) for ids, vectors in chunks], count)
    with pytest.raises(ValueError, match=message):
        FaissIndex.build("flat", source)


def test_a_bad_sample() -> None:
    with pytest.raises(ValueError, match="sample has NaN or infinity in 2 of 2 rows"):
        FaissIndex.build("sq8", Odd([(np.array([1, 2]), ONES * np.nan)], 2))


@pytest.mark.parametrize("kind", KINDS)
def test_no_vectors(kind: str) -> None:
    source = ArraySource(np.empty(0, np.int64), np.empty((0, 4), np.float32))
    if kind in ("flat", "fp16", "hnsw"):
        index = FaissIndex.build(kind, source)
        assert len(index) == 0
        assert index.search(np.ones((2, 4), np.float32), k=3).counts.tolist() == [0, 0]
    else:
        with pytest.raises(ValueError, match=f"an index of kind '{kind}' must be trained: it needs 1 vector or more"):
            FaissIndex.build(kind, source)


def test_unknown_kind(small: "Data") -> None:
    with pytest.raises(ValueError, match="unknown index kind 'best'"):
        FaissIndex.build("best", small.source)


def test_progress(monkeypatch: pytest.MonkeyPatch, small: "Data") -> None:
    monkeypatch.setattr("trivium.indexes.base.CHUNK_ROWS", 128)
    seen: list[tuple[int, int]] = []
    FaissIndex.build("ivf-sq8", small.source, progress=lambda done, total: seen.append((done, total)), threads=1)
    assert seen == [(0, 300), (128, 300), (256, 300), (300, 300)]


def test_chunks_do_not_show(monkeypatch: pytest.MonkeyPatch, small: "Data") -> None:
    def content() -> bytes:
        pieces: list[bytes] = []
        FaissIndex.build("ivf-sq8", small.source, threads=1).write(pieces.append)
        return b"".join(pieces)

    whole = content()
    monkeypatch.setattr("trivium.indexes.base.CHUNK_ROWS", 7)
    assert content() == whole


def test_the_sample_is_bounded(monkeypatch: pytest.MonkeyPatch, data: "Data") -> None:
    asked: list[int] = []

    class Watched(ArraySource):
        def sample(self, n: int, seed: int) -> Any:
            asked.append(n)
            return super().sample(n, seed)

    source = Watched(data.ids, data.vectors)
    FaissIndex.build("flat", source)
    assert asked == [], "nothing to train"
    FaissIndex.build("sq8", source)
    monkeypatch.setattr("trivium.indexes.filling._SAMPLE_BYTES", 1000 * 32 * 4)
    FaissIndex.build("sq8", source)
    assert asked == [3000, 1000]


@pytest.mark.parametrize("threads", [1, 2])
def test_threads_are_set_and_restored(threads: int, small: "Data") -> None:
    seen: list[int] = []
    FaissIndex.build(
        "flat", small.source, threads=threads, progress=lambda *_: seen.append(faiss.omp_get_max_threads())
    )
    assert set(seen) == {threads}


@pytest.mark.parametrize("threads", [1, 2])
def test_wide_vectors(threads: int) -> None:
    """Their centres are found another way: still the same for a seed, and lists that find what is near."""
    vectors = np.random.default_rng(0).standard_normal((3000, 64)).astype(np.float32)
    source = ArraySource(np.arange(3000), vectors)

    def content(seed: int) -> bytes:
        pieces: list[bytes] = []
        FaissIndex.build("ivf-flat", source, seed=seed, threads=threads).write(pieces.append)
        return b"".join(pieces)

    assert content(1) == content(1)
    assert content(1) != content(2)
    index = FaissIndex.build("ivf-flat", source, threads=threads)
    index.effort = 1
    assert (index.search(vectors, k=1).ids[:, 0] == np.arange(3000)).mean() > 0.9


def test_codes_are_trained_on_one_thread(small: "Data", monkeypatch: pytest.MonkeyPatch) -> None:
    """The lists' centres on all threads, if there is enough to do; the many tiny k-means of the codes on one."""
    seen: list[tuple[str, int]] = []
    for owner, name in ((faiss.IndexIVF, "train_q1"), (faiss.IndexRefine, "train")):
        original = getattr(owner, name)

        def watched(self: Any, *arguments: Any, name: str = name, original: Any = original) -> None:
            seen.append((name, faiss.omp_get_max_threads()))
            original(self, *arguments)

        monkeypatch.setattr(owner, name, watched)
    monkeypatch.setattr("trivium.indexes.filling._ONE_THREAD_BELOW", 0)
    index = FaissIndex.build("ivf-pq", small.source, threads=2)
    assert seen == [("train_q1", 2), ("train", 1)]
    assert index.search(small.near, k=10).counts.tolist() == [10] * len(small.near)


@pytest.mark.parametrize("kind", KINDS)
def test_training_prints_nothing(kind: str, small: "Data", capfd: pytest.CaptureFixture[str]) -> None:
    FaissIndex.build(kind, small.source, threads=1)
    assert capfd.readouterr() == ("", "")
