"""Compaction: few large shards instead of many small ones, and removed vectors really gone from the disk."""

import contextlib
import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from trivium.encoders.base import MODALITIES, Modality
from trivium.encoders.files.writing import WrittenFile
from trivium.indexes import Ids
from trivium.pipeline.progress import Progress
from trivium.pipeline.search.indexing import Examples, Indexer
from trivium.pipeline.store.database import BUSY_SECONDS, CollectionError
from trivium.pipeline.store.database_file import DATABASE, size_bytes
from trivium.pipeline.store.shards import Locations, Shard, check_shard
from trivium.pipeline.store.store import Store
from trivium.pipeline.store.thumbnails import drop_thumbnails
from trivium.pipeline.store.writer import Writer, writing

SHARD_BYTES = 64 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Compaction:
    """What a compaction did."""

    vectors_removed: int
    shards_before: int
    shards_after: int
    bytes_before: int
    bytes_after: int
    thumbnails_removed: int = 0


def compact(store: Store, *, examples: Examples | None = None, progress: Progress | None = None) -> Compaction:
    """Delete the vectors that no item has any more, and merge small shards; searches go on meanwhile.

    Shards without anything to delete and of a good size stay as they are. Everything changes in one transaction; a
    crash before it leaves the collection as it was. Then the database is written anew, without what was deleted.

    Args:
        store: The collection.
        examples: Gives queries of modalities that the collection has few vectors of, to measure a new index with.
        progress: Called as ``progress(vectors_moved, vectors_to_move)``.

    Raises:
        CollectionLockedError: If another process is writing.
        CollectionError: If a shard is damaged, or the disk is full or fails.
    """
    with writing(store) as writer:
        orphans = store.orphans()
        shards, size = len(store.shards()), size_bytes(store.folder)
        indexer = Indexer(writer, examples=examples)
        try:
            _rewrite(store, writer, indexer, orphans, progress)
        except BaseException:
            with contextlib.suppress(OSError, sqlite3.Error):
                writer.remove_unnamed_files()  # of use to nobody, and perhaps what fills the disk
            raise
        indexer.finish()
        thumbnails = drop_thumbnails(store.folder, store.has_sha256)
        _vacuum(store)
        return Compaction(
            vectors_removed=len(orphans),
            shards_before=shards,
            shards_after=len(store.shards()),
            bytes_before=size,
            bytes_after=size_bytes(store.folder),
            thumbnails_removed=thumbnails,
        )


@dataclass(frozen=True, slots=True)
class _NewShard:
    space: int
    modality: Modality
    contents: Ids
    name: str
    file: WrittenFile


def _vacuum(store: Store) -> None:
    """Write the database anew, and give free pages back to the disk.

    Always, also if nothing was deleted today: SQLite overwrites what is deleted (secure_delete), but copies of it that
    were left where pages were balanced stay until a VACUUM (seen: one of 746 removed paths).
    """
    try:
        store.db.execute("VACUUM")
    except sqlite3.OperationalError as error:
        size = (store.folder / DATABASE).stat().st_size
        raise CollectionError(
            f"{store.folder} is compacted, but for its database, which cannot be written anew ({error}): it may still "
            f"hold traces of what was removed. That takes {size:,} bytes in the folder for temporary files (the "
            f"variable SQLITE_TMPDIR names another), as many here, and no search that lasts {BUSY_SECONDS} s; compact "
            "again"
        ) from error


def _rewrite(
    store: Store,
    writer: Writer,
    indexer: Indexer,
    orphans: Ids,
    progress: Progress | None,
) -> None:
    spaces, shards = store.spaces(), store.shards()
    groups: list[tuple[int, Modality, Locations]] = [
        (space, modality, _to_move(store.locations(modality, space=space), shards, spaces[space].dim, orphans))
        for space in spaces
        for modality in MODALITIES
    ]
    for _, _, locations in groups:
        for number in np.unique(locations.shards).tolist():
            check_shard(store.folder, shards[number])  # else damage would get a hash that fits
    total = sum(len(locations) for _, _, locations in groups)
    written: list[_NewShard] = []
    moved = 0
    for space, modality, locations in groups:
        for part in _parts(locations, rows=max(1, SHARD_BYTES // (2 * spaces[space].dim))):
            contents, vectors = store.source(part, dim=spaces[space].dim).all()
            name, file = writer.write_shard(vectors, number=writer.next_shard() + len(written))
            written.append(_NewShard(space, modality, contents, name, file))
            moved += len(contents)
            if progress is not None:
                progress(moved, total)
    # An index file holds the vectors too: its successor is there before it goes.
    counts = store.vector_counts()
    files: list[Modality] = [
        modality
        for modality, file in store.index_files().items()
        if _count_of(store, modality, orphans[orphans <= file.through])
    ]
    successors = [
        indexer.prepared_without(modality, orphans)
        for modality in files
        if indexer.wants_file(counts[modality] - _count_of(store, modality, orphans))
    ]
    if not written and not len(orphans):
        return
    with writer.transaction():
        for shard in written:
            id_ = writer.insert_shard(shard.name, len(shard.contents), shard.file)
            writer.move_vectors(shard.space, shard.modality, shard.contents, id_)
        writer.delete_orphans()
        writer.drop_empty_shards()
        writer.drop_index_files(files)
        for successor in successors:
            writer.name_index_file(successor)
    writer.remove_unnamed_files()


def _to_move(locations: Locations, all_shards: Mapping[int, Shard], dim: int, orphans: Ids) -> Locations:
    """Where the vectors lie that have to be written anew: what is left of shards with dead rows, and small shards."""
    alive = ~np.isin(locations.contents, orphans)
    numbers, counts = np.unique(locations.shards[alive], return_counts=True)
    live_rows = dict(zip(numbers.tolist(), counts.tolist(), strict=True))
    shards = {number: all_shards[number] for number in np.unique(locations.shards).tolist()}
    with_dead = {number for number, shard in shards.items() if live_rows.get(number, 0) < shard.rows}
    small = {number for number, shard in shards.items() if shard.rows * dim * 2 < SHARD_BYTES // 2}
    moving = with_dead | small
    if len(moving) == 1 and not with_dead:
        moving = set()
    return locations.take(np.flatnonzero(alive & np.isin(locations.shards, list(moving))))


def _parts(locations: Locations, *, rows: int) -> Iterator[Locations]:
    for start in range(0, len(locations), rows):
        yield locations.take(slice(start, start + rows))


def _count_of(store: Store, modality: Modality, contents: Ids) -> int:
    return len(store.locations_of(modality, contents))
