"""The collection folder: what is in a collection, kept so that nothing acknowledged is ever lost.

    NAME/
      collection.db      SQLite: the only truth about items, and which vector lies where
      vectors/           write-once shards, NNNNNNNN-<hash>.npy, float16 (n, d), each of one modality
      index/             FAISS files: derived, verified, rebuilt from the shards whenever they do not fit
      lock               one writer at a time
      collection.db.sha256   what `verify` compares the database with

A batch is committed in this order: shards written and synced, renamed to their final names, folder synced, then one
SQLite transaction names them. A crash before the transaction leaves unnamed files, which the next writer removes; after
it, the batch is complete. A vector belongs to a content (SHA-256 of the bytes) in a space, not to a path, so renames,
copies and removed files that come back cost no encoding. Changing a collection is `writer.Writer`'s part.
"""

import contextlib
import json
import os
import sqlite3
import threading
import weakref
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

from trivium.encoders.base import Modality, Space
from trivium.indexes import Ids
from trivium.pipeline.database import (
    DATABASE,
    CollectionError,
    create_database,
    is_free,
    open_database,
    what_is_missing,
)
from trivium.pipeline.durable import sync_folder
from trivium.pipeline.filters import register_functions
from trivium.pipeline.locking import writer_lock
from trivium.pipeline.records import ContentKey, IndexFile, ItemKind, ItemState, Match, StoredItem
from trivium.pipeline.shards import FOLDER as VECTORS
from trivium.pipeline.shards import Locations, Shard, ShardSource

INDEX = "index"
SQL_VARIABLES = 10_000  # in one statement; SQLite allows 32,766


