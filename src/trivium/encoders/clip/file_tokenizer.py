"""Tokenizers of the Hub as open_clip uses them, from their `tokenizer.json`, in Rust.

Neither torch nor open_clip is imported.

open_clip loads them through transformers, which may change what the file says. So a tokenizer is compared with
open_clip's once, when its model is first seen, and refused if it differs.
"""

import hashlib
import html
import os
import string
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from trivium.encoders.base import WeightsError
from trivium.encoders.clip.facts import TokenizerFacts, tokenizer_file
from trivium.encoders.clip.tokenizer import MAX_CHARACTERS
from trivium.encoders.files.foreign import ForeignFileError, read_foreign, read_foreign_json
from trivium.encoders.files.tokenizers import MAX_TOKENIZER_BYTES, tokenizer_of
from trivium.encoders.files.user_cache import write_private

# The first is needed; the others say what it is and which of its tokens means what.
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "config.json")
MAX_OPTIONS_BYTES = 16 << 20  # some list each of their tokens there
KNOWN_OPTIONS = {"clean", "strip_sep_token"}
PROBES = [
    "a photo of a cat",
    "Two DOGS, running (fast) -- isn't it?  100%",
    "Ein Häuschen am See &amp; ein Boot_mit Segeln",
    "木の下の犬 и собака 🐕",
    "</s> <s> [SEP] <|endoftext|> <pad>",
    "\t  one \n two ",
    "a very long caption of many different words " * 40,
]


class FileTokenizer:
    """Texts to ids, filled up to the context length, shape (t,); safe to call from threads."""

    def __init__(self, file: Path, facts: TokenizerFacts, *, context_length: int) -> None:
        self._clean = CLEANERS[facts.clean]
        self._stripped_id = facts.stripped_id
        self._tokenizer = _tokenizer(_content(file), file)
        direction = "left" if facts.pads_left else "right"
        self._tokenizer.enable_truncation(context_length)
        self._tokenizer.enable_padding(
            direction=direction,
            pad_id=facts.pad_id,
            pad_token=_pad_token(self._tokenizer, facts),
            length=context_length,
        )

    def __call__(self, texts: Sequence[str]) -> list[NDArray[np.int64]]:
        """Return the ids of each text."""
        found = self._tokenizer.encode_batch([self._clean(text[:MAX_CHARACTERS]) for text in texts])
        ids = np.array([each.ids for each in found], np.int64).reshape(len(texts), -1)
        if self._stripped_id is not None:
            ids[ids == self._stripped_id] = 0
        return list(ids)


def keep_tokenizer(folder: Path, name: str, text_config: Mapping[str, Any]) -> TokenizerFacts:
    """Copy a tokenizer into the cache.

    Args:
        folder: Holds those of `TOKENIZER_FILES` that there are.
        name: What to call it in messages.
        text_config: The part of a model's config that says how it is used.

    Raises:
        WeightsError: If it is none that is known here.
    """
    options = text_config.get("tokenizer_kwargs") or {}
    if unknown := sorted(set(options) - KNOWN_OPTIONS):
        raise WeightsError(f"the tokenizer {name} needs {', '.join(unknown)}, which are not known here")
    if mode := text_config.get("tokenizer_mode"):
        raise WeightsError(f"the tokenizer {name} is used in the mode '{mode}', which is not known here")
    clean = str(options.get("clean", "whitespace"))
    if clean not in CLEANERS:
        raise WeightsError(f"the tokenizer {name} cleans texts by '{clean}', known are {', '.join(CLEANERS)}")
    if not (folder / TOKENIZER_FILES[0]).is_file():
        raise WeightsError(
            f"the tokenizer {name} has no {TOKENIZER_FILES[0]}, the only form that is read here. Make one: "
            "`AutoTokenizer.from_pretrained(...).save_pretrained(FOLDER)` (transformers)"
        )
    content = _content(folder / TOKENIZER_FILES[0])
    said = _special_tokens(folder)
    tokenizer = _tokenizer(content, folder / TOKENIZER_FILES[0])
    ids = {key: None if said.get(key) is None else tokenizer.token_to_id(said[key]) for key in ("pad", "sep")}
    if ids["pad"] is None:
        raise WeightsError(f"the tokenizer {name} does not say what to fill texts up with: no pad_token in {folder}")
    facts = TokenizerFacts(
        sha256=hashlib.sha256(content).hexdigest(),
        pad_id=ids["pad"],
        pads_left=said.get("side") == "left",
        clean=clean,
        stripped_id=ids["sep"] if options.get("strip_sep_token") else None,
    )
    target = tokenizer_file(facts)
    try:
        write_private(target, content)
    except OSError as error:
        raise WeightsError(f"cannot keep {target.name} in {target.parent}: {error}") from error
    return facts


def _special_tokens(folder: Path) -> dict[str, str]:
    """Read which tokens pad and separate, and the side that is padded, from the files beside a tokenizer."""
    found: dict[str, str] = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):  # the latter is right where both speak
        try:
            said = read_foreign_json(Path(os.path.realpath(folder / name)), max_bytes=MAX_OPTIONS_BYTES)
        except ForeignFileError:
            continue
        for key, of in (("pad", "pad_token"), ("sep", "sep_token"), ("side", "padding_side")):
            value = said.get(of)
            value = value.get("content") if isinstance(value, dict) else value
            if isinstance(value, str):
                found[key] = value
    return found


def _content(file: Path) -> bytes:
    """Read a tokenizer's file; the Hub's cache has links to its blobs there."""
    try:
        return read_foreign(Path(os.path.realpath(file)), max_bytes=MAX_TOKENIZER_BYTES)
    except ForeignFileError as error:
        raise WeightsError(str(error)) from error


def _tokenizer(content: bytes, file: Path) -> Tokenizer:
    try:
        return tokenizer_of(content, file)
    except ForeignFileError as error:
        raise WeightsError(str(error)) from error


def _pad_token(tokenizer: Tokenizer, facts: TokenizerFacts) -> str:
    token: str | None = tokenizer.id_to_token(facts.pad_id)
    return token or ""


def _basic(text: str) -> str:
    import ftfy

    return html.unescape(html.unescape(ftfy.fix_text(text))).strip()


def _whitespace(text: str) -> str:
    return " ".join(_basic(text).split())


def _lower(text: str) -> str:
    return _whitespace(text).lower()


def _canonical(text: str) -> str:
    plain = _basic(text).replace("_", " ").translate(str.maketrans("", "", string.punctuation))
    return " ".join(plain.lower().split())


CLEANERS: Mapping[str, Callable[[str], str]] = {"lower": _lower, "whitespace": _whitespace, "canonicalize": _canonical}
