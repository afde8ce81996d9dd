"""Tokenizers in Rust with the ids of open_clip's own: CLIP's, and those of the Hub; no torch, no open_clip.

open_clip loads those of the Hub through transformers, which may change what their `tokenizer.json` says. So such a
tokenizer is compared with open_clip's once, when its model is first seen, and refused if it differs.
"""

import gzip
import hashlib
import html
import importlib.util
import os
import re
import string
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import AddedToken, Regex, Tokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel, Split
from tokenizers.pre_tokenizers import Sequence as PreTokenizers

from trivium.encoders.base import WeightsError
from trivium.encoders.clip.facts import TokenizerFacts, tokenizer_file
from trivium.encoders.files.foreign import ForeignFileError, read_foreign, read_foreign_json
from trivium.encoders.files.tokenizers import MAX_TOKENIZER_BYTES, tokenizer_of
from trivium.encoders.files.user_cache import write_private

VOCABULARY = "bpe_simple_vocab_16e6.txt.gz"
MERGES = 49152 - 256 - 2  # of the file's lines, as open_clip takes them
START, END = "<start_of_text>", "<end_of_text>"
# open_clip's own pattern, and the same for lower-case ASCII, where \p{L} and \p{N} are these.
ANY_WORDS = START + "|" + END + r"|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
SIMPLE_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|[a-z]+|[0-9]|[^\sa-z0-9]+"
# Printable ASCII and white space, without & and <: the one begins an entity, the other a special token.
SIMPLE_TEXT = re.compile(r"[\t\n\r -%'-;=-~]*")
MAX_CHARACTERS = 64 * 1024  # of a text of at most some hundred tokens
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


class ClipTokenizer:
    """Texts to ids, from the start token to the end token, at most ``context_length``; safe to call from threads."""

    def __init__(self, context_length: int = 77) -> None:
        self._context_length = context_length
        merges = [(left, right) for left, right in (line.split() for line in _vocabulary_lines()[1 : MERGES + 1])]
        letters = list(_byte_letters().values())
        words = [*letters, *(letter + "</w>" for letter in letters), *("".join(merge) for merge in merges), START, END]
        ids = {word: number for number, word in enumerate(words)}
        self._start, self._end = ids[START], ids[END]
        pairs = BPE(vocab=ids, merges=merges, end_of_word_suffix="</w>")
        self._simple = self._tokenizer(pairs, splits=True)
        self._of_words = self._tokenizer(pairs, splits=False)

    def __call__(self, texts: Sequence[str]) -> list[NDArray[np.int64]]:
        """Return the ids of each text, shape (t,)."""
        texts = [text[:MAX_CHARACTERS] for text in texts]
        simple = [_simple(text) for text in texts]
        found = iter(self._simple.encode_batch([text for text in simple if text is not None]))
        words = [_words(text) for text, clean in zip(texts, simple, strict=True) if clean is None]
        found_of_words = iter(self._of_words.encode_batch(words, is_pretokenized=True))
        return [self._framed(next(found_of_words if clean is None else found).ids) for clean in simple]

    def _framed(self, ids: list[int]) -> NDArray[np.int64]:
        return np.array([self._start, *ids[: self._context_length - 2], self._end], np.int64)

    def _tokenizer(self, pairs: BPE, *, splits: bool) -> Tokenizer:
        tokenizer = Tokenizer(pairs)
        tokenizer.add_special_tokens([AddedToken(START), AddedToken(END)])
        letters = ByteLevel(add_prefix_space=False, use_regex=False)
        words = Split(Regex(SIMPLE_WORDS), "removed", invert=True)
        tokenizer.pre_tokenizer = PreTokenizers([words, letters] if splits else [letters])
        tokenizer.enable_truncation(self._context_length)  # more than what is kept: start and end come on top
        return tokenizer


def _simple(text: str) -> str | None:
    """Clean a text as open_clip does, if that is only a matter of white space and case; else None.

    ftfy and the unescaping of HTML, which come first there, change nothing of such a text.
    """
    return " ".join(text.split()).lower() if SIMPLE_TEXT.fullmatch(text) else None


def _words(text: str) -> list[str]:
    """Clean and split any text with the libraries that open_clip uses: what is a letter differs between others."""
    import ftfy

    text = html.unescape(html.unescape(ftfy.fix_text(text)))
    words: list[str] = _any_words().findall(" ".join(text.split()).lower())
    return words


@cache
def _any_words() -> Any:
    import regex

    return regex.compile(ANY_WORDS, regex.IGNORECASE)


def _vocabulary_lines() -> list[str]:
    package = importlib.util.find_spec("open_clip")
    if package is None or package.origin is None:
        raise ModuleNotFoundError("open_clip is not installed: `pip install open-clip-torch`")
    return gzip.decompress((Path(package.origin).parent / VOCABULARY).read_bytes()).decode("utf-8").split("\n")


def _byte_letters() -> dict[int, str]:
    """Return the visible letter that stands for each byte (Radford et al., GPT-2), in the vocabulary's order."""
    visible = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in visible]
    return {byte: chr(byte) for byte in visible} | {byte: chr(256 + place) for place, byte in enumerate(others)}


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
