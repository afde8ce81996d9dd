"""Merging of hits against a plain dict."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trivium.indexes import Hits, merge_hits

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