class Store:
    """One collection folder, open for reading; writing needs `writer.writing`."""

    def __init__(self, folder: Path) -> None:
        """Open an existing collection.

        Raises:
            CollectionError: If it is missing, half there, damaged, or of another format.
        """
        self.folder = folder
        self.db = open_database(folder)
        register_functions(self.db)
        # A collection that nobody closes is closed when it is collected; nothing is ever pending.
        self._close = weakref.finalize(self, _close_quietly, self.db)
        (shards,) = self.db.execute("SELECT count(*) FROM shard").fetchone()
        if shards and not (folder / VECTORS).is_dir():
            raise CollectionError(
                f"{folder} is half a collection: its folder '{VECTORS}' is missing. Restore it from a backup, "
                "or delete the collection and index again; your media are untouched"
            )

    @classmethod
    def create(cls, folder: Path, space: Space, *, source: str) -> "Store":
        """Make a new collection in a folder that does not exist or is empty.

        Raises:
            CollectionError: If the folder holds something else, or cannot be made.
            CollectionLockedError: If another process is making one there.
        """
        if not is_free(folder) and not (folder / DATABASE).exists():
            raise CollectionError(what_is_missing(folder))
        try:
            # Embeddings and file names are private: the folder is for its owner alone.
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with writer_lock(folder):
                if not (folder / DATABASE).exists():  # else another process was quicker
                    (folder / VECTORS).mkdir(mode=0o700, exist_ok=True)
                    (folder / INDEX).mkdir(mode=0o700, exist_ok=True)
                    create_database(folder, space, source=source)
                    sync_folder(folder.parent)
        except (OSError, sqlite3.Error) as error:
            raise CollectionError(f"cannot make a collection in {folder}: {error}") from error
        store = cls(folder)
        store.require(space)
        return store

    def require(self, space: Space) -> None:
        """Refuse a space that is not the collection's own.

        Raises:
            CollectionError: With both names.
        """
        own = self.space
        if space != own:
            raise CollectionError(
                f"{self.folder} was made with space {own}, it cannot be used with space {space}: vectors of different "
                "spaces do not compare. Use the collection's own space, index into a new collection, or move this one "
                "with `trivium migrate`"
            )

    def close(self) -> None:
        """Close the database; nothing is pending."""
        self._close()

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        """See one generation throughout, whatever a writer does meanwhile.

        Files that the generation names are there as long as this lasts: a writer removes files only after a commit, and
        a commit waits for readers.

        Raises:
            CollectionError: If the disk fails, or a writer keeps the collection to itself for too long.
        """
        if self.db.in_transaction:
            yield
            return
        self.db.execute("BEGIN")
        try:
            yield
        except sqlite3.OperationalError as error:
            raise CollectionError(f"cannot read {self.folder} ({error}): see to the disk, then try again") from error
        finally:
            if self.db.in_transaction:  # SQLite itself ends one that has failed
                self.db.execute("ROLLBACK")

    # The collection

    @property
    def generation(self) -> int:
        """Number of commits so far."""
        (generation,) = self.db.execute("SELECT generation FROM collection").fetchone()
        return int(generation)

    @property
    def space(self) -> Space:
        """The space that is searched."""
        return self.spaces()[self.space_id]

    @property
    def space_id(self) -> int:
        """The database's id of `space`."""
        (space,) = self.db.execute("SELECT space FROM collection").fetchone()
        return int(space)

    @property
    def space_source(self) -> str:
        """What `load_space` takes for `space`."""
        (source,) = self.db.execute("SELECT source FROM space WHERE id = (SELECT space FROM collection)").fetchone()
        return str(source)

    def spaces(self) -> dict[int, Space]:
        """All spaces that vectors are kept of: the searched one, and one that is being migrated to."""
        rows = self.db.execute("SELECT id, name, dim, revision FROM space").fetchall()
        return {row[0]: Space(name=row[1], dim=row[2], revision=row[3]) for row in rows}

    @property
    def wish(self) -> dict[str, Any]:
        """What kind of index the owner asked for; empty if nothing special."""
        (wish,) = self.db.execute("SELECT wish FROM collection").fetchone()
        return cast(dict[str, Any], json.loads(wish))

    @property
    def windows(self) -> float | None:
        """Seconds of the stretches that sounds have vectors of; None if they have none."""
        if self.db.execute("SELECT 1 FROM sqlite_master WHERE name = 'setting'").fetchone() is None:
            return None
        row = self.db.execute("SELECT value FROM setting WHERE name = 'windows'").fetchone()
        return None if row is None else float(row[0])

    # Items

    def states(self) -> dict[str, ItemState]:
        """Return what tells an unchanged item, for all items by path."""
        rows = self.db.execute(
            "SELECT i.path, i.id, i.fingerprint, i.beside, i.caption IS NOT NULL, e.item IS NOT NULL "
            "FROM item i LEFT JOIN embedding e ON e.item = i.id AND e.role = 'caption'"
        )
        return {
            os.fsdecode(path): ItemState(
                id=id_,
                fingerprint=fingerprint,
                beside=beside,
                has_caption=bool(has_caption),
                embeds_caption=bool(embeds_caption),
            )
            for path, id_, fingerprint, beside, has_caption, embeds_caption in rows
        }

    def tabled(self) -> dict[str, str]:
        """Return what a table of metadata said of items, JSON by path."""
        rows = self.db.execute("SELECT path, tabled FROM item WHERE tabled IS NOT NULL")
        return {os.fsdecode(path): tabled for path, tabled in rows}

    def metadata_keys(self) -> frozenset[str]:
        """Return the keys of all items' metadata."""
        rows = self.db.execute("SELECT DISTINCT j.key FROM item, json_each(item.metadata) j")
        return frozenset(row[0] for row in rows)

    def items(self) -> Iterator[StoredItem]:
        """All items, in the order of their ids."""
        rows = self.db.execute(f"SELECT {_ITEM_COLUMNS} FROM item ORDER BY id")
        while batch := rows.fetchmany(SQL_VARIABLES):
            contents = self._contents_of([row[0] for row in batch])
            for row in batch:
                yield _stored_item(row, contents.get(row[0], {}))

    def item(self, id_: int) -> StoredItem | None:
        """Return an item by its id."""
        row = self.db.execute(f"SELECT {_ITEM_COLUMNS} FROM item WHERE id = ?", (id_,)).fetchone()
        return None if row is None else _stored_item(row, self._contents_of([id_]).get(id_, {}))

    def content_ids(self, contents: Iterable[ContentKey]) -> list[int]:
        """Ids of known contents, in their order."""
        ids = []
        for content in contents:
            (id_,) = self.db.execute(
                "SELECT id FROM content WHERE sha256 = ? AND modality = ?", (content.sha256, content.modality)
            ).fetchone()
            ids.append(int(id_))
        return ids

    def item_at(self, path: str) -> StoredItem | None:
        """Return the item of a file."""
        row = self.db.execute(f"SELECT {_ITEM_COLUMNS} FROM item WHERE path = ?", (os.fsencode(path),)).fetchone()
        return None if row is None else _stored_item(row, self._contents_of([row[0]]).get(row[0], {}))

    def items_with(self, content: ContentKey) -> list[tuple[int, str]]:
        """Ids and paths of the items whose own content this is."""
        rows = self.db.execute(
            "SELECT i.id, i.path FROM content c JOIN embedding e ON e.content = c.id AND e.role = 'content' "
            "JOIN item i ON i.id = e.item WHERE c.sha256 = ? AND c.modality = ? ORDER BY i.path",
            (content.sha256, content.modality),
        )
        return [(id_, os.fsdecode(path)) for id_, path in rows]

    def items_below(self, path: str) -> list[int]:
        """Ids of the item at a path and of all below it."""
        own, first, past = os.fsencode(path), os.fsencode(path.rstrip("/") + "/"), os.fsencode(path.rstrip("/") + "0")
        rows = self.db.execute("SELECT id FROM item WHERE path = ? OR path >= ? AND path < ?", (own, first, past))
        return [row[0] for row in rows]

    def counts(self) -> dict[ItemKind, int]:
        """Count the items of each kind."""
        rows = self.db.execute("SELECT modality, count(*) FROM item GROUP BY modality ORDER BY modality")
        return {cast(ItemKind, kind): int(count) for kind, count in rows}

    def matches(self, contents: Sequence[int]) -> dict[int, list[Match]]:
        """Items that these contents belong to, by content, in the order of their paths."""
        found: dict[int, list[Match]] = {}
        for start in range(0, len(contents), SQL_VARIABLES):
            part = contents[start : start + SQL_VARIABLES]
            rows = self.db.execute(
                "SELECT e.content, i.id, i.path, i.modality, i.caption, i.metadata, e.role, i.fingerprint "
                "FROM embedding e JOIN item i ON i.id = e.item "
                f"WHERE e.content IN ({_marks(part)}) ORDER BY i.path, e.role DESC",  # content is told before caption
                part,
            )
            for content, item, path, *rest in rows:
                found.setdefault(content, []).append(Match(content, item, os.fsdecode(path), *rest))
        return found

    def captions_of(self, kind: ItemKind) -> Ids:
        """Contents that are captions of items of a kind."""
        rows = self.db.execute(
            "SELECT e.content FROM embedding e JOIN item i ON i.id = e.item "
            "WHERE i.modality = ? AND e.role <> 'content' AND e.role = 'caption'",  # the first lets an index be used
            (kind,),
        )
        return _ids(rows)

    def contents_of_videos(self) -> Ids:
        """Contents that belong to videos, and to nothing else."""
        if self.db.execute("SELECT 1 FROM sqlite_master WHERE name = 'video_item'").fetchone() is None:
            return _ids(())  # no video was ever taken in: nothing is to be looked through
        rows = self.db.execute(
            "SELECT DISTINCT e.content FROM item i INDEXED BY video_item CROSS JOIN embedding e ON e.item = i.id "
            "WHERE i.modality = 'video' AND NOT EXISTS (SELECT 1 FROM embedding o JOIN item j ON j.id = o.item "
            "WHERE o.content = e.content AND j.modality <> 'video')"
        )
        return _ids(rows)

    def contents_only_of(self, items: Iterable[int]) -> Ids:
        """Contents that belong to these items and to no other."""
        rows = self.db.execute(
            "WITH chosen AS MATERIALIZED (SELECT value AS item FROM json_each(?)) "
            "SELECT DISTINCT e.content FROM chosen JOIN embedding e ON e.item = chosen.item WHERE NOT EXISTS "
            "(SELECT 1 FROM embedding o WHERE o.content = e.content AND o.item NOT IN (SELECT item FROM chosen))",
            (json.dumps(list(items)),),
        )
        return _ids(rows)

    # Contents and their vectors

    def lookup(self, *, space: int | None = None) -> "ContentLookup":
        """Return a look-up of known contents, or of those with a vector in a space, that several threads may use."""
        return ContentLookup(self.folder, space=space)

    def vector_count(self) -> int:
        """Count the distinct vectors that belong to an item."""
        (count,) = self.db.execute("SELECT (SELECT count(*) FROM content) - (SELECT count(*) FROM orphan)").fetchone()
        return int(count)

    def vector_counts(self) -> dict[Modality, int]:
        """Count the vectors of the searched space, also those that no item has any more."""
        rows = self.db.execute(
            "SELECT modality, count(*) FROM vector WHERE space = (SELECT space FROM collection) GROUP BY modality"
        )
        return dict(rows.fetchall())

    def orphans(self) -> Ids:
        """Contents that no item has any more."""
        return _ids(self.db.execute("SELECT content FROM orphan ORDER BY content"))

    def shards(self) -> dict[int, Shard]:
        """All shards by id."""
        rows = self.db.execute("SELECT id, name, rows, size, sha256 FROM shard")
        return {row[0]: Shard(*row[1:]) for row in rows}

    def locations(self, modality: Modality, *, after: int = 0, space: int | None = None) -> Locations:
        """Where the vectors of one modality lie, whose contents' ids are above ``after``."""
        rows = self.db.execute(
            "SELECT content, shard, row FROM vector WHERE space = ? AND modality = ? AND content > ? ORDER BY content",
            (self.space_id if space is None else space, modality, after),
        )
        return _locations(rows)

    def locations_of(self, modality: Modality, contents: Ids) -> Locations:
        """Where the vectors of these contents lie; those that are gone are left out."""
        space = self.space_id
        rows: list[tuple[int, int, int]] = []
        for start in range(0, len(contents), SQL_VARIABLES):
            part = contents[start : start + SQL_VARIABLES].tolist()
            rows += self.db.execute(
                "SELECT content, shard, row FROM vector WHERE space = ? AND modality = ? "
                f"AND content IN ({_marks(part)}) ORDER BY content",
                (space, modality, *part),
            )
        return _locations(rows)

    def source(self, locations: Locations, *, dim: int | None = None) -> ShardSource:
        """Return the vectors at some locations, read chunk by chunk."""
        return ShardSource(self.folder, self.shards(), locations, dim=self.space.dim if dim is None else dim)

    def index_files(self) -> dict[Modality, IndexFile]:
        """Index files of the searched space by modality."""
        rows = self.db.execute(
            "SELECT modality, name, size, sha256, state, kind, effort, through, vectors, report FROM index_file "
            "WHERE space = (SELECT space FROM collection)"
        )
        return {
            row[0]: IndexFile(
                modality=row[0],
                name=row[1],
                size=row[2],
                sha256=row[3],
                state=row[4],
                kind=row[5],
                effort=row[6],
                through=row[7],
                vectors=row[8],
                report=_report(row[9], self.folder),
            )
            for row in rows
        }

    def _contents_of(self, items: Sequence[int]) -> dict[int, dict[str, ContentKey]]:
        contents: dict[int, dict[str, ContentKey]] = {}
        for item, role, modality, sha256 in self.db.execute(
            "SELECT e.item, e.role, c.modality, c.sha256 FROM embedding e JOIN content c ON c.id = e.content "
            f"WHERE e.item IN ({_marks(items)})",
            items,
        ):
            contents.setdefault(item, {})[role] = ContentKey(modality, sha256)
        return contents


