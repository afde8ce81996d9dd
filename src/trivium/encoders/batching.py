"""Encoding in batches: order kept, memory bounded by one batch."""

from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any

import numpy as np

from trivium.encoders.base import Encoder, Vectors


def encode(
    encoder: Encoder,
    items: Iterable[Any],
    *,
    batch_size: int = 32,
    progress: Callable[[int], None] | None = None,
) -> Vectors:
    """Encode all items, batch by batch, in their order.

    Args:
        encoder: Any encoder.
        items: What ``encoder.prepare`` takes.
        batch_size: Items per forward pass, at least 1.
        progress: Called with the number of items done after each batch.

    Returns:
        Unit vectors, shape (n, d).

    Raises:
        ValueError: If ``batch_size`` is below 1.
        DecodeError: If an item cannot be decoded; the caller who wants to go on prepares items itself.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    prepared = map(encoder.prepare, items)
    batches: list[Vectors] = [np.empty((0, encoder.space.dim), np.float32)]
    done = 0
    while batch := list(islice(prepared, batch_size)):
        batches.append(encoder.embed(batch))
        done += len(batch)
        if progress is not None:
            progress(done)
    return np.concatenate(batches)
