"""Moving a collection to another space: all is encoded anew, and the old vectors serve until the last is there."""

import hashlib
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import groupby

import numpy as np

from trivium.encoders.base import MODALITIES, DecodeError, Modality, Prepared, Vectors
from trivium.encoders.files import read_file
from trivium.encoders.sandbox import DecodeSandbox
from trivium.indexes import checked_vectors
from trivium.pipeline.indexing import Indexer, IndexProgress
from trivium.pipeline.ingestion import BATCH_FILES, EMBED_ITEMS, MAX_FILE_BYTES, Progress, decode, example_queries
from trivium.pipeline.scanning import Problem
from trivium.pipeline.space_config import SpaceError
from trivium.pipeline.spaces import JointSpace
from trivium.pipeline.store import Store
from trivium.pipeline.writer import Writer, writing


@dataclass(slots=True)
class Migration:
    """What a migration did."""

    encoded: int = 0
    dropped: int = 0  # items that could not be encoded, and were given up
    problems: list[Problem] = field(default_factory=list)
    is_done: bool = False  # else the old space is still the one that is searched


def migrate(
    store: Store,
    space: JointSpace,
    *,
    drop_missing: bool = False,
    progress: Progress | None = None,
    index_progress: IndexProgress | None = None,
) -> Migration:
    """Encode everything in another space, then search that one.

    Nothing changes for searches before the last vector is there. A run that is stopped goes on where it was. Vectors
    are made from the files, which have to be as they were when they were indexed, and from the recorded captions.

    Args:
        store: The collection.
        space: Where to. If it is the one that is searched, a migration that was begun is given up.
        drop_missing: Forget the items whose files are gone, changed or damaged; else the migration waits for them.
        progress: Told after each batch.
        index_progress: Told while an index file is made.

    Raises:
        CollectionLockedError: If another process is writing.
        CollectionError: If the disk is full or fails.
        SpaceError: If the space has no encoder for a modality that the collection has; nothing is changed then.
        ValueError: If an encoder gives vectors that are not finite or of another width.
    """
    if store.space == space.space:
        with writing(store) as writer:  # which removes what a run has left that was killed after the switch
            if len(store.spaces()) > 1:
                writer.switch_space(store.space_id)
            Indexer(writer, examples=lambda: example_queries(space), progress=index_progress).finish()
        return Migration(is_done=True)
    with writing(store) as writer:
        _require_encoders(store, space)
        with DecodeSandbox() as sandbox:
            target = writer.add_space(space.space, source=space.source)
            done, given_up = _encode_missing(writer, target, space, sandbox, progress)
        if given_up and not drop_missing:
            return done
        done.dropped = len(given_up)
        writer.switch_space(target, without_items=given_up)
        done.is_done = True
        Indexer(writer, examples=lambda: example_queries(space), progress=index_progress).finish()
    return done


def _require_encoders(store: Store, space: JointSpace) -> None:
    """Refuse a space that lacks an encoder before hours are spent on the others."""
    rows = store.db.execute(
        "SELECT c.modality, i.modality, e.role, count(*) FROM embedding e JOIN content c ON c.id = e.content "
        "JOIN item i ON i.id = e.item GROUP BY 1, 2, 3"
    ).fetchall()
    lacking = [
        f"{count:,} {what} {'files' if role == 'content' else 'captions'}"
        for modality, what, role, count in rows
        if modality not in space.modalities
    ]
    if lacking:
        raise SpaceError(
            f"space {space.space} has encoders for {', '.join(space.modalities)} only, the collection has "
            f"{' and '.join(lacking)}: remove these items first (captions go with `trivium index --no-captions`), or "
            "choose another space"
        )


