"""Compaction: few large shards instead of many small ones, and removed vectors really gone from the disk."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from trivium.encoders.base import MODALITIES, Modality
from trivium.indexes import Ids
from trivium.pipeline.durable import WrittenFile
from trivium.pipeline.indexing import Indexer
from trivium.pipeline.shards import Locations
from trivium.pipeline.store import Store
from trivium.pipeline.writer import Writer, writing

SHARD_BYTES = 64 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Compaction:
    """What a compaction did."""

    vectors_removed: int
    shards_before: int
    shards_after: int
    bytes_before: int
    bytes_after: int


def compact(store: Store, *, progress: Callable[[int, int], None] | None = None) -> Compaction:
    """Delete the vectors that no item has any more, and merge small shards; searches go on meanwhile.

    Shards without anything to delete and of a good size stay as they are. Everything changes in one transaction; a
    crash before it leaves the collection as it was.

    Args:
        store: The collection.
        progress: Called as ``progress(vectors_moved, vectors_to_move)``.

    Raises:
        CollectionLockedError: If another process is writing.
        CollectionError: If a shard is damaged, or the disk is full or fails.
    """
    with writing(store) as writer:
        orphans = store.orphans()
        shards, size = len(store.shards()), _size_bytes(store)
        _rewrite(store, writer, orphans, progress)
        # Pages that were freed are zeros already (secure_delete); this gives them back to the disk.
        store.db.execute("VACUUM")
        Indexer(writer).finish()
        return Compaction(
            vectors_removed=len(orphans),
            shards_before=shards,
            shards_after=len(store.shards()),
            bytes_before=size,
            bytes_after=_size_bytes(store),
        )


@dataclass(frozen=True, slots=True)
class _NewShard:
    space: int
    modality: Modality
    contents: Ids
    name: str
    file: WrittenFile


def _rewrite(store: Store, writer: Writer, orphans: Ids, progress: Callable[[int, int], None] | None) -> None:
    groups: list[tuple[int, Modality, Locations]] = [
        (space, modality, _to_move(store, space, modality, orphans))
        for space in store.spaces()
        for modality in MODALITIES
    ]
    total = sum(len(locations) for _, _, locations in groups)
    written: list[_NewShard] = []
    moved = 0
    for space, modality, locations in groups:
        for part in _parts(locations, rows=max(1, SHARD_BYTES // (2 * store.spaces()[space].dim))):
            contents, vectors = store.source(part, dim=store.spaces()[space].dim).all()
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
    indexer = Indexer(writer)
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


def _to_move(store: Store, space: int, modality: Modality, orphans: Ids) -> Locations:
    """Where the vectors lie that have to be written anew: what is left of shards with dead rows, and small shards."""
    locations = store.locations(modality, space=space)
    dim = store.spaces()[space].dim
    alive = ~np.isin(locations.contents, orphans)
    numbers, counts = np.unique(locations.shards[alive], return_counts=True)
    live_rows = dict(zip(numbers.tolist(), counts.tolist(), strict=True))
    shards = {number: store.shards()[number] for number in np.unique(locations.shards).tolist()}
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


def _size_bytes(store: Store) -> int:
    return sum(path.stat().st_size for path in store.folder.rglob("*") if path.is_file())
