"""What a user asks for: texts, pictures, sounds and videos with weights, combined into one vector."""

import contextlib
import logging
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from trivium.encoders.base import MODALITIES, DecodeError, Encoder, Modality, Prepared, Vectors, unit_rows
from trivium.encoders.batching import prepared
from trivium.encoders.several import is_one, listed
from trivium.fusion.combination import weighted_sum
from trivium.pipeline.escaping import printable
from trivium.pipeline.records import ItemKind
from trivium.pipeline.space.joint import JointSpace
from trivium.pipeline.suffixes import SUFFIXES, missing_extra, suffix_of, why_not

if TYPE_CHECKING:
    from trivium.encoders.sandbox.pool import DecodeSandbox

log = logging.getLogger(__name__)
BATCH_PARTS = 32  # encoded in one pass
# "2:beach", "-0.5:crowd", "-crowd"; a text that itself begins so is written with a weight: "1:10:30 train".
WEIGHTED = re.compile(r"(?P<weight>[+-]?(?:\d+(?:\.\d*)?|\.\d+)):(?P<rest>.*)", re.DOTALL)

KIND_WORDS: Mapping[ItemKind, str] = {"text": "text", "image": "picture", "audio": "sound", "video": "video"}


# An item as the space's encoder takes it, or a pair (weight, item), or a list of either.
Items: TypeAlias = Any