class ContentLookup:
    """Which contents have a vector, answered to any thread from a connection of its own."""

    def __init__(self, folder: Path, *, space: int | None = None) -> None:
        self._db = open_database(folder, any_thread=True)
        self._lock = threading.Lock()
        self._sql = "SELECT 1 FROM content c WHERE sha256 = ? AND modality = ?"
        if space is not None:
            self._sql += (
                f" AND EXISTS (SELECT 1 FROM vector v WHERE v.space = {int(space)} AND v.modality = c.modality "
                "AND v.content = c.id)"
            )

    def __contains__(self, content: object) -> bool:
        if not isinstance(content, ContentKey):
            return False
        with self._lock:
            row = self._db.execute(self._sql, (content.sha256, content.modality)).fetchone()
        return row is not None

    def close(self) -> None:
        """Release the database file."""
        with self._lock:
            self._db.close()


def size_bytes(folder: Path) -> int:
    """Bytes of all files of a collection, also while a writer adds and removes some."""
    total = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):
            total += path.stat().st_size if path.is_file() else 0
    return total


_ITEM_COLUMNS = "id, path, modality, fingerprint, beside, caption, metadata, tabled"


def _stored_item(row: Sequence[Any], contents: dict[str, ContentKey]) -> StoredItem:
    id_, path, modality, fingerprint, beside, caption, metadata, tabled = row
    return StoredItem(
        id=id_,
        path=os.fsdecode(path),
        modality=modality,
        fingerprint=fingerprint,
        beside=beside,
        caption=caption,
        metadata=metadata,
        tabled=tabled,
        contents=contents,
    )


def _report(text: Any, folder: Path) -> dict[str, Any]:
    try:
        return cast(dict[str, Any], json.loads(text))
    except (ValueError, TypeError) as error:
        raise CollectionError(
            f"{folder / DATABASE} is damaged: what it says of an index file is no JSON ({error}). `trivium verify "
            "--read-data` tells more"
        ) from error


def _marks(values: Sequence[Any]) -> str:
    return ",".join("?" * len(values))


def _ids(rows: Iterable[Sequence[int]]) -> Ids:
    return np.fromiter((row[0] for row in rows), np.int64)


def _locations(rows: Iterable[tuple[int, int, int]]) -> Locations:
    table = np.fromiter(rows, np.dtype((np.int64, 3))).reshape(-1, 3)
    contents, shards, places = (np.ascontiguousarray(table[:, column], np.int64) for column in range(3))
    return Locations(contents, shards, places)


def _close_quietly(db: sqlite3.Connection) -> None:
    with contextlib.suppress(sqlite3.ProgrammingError):  # collected in another thread than the one that opened it
        db.close()
