"""Tokenizers of CLIP and of the Hub against open_clip's own, ids and edges; damaged and foreign files."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from trivium.encoders import WeightsError
from trivium.encoders.clip.model import OpenClip
from trivium.encoders.clip.tokenizers import ClipTokenizer
from trivium.encoders.devices import PLAIN

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
HubClip = Callable[..., Path]
TEXTS = ["a photo of a cat", "Dog", "Ein Haus am See &amp; ein Boot", "a long caption " * 40]
REFERENCE = "open-clip:hf-hub:org/tiny"
EXACT = 1e-5  # float32 sums in another order
WORDS = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    *"abcdefghijklmnopqrstuvwxyz0123456789",
    "cat",
    "dog",
    "photo",
    "##s",
    "##to",
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
        "import sys; from trivium.encoders.clip.tokenizers import ClipTokenizer; "
        "assert len(ClipTokenizer()(['a bird', 'ein Vögelchen'])) == 2; "
        "assert not {'torch', 'open_clip'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def pooled(clip: OpenClip, texts: list[str]) -> NDArray[np.float32]:
    backbone = clip.backbone("text", device=PLAIN)
    return backbone.features(backbone.prepare_all(texts)).pooled


def refusal(reference: str) -> str:
    with pytest.raises(WeightsError) as caught:
        OpenClip(reference)
    return str(caught.value)


def word_pieces() -> PreTrainedTokenizerFast:
    """BERT's kind."""
    tokenizer = Tokenizer(models.WordPiece({word: number for number, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    ends = [("[CLS]", 2), ("[SEP]", 3)]
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    )


def byte_pairs() -> PreTrainedTokenizerFast:
    """RoBERTa's kind: other special tokens, and what fills up is not 0."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {word: number for number, word in enumerate(["<s>", "<pad>", "</s>", "<unk>", *letters])}
    tokenizer = Tokenizer(models.BPE(vocabulary, [], unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    ends = [("<s>", 0), ("</s>", 2)]
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=ends)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    )


@pytest.mark.parametrize(
    ("tokenizer", "options"),
    [
        (word_pieces, {}),
        (word_pieces, {"strip_sep_token": True}),
        (byte_pairs, {"clean": "canonicalize"}),
        (byte_pairs, {"clean": "lower"}),
    ],
    ids=["word pieces", "end stripped", "canonical", "lower case"],
)
def test_a_tokenizer_of_the_hub(hub_clip: HubClip, tokenizer: Callable[[], Any], options: dict[str, Any]) -> None:
    text = {"hf_tokenizer_name": "org/tiny", "tokenizer_kwargs": options, "context_length": 16, "pool_type": "last"}
    folder = hub_clip(tokenizer=tokenizer(), text=text, custom_text=True)
    clip = OpenClip(REFERENCE)
    assert clip.facts.tokenizer is not None
    texts = [*TEXTS, "cats & dogs_photo!", "木の下の犬", "[SEP] </s> <pad>"]
    own = open_clip.create_model(f"local-dir:{folder}").eval()
    with torch.inference_mode():
        expected = own.encode_text(open_clip.get_tokenizer(f"local-dir:{folder}")(texts)).numpy()
    np.testing.assert_allclose(pooled(clip, texts), expected, atol=EXACT)
    np.testing.assert_allclose(pooled(clip, texts[1:2]), expected[1:2], atol=EXACT)


def test_a_tokenizer_of_another_repository(hub_clip: HubClip, hub_cache: Path) -> None:
    text = {"hf_tokenizer_name": "org/words", "context_length": 16}
    hub_clip(text=text)
    message = refusal(REFERENCE)
    assert "the files of org/words (main) are not in the Hugging Face cache" in message
    assert "run `hf download org/words tokenizer.json tokenizer_config.json`" in message
    hub_clip("org/words")
    word_pieces().save_pretrained(hub_cache / "models--org--words" / "snapshots" / ("0" * 40))
    first = OpenClip(REFERENCE)
    before = pooled(first, TEXTS)
    shutil.rmtree(hub_cache / "models--org--words")  # we keep a copy
    np.testing.assert_array_equal(pooled(OpenClip(REFERENCE), TEXTS), before)


def test_a_tokenizer_that_is_damaged_is_kept_again(hub_clip: HubClip, cache: Path) -> None:
    hub_clip(tokenizer=word_pieces(), text={"hf_tokenizer_name": "org/tiny", "context_length": 16})
    first = OpenClip(REFERENCE)
    before = pooled(first, TEXTS)
    (kept,) = (cache / "open-clip").glob("*.tokenizer.json")
    assert kept.stat().st_mode & 0o777 == 0o600
    sound = kept.read_bytes()
    kept.write_bytes(sound.replace(b'"cat"', b'"bat"'))
    again = OpenClip(REFERENCE)
    assert again.facts == first.facts
    np.testing.assert_array_equal(pooled(again, TEXTS), before)
    assert kept.read_bytes() == sound
    kept.unlink()
    assert OpenClip(REFERENCE).facts == first.facts
    shutil.rmtree(cache / "open-clip")
    (cache / "open-clip").touch()
    assert "cannot keep" in refusal(REFERENCE)


def test_another_tokenizer_is_another_space(hub_clip: HubClip) -> None:
    text = {"hf_tokenizer_name": "org/tiny", "context_length": 16}
    hub_clip(tokenizer=word_pieces(), text=text)
    first = OpenClip(REFERENCE).facts
    hub_clip(tokenizer=byte_pairs(), text=text, commit="1" * 40)
    assert OpenClip(REFERENCE).facts.revision != first.revision


def test_tokenizers_that_are_not_known(hub_clip: HubClip, monkeypatch: pytest.MonkeyPatch) -> None:
    text = {"hf_tokenizer_name": "org/tiny", "context_length": 16}
    folder = hub_clip(tokenizer=word_pieces(), text={**text, "tokenizer_kwargs": {"trust_remote_code": True}})
    assert "the tokenizer org/tiny needs trust_remote_code, which are not known here" in refusal(REFERENCE)
    hub_clip(text={**text, "tokenizer_mode": "clips"})
    assert "used in the mode 'clips'" in refusal(REFERENCE)
    hub_clip(text={**text, "tokenizer_kwargs": {"clean": "bleach"}})
    assert "cleans texts by 'bleach', known are lower, whitespace, canonicalize" in refusal(REFERENCE)
    hub_clip(text={"tokenizer_kwargs": {"reduction_mask": "random"}})
    assert "uses CLIP's tokenizer with options" in refusal(REFERENCE)
    hub_clip(text=text)
    (folder / "tokenizer_config.json").write_text("{}")
    assert "no pad_token in" in refusal(REFERENCE)
    (folder / "tokenizer.json").write_text("{}")
    assert "tokenizer.json is no tokenizer" in refusal(REFERENCE)


def test_a_tokenizer_that_transformers_reads_otherwise_is_refused(
    hub_clip: HubClip, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub_clip(tokenizer=word_pieces(), text={"hf_tokenizer_name": "org/tiny", "context_length": 16})

    class Reversed(open_clip.tokenizer.HFTokenizer):  # type: ignore[misc]
        def __call__(self, texts: Any, context_length: int | None = None) -> torch.Tensor:
            return super().__call__(texts, context_length).flip(1)  # type: ignore[no-any-return]

    monkeypatch.setattr(open_clip.tokenizer, "HFTokenizer", Reversed)
    assert "the tokenizer org/tiny does not give the tokens that open_clip's gives" in refusal(REFERENCE)
