"""Which items of a table belong together."""

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from trivium.pipeline.evaluation.judgements import Judgements, judge
from trivium.pipeline.tables.pairs import Row


def rows_of(*rows: dict[str, Any]) -> list[Row]:
    return [Row(line=line, **row) for line, row in enumerate(rows, start=2)]


def right(judged: Judgements, query, gallery) -> dict[str, list[str]]:
    """Each query that has right answers, with them."""
    relevance = judged.matches(query, gallery)
    if relevance is None:
        return {}
    rows, columns, _ = relevance.pairs(np.arange(len(judged.items[query])))
    found: dict[str, list[str]] = {}
    for row, column in zip(rows.tolist(), columns.tolist(), strict=True):
        found.setdefault(judged.items[query][row], []).append(judged.items[gallery][column])
    return found


def test_several_captions_a_picture() -> None:
    judged = judge(
        rows_of(
            {"image": "a", "text": "one"},
            {"image": "a", "text": "two"},
            {"image": "b", "text": "three"},
            {"image": "b", "text": "three"},  # again
            {"image": "c"},
            {"text": "alone"},
        )
    )
    assert judged.items == {"text": ["one", "two", "three", "alone"], "image": ["a", "b", "c"]}
    assert right(judged, "text", "image") == {"one": ["a"], "two": ["a"], "three": ["b"]}
    assert right(judged, "image", "text") == {"a": ["one", "two"], "b": ["three"]}
    assert right(judged, "text", "text") == {"one": ["two"], "two": ["one"]}
    assert right(judged, "image", "image") == {}
    assert judged.matches("audio", "text") is None


def test_a_text_of_several_pictures_joins_them() -> None:
    judged = judge(rows_of({"image": "a", "text": "dog"}, {"image": "b", "text": "dog"}))
    assert right(judged, "image", "image") == {"a": ["b"], "b": ["a"]}
    assert right(judged, "text", "text") == {}


def test_modalities_that_never_share_a_row_meet_in_the_third() -> None:
    judged = judge(rows_of({"image": "a", "text": "dog"}, {"audio": "x", "text": "dog"}, {"audio": "y", "text": "cat"}))
    assert right(judged, "image", "audio") == {"a": ["x"]}
    assert right(judged, "audio", "image") == {"x": ["a"]}


def test_rows_of_their_own_alone_count_where_there_are_some() -> None:
    """Two spoken captions of one picture: each belongs to its own text."""
    judged = judge(
        rows_of({"image": "a", "text": "one", "audio": "x"}, {"image": "a", "text": "two", "audio": "y"}),
    )
    assert right(judged, "text", "audio") == {"one": ["x"], "two": ["y"]}
    assert right(judged, "text", "text") == {"one": ["two"], "two": ["one"]}
    assert right(judged, "audio", "audio") == {"x": ["y"], "y": ["x"]}


def test_scores_are_gains() -> None:
    judged = judge(
        rows_of(
            {"image": "a", "text": "one", "score": 2.0},
            {"image": "a", "text": "one", "score": 3.0},
            {"image": "a", "text": "one", "score": 1.0},
            {"image": "b", "text": "one", "score": 0.0},
            {"image": "c", "text": "one", "score": -1.0},
            {"image": "d", "text": "one"},
        )
    )
    relevance = judged.matches("text", "image")
    assert relevance is not None
    rows, columns, gains = relevance.pairs(np.array([0]))
    assert (rows.tolist(), columns.tolist(), gains.tolist()) == ([0, 0], [0, 3], [3.0, 1.0])
    assert judged.items["image"] == ["a", "b", "c", "d"]  # all are in the gallery


def test_modalities_that_are_not_looked_at() -> None:
    judged = judge(rows_of({"image": "a", "text": "one", "audio": "x"}), ["text", "audio"])
    assert set(judged.items) == {"text", "audio"}
    assert set(judged.links) == {("text", "audio"), ("audio", "text")}


@given(
    st.lists(st.fixed_dictionaries({"text": st.sampled_from("pqrs"), "image": st.sampled_from("abc")}), max_size=8),
    st.lists(st.integers(0, 3), unique=True),
)
def test_blocks_give_what_the_whole_gives(rows: list[dict[str, str]], block: list[int]) -> None:
    judged = judge(rows_of(*rows))
    for query, gallery in (("text", "image"), ("image", "image"), ("text", "text")):
        relevance = judged.matches(query, gallery)  # type: ignore[arg-type]
        if relevance is None:
            continue
        together = {(a, b) for row in rows for other in rows for a, b in joined(row, other, query, gallery)}
        expected = {(judged.items[query].index(a), judged.items[gallery].index(b)) for a, b in together}  # type: ignore[index]
        asked = np.array([place for place in block if place < len(judged.items[query])], np.int64)  # type: ignore[index]
        found, columns, _ = relevance.pairs(asked)
        pairs = list(zip(asked[found].tolist(), columns.tolist(), strict=True))
        assert len(set(pairs)) == len(pairs)
        assert set(pairs) == {(a, b) for a, b in expected if a in asked}


def joined(row: dict[str, str], other: dict[str, str], query: str, gallery: str) -> list[tuple[str, str]]:
    """What two rows say belongs together."""
    if query != gallery:
        return [(row[query], row[gallery])]
    shared = "image" if query == "text" else "text"
    is_joined = row[shared] == other[shared] and row[query] != other[query]
    return [(row[query], other[query])] if is_joined else []
