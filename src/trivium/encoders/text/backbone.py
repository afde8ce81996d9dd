"""Text: MiniLM-L6 sentence vectors (384-d), tokenized in Rust; imports no torch."""

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
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
    def _pieces(self) -> Tokenizer:
        """Cuts long texts; a query has none, and loading it takes 15 ms."""
        return _tokenizer(self._folder, None)

    def prepare(self, item: Any, /) -> Prepared:
        """Return the token ids of a text, shape (t,), t <= 256.

        Raises:
            DecodeError: If the text is empty or blank.
        """
        (ids,) = self.prepare_all([item])
        return ids

    def prepare_all(self, items: Sequence[Any]) -> list[Prepared]:
        """Do what `prepare` does for many texts in one call, which the tokenizer spreads over the cores."""
        encodings = self._tokenizer.encode_batch([checked_text(item, most=MAX_CHARACTERS) for item in items])
        return [np.asarray(encoding.ids, dtype=np.int64) for encoding in encodings]

    def passages(self, text: str) -> list[Passage]:
        """Cut a text that is longer than one vector sees into overlapping passages; none if it is not.

        Raises:
            DecodeError: If the text is empty or blank.
        """
        return passages_of(
            text, self._pieces, longest=MAX_TOKENS, passage_tokens=PASSAGE_TOKENS, overlap_tokens=OVERLAP_TOKENS
        )

    def features(self, batch: Sequence[Prepared], /) -> Features:
        """Return means over each text's tokens, of the last layer and of inner ones, shape (n, 384)."""
        pooled, *layers = (np.empty((len(batch), self.dim), np.float32) for _ in range(1 + len(TEXT_LAYERS)))
        for rows in passes_by_length([len(ids) for ids in batch], numbers_per_pass=self._tokens_per_pass):
            found = self._network(*padded([batch[row] for row in rows]))
            for whole, part in zip((pooled, *layers), found, strict=True):
                whole[rows] = part
        return Features(pooled=pooled, layers=dict(zip(TEXT_LAYERS, layers, strict=True)))


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
