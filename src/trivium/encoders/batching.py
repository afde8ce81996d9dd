"""Encoding many items of one modality in batches: order kept, memory bounded by a few batches."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, nullcontext
from itertools import islice
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from trivium.encoders import engine
from trivium.encoders.base import DecodeError, Encoder, Modality, Prepared, Preparing, Vector, Vectors
from trivium.encoders.engine import Stats
from trivium.encoders.machine import usable_cores
from trivium.encoders.networks.contract import DeviceKind
from trivium.encoders.several import OneItem, is_one, listed

if TYPE_CHECKING:
    from trivium.encoders.sandbox.pool import DecodeSandbox, OnTags

# A GPU takes hundreds of pictures in a pass; loaded and whole, as it may resize them itself, such a batch takes 1 GB.
BATCH_ITEMS: Mapping[DeviceKind, Mapping[Modality, int]] = {
    "cpu": {"text": 1024, "image": 64, "audio": 32},
    "gpu": {"text": 8192, "image": 256, "audio": 128},
}
TOGETHER = 256  # texts that are tokenized in one call
OnError = Callable[[int, DecodeError], None]


@overload
def encode(
    encoder: Encoder | Sequence[Encoder],
    items: OneItem,
    *,
    batch_size: int | None = None,
    progress: Callable[[int], None] | None = None,
    stats: Stats | None = None,
    on_error: None = None,
) -> Vector: ...
@overload
def encode(
    encoder: Encoder | Sequence[Encoder],
    items: Iterable[Any],
    *,
    batch_size: int | None = None,
    progress: Callable[[int], None] | None = None,
    stats: Stats | None = None,
    on_error: OnError | None = None,
) -> Vectors: ...
def encode(
    encoder: Encoder | Sequence[Encoder],
    items: Any,
    *,
    batch_size: int | None = None,
    progress: Callable[[int], None] | None = None,
    stats: Stats | None = None,
    on_error: OnError | None = None,
) -> Vectors:
    """Encode all items, batch by batch, in their order.

    Files and bytes of pictures and sounds are decoded in processes of their own (`sandbox`), as in indexing, unless
    the encoder takes them as they are.

    Args:
        encoder: Any encoder; or several of the same, which share the work: on different devices, or the very same
            one that several threads may call at once.
        items: What ``encoder.prepare`` takes, one (see `several.is_one`) or several.
        batch_size: Items that are loaded and encoded together, at least 1; how many go through the network at a time
            is the encoder's own choice.
        progress: Called with the number of items done after each batch.
        stats: Where the stages count what they do.
        on_error: Called with the position of each item that cannot be decoded and the reason; it has no row then.

    Returns:
        Unit vectors, shape (n, d), without those of items that failed; of one item its vector, shape (d,).

    Raises:
        TypeError: If ``items`` is None or a mapping.
        ValueError: If ``batch_size`` is below 1, or there is an ``on_error`` for one item, which has to have a vector.
        DecodeError: If an item cannot be decoded, and there is no ``on_error``.
    """
    from trivium.encoders.sandbox.pool import (
        DecodeSandbox,  # brings the decoders, which importing this package should not
    )

    if items is None or isinstance(items, Mapping) or is_one(items):
        if on_error is not None:
            raise ValueError("on_error is for several items; one that cannot be decoded raises DecodeError")
        one = listed(items, "items")
        vector: Vector = encode(encoder, one, batch_size=batch_size, progress=progress, stats=stats)[0]
        return vector
    encoders = [encoder] if isinstance(encoder, Encoder) else list(encoder)
    first = encoders[0]
    size = BATCH_ITEMS["cpu"][first.modality] if batch_size is None else batch_size
    if size < 1:
        raise ValueError(f"batch_size must be at least 1, got {size}")
    stats = stats or Stats()
    together = min(TOGETHER, size) if first.modality == "text" else 1
    vectors: list[Vectors] = [np.empty((0, first.space.dim), np.float32)]
    done = 0
    with nullcontext() if first.modality == "text" else DecodeSandbox() as sandbox:
        batches = engine.run(
            _groups(items, together),
            load=_loading(first, sandbox, stats, keep_errors=on_error is not None),
            encode=[_encoding(encoder) for encoder in encoders],
            batch_items=-(-size // together),
            loaders=usable_cores(),
            on_stop=(lambda: None) if sandbox is None else sandbox.close,
            stats=stats,
        )
        with closing(batches):
            for loaded, rows in batches:
                vectors.append(rows)
                for item in (item for group in loaded for item in group):
                    if isinstance(item, DecodeError) and on_error is not None:
                        on_error(done, item)
                    done += 1
                if progress is not None:
                    progress(done)
    return np.concatenate(vectors)


def prepared(
    encoder: Preparing,
    item: Any,
    sandbox: "DecodeSandbox | None",
    *,
    partial: bool = False,
    note: Callable[[str], None] = lambda _: None,
) -> Prepared:
    """Prepare an item; a file is decoded in the sandbox, if there is one.

    Args:
        encoder: Of the item's modality.
        item: What ``encoder.prepare`` takes.
        sandbox: Where files are decoded; None: not here.
        partial: Take what is there of a file that is cut off, which the sandbox alone does.
        note: Told what of it is not there.

    Raises:
        DecodeError: If it cannot be read or decoded.
    """
    return encoder.prepare(decoded(encoder, item, sandbox, partial=partial, note=note))


def decoded(
    encoder: Preparing,
    item: Any,
    sandbox: "DecodeSandbox | None",
    *,
    on_device: bool = False,
    partial: bool = False,
    note: Callable[[str], None] = lambda _: None,
) -> Any:
    """Return what is left of an item to prepare: of a file what the sandbox decodes, of others and texts all.

    Args:
        encoder: Of the item's modality.
        item: What ``encoder.prepare`` takes.
        sandbox: Where files are decoded; None: not here.
        on_device: A file that ``encoder.takes_file`` is left as it is, for ``encoder.prepare_file``.
        partial: As of `prepared`.
        note: As of `prepared`.

    Raises:
        DecodeError: If it cannot be read or decoded.
    """
    if sandbox is None or encoder.modality == "text" or not isinstance(item, bytes | str | os.PathLike):
        return item
    from trivium.encoders.sandbox.heads import decodable  # texts need none of it

    with decodable(encoder.modality, item) as source:
        return decoded_source(encoder, source, sandbox, on_device=on_device, partial=partial, note=note)


def decoded_source(
    encoder: Preparing,
    source: bytes | int,
    sandbox: "DecodeSandbox",
    *,
    on_device: bool,
    partial: bool,
    note: Callable[[str], None],
    on_tags: "OnTags | None" = None,
) -> Any:
    """Do what `decoded` does of a file's bytes, or the descriptor of one that is open; tags only where it decodes."""
    if on_device and isinstance(source, bytes) and encoder.takes_file(source):
        return source
    return sandbox.decode(encoder.modality, source, side=encoder.side, partial=partial, note=note, on_tags=on_tags)


