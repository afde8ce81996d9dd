"""CLIP's byte-pair tokenizer in Rust, with the ids of open_clip's own; imports neither torch nor open_clip."""

import gzip
import html
import importlib.util
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import AddedToken, Regex, Tokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel, Split
from tokenizers.pre_tokenizers import Sequence as PreTokenizers

VOCABULARY = "bpe_simple_vocab_16e6.txt.gz"
MERGES = 49152 - 256 - 2  # of the file's lines, as open_clip takes them
START, END = "<start_of_text>", "<end_of_text>"
# open_clip's own pattern, and the same for lower-case ASCII, where \p{L} and \p{N} are these.
ANY_WORDS = START + "|" + END + r"|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
SIMPLE_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|[a-z]+|[0-9]|[^\sa-z0-9]+"
# Printable ASCII and white space, without & and <: the one begins an entity, the other a special token.
SIMPLE_TEXT = re.compile(r"[\t\n\r -%'-;=-~]*")
MAX_CHARACTERS = 64 * 1024  # of a text of at most some hundred tokens


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
