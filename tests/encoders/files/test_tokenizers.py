"""Tokenizers of a stranger's text model: only parts that always end, and no panic of Rust ends a run."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

from trivium.encoders.files.foreign import ForeignFileError
from trivium.encoders.files.tokenizers import cut_at, read_foreign_tokenizer, telling_panics, tokenizer_of
from trivium.encoders.text.words import word_tokenizer

Change = Callable[[dict[str, Any]], object]
SPLIT = {"type": "Split", "pattern": {"Regex": "(a*)*b"}, "behavior": "Removed", "invert": False}
PADDING: dict[str, Any] = {"strategy": {"Fixed": 10**9}, "direction": "Left", "pad_to_multiple_of": None}
PADDING |= {"pad_id": 0, "pad_type_id": 0, "pad_token": "x"}
TEMPLATE = {
    "type": "TemplateProcessing",
    "single": [{"SpecialToken": {"id": "x", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
    "pair": [],
    "special_tokens": {"x": {"id": "x", "ids": [1], "tokens": ["x"]}},
}


def write(folder: Path, change: Change) -> Path:
    raw = json.loads(word_tokenizer(["red", "blue"]))
    change(raw)
    (folder / "tokenizer.json").write_text(json.dumps(raw))
    return folder / "tokenizer.json"


@pytest.mark.parametrize(
    "change",
    [
        lambda raw: None,
        lambda raw: raw.update(padding=PADDING),
        lambda raw: raw.update(
            normalizer={"type": "Sequence", "normalizers": [{"type": "NFC"}, {"type": "Lowercase"}]}
        ),
        lambda raw: raw.update(normalizer=None, pre_tokenizer={"type": "WhitespaceSplit"}, post_processor=TEMPLATE),
    ],
)
def test_what_text_models_are_made_of_is_read(tmp_path: Path, change: Change) -> None:
    tokenizer = read_foreign_tokenizer(write(tmp_path, change), vocabulary=4)
    assert tokenizer.encode("red blue red").ids[-3:] == [2, 3, 2]
    assert len(tokenizer.encode("red")) <= 2  # nothing is filled up, whatever the file says


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda raw: raw.update(pre_tokenizer=SPLIT),
            "its pre_tokenizer is of kind 'Split', which text models are not",
        ),
        (lambda raw: raw.update(normalizer={"type": "Replace"}), "its normalizer is of kind 'Replace'"),
        (
            lambda raw: raw.update(pre_tokenizer={"type": "Sequence", "pretokenizers": [SPLIT]}),
            "its pre_tokenizer is of kind 'Split'",
        ),
        (lambda raw: raw.update(normalizer={"type": ["NFC"]}), "its normalizer is of kind list"),
        (lambda raw: raw.update(normalizer="NFC"), "its normalizer is none"),
        (lambda raw: raw.update(decoder={"type": "BPEDecoder"}), "its decoder is of kind 'BPEDecoder'"),
        (lambda raw: raw.update(model={"type": "BPE", "vocab": {}}), "its model is of kind 'BPE'"),
        (lambda raw: raw.pop("model"), "it has no model"),
        (lambda raw: raw.update(more=1), "it has 'more', which is not known here"),
        (lambda raw: raw["model"].update(max_input_chars_per_word=10**9), "its model cuts words of more than 1,000"),
        (lambda raw: raw["model"].update(unk_token="[NO]"), r"its vocabulary lacks '\[NO\]', which stands for unknown"),
        (lambda raw: raw["model"]["vocab"].update(red="two"), "a token of its vocabulary has no number"),
        (lambda raw: raw["model"]["vocab"].update(red=9), "has a token 9, its network knows 4, from 0 on"),
        (lambda raw: raw["model"].update(vocab=[]), "tokenizer.json"),
        (
            lambda raw: raw.update(post_processor=TEMPLATE | {"single": TEMPLATE["single"] * 99}),  # type: ignore[operator]
            "its post_processor puts more than 16 tokens around a text",
        ),
        (
            lambda raw: raw.update(
                post_processor=TEMPLATE | {"special_tokens": {"x": {"id": "x", "ids": [7], "tokens": ["x"]}}}
            ),
            "has a token 7, its network knows 4",
        ),
        (lambda raw: raw.update(added_tokens=[{"id": 1, "content": ""}]), "a token of it is empty"),
        (lambda raw: raw.update(added_tokens=3), "is no tokenizer: TypeError"),
        (lambda raw: raw.update(normalizer={"type": "BertNormalizer"}), "is no tokenizer: "),
    ],
)
def test_what_they_are_not_made_of_is_refused(tmp_path: Path, change: Change, message: str) -> None:
    with pytest.raises(ForeignFileError, match=message):
        read_foreign_tokenizer(write(tmp_path, change), vocabulary=4)


def test_a_panic_is_a_message(tmp_path: Path) -> None:
    """pyo3's PanicException is no `Exception`: it would end the run."""

    class PanicError(BaseException):
        pass

    def panic(error: BaseException) -> None:
        with telling_panics(tmp_path / "tokenizer.json"):
            raise error

    with pytest.raises(ForeignFileError, match=r"tokenizer\.json is no tokenizer: index out of bounds"):
        panic(PanicError("index out\nof bounds"))
    with pytest.raises(KeyboardInterrupt):
        panic(KeyboardInterrupt())
    with pytest.raises(ForeignFileError, match="is no tokenizer: "):
        tokenizer_of(b"\xff", tmp_path / "tokenizer.json")


def test_too_many_tokens_of_its_own(tmp_path: Path) -> None:
    path = write(tmp_path, lambda raw: raw.update(post_processor=TEMPLATE | {"single": TEMPLATE["single"][:1] * 9}))  # type: ignore[index]
    tokenizer: Tokenizer = read_foreign_tokenizer(path)
    with pytest.raises(ForeignFileError, match="puts more tokens around a text than the 4 that it may have"):
        cut_at(tokenizer, path, max_tokens=4)