def _encode_missing(
    writer: Writer, target: int, space: JointSpace, sandbox: DecodeSandbox, progress: Progress | None
) -> tuple[Migration, set[int]]:
    """Encode what has no vector in the new space; return also the items for which that cannot be done."""
    store = writer.store
    done, given_up = Migration(), set[int]()
    with ThreadPoolExecutor(max_workers=os.cpu_count() or 1, thread_name_prefix="decode") as workers:
        for modality in MODALITIES:
            total, seen = _count_missing(store, target, modality), 0
            for batch in _missing(store, target, modality):
                ready = workers.map(lambda needed: _prepared(needed, space, sandbox), batch)
                prepared: dict[int, Prepared] = {}
                for needed, (item, problems) in zip(batch, ready, strict=True):
                    if item is None:
                        done.problems += problems
                        given_up |= {place.item for place in needed.places}
                    else:
                        prepared[needed.content] = item
                if prepared:
                    vectors = _embed(space, modality, list(prepared.values()))
                    writer.commit_vectors(target, modality, list(prepared), vectors)
                    done.encoded += len(prepared)
                seen += len(batch)
                if progress is not None:
                    progress(modality, seen, total)
    return done, given_up


def _embed(space: JointSpace, modality: Modality, prepared: Sequence[Prepared]) -> Vectors:
    encoder = space.encoder(modality)
    batches = [encoder.embed(prepared[at : at + EMBED_ITEMS]) for at in range(0, len(prepared), EMBED_ITEMS)]
    return checked_vectors(np.concatenate(batches), dim=space.space.dim, name=f"the {modality} encoder's vectors")


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a content's bytes are to be had."""

    item: int
    path: str
    caption: str | None  # the content itself, if it is one


@dataclass(frozen=True, slots=True)
class _Missing:
    """A content without a vector in the new space."""

    content: int
    modality: Modality
    sha256: bytes
    places: Sequence[_Place]


# Of contents that an item has.
_IS_MISSING = (
    "c.modality = ?1 AND EXISTS (SELECT 1 FROM embedding e WHERE e.content = c.id) AND NOT EXISTS "
    "(SELECT 1 FROM vector v WHERE v.space = ?2 AND v.modality = ?1 AND v.content = c.id)"
)


def _count_missing(store: Store, space: int, modality: Modality) -> int:
    (count,) = store.db.execute(f"SELECT count(*) FROM content c WHERE {_IS_MISSING}", (modality, space)).fetchone()
    return int(count)


def _missing(store: Store, space: int, modality: Modality) -> Iterator[list[_Missing]]:
    """Yield batches by rising content; the caller adds their vectors meanwhile."""
    last = 0
    while True:
        rows = store.db.execute(
            "SELECT c.id, c.sha256, i.id, i.path, CASE e.role WHEN 'caption' THEN i.caption END "
            f"FROM (SELECT c.id, c.sha256 FROM content c WHERE {_IS_MISSING} AND c.id > ?3 ORDER BY c.id LIMIT ?4) c "
            "JOIN embedding e ON e.content = c.id JOIN item i ON i.id = e.item ORDER BY c.id",
            (modality, space, last, BATCH_FILES[modality]),
        ).fetchall()
        if not rows:
            return
        last = rows[-1][0]
        batch = []
        for (content, sha256), places in groupby(rows, key=lambda row: (row[0], row[1])):
            found = [_Place(item, os.fsdecode(path), caption) for _, _, item, path, caption in places]
            batch.append(_Missing(content, modality, sha256, found))
        yield batch


def _prepared(needed: _Missing, space: JointSpace, sandbox: DecodeSandbox) -> tuple[Prepared | None, list[Problem]]:
    """Prepare a content from the first place that still has it; None, and why, if none has."""
    problems: list[Problem] = []
    for place in needed.places:
        try:
            if place.caption is not None:
                return space.encoder("text").prepare(place.caption), []
            data = read_file(place.path, max_bytes=MAX_FILE_BYTES[needed.modality])
            if hashlib.sha256(data).digest() != needed.sha256:
                raise DecodeError("the file has changed since it was indexed: index it again first")
            return space.encoder(needed.modality).prepare(decode(sandbox, needed.modality, data)), []
        except DecodeError as error:
            problems.append(Problem(path=place.path, reason=error.reason))
        except MemoryError:
            problems.append(Problem(path=place.path, reason="too large for this machine's memory"))
    return None, problems