class QueryError(ValueError):
    """A query that cannot be answered as it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryPart:
    """One text, picture, sound or video of a query; a negative weight means "less of this"."""

    modality: ItemKind
    item: Any  # what the space's encoder takes
    weight: float = 1.0

    @property
    def is_file(self) -> bool:
        """Whether it has to be decoded, by libraries that a bad file may crash."""
        return self.modality != "text" and isinstance(self.item, str | bytes | os.PathLike)


def query_parts(
    *, text: Items = None, image: Items = None, audio: Items = None, video: Items = None
) -> list[QueryPart]:
    """Return the parts of a query whose items are given by modality.

    Raises:
        QueryError: If one is nothing that can be asked with.
    """
    given: dict[ItemKind, Items] = {"text": text, "image": image, "audio": audio, "video": video}
    return [
        _part(modality, entry)
        for modality, items in given.items()
        if items is not None
        for entry in (items if isinstance(items, list) else [items])
    ]


def _part(modality: ItemKind, entry: Any) -> QueryPart:
    weight, item = entry if _is_weighted(entry) else (1.0, entry)
    if not (isinstance(item, str) if modality == "text" else is_one(item)) or item is None:
        what = "a text" if modality == "text" else "a path, bytes or decoded"
        raise QueryError(
            f"{modality} must be {what}, a pair (weight, {modality}), or a list of these; got "
            f"{type(item).__name__}: {item!r:.80}"
        )
    if isinstance(item, os.PathLike | str | bytes) and not os.fspath(item):
        raise QueryError(f"an empty query: {item!r} names no {modality}")
    return QueryPart(modality=modality, weight=float(weight), item=item)


def _is_weighted(entry: Any) -> bool:
    """Whether it is a pair (weight, item), and no sound (waveform, rate)."""
    return isinstance(entry, tuple) and len(entry) == 2 and isinstance(entry[0], int | float)


def parts_of_many(
    *, text: Items | None, image: Items | None, audio: Items | None, video: Items | None = None
) -> list[list[QueryPart]]:
    """Return the parts of many queries, whose items are given by modality: those at one place are one query.

    Raises:
        QueryError: If the numbers of items differ, or one is nothing that can be asked with.
        TypeError: If a mapping is given for several.
    """
    given = {"text": text, "image": image, "audio": audio, "video": video}
    columns = {
        modality: [items] if _is_weighted(items) else listed(items, modality)
        for modality, items in given.items()
        if items is not None
    }
    if len({len(items) for items in columns.values()}) > 1:
        counts = ", ".join(f"{len(items)} of {modality}" for modality, items in columns.items())
        raise QueryError(f"as many entries of each modality are needed, None where a query has none: got {counts}")
    return [query_parts(**dict(zip(columns, items, strict=True))) for items in zip(*columns.values(), strict=True)]


def checked_parts(queries: Iterable[Sequence[QueryPart]]) -> list[list[QueryPart]]:
    """Return queries as lists of their parts.

    Raises:
        TypeError: If they are anything else.
    """
    found = listed(queries, "queries")
    if any(isinstance(query, QueryPart | str) or not isinstance(query, Iterable) for query in found):
        raise TypeError("queries must be a list of queries, each a list of its parts: write [[part, ...], ...]")
    lists = [list(query) for query in found]
    if not all(isinstance(part, QueryPart) for query in lists for part in query):
        raise TypeError("queries must be lists of QueryPart: `search_many` takes texts, pictures and sounds")
    return lists


def unit_queries(vectors: Vectors, *, dim: int) -> Vectors:
    """Check vectors that somebody searches with, and make their length 1.

    Raises:
        QueryError: If they are not of shape (n, dim), or one is zero or has NaN.
    """
    given = np.asarray(vectors, np.float32)
    if given.ndim != 2 or given.shape[1] != dim:
        raise QueryError(f"vectors must have shape (n, {dim}), got {given.shape}")
    lengths = np.linalg.norm(given, axis=1)
    has_none = ~(np.isfinite(lengths) & (lengths > 0))
    if has_none.any():
        place = int(np.flatnonzero(has_none)[0])
        raise QueryError(f"vector {place} has no direction: it is zero, or has NaN or infinity")
    return unit_rows(given)


def parse_part(modality: ItemKind, written: str) -> QueryPart:
    """Read ``item``, ``-item`` or ``weight:item``.

    Raises:
        QueryError: If nothing is left beside the weight.
    """
    if not isinstance(written, str):  # what argparse makes of "--"
        raise QueryError(f"'--' is no {modality} to look for")
    weight, item = 1.0, written
    if match := WEIGHTED.fullmatch(written):
        weight, item = float(match["weight"]), match["rest"]
    elif written.startswith("-"):
        weight, item = -1.0, written[1:]
    if not item.strip():
        raise QueryError(f"an empty query: '{written}' names no {modality}")
    return QueryPart(modality=modality, item=item.strip() if modality == "text" else item, weight=weight)


def asked_with(parts: Sequence[QueryPart]) -> Modality:
    """Return the modality of a query; of one with several parts that of the heaviest: its vector is nearest to it."""
    heaviest = max(parts, key=lambda part: part.weight).modality
    return "image" if heaviest == "video" else heaviest  # its pictures' mean


def query_vectors(
    space: JointSpace, queries: Sequence[Sequence[QueryPart]], *, sandbox: "DecodeSandbox | None" = None
) -> Vectors:
    """Encode queries, many at a time, and combine the parts of each to one unit vector: shape (q, d).

    Args:
        space: Of the collection.
        queries: The parts of each.
        sandbox: Where files are decoded; in this process if None.

    Raises:
        QueryError: If a query has no part, a part cannot be decoded, or the parts of a query cancel out.
    """
    if not all(queries):
        raise QueryError("an empty query: give a text, a picture, a sound or a video")
    parts = [part for query in queries for part in query]
    vectors = np.empty((len(parts), space.space.dim), np.float32)
    for place, part in enumerate(parts):
        if part.modality == "video":
            vectors[place] = _video_vector(space, part, sandbox)
    for modality in MODALITIES:
        places = [place for place, part in enumerate(parts) if part.modality == modality]
        for start in range(0, len(places), BATCH_PARTS):
            batch = places[start : start + BATCH_PARTS]
            encoder = space.encoder(modality)
            vectors[batch] = encoder.embed([_prepared(encoder, parts[place], sandbox) for place in batch])
    combined, start = [], 0
    for query in queries:
        try:
            combined.append(weighted_sum(vectors[start : start + len(query)], [part.weight for part in query]))
        except ValueError as error:
            raise QueryError(str(error)) from error
        start += len(query)
    return np.stack(combined) if combined else vectors


def _video_vector(space: JointSpace, part: QueryPart, sandbox: "DecodeSandbox | None") -> Vectors:
    """Return what indexing makes of a video as a whole: the mean of its pictures' vectors, of length 1."""
    from trivium.encoders.sandbox.heads import decodable
    from trivium.encoders.sandbox.pool import DecodeSandbox
    from trivium.encoders.sandbox.streams import SoundStream

    if not part.is_file:
        raise QueryError(f"a video to look for is a path, or a file's bytes, got {type(part.item).__name__}")
    encoder = space.encoder("image")
    own = DecodeSandbox(1) if sandbox is None else contextlib.nullcontext(sandbox)
    try:
        with own as decoder, decodable("video", part.item) as source:
            video = decoder.video(source, encoder.prepare, side=encoder.side)
            if isinstance(video.sound, SoundStream):
                video.sound.close()
    except DecodeError as error:
        raise _unusable(part, error) from error
    rows = encoder.embed([prepared for _, prepared in video.frames])
    mean: Vectors = unit_rows(np.mean(rows, axis=0, keepdims=True))[0]
    return mean


def _unusable(part: QueryPart, error: DecodeError) -> QueryError:
    shown = f"{len(part.item):,} bytes" if isinstance(part.item, bytes) else repr(part.item)
    return QueryError(f"the {part.modality} of the query cannot be used ({shown}): {_reason_by_name(part) or error}")


def _prepared(encoder: Encoder, part: QueryPart, sandbox: "DecodeSandbox | None") -> Prepared:
    def note(text: str) -> None:
        log.warning("note on the %s of the query: %s", printable(part.modality), printable(text))

    try:
        return prepared(encoder, part.item, sandbox, partial=True, note=note)
    except DecodeError as error:
        raise _unusable(part, error) from error


def _reason_by_name(part: QueryPart) -> str | None:
    """Say why a file cannot be used, as far as its name tells: an extra is missing, or it is of another kind."""
    if not isinstance(part.item, str | os.PathLike) or part.modality == "text":
        return None
    suffix = suffix_of(os.fspath(part.item))
    if missing_extra(suffix) is not None:
        return why_not(suffix)
    kind = SUFFIXES.get(suffix, part.modality)
    return (
        None
        if kind == part.modality
        else f"it is no {KIND_WORDS[part.modality]}, but by its name a {KIND_WORDS[kind]} ({suffix})"
    )
