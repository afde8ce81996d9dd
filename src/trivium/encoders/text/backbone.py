"""Networks of texts, tokenized in Rust, MiniLM-L6 (384-d) among them; imports no torch."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from trivium.encoders.base import TEXT_LAYERS, Backbone, DecodeError, Features, Modality, Passage, Prepared
from trivium.encoders.files import stopping
from trivium.encoders.networks.contract import Network, device_kind

# What the sentence-transformers checkpoint was trained with; longer texts are cut there.
MAX_TOKENS = 256
# Tokenizing is linear, but a text item keeps at most 256 tokens: more characters than this cannot matter.
MAX_CHARACTERS = 64 * 1024
# A passage is half of that, so that a hit tells where; the overlap keeps a sentence at the seam whole.
PASSAGE_TOKENS, OVERLAP_TOKENS = 128, 16
# What is beyond is not searched: an hour's work for a small machine, where one text may be all of a run.
MAX_DOCUMENT_CHARACTERS = 4 << 20
MAX_PASSAGES = 8192  # 4 MiB of English
# The tokenizer takes a text piece by piece: each in some 20 MB and a tenth of a second.
PIECE_CHARACTERS = 64 * 1024
# Where pieces are cut, best first: before a blank, which every tokenizer splits at; after a mark, which most do.
BLANKS = " \n\t\r\u00a0\u3000"
MARKS = ".,;:!?)]}>\"'/-\u2026\u3001\u3002\uff0c\uff1a\uff1b\uff01\uff1f"
# Rows times the longest row: on two cores passes of 256 to 4,096 were equally fast, a GPU wants them large.
TOKENS_PER_PASS = {"cpu": 1024, "gpu": 65_536}


class TextBackbone(Backbone):
    """A network over token ids, with the tokenizer that makes them."""

    modality: Modality = "text"

    def __init__(
        self,
        network: Network,
        tokenizer: Callable[[int | None], Tokenizer],
        *,
        dim: int,
        max_tokens: int,
        passage_tokens: int,
        overlap_tokens: int,
        layers: Mapping[str, int] = MappingProxyType({}),
    ) -> None:
        """Take a network.

        Args:
            network: Takes ids and a mask, gives vectors and inner layers.
            tokenizer: Makes a tokenizer that cuts texts at so many tokens; None: not at all.
            dim: Width of the vectors.
            max_tokens: How many tokens one vector sees, special ones counted.
            passage_tokens: How many a passage has.
            overlap_tokens: How many it shares with the next.
            layers: How wide each inner layer is.
        """
        self.dim = dim
        self._network = network
        self._tokens_per_pass = TOKENS_PER_PASS[device_kind(network.device)]
        # The Rust tokenizer itself: transformers' wrapper sets truncation on each call, which is not thread-safe.
        self._tokenizer, self._make_tokenizer = tokenizer(max_tokens), tokenizer
        self._max_tokens = max_tokens
        self._passage_tokens, self._overlap_tokens = passage_tokens, overlap_tokens
        self._layers = layers

    @cached_property
    def _pieces(self) -> Tokenizer:
        """Cuts long texts; a query has none, and loading it takes 15 ms."""
        return self._make_tokenizer(None)

    def prepare(self, item: Any, /) -> Prepared:
        """Return the token ids of a text, shape (t,).

        Raises:
            DecodeError: If the text is empty or blank.
        """
        (ids,) = self.prepare_all([item])
        return ids

    def prepare_all(self, items: Sequence[Any], /) -> list[Prepared]:
        """Do what `prepare` does for many texts in one call, which the tokenizer spreads over the cores."""
        encodings = self._tokenizer.encode_batch([checked_text(item, most=MAX_CHARACTERS) for item in items])
        # A text of signs that the tokenizer drops has no token: it is what is not known.
        return [np.asarray(encoding.ids or [1], np.int64) for encoding in encodings]

    def passages(self, text: str, /) -> list[Passage]:
        """Cut a text that is longer than one vector sees into overlapping passages; none if it is not.

        Raises:
            DecodeError: If the text is empty or blank.
        """
        return passages_of(
            text,
            self._pieces,
            longest=self._max_tokens,
            passage_tokens=self._passage_tokens,
            overlap_tokens=self._overlap_tokens,
        )

    def features(self, batch: Sequence[Prepared], /) -> Features:
        """Return the texts' vectors, shape (n, dim), not normalised, and inner layers."""
        arrays = [np.empty((len(batch), width), np.float32) for width in (self.dim, *self._layers.values())]
        for rows in passes_by_length([len(ids) for ids in batch], numbers_per_pass=self._tokens_per_pass):
            found = self._network(*padded([batch[row] for row in rows]))
            for whole, part in zip(arrays, found, strict=True):
                whole[rows] = part
        pooled, *layers = arrays
        return Features(pooled=pooled, layers=dict(zip(self._layers, layers, strict=True)))


