"""Moving a collection to another space: all is encoded anew, and the old vectors serve until the last is there."""

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from trivium.encoders.base import MODALITIES, DecodeError, Vectors
from trivium.encoders.engine import Stats
from trivium.encoders.sandbox.pool import DecodeSandbox
from trivium.indexes import checked_vectors
from trivium.pipeline.ingest.contents import Claims, LoadedContents, encode_files, loading_stats, reason_of
from trivium.pipeline.ingest.ingestion import example_queries
from trivium.pipeline.ingest.loading import Loader, parts_of
from trivium.pipeline.ingest.scanning import Problem
from trivium.pipeline.progress import Bars
from trivium.pipeline.records import ITEM_KINDS, ContentKey, ItemKind, StoredItem
from trivium.pipeline.search.indexing import Indexer
from trivium.pipeline.space.config import SpaceError
from trivium.pipeline.space.joint import JointSpace
from trivium.pipeline.store import rows as column
from trivium.pipeline.store.rows import read_rows
from trivium.pipeline.store.store import Store
from trivium.pipeline.store.writer import Writer, writing


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
    progress: Bars | None = None,
    index_progress: Bars | None = None,
    stats: dict[ItemKind, Stats] | None = None,
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
        stats: Filled meanwhile with what each stage does, for each kind of file; an empty dictionary.

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
            done, given_up = _encode_missing(writer, target, space, sandbox, progress, {} if stats is None else stats)
        if given_up and not drop_missing:
            return done
        done.dropped = len(given_up)
        writer.switch_space(target, without_items=given_up)
        done.is_done = True
        Indexer(writer, examples=lambda: example_queries(space), progress=index_progress).finish()
    return done


def _require_encoders(store: Store, space: JointSpace) -> None:
    """Refuse a space that lacks an encoder before hours are spent on the others."""
    rows = read_rows(
        store.db,
        "SELECT c.modality, i.modality, e.role, count(*) FROM embedding e JOIN content c ON c.id = e.content "
        "JOIN item i ON i.id = e.item GROUP BY 1, 2, 3",
        columns=(column.modality, column.kind, column.role, column.whole),
    )
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
    writer: Writer,
    target: int,
    space: JointSpace,
    sandbox: DecodeSandbox,
    progress: Bars | None,
    stats: dict[ItemKind, Stats],
) -> tuple[Migration, set[int]]:
    """Encode what has no vector in the new space; return also the items for which that cannot be done."""
    store = writer.store
    done = Migration()
    reasons: dict[int, str] = {}
    for kind in ITEM_KINDS:
        missing = _items_missing(store, target, kind)
        if not missing:
            continue
        counted = stats[kind] = loading_stats(sandbox)
        write_stage = counted.stage("write")
        with contextlib.closing(store.lookup(space=target)) as known:
            loader = Loader(space, sandbox, Claims(known), stats=counted)
            batches = encode_files(
                (item for id_ in missing if (item := store.item(id_)) is not None),
                load=partial(_load, loader=loader),
                space=space,
                kind=kind,
                sandbox=sandbox,
                stats=counted,
            )
            seen = 0
            with contextlib.closing(batches):
                for batch in batches:
                    # Pictures of a video that its items do not know have no place here.
                    vectors = {key: vector for key, vector in batch.vectors.items() if store.has_content(key)}
                    with write_stage.working(len(batch.files)):
                        _commit(writer, target, vectors, dim=space.space.dim)
                    done.encoded += len(vectors)
                    seen += len(batch.files)
                    for loaded in batch.files:
                        reason = loaded.reason if loaded.contents is None else batch.failure_of(loaded.contents)
                        if reason is not None:
                            reasons[loaded.id] = reason
                    if progress is not None:
                        progress(kind, seen + batch.begun, len(missing))
        counted.end()
    given_up = {id_ for kind in ITEM_KINDS for id_ in _items_missing(store, target, kind)}
    # A copy elsewhere may have brought what one file could not.
    for id_ in sorted(given_up):
        item = store.item(id_)
        assert item is not None
        done.problems.append(Problem(path=item.path, reason=reasons.get(id_, "a copy of it could not be encoded")))
    return done, given_up


def _commit(writer: Writer, target: int, vectors: Mapping[ContentKey, Vectors], *, dim: int) -> None:
    for modality in MODALITIES:
        if keys := [key for key in vectors if key.modality == modality]:
            rows = np.stack([vectors[key] for key in keys])
            checked = checked_vectors(rows, dim=dim, name=f"the {modality} encoder's vectors")
            writer.commit_vectors(target, modality, writer.store.content_ids(keys), checked)


@dataclass(frozen=True, slots=True)
class _Item:
    """An item whose missing contents are ready to be encoded, or that could not be loaded."""

    id: int
    contents: LoadedContents | None
    reason: str = ""


def _load(item: StoredItem, loader: Loader) -> _Item:
    contents = LoadedContents()
    try:
        if own := item.contents.get("content"):
            file = loader.opened(item.path, item.modality)
            parts = parts_of(item.contents)
            contents = loader.contents(item.modality, file, parts=parts, expected_sha256=own.sha256)
    except (DecodeError, MemoryError) as error:
        return _Item(item.id, None, reason_of(error))
    if "caption" in item.contents and item.caption is not None:
        loader.caption(item.caption, contents)
    return _Item(item.id, contents)


def _items_missing(store: Store, space: int, kind: ItemKind) -> list[int]:
    """Ids of the items of a kind with a content that has no vector in the new space."""
    rows = read_rows(
        store.db,
        "SELECT DISTINCT i.id FROM item i JOIN embedding e ON e.item = i.id JOIN content c ON c.id = e.content "
        "WHERE i.modality = ? AND NOT EXISTS (SELECT 1 FROM vector v WHERE v.space = ? AND v.modality = c.modality "
        "AND v.content = c.id) ORDER BY i.id",
        (kind, space),
        columns=(column.whole,),
    )
    return [row[0] for row in rows]
