"""Token budgets and passages: nothing is lost, nothing is padded much, and places in a text are right."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, processors

from trivium.encoders import Backbone, DecodeError, build_backbone, unit_rows
from trivium.encoders.base import Passage
from trivium.encoders.networks.weights import WEIGHTS, weights_folder
from trivium.encoders.text import backbone as text_module
from trivium.encoders.text.backbone import (
    MAX_TOKENS,
    OVERLAP_TOKENS,
    PASSAGE_TOKENS,
    checked_text,
    passages_of,
    passes_by_length,
)
from trivium.encoders.text.words import word_tokenizer


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


WORDS = ["sea", "wood", "bird", "stone", "blue", "\u6d77", "na\u00efve", ".", "!?", "-"]
BLANKS = [" ", "  ", "\n", "\n\n", "\t", "\u00a0", "\u3000", "\r\n"]


def plain_tokenizer(*, frames: bool) -> Tokenizer:
    """One token for each word and sign; with a special one before and after, if it frames."""
    tokenizer = Tokenizer.from_str(word_tokenizer(["sea", "wood", "bird", "stone", "blue", "[", "]"]))
    if frames:
        single = processors.TemplateProcessing(single="[ $A ]", special_tokens=[("[", 7), ("]", 8)])
        tokenizer.post_processor = single  # type: ignore[assignment, unused-ignore]
    return tokenizer


def as_plain(passages: Sequence[Passage]) -> list[tuple[int, int, list[int]]]:
    return [(passage.start, passage.stop, passage.prepared.tolist()) for passage in passages]


@given(
    st.lists(st.tuples(st.sampled_from(WORDS), st.sampled_from(BLANKS)), min_size=1, max_size=120),
    st.booleans(),
    st.integers(20, 60),
    st.integers(8, 20),
    st.integers(1, 3),
)
def test_a_text_in_pieces_has_the_passages_of_the_whole(
    reference: Callable[[str], Any], words: list[tuple[str, str]], frames: bool, piece: int, length: int, overlap: int
) -> None:
    text = "".join(word + blank for word, blank in words)
    longest = 2 * length
    plain = reference("passages").passages
    expected = plain(text, plain_tokenizer(frames=frames), longest=longest, length=length, overlap=overlap)
    with mock.patch.object(text_module, "PIECE_CHARACTERS", piece):
        found = passages_of(
            text, plain_tokenizer(frames=frames), longest=longest, passage_tokens=length, overlap_tokens=overlap
        )
    assert as_plain(found) == expected


def test_a_text_without_blanks_is_cut_after_signs_and_at_last_anywhere() -> None:
    with mock.patch.object(text_module, "PIECE_CHARACTERS", 10):
        cut = [(start, stop) for start, stop in text_module._pieces("abcd.fgh.ijklmnopqrstuvwxyz ab")]
    assert cut == [(0, 9), (9, 19), (19, 27), (27, 30)]


def test_a_text_has_no_more_passages_than_are_allowed() -> None:
    text = "sea " * 200
    with mock.patch.object(text_module, "MAX_PASSAGES", 5):
        found = passages_of(text, plain_tokenizer(frames=True), longest=20, passage_tokens=12, overlap_tokens=2)
    assert [(passage.start, passage.stop) for passage in found] == [(n * 32, n * 32 + 39) for n in range(5)]
    with mock.patch.object(text_module, "MAX_DOCUMENT_CHARACTERS", 100):
        found = passages_of(text, plain_tokenizer(frames=True), longest=20, passage_tokens=12, overlap_tokens=2)
    assert found[-1].stop == 99


def test_a_text_whose_beginning_has_no_words_is_searched_all_the_same() -> None:
    """64 Ki characters that make no token: what one vector sees ends before the text begins."""
    text = "\u200b" * text_module.MAX_CHARACTERS + " blue bird"
    (found,) = passages_of(text, plain_tokenizer(frames=False), longest=20, passage_tokens=12, overlap_tokens=2)
    assert text[found.start : found.stop] == "blue bird"


def test_a_blank_beginning_is_no_empty_text() -> None:
    assert checked_text(" " * 10 + "word", most=5) == " " * 5
    with pytest.raises(DecodeError, match="the text is empty"):
        checked_text(" \n" * 10)


@pytest.mark.weights
def test_real_texts_have_the_passages_that_they_had(minilm: Backbone, reference: Callable[[str], Any]) -> None:
    """Vectors are known by where their passages begin and end: those of a collection must stay what they are."""
    pages = sorted((Path(__file__).parents[3] / "docs").glob("*.md"))
    text = "\n".join(page.read_text(encoding="utf-8") for page in pages)
    text += text.swapcase()
    assert len(text) > 3 * text_module.PIECE_CHARACTERS
    folder = weights_folder(WEIGHTS["minilm-l6"])
    whole = Tokenizer.from_file(str(folder / "tokenizer.json"))
    whole.no_padding()
    plain = reference("passages").passages
    expected = plain(text, whole, longest=MAX_TOKENS, length=PASSAGE_TOKENS, overlap=OVERLAP_TOKENS)
    assert as_plain(minilm.passages(text)) == expected
