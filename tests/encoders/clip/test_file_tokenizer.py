"""Tokenizers that a model of the Hub brings, against open_clip's own."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from trivium.encoders import WeightsError
from trivium.encoders.clip.model import OpenClip
from trivium.encoders.devices import PLAIN

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