def minilm(folder: Path, network: Network) -> TextBackbone:
    """Return the all-MiniLM-L6-v2 sentence encoder; its tokenizer is in ``folder`` (tokenizer.json)."""
    return TextBackbone(
        network,
        partial(_tokenizer, folder),
        dim=384,
        max_tokens=MAX_TOKENS,
        passage_tokens=PASSAGE_TOKENS,
        overlap_tokens=OVERLAP_TOKENS,
        layers=TEXT_LAYERS,
    )


def passages_of(
    text: str, tokenizer: Tokenizer, *, longest: int, passage_tokens: int, overlap_tokens: int
) -> list[Passage]:
    """Cut a text that is longer than one vector sees into overlapping passages; none if it is not.

    Takes little memory and ends soon when it is stopped, whatever the text: at most `MAX_DOCUMENT_CHARACTERS` of it are
    looked at, and at most `MAX_PASSAGES` made.

    Args:
        text: As it was given.
        tokenizer: Cuts nothing.
        longest: How many tokens one vector sees, special ones counted.
        passage_tokens: How many a passage has, special ones counted.
        overlap_tokens: How many it shares with the next.

    Raises:
        DecodeError: If the text is empty or blank.
    """
    text = checked_text(text, most=MAX_DOCUMENT_CHARACTERS)
    before, after = _special_tokens(tokenizer)
    specials = len(before) + len(after)
    if len(text) < longest - specials:
        return []
    room = max(passage_tokens - specials, overlap_tokens + 1)
    found: list[Passage] = []
    held = np.empty((0, 3), np.int64)  # of each token: its id, where it begins and ends
    count = 0
    for tokens in _tokens(text, tokenizer):
        held = np.concatenate([held, tokens])
        count += len(tokens)
        while len(held) > room and len(found) < MAX_PASSAGES:
            found.append(_passage(held[:room], before, after))
            held = held[room - overlap_tokens :]
        if len(found) == MAX_PASSAGES:
            return found
    if count <= longest - specials and len(text) <= MAX_CHARACTERS:
        return []
    return [*found, _passage(held, before, after)] if len(held) else found


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
        stopping.check()
        yield order[start:stop]
        start = stop


def _tokenizer(folder: Path, max_tokens: int | None) -> Tokenizer:
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    if max_tokens is None:
        tokenizer.no_truncation()
    else:
        tokenizer.enable_truncation(max_tokens)
    tokenizer.no_padding()
    return tokenizer


def checked_text(item: Any, *, most: int | None = None) -> str:
    """Return a text, or its first ``most`` characters, as tokenizers take it.

    Raises:
        DecodeError: If it is empty or blank.
    """
    if not isinstance(item, str):
        raise TypeError(f"a text item must be a str, got {type(item).__name__}")
    if not item or item.isspace():
        raise DecodeError("the text is empty")
    # Broken bytes from a command line or a file name are surrogates, which the tokenizer refuses.
    return item[:most].encode("utf-8", "replace").decode("utf-8")


def _tokens(text: str, tokenizer: Tokenizer) -> Iterator[NDArray[np.int64]]:
    """Yield a text's tokens piece by piece, (t, 3): the id, and where in the text it begins and ends."""
    for start, stop in _pieces(text):
        stopping.check()
        # A batch of one: it lets go of the interpreter, so that others run, and Ctrl-C is heard.
        (encoding,) = tokenizer.encode_batch([text[start:stop]], add_special_tokens=False)
        if encoding.ids:
            places = np.array(encoding.offsets, np.int64) + start
            yield np.column_stack([np.array(encoding.ids, np.int64), places])


def _pieces(text: str) -> Iterator[tuple[int, int]]:
    """Cut a text where its tokens are the same as those of the whole: see `BLANKS`."""
    start = 0
    while start < len(text):
        stop = start + PIECE_CHARACTERS
        if stop < len(text):
            middle = start + PIECE_CHARACTERS // 2
            blank = max(text.rfind(sign, middle, stop + 1) for sign in BLANKS)
            mark = max(text.rfind(sign, middle, stop) for sign in MARKS)
            stop = blank if blank > 0 else mark + 1 if mark > 0 else stop
        yield start, min(stop, len(text))
        start = stop


def _special_tokens(tokenizer: Tokenizer) -> tuple[list[int], list[int]]:
    """Return the ids that stand before a text and after it."""
    count = tokenizer.num_special_tokens_to_add(False)
    if not count:
        return [], []
    encoding = tokenizer.encode("a")
    own = len(encoding.ids) - count
    first = next((place for place, special in enumerate(encoding.special_tokens_mask) if not special), count)
    return encoding.ids[:first], encoding.ids[first + own :]


def _passage(tokens: NDArray[np.int64], before: Sequence[int], after: Sequence[int]) -> Passage:
    ids = np.concatenate([np.array(before, np.int64), tokens[:, 0], np.array(after, np.int64)])
    return Passage(int(tokens[0, 1]), int(tokens[-1, 2]), ids)
