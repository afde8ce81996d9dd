"""The scan by segments equals brute force, however many threads share it."""

import faiss
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from trivium.indexes import flat_scan
from trivium.indexes.flat_scan import flat_search
from trivium.indexes.parallel import faiss_threads

DIM = 3
QUARTERS = st.integers(-4, 4).map(lambda number: number / 4)


def rows(least: int, most: int) -> st.SearchStrategy[NDArray[np.float32]]:
    return st.integers(least, most).flatmap(lambda count: arrays(np.float32, (count, DIM), elements=QUARTERS))


@given(rows(1, 12), rows(1, 7), st.integers(1, 12), st.integers(1, 4), st.sets(st.integers(0, 11)))
def test_equals_brute_force(
    vectors: NDArray[np.float32], queries: NDArray[np.float32], k: int, threads: int, chosen: set[int]
) -> None:
    flat = faiss.IndexFlatIP(DIM)
    flat.add(vectors)
    some = np.array(sorted(number for number in chosen if number < len(vectors)), np.int64)
    positions = some if len(some) else None
    among = some if len(some) else np.arange(len(vectors))
    k = min(k, len(among))
    with pytest.MonkeyPatch.context() as patch, faiss_threads(threads):
        patch.setattr(flat_scan, "_SEGMENT_NUMBERS", 1)
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

    monkeypatch.setattr(flat_scan, "run_all", refuse)
    flat = faiss.IndexFlatIP(64)
    flat.add(np.eye(64, dtype=np.float32))
    with faiss_threads(2):
        assert flat_search(flat, np.eye(64, dtype=np.float32)[5:6], k=1)[1].tolist() == [[5]]
