"""Token budgets and passages: nothing is lost, nothing is padded much, and places in a text are right."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trivium.encoders import Backbone, DecodeError, build_backbone, unit_rows
from trivium.encoders.text import MAX_TOKENS, OVERLAP_TOKENS, PASSAGE_TOKENS, passes_by_length


@given(st.lists(st.integers(1, 256), max_size=60), st.integers(1, 2000))
def test_every_row_is_in_one_pass_and_passes_keep_their_budget(lengths: list[int], budget: int) -> None:
    passes = [rows.tolist() for rows in passes_by_length(lengths, numbers_per_pass=budget)]
    assert sorted(row for rows in passes for row in rows) == list(range(len(lengths)))
    for rows in passes:
        assert len(rows) == 1 or len(rows) * max(lengths[row] for row in rows) <= budget
    longest = [max(lengths[row] for row in rows) for rows in passes]
    assert longest == sorted(longest)  # rows of like lengths are together


@pytest.fixture(scope="module")
def minilm(weights: dict[str, Path]) -> Backbone:
    return build_backbone("minilm-l6")


@pytest.mark.weights
@pytest.mark.parametrize("text", ["short", "word " * 200, "x" * 250])
def test_what_one_vector_sees_has_no_passages(minilm: Backbone, text: str) -> None:
    assert list(minilm.passages(text)) == []


@pytest.mark.weights
def test_passages_cover_a_long_text(minilm: Backbone) -> None:
    text = " ".join(f"Sentence number {n} is about the {'sea' if n % 2 else 'wood'}." for n in range(300))
    passages = minilm.passages(text)
    assert len(passages) > len(minilm.prepare(text)) / PASSAGE_TOKENS
    assert passages[0].start == 0
    assert passages[-1].stop == len(text)
    for before, after in pairwise(passages):
        assert before.start < after.start < before.stop < after.stop  # they overlap
    for passage in passages:
        assert len(passage.prepared) <= PASSAGE_TOKENS
        alone = minilm.prepare(text[passage.start : passage.stop])
        np.testing.assert_array_equal(passage.prepared, alone)
    assert OVERLAP_TOKENS < PASSAGE_TOKENS < MAX_TOKENS


@pytest.mark.weights
def test_the_best_passage_is_where_it_stands(minilm: Backbone) -> None:
    """What is said beyond the first 256 tokens is found by its passage, not by the whole text's vector."""
    filler = "The committee met again and discussed the budget of the coming year at some length. " * 40
    text = filler + "A blue whale swam slowly under the old wooden boat. " * 3 + filler
    passages = minilm.passages(text)
    query = unit_rows(minilm.features([minilm.prepare("a whale in the ocean")]).pooled)
    vectors = unit_rows(minilm.features([passage.prepared for passage in passages]).pooled)
    scores = vectors @ query[0]
    best = passages[int(scores.argmax())]
    assert "whale" in text[best.start : best.stop]
    own = unit_rows(minilm.features([minilm.prepare(text)]).pooled) @ query[0]
    assert scores.max() > float(own[0]) + 0.2


@pytest.mark.weights
def test_many_texts_in_one_call_are_the_same(minilm: Backbone) -> None:
    texts = ["a", "two words", "word " * 400, "Ünïcödé 🙂"]
    for one, many in zip(map(minilm.prepare, texts), minilm.prepare_all(texts), strict=True):
        np.testing.assert_array_equal(one, many)
    with pytest.raises(DecodeError, match="empty"):
        minilm.prepare_all(["a", " "])
