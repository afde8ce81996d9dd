"""Our tokenizer against open_clip's own: the same ids for any text."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trivium.encoders.clip.tokenizer import ClipTokenizer

OURS = ClipTokenizer()
# What cleaning, splitting or special tokens could get wrong.
PARTS = [
    *(
        "'s",
        "'S",
        "'ll",
        "WE'LL",
        "'\u017f",
        "don't",
        "x1",
        "--",
        "!!!",
        "_",
        "9",
        "Photo of a cat",
        "antidisestablishment",
    ),
    *("&amp;", "&lt;", "&#39;", "&amp;amp;", "&amp;lt;b&amp;gt;", "<b>", "< ", "&"),
    *("<start_of_text>", "<end_of_text>", "<END_OF_TEXT>", "<start_of_text"),
    *(" ", "\n", "\t", "\r", "\xa0", "\u3000", "\u200d", "\x00", "\x07", "\x1d", "\x0b", "\x7f", "\x85", "\ufeff"),
    *("Ã¼", "â€™", "é", "e\u0301", "ß", "İ", "ﬁ", "…", "½", "٣", "Ⅷ", "K", "中文", "日本", "Ελλάς", "👍🏽", "👨‍👩‍👧"),
]


def check(text: str, context_length: int = 77) -> None:
    from open_clip.tokenizer import tokenize

    (expected,) = tokenize(text, context_length=context_length).numpy()
    (found,) = (OURS if context_length == 77 else ClipTokenizer(context_length))([text])
    np.testing.assert_array_equal(found, expected[: len(found)])
    assert not expected[len(found) :].any()
    assert found.dtype == np.int64


@settings(max_examples=300)
@given(st.lists(st.one_of(st.sampled_from(PARTS), st.text(max_size=8)), max_size=40).map("".join))
def test_any_text_has_open_clips_ids(text: str) -> None:
    check(text)


@settings(max_examples=200)
@given(st.text(st.characters(max_codepoint=127), max_size=300))
def test_ascii_has_open_clips_ids(text: str) -> None:
    check(text)


@pytest.mark.parametrize("text", ["", " ", "a " * 500, "é " * 500, "x" * 3000, "&amp;" * 500, "<end_of_text>" * 100])
@pytest.mark.parametrize("context_length", [77, 8])
def test_edges(text: str, context_length: int) -> None:
    check(text, context_length)


def test_a_batch_is_its_texts() -> None:
    texts = ["a dog", "Häuser &amp; Bäume", "", "two  dogs", "é" * 200]
    for alone, together in zip([OURS([text])[0] for text in texts], OURS(texts), strict=True):
        np.testing.assert_array_equal(alone, together)


def test_it_needs_neither_torch_nor_open_clip() -> None:
    script = (
        "import sys; from trivium.encoders.clip.tokenizer import ClipTokenizer; "
        "assert len(ClipTokenizer()(['a bird', 'ein Vögelchen'])) == 2; "
        "assert not {'torch', 'open_clip'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
