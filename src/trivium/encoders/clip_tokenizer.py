"""CLIP's byte-pair tokenizer in Rust, with the ids of open_clip's own; for ASCII it imports neither torch nor that."""

import gzip
import importlib.util
import threading
from collections.abc import Sequence
from functools import cached_property
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
# open_clip's own pattern for ASCII, where \p{L} and \p{N} are these.
WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|[a-z]+|[0-9]|[^\sa-z0-9]+"
MAX_CHARACTERS = 64 * 1024  # of a text of at most some hundred tokens


class ClipTokenizer:
    """Texts to ids, from the start token to the end token, at most ``context_length``."""

    def __init__(self, context_length: int = 77) -> None:
        self._context_length = context_length
        merges = [(left, right) for left, right in (line.split() for line in _vocabulary_lines()[1 : MERGES + 1])]
        letters = list(_byte_letters().values())
        words = [*letters, *(letter + "</w>" for letter in letters), *("".join(merge) for merge in merges), START, END]
        ids = {word: number for number, word in enumerate(words)}
        self._start, self._end = ids[START], ids[END]
        self._rust = Tokenizer(BPE(vocab=ids, merges=merges, end_of_word_suffix="</w>"))
        self._rust.add_special_tokens([AddedToken(START), AddedToken(END)])
        self._rust.pre_tokenizer = PreTokenizers(
            [Split(Regex(WORDS), "removed", invert=True), ByteLevel(add_prefix_space=False, use_regex=False)]
        )
        self._rust.enable_truncation(context_length)  # more than what is kept: start and end come on top
        self._lock = threading.Lock()

    def __call__(self, texts: Sequence[str]) -> list[NDArray[np.int64]]:
        """Return the ids of each text, shape (t,)."""
        simple = [_simple(text[:MAX_CHARACTERS]) for text in texts]
        encodings = iter(self._rust.encode_batch([text for text in simple if text is not None]))
        return [
            self._framed(next(encodings).ids) if clean is not None else self._by_open_clip(text[:MAX_CHARACTERS])
            for text, clean in zip(texts, simple, strict=True)
        ]

    def _framed(self, ids: list[int]) -> NDArray[np.int64]:
        return np.array([self._start, *ids[: self._context_length - 2], self._end], np.int64)

    def _by_open_clip(self, text: str) -> NDArray[np.int64]:
        """Have open_clip's own tokenizer do it, where cleaning and letters are not those of plain ASCII."""
        with self._lock:  # it keeps a cache
            return self._framed(self._own.encode(text))

    @cached_property
    def _own(self) -> Any:
        from open_clip.tokenizer import SimpleTokenizer

        return SimpleTokenizer()


def _simple(text: str) -> str | None:
    """Clean a text as open_clip does, if that is only a matter of white space and case; else None.

    ftfy and the unescaping of HTML, which come first there, change nothing of printable ASCII without an ampersand.
    """
    if not text.isascii() or "&" in text or "<" in text:
        return None
    clean = " ".join(text.split())
    return clean.lower() if clean.isprintable() else None


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
