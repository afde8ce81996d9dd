"""Text: MiniLM-L6 sentence vectors (384-d), tokenized in Rust; imports no torch."""

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from trivium.encoders.base import Backbone, DecodeError, Features, Modality, Passage, Prepared
from trivium.encoders.inner_layers import TEXT_LAYERS
from trivium.encoders.networks import Network, device_kind

# What the sentence-transformers checkpoint was trained with; longer texts are cut there.
MAX_TOKENS = 256
# Tokenizing is linear, but a text item keeps at most 256 tokens: more characters than this cannot matter.
MAX_CHARACTERS = 64 * 1024
# A passage is half of that, so that a hit tells where; the overlap keeps a sentence at the seam whole.
PASSAGE_TOKENS, OVERLAP_TOKENS = 128, 16
MAX_DOCUMENT_CHARACTERS = 4 << 20  # about 8,000 passages; what is beyond is not searched
# Rows times the longest row: on two cores passes of 256 to 4,096 were equally fast, a GPU wants them large.
TOKENS_PER_PASS = {"cpu": 1024, "gpu": 65_536}


class MiniLM(Backbone):
    """The all-MiniLM-L6-v2 sentence encoder."""

    modality: Modality = "text"
    dim = 384

    def __init__(self, folder: Path, network: Network) -> None:
        """Take the tokenizer from ``folder`` (tokenizer.json), offline."""
        self._network = network
        self._tokens_per_pass = TOKENS_PER_PASS[device_kind(network.device)]
        # The Rust tokenizer itself: transformers' wrapper sets truncation on each call, which is not thread-safe.
        self._tokenizer = _tokenizer(folder, MAX_TOKENS)
        self._folder = folder

    @cached_property
    def _passages(self) -> Tokenizer:
        """Cuts long texts; a query has none, and loading it takes 15 ms."""
        return _tokenizer(self._folder, PASSAGE_TOKENS, OVERLAP_TOKENS)

    def prepare(self, item: Any, /) -> Prepared:
        """Return the token ids of a text, shape (t,), t <= 256.

        Raises:
            DecodeError: If the text is empty or blank.
        """
        (ids,) = self.prepare_all([item])
        return ids

    def prepare_all(self, items: Sequence[Any]) -> list[Prepared]:
        """Do what `prepare` does for many texts in one call, which the tokenizer spreads over the cores."""
        encodings = self._tokenizer.encode_batch([checked_text(item)[:MAX_CHARACTERS] for item in items])
        return [np.asarray(encoding.ids, dtype=np.int64) for encoding in encodings]

    def passages(self, text: str) -> list[Passage]:
        """Cut a text that is longer than one vector sees into overlapping passages; none if it is not.

        Raises:
            DecodeError: If the text is empty or blank.
        """
        return passages_of(text, self._tokenizer, self._passages, max_tokens=MAX_TOKENS)

    def features(self, batch: Sequence[Prepared], /) -> Features:
        """Return means over each text's tokens, of the last layer and of inner ones, shape (n, 384)."""
        pooled, *layers = (np.empty((len(batch), self.dim), np.float32) for _ in range(1 + len(TEXT_LAYERS)))
        for rows in passes_by_length([len(ids) for ids in batch], numbers_per_pass=self._tokens_per_pass):
            found = self._network(*padded([batch[row] for row in rows]))
            for whole, part in zip((pooled, *layers), found, strict=True):
                whole[rows] = part
        return Features(pooled=pooled, layers=dict(zip(TEXT_LAYERS, layers, strict=True)))


def passages_of(text: str, whole: Tokenizer, parts: Tokenizer, *, max_tokens: int) -> list[Passage]:
    """Cut a text that is longer than one vector sees into overlapping passages; none if it is not.

    Args:
        text: As it was given.
        whole: Cuts at ``max_tokens``.
        parts: Cuts at a passage's length, and overlaps.
        max_tokens: Special ones counted.

    Raises:
        DecodeError: If the text is empty or blank.
    """
    text = checked_text(text)[:MAX_DOCUMENT_CHARACTERS]
    if len(text) < max_tokens - 2 or not whole.encode(text[:MAX_CHARACTERS]).overflowing:
        return []
    first = parts.encode(text)
    found = []
    for encoding in (first, *first.overflowing):
        marks = zip(encoding.offsets, encoding.special_tokens_mask, strict=True)
        offsets = [offset for offset, is_special in marks if not is_special]
        if offsets:
            found.append(Passage(offsets[0][0], offsets[-1][1], np.asarray(encoding.ids, dtype=np.int64)))
    return found


def padded(batch: Sequence[Prepared]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Put ids of texts into one array (n, t), filled up with 0, and a mask (n, t) of ones where there is a token."""
    tokens = np.zeros((len(batch), max(len(ids) for ids in batch)), np.int64)
    mask = np.zeros_like(tokens)
    for row, ids in enumerate(batch):
        tokens[row, : len(ids)] = ids
        mask[row, : len(ids)] = 1
    return tokens, mask


def passes_by_length(lengths: Sequence[int], *, numbers_per_pass: int) -> Iterator[NDArray[np.intp]]:
    """Group rows of like lengths, so that little is padded: each group times its longest row is within the budget.

    Args:
        lengths: Of n rows.
        numbers_per_pass: At least one row is in each group, whatever its length.

    Yields:
        Positions in ``lengths``; each occurs once.
    """
    order = np.argsort(np.asarray(lengths), kind="stable")
    start = 0
    while start < len(order):
        stop = start + 1
        while stop < len(order) and (stop - start + 1) * lengths[order[stop]] <= numbers_per_pass:
            stop += 1
        yield order[start:stop]
        start = stop


def _tokenizer(folder: Path, max_tokens: int, overlap: int = 0) -> Tokenizer:
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(max_tokens, stride=overlap)
    tokenizer.no_padding()
    return tokenizer


def checked_text(item: Any) -> str:
    """Return a text that tokenizers take.

    Raises:
        DecodeError: If it is empty or blank.
    """
    if not isinstance(item, str):
        raise TypeError(f"a text item must be a str, got {type(item).__name__}")
    if not item.strip():
        raise DecodeError("the text is empty")
    # Broken bytes from a command line or a file name are surrogates, which the tokenizer refuses.
    return item.encode("utf-8", "replace").decode("utf-8")
