"""Moving a collection to another space: all is encoded anew, and the old vectors serve until the last is there."""

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby

from trivium.encoders.base import MODALITIES, DecodeError, Modality, Prepared
from trivium.encoders.files import read_file
from trivium.encoders.sandbox import DecodeSandbox
from trivium.pipeline.indexing import Indexer
from trivium.pipeline.ingestion import BATCH_FILES, MAX_FILE_BYTES, Progress, decode
from trivium.pipeline.scanning import Problem
from trivium.pipeline.spaces import JointSpace
from trivium.pipeline.store import Store
from trivium.pipeline.writer import writing


@dataclass(slots=True)
class Migration:
    """What a migration did."""

    encoded: int = 0
    dropped: int = 0  # items that could not be encoded, and were given up
    problems: list[Problem] = field(default_factory=list)
    is_done: bool = False  # else the old space is still the one that is searched


def migrate(
    store: Store, space: JointSpace, *, drop_missing: bool = False, progress: Progress | None = None
) -> Migration:
    """Encode everything in another space, then search that one.

    Nothing changes for searches before the last vector is there. A run that is stopped goes on where it was. Vectors
    are made from the files, which have to be as they were when they were indexed, and from the recorded captions.

    Args:
        store: The collection.
        space: Where to.
        drop_missing: Forget the items whose files are gone, changed or damaged; else the migration waits for them.
        progress: Told after each batch.

    Raises:
        CollectionLockedError: If another process is writing.
        CollectionError: If the disk is full or fails.
        SpaceError: If the space has no encoder for a modality that the collection has.
    """
    done = Migration()
    if store.space == space.space:
        done.is_done = True
        return done
    with writing(store) as writer, DecodeSandbox() as sandbox:
        target = writer.add_space(space.space, source=space.source)
        given_up: set[int] = set()
        for modality in MODALITIES:
            missing = list(_missing(store, target, modality))
            for start in range(0, len(missing), BATCH_FILES[modality]):
                prepared: dict[int, Prepared] = {}
                for needed in missing[start : start + BATCH_FILES[modality]]:
                    item = _prepared(needed, space, sandbox, done.problems)
                    if item is None:
                        given_up |= {place.item for place in needed.places}
                    else:
                        prepared[needed.content] = item
                if prepared:
                    vectors = space.encoder(modality).embed(list(prepared.values()))
                    writer.commit_vectors(target, modality, list(prepared), vectors)
                    done.encoded += len(prepared)
                if progress is not None:
                    progress(modality, min(start + BATCH_FILES[modality], len(missing)), len(missing))
        if given_up and not drop_missing:
            return done
        done.dropped = len(given_up)
        writer.switch_space(target, without_items=given_up)
        done.is_done = True
        Indexer(writer).finish()
    return done


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


def _missing(store: Store, space: int, modality: Modality) -> Iterator[_Missing]:
    rows = store.db.execute(
        "SELECT c.id, c.sha256, i.id, i.path, CASE e.role WHEN 'caption' THEN i.caption END "
        "FROM content c JOIN embedding e ON e.content = c.id JOIN item i ON i.id = e.item "
        "WHERE c.modality = ?1 AND NOT EXISTS "
        "(SELECT 1 FROM vector v WHERE v.space = ?2 AND v.modality = ?1 AND v.content = c.id) ORDER BY c.id",
        (modality, space),
    ).fetchall()
    for (content, sha256), places in groupby(rows, key=lambda row: (row[0], row[1])):
        found = [_Place(item, os.fsdecode(path), caption) for _, _, item, path, caption in places]
        yield _Missing(content, modality, sha256, found)


def _prepared(needed: _Missing, space: JointSpace, sandbox: DecodeSandbox, problems: list[Problem]) -> Prepared | None:
    """Prepare a content from the first place that still has it; None, and one more problem, if none has."""
    reasons: list[Problem] = []
    for place in needed.places:
        try:
            if place.caption is not None:
                return space.encoder("text").prepare(place.caption)
            data = read_file(place.path, max_bytes=MAX_FILE_BYTES[needed.modality])
            if hashlib.sha256(data).digest() != needed.sha256:
                raise DecodeError("the file has changed since it was indexed: index it again first")
            return space.encoder(needed.modality).prepare(decode(sandbox, needed.modality, data))
        except DecodeError as error:
            reasons.append(Problem(path=place.path, reason=error.reason))
    problems += reasons
    return None
