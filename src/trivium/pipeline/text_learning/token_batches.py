"""Texts as token ids, cut, and put into batches of like length, in an order that one seed decides."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor

from trivium.encoders.text.backbone import padded

Ids = NDArray[np.int64]  # (t,), of one text
# Lengths are rounded up to few: torch keeps what it compiles for each shape (oneDNN), and memory would grow for hours.
TOKENS_ALIKE = 16
TOGETHER = 16  # batches that are sorted by length at a time: less padding, and still much chance


def tokenize(tokenizer: Tokenizer, texts: Sequence[str]) -> list[Ids]:
    """Return the ids of texts, uncut; a text without a token is what is not known."""
    encodings = tokenizer.encode_batch([text.encode("utf-8", "replace").decode("utf-8") for text in texts])
    return [np.asarray(encoding.ids or [1], np.int64) for encoding in encodings]


def cut(ids: Ids, *, most: int, head: int | None = None) -> Ids:
    """Cut a text's ids: of a longer one the first ``head`` stay and the last ones; the first ones if None.

    Source:
        Sun et al., "How to fine-tune BERT for text classification?", 2019: reviews are best cut in the middle.
    """
    if len(ids) <= most:
        return ids
    head = most if head is None else min(head, most)
    return np.concatenate([ids[:head], ids[len(ids) - (most - head) :]])


def batches_in_order(lengths: Sequence[int], *, size: int) -> Iterator[NDArray[np.int64]]:
    """Yield places of all texts, ``size`` at a time, by length."""
    order = np.argsort(np.asarray(lengths), kind="stable")
    for start in range(0, len(order), size):
        yield order[start : start + size]


def batches_at_random(lengths: Sequence[int], *, size: int, seed: tuple[int, ...]) -> list[NDArray[np.int64]]:
    """Return places of all texts, each once, in random batches of ``size`` whose texts are of like length.

    Args:
        lengths: Of the texts.
        size: Of a batch; the last one may be shorter.
        seed: Decides the order: of a run and of its epoch.
    """
    random = np.random.default_rng(seed)
    order = random.permutation(len(lengths))
    of = np.asarray(lengths)
    found: list[NDArray[np.int64]] = []
    for start in range(0, len(order), size * TOGETHER):
        some = order[start : start + size * TOGETHER]
        some = some[np.argsort(of[some], kind="stable")]
        found += [some[place : place + size] for place in range(0, len(some), size)]
    return [found[place] for place in random.permutation(len(found))]


def as_tensors(batch: Sequence[Ids], device: torch.device, *, most: int | None = None) -> tuple[Tensor, Tensor]:
    """Return ids (n, t) and the mask (n, t) of a batch.

    Args:
        batch: Of n texts.
        device: Where they go.
        most: t is rounded up to one of few lengths, up to this one; None: it is that of the longest text.
    """
    tokens, mask = (widened(array, most=most or 0) for array in padded(batch))
    return torch.from_numpy(tokens).to(device), torch.from_numpy(mask).to(device)


def widened(array: NDArray[np.int64], *, most: int) -> NDArray[np.int64]:
    """Fill (n, t) up with zeros to a length that many batches share, but not beyond ``most``."""
    length = array.shape[1]
    more = min(-length % TOKENS_ALIKE, most - length)
    return np.pad(array, ((0, 0), (0, max(0, more))))