def _loading(
    encoder: Encoder, sandbox: "DecodeSandbox | None", stats: Stats, *, keep_errors: bool
) -> Callable[[Sequence[Any]], list[Prepared | DecodeError]]:
    workers = usable_cores()
    decoding, preparing = (stats.stage(name, workers=workers) for name in ("decode", "prepare"))

    def load(group: Sequence[Any]) -> list[Prepared | DecodeError]:
        try:
            return [*prepare(group)]
        except DecodeError as error:
            if not keep_errors:
                raise
            # Of texts, which are prepared together, one by one tells which it was.
            return [error] if len(group) == 1 else [item for one in group for item in load([one])]

    def prepare(group: Sequence[Any]) -> list[Prepared]:
        if sandbox is not None:
            with decoding.working(len(group)):
                group = [decoded(encoder, item, sandbox, on_device=True) for item in group]
            with preparing.working(len(group)):
                return [encoder.prepare_file(item) for item in group]
        with preparing.working(len(group)):
            return encoder.prepare_all(group)

    return load


def _encoding(encoder: Encoder) -> Callable[[list[list[Prepared | DecodeError]]], Vectors]:
    def encode_groups(groups: list[list[Prepared | DecodeError]]) -> Vectors:
        prepared = [item for group in groups for item in group if not isinstance(item, DecodeError)]
        return encoder.embed(prepared) if prepared else np.empty((0, encoder.space.dim), np.float32)

    return encode_groups


def _groups(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    remaining = iter(items)
    while group := list(islice(remaining, size)):
        yield group
