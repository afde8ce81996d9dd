"""The collection folder: what is in a collection, kept so that nothing acknowledged is ever lost.

    NAME/
      collection.db      SQLite: the only truth about items, and which vector lies where
      vectors/           write-once shards, NNNNNNNN-<hash>.npy, float16 (n, d), each of one modality
      index/             FAISS files: derived, verified, rebuilt from the shards whenever they do not fit
      thumbnails/        small pictures by content: derived, made again from the media where they are needed
      lock               one writer at a time
      collection.db.sha256   what `verify` compares the database with

A batch is committed in this order: shards written and synced, renamed to their final names, folder synced, then one
SQLite transaction names them. A crash before the transaction leaves unnamed files, which the next writer removes; after
it, the batch is complete. A vector belongs to a content (SHA-256 of the bytes) in a space, not to a path, so renames,
copies and removed files that come back cost no encoding. Changing a collection is `writer.Writer`'s part.
"""

import contextlib
import itertools
import json
import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trivium.encoders.base import Modality, Space
from trivium.encoders.files.writing import sync_folder
from trivium.indexes import Ids, Wish
from trivium.pipeline.records import ContentKey, IndexFile, ItemKind, ItemState, Match, Part, StoredItem
from trivium.pipeline.store import rows as column
from trivium.pipeline.store.connections import Connections
from trivium.pipeline.store.database import (
    DAMAGED,
    CollectionError,
    Connection,
    create_database,
    damage,
    failure,
    is_free,
    what_is_missing,
)
from trivium.pipeline.store.database_file import DATABASE
from trivium.pipeline.store.filters import conditions_of
from trivium.pipeline.store.locking import writer_lock
from trivium.pipeline.store.lookup import ContentLookup
from trivium.pipeline.store.roots import Root, read_roots, read_skipped
from trivium.pipeline.store.rows import Column, maybe, read_numbers, read_row, read_rows
from trivium.pipeline.store.shards import FOLDER as VECTORS
from trivium.pipeline.store.shards import Locations, Shard, Shards, ShardSource

INDEX = "index"
SQL_VARIABLES = 10_000  # in one statement; SQLite allows 32,766


class Store:
    """One collection folder, open for reading; writing needs `writer.writing`.

    Threads may share one: each has a connection of its own. See to it that nobody uses it when it is closed.
    """

    def __init__(self, folder: Path) -> None:
        """Open an existing collection.

        Raises:
            CollectionError: If it is missing, half there, damaged, or of another format.
        """
        self.folder = folder
        # A collection that nobody closes is closed when it is collected; nothing is ever pending.
        self._connections = Connections(folder)
        self._space_of: tuple[int, int, Space] | None = None  # generation, id, space
        if self._number("SELECT count(*) FROM shard") and not (folder / VECTORS).is_dir():
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
        if not is_free(folder) and not os.path.lexists(folder / DATABASE):
            raise CollectionError(what_is_missing(folder))
        try:
            # Embeddings and file names are private: the folder is for its owner alone.
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with writer_lock(folder):
                if not os.path.lexists(folder / DATABASE):  # else another process was quicker
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

    @property
    def db(self) -> Connection:
        """The calling thread's connection to the database.

        Raises:
            CollectionError: If the collection was closed, or another put in its place.
        """
        return self._connections.own

    def stop(self) -> None:
        """Let whoever is using it end at the next thing that it asks for, by a CollectionError."""
        self._connections.stop()

    def close(self) -> None:
        """Close the database; nothing is pending."""
        self._connections.close()

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        """See one generation throughout, whatever a writer does meanwhile.

        Files that the generation names are there as long as this lasts: a writer removes files only after a commit, and
        a commit waits for readers.

        Raises:
            CollectionError: If the disk fails, a writer keeps the collection to itself for too long, or another
                collection was put in its place.
        """
        db = self.db
        if db.in_transaction:
            yield
            return
        db.require_current()
        db.execute("BEGIN")
        try:
            yield
        except DAMAGED as error:
            raise failure(db.database, error) from error
        finally:
            if db.in_transaction:  # SQLite itself ends one that has failed
                db.execute("ROLLBACK")

    # The collection

    @property
    def generation(self) -> int:
        """Number of commits so far."""
        return self._number("SELECT generation FROM collection")

    @property
    def space(self) -> Space:
        """The space that is searched."""
        return self._searched()[1]

    @property
    def space_id(self) -> int:
        """The database's id of `space`."""
        return self._searched()[0]

    @property
    def space_source(self) -> str:
        """What `load_space` takes for `space`."""
        sql = "SELECT source FROM space WHERE id = (SELECT space FROM collection)"
        found = read_row(self.db, sql, columns=(column.text,))
        if found is None:
            raise damage(self.db.database, "it names no space")
        return str(found[0])

    def _searched(self) -> tuple[int, Space]:
        """Return the id of the space that is searched, and the space: read once a generation."""
        generation, known = self.generation, self._space_of
        if known is None or known[0] != generation:
            spaces, own = self.spaces(), self._number("SELECT space FROM collection")
            if own not in spaces:
                raise damage(self.db.database, "it names no space")
            known = self._space_of = generation, own, spaces[own]
        return known[1:]

    def spaces(self) -> dict[int, Space]:
        """All spaces that vectors are kept of: the searched one, and one that is being migrated to."""
        sql = "SELECT id, name, dim, revision FROM space"
        rows = self._rows(sql, columns=(column.whole, column.text, column.width, column.text))
        return {id_: Space(name=name, dim=dim, revision=revision) for id_, name, dim, revision in rows}

    @property
    def wish(self) -> Wish:
        """What kind of index the owner asked for."""
        found = read_row(self.db, "SELECT wish FROM collection", columns=(column.json_object,))
        try:
            return Wish(**({} if found is None else found[0]))
        except (TypeError, ValueError) as error:
            raise damage(self.db.database, f"what is asked of its index makes no sense: {error}") from error

    @property
    def windows(self) -> float | None:
        """Seconds of the stretches that sounds have vectors of, 0 for none; None if nobody has said."""
        return self._setting("windows")

    @property
    def keeps_thumbnails(self) -> bool:
        """Whether thumbnails are made when pictures are indexed."""
        return self._setting("thumbnails") != 0

    @property
    def windows_overlap(self) -> bool:
        """Whether those that were asked for last overlap; they once followed each other."""
        return self._setting("windows_overlap") is not None

    def _setting(self, name: str) -> float | None:
        sql = "SELECT value FROM setting WHERE name = ?"
        row = read_row(self.db, sql, (name,), columns=(column.duration,))
        return None if row is None else float(row[0])

    def roots(self) -> dict[str, Root]:
        """Return what the collection was made of, by path."""
        return read_roots(self.db)

    def skipped(self) -> dict[str, str]:
        """Return why files below the roots could not be indexed, by path."""
        return read_skipped(self.db)

    # Items

    def states(self) -> dict[str, ItemState]:
        """Return what tells an unchanged item, for all items by path."""
        rows = self._rows(
            "SELECT i.path, i.id, i.fingerprint, i.beside, i.caption IS NOT NULL, e.item IS NOT NULL, i.missing, "
            "i.own IS NOT NULL FROM item i LEFT JOIN embedding e ON e.item = i.id AND e.role = 'caption'",
            columns=(column.path, column.whole, column.text, column.text, bool, bool, bool, bool),
        )
        return {path: ItemState(*state) for path, *state in rows}

    def tabled(self) -> dict[str, str]:
        """Return what a table of metadata said of items, JSON by path."""
        sql = "SELECT path, tabled FROM item WHERE tabled IS NOT NULL"
        return dict(self._rows(sql, columns=(column.path, column.text)))

    def metadata_keys(self) -> frozenset[str]:
        """Return the keys of all items' metadata."""
        sql = "SELECT DISTINCT j.key FROM item, json_each(item.metadata) j"
        return frozenset(row[0] for row in self._rows(sql, columns=(column.text,)))

    def metadata_examples(self, most: int) -> dict[str, list[str]]:
        """Return the fields of all items' metadata, each with up to ``most`` of its values, in order."""
        sql = (
            "SELECT key, value FROM (SELECT key, value, row_number() OVER (PARTITION BY key ORDER BY value) AS number "
            "FROM (SELECT DISTINCT j.key, substr(j.value, 1, 100) AS value FROM item, json_each(item.metadata) j)) "
            "WHERE number <= ? ORDER BY key, number"
        )
        examples: dict[str, list[str]] = {}
        for key, value in self._rows(sql, (most,), columns=(column.text, str)):
            examples.setdefault(key, []).append(value)
        return examples

    def missing_count(self) -> int:
        """Count the items whose files were gone when their root was last looked at."""
        return self._number("SELECT count(*) FROM item WHERE missing <> 0")

    def items(self) -> Iterator[StoredItem]:
        """All items, in the order of their ids."""
        rows = self._rows(f"SELECT {', '.join(_ITEM_COLUMNS)} FROM item ORDER BY id", columns=_ITEM_TYPES)
        while batch := list(itertools.islice(rows, SQL_VARIABLES)):
            contents = self._contents_of([row[0] for row in batch])
            for row in batch:
                yield StoredItem(**dict(zip(_ITEM_COLUMNS, row, strict=True)), contents=contents.get(row[0], {}))

    def item(self, id_: int) -> StoredItem | None:
        """Return an item by its id."""
        return self._item("id = ?", id_)

    def content_ids(self, contents: Iterable[ContentKey]) -> list[int]:
        """Ids of known contents, in their order."""
        sql = "SELECT id FROM content WHERE sha256 = ? AND modality = ?"
        return [self._number(sql, (content.sha256, content.modality)) for content in contents]

    def has_content(self, content: ContentKey) -> bool:
        """Whether a content is known."""
        sql = "SELECT 1 FROM content WHERE sha256 = ? AND modality = ?"
        return read_row(self.db, sql, (content.sha256, content.modality), columns=(column.whole,)) is not None

    def item_at(self, path: str) -> StoredItem | None:
        """Return the item of a file."""
        return self._item("path = ?", os.fsencode(path))

    def paths_with(self, content: ContentKey, *, through: int) -> list[str]:
        """Paths of the items whose own content this is, and whose ids are at most ``through``."""
        rows = self._rows(
            "SELECT i.path FROM content c JOIN embedding e ON e.content = c.id AND e.role = 'content' AND e.item <= ? "
            "JOIN item i ON i.id = e.item WHERE c.sha256 = ? AND c.modality = ? ORDER BY i.path",
            (through, content.sha256, content.modality),
            columns=(column.path,),
        )
        return [path for (path,) in rows]

    def items_named(self, path: str, *, or_pattern: bool = False) -> list[int]:
        """Ids of the item at a path and of all below it; else, if asked for, of those that it matches as a pattern.

        Raises:
            FilterError: If it cannot be a pattern.
            ValueError: If it is empty, or has a NUL.
        """
        for condition in conditions_of(path, or_pattern=or_pattern):
            sql = f"SELECT i.id FROM item AS i WHERE {condition.text}"
            if found := [row[0] for row in self._rows(sql, condition.parameters, columns=(column.whole,))]:
                return found
        return []

    def counts(self) -> dict[ItemKind, int]:
        """Count the items of each kind."""
        sql = "SELECT modality, count(*) FROM item GROUP BY modality ORDER BY modality"
        return dict(self._rows(sql, columns=(column.kind, column.whole)))

    def matches(self, contents: Sequence[int]) -> dict[int, list[Match]]:
        """Items that these contents belong to, by content, in the order of their paths."""
        found: dict[int, list[Match]] = {}
        for start in range(0, len(contents), SQL_VARIABLES):
            part = contents[start : start + SQL_VARIABLES]
            rows = self._rows(
                "SELECT e.content, i.id, i.path, i.modality, i.caption, i.metadata, e.role, i.fingerprint, i.missing, "
                "o.content, c.looks FROM embedding e JOIN item i ON i.id = e.item "
                "LEFT JOIN embedding o ON o.item = i.id AND o.role = 'content' LEFT JOIN content c ON c.id = o.content "
                f"WHERE e.content IN ({_marks(part)}) ORDER BY i.path, e.role DESC",  # content is told before caption
                part,
                columns=_MATCH_TYPES,
            )
            for row in rows:
                found.setdefault(row[0], []).append(Match(*row))
        return found

    def items_of(self, contents: Iterable[int]) -> dict[int, list[tuple[int, str, ItemKind]]]:
        """Ids, paths and kinds of the items whose own content each of these is, by path."""
        found: dict[int, list[tuple[int, str, ItemKind]]] = {}
        for content, item, path, kind in self._rows(
            "SELECT e.content, i.id, i.path, i.modality FROM json_each(?) chosen CROSS JOIN embedding e "
            "ON e.content = chosen.value AND e.role = 'content' JOIN item i ON i.id = e.item ORDER BY i.path",
            (json.dumps(list(contents)),),
            columns=(column.whole, column.whole, column.path, column.kind),
        ):
            found.setdefault(content, []).append((item, path, kind))
        return found

    def equal_contents(self) -> list[int]:
        """Contents that several items have as their own."""
        sql = "SELECT content FROM embedding WHERE role = 'content' GROUP BY content HAVING count(*) > 1"
        return [int(id_) for id_ in self._ids(sql)]

    def looks(self) -> tuple[Ids, NDArray[np.int64]]:
        """Return the pictures that have a hash, as their contents (n,) in ascending order, and the hashes (n,)."""
        table = read_numbers(
            self.db,
            "SELECT c.id, c.looks FROM content c WHERE c.looks IS NOT NULL AND EXISTS (SELECT 1 FROM embedding e "
            "JOIN item i ON i.id = e.item WHERE e.content = c.id AND e.role = 'content' AND i.modality = 'image') "
            "ORDER BY c.id",
            width=2,
        )
        return table[:, 0], table[:, 1]

    def videos(self) -> list[int]:
        """Contents that are videos as a whole."""
        sql = (
            "SELECT DISTINCT e.content FROM item i INDEXED BY video_item JOIN embedding e ON e.item = i.id "
            "WHERE i.modality = 'video' AND e.role = 'content' ORDER BY e.content"
        )
        return [int(id_) for id_ in self._ids(sql)]

    def video_frames(self, video: int) -> tuple[float | None, list[tuple[float, int, int | None]]]:
        """Return how long a video is, if that is known, and its pictures: seconds, content, hash if that is known."""
        length = read_row(
            self.db, "SELECT seconds FROM content WHERE id = ?", (video,), columns=(maybe(column.duration),)
        )
        rows = self._rows(
            "SELECT f.role, f.content, c.looks FROM embedding f JOIN content c ON c.id = f.content WHERE f.item = "
            "(SELECT min(item) FROM embedding WHERE content = ? AND role = 'content') AND f.role LIKE 'frame %'",
            (video,),
            columns=(column.role, column.whole, maybe(column.whole)),
        )
        frames = [(Part.parse(role).start or 0.0, content, looks) for role, content, looks in rows]
        return None if length is None else length[0], sorted(frames)

    def without_looks(self) -> list[int]:
        """Items whose pictures have no hash: of before format 3, or decoded where the network runs."""
        sql = (
            "SELECT DISTINCT i.id FROM item i JOIN embedding e ON e.item = i.id JOIN content c ON c.id = e.content "
            "WHERE c.looks IS NULL AND (i.modality = 'image' AND e.role = 'content' "
            "OR i.modality = 'video' AND (e.role LIKE 'frame %' OR e.role = 'content' AND c.seconds IS NULL))"
        )
        return [int(id_) for id_ in self._ids(sql)]

    def unmeasured_sounds(self) -> set[int]:
        """Items that are sounds of which it is not known how long they are."""
        sql = (
            "SELECT i.id FROM item i JOIN embedding e ON e.item = i.id AND e.role = 'content' "
            "JOIN content c ON c.id = e.content WHERE i.modality = 'audio' AND c.seconds IS NULL"
        )
        return set(self._ids(sql).tolist())

    def has_sha256(self, sha256: bytes) -> bool:
        """Whether a content that some item has is of these bytes."""
        sql = "SELECT 1 FROM content WHERE sha256 = ? AND id NOT IN (SELECT content FROM orphan)"
        return read_row(self.db, sql, (sha256,), columns=(column.whole,)) is not None

    def captions_of(self, kind: ItemKind) -> Ids:
        """Contents that are captions of items of a kind."""
        return self._ids(
            "SELECT e.content FROM embedding e JOIN item i ON i.id = e.item "
            "WHERE i.modality = ? AND e.role <> 'content' AND e.role = 'caption'",  # the first lets an index be used
            (kind,),
        )

    def contents_of_videos(self) -> Ids:
        """Contents that belong to videos, and to nothing else."""
        return self._ids(
            "SELECT DISTINCT e.content FROM item i INDEXED BY video_item CROSS JOIN embedding e ON e.item = i.id "
            "WHERE i.modality = 'video' AND NOT EXISTS (SELECT 1 FROM embedding o JOIN item j ON j.id = o.item "
            "WHERE o.content = e.content AND j.modality <> 'video')"
        )

    def contents_only_of(self, items: Iterable[int]) -> Ids:
        """Contents that belong to these items and to no other."""
        return self._ids(
            "WITH chosen AS MATERIALIZED (SELECT value AS item FROM json_each(?)) "
            "SELECT DISTINCT e.content FROM chosen JOIN embedding e ON e.item = chosen.item WHERE NOT EXISTS "
            "(SELECT 1 FROM embedding o WHERE o.content = e.content AND o.item NOT IN (SELECT item FROM chosen))",
            (json.dumps(list(items)),),
        )

    def chosen(self, condition: str, parameters: Sequence[Any]) -> tuple[Ids, dict[Modality, Ids]]:
        """Return the items ``i`` that a condition of SQL chooses, and their contents, by modality."""
        items: list[int] = []
        contents: dict[Modality, list[int]] = {}
        for item, content, modality in self._rows(
            "SELECT i.id, e.content, c.modality FROM item i JOIN embedding e ON e.item = i.id "
            f"JOIN content c ON c.id = e.content WHERE {condition}",
            parameters,
            columns=(column.count, column.count, column.modality),
        ):
            items.append(item)
            contents.setdefault(modality, []).append(content)
        by_modality: dict[Modality, Ids] = {modality: np.array(ids, np.int64) for modality, ids in contents.items()}
        return np.array(items, np.int64), by_modality

    # Contents and their vectors

    def lookup(self, *, space: int | None = None) -> ContentLookup:
        """Return a look-up of known contents, or of those with a vector in a space, that several threads may use."""
        return ContentLookup(self.folder, space=space)

    def vector_count(self) -> int:
        """Count the distinct vectors that belong to an item."""
        return self._number("SELECT (SELECT count(*) FROM content) - (SELECT count(*) FROM orphan)")

    def vector_counts(self) -> dict[Modality, int]:
        """Count the vectors of the searched space, also those that no item has any more."""
        sql = "SELECT modality, count(*) FROM vector WHERE space = (SELECT space FROM collection) GROUP BY modality"
        return dict(self._rows(sql, columns=(column.modality, column.whole)))

    def orphans(self) -> Ids:
        """Contents that no item has any more."""
        return self._ids("SELECT content FROM orphan ORDER BY content")

    def shards(self) -> Shards:
        """All shards by id."""
        rows = self._rows(
            "SELECT id, name, rows, size, sha256 FROM shard",
            columns=(column.whole, column.file_name, column.count, column.count, column.text),
        )
        return Shards(self.folder, ((id_, Shard(*rest)) for id_, *rest in rows))

    def locations(self, modality: Modality, *, after: int = 0, space: int | None = None) -> Locations:
        """Where the vectors of one modality lie, whose contents' ids are above ``after``."""
        return self._locations(
            "SELECT content, shard, row FROM vector WHERE space = ? AND modality = ? AND content > ? ORDER BY content",
            (self.space_id if space is None else space, modality, after),
        )

    def locations_of(self, modality: Modality, contents: Ids) -> Locations:
        """Where the vectors of these contents lie; those that are gone are left out."""
        space = self.space_id
        parts = [
            self._locations(
                "SELECT content, shard, row FROM vector WHERE space = ? AND modality = ? "
                f"AND content IN ({_marks(part)}) ORDER BY content",
                (space, modality, *part),
            )
            for part in (
                contents[start : start + SQL_VARIABLES].tolist() for start in range(0, len(contents), SQL_VARIABLES)
            )
        ]
        return Locations(
            *(
                np.concatenate([np.empty(0, np.int64), *(getattr(part, name) for part in parts)])
                for name in ("contents", "shards", "rows")
            )
        )

    def source(self, locations: Locations, *, dim: int | None = None) -> ShardSource:
        """Return the vectors at some locations, read chunk by chunk."""
        return ShardSource(self.folder, self.shards(), locations, dim=self.space.dim if dim is None else dim)

    def index_files(self) -> dict[Modality, IndexFile]:
        """Index files of the searched space by modality."""
        names = [field.name for field in fields(IndexFile)]
        rows = self._rows(
            f"SELECT {', '.join(names)} FROM index_file WHERE space = (SELECT space FROM collection)",
            columns=_INDEX_FILE_TYPES,
        )
        return {row[0]: IndexFile(**dict(zip(names, row, strict=True))) for row in rows}

    def _contents_of(self, items: Sequence[int]) -> dict[int, dict[str, ContentKey]]:
        contents: dict[int, dict[str, ContentKey]] = {}
        for item, role, modality, sha256 in self._rows(
            "SELECT e.item, e.role, c.modality, c.sha256 FROM embedding e JOIN content c ON c.id = e.content "
            f"WHERE e.item IN ({_marks(items)})",
            items,
            columns=(column.whole, column.role, column.modality, column.blob),
        ):
            contents.setdefault(item, {})[role] = ContentKey(modality, sha256)
        return contents

    def _item(self, condition: str, parameter: Any) -> StoredItem | None:
        sql = f"SELECT {', '.join(_ITEM_COLUMNS)} FROM item WHERE {condition}"
        row = read_row(self.db, sql, (parameter,), columns=_ITEM_TYPES)
        if row is None:
            return None
        return StoredItem(
            **dict(zip(_ITEM_COLUMNS, row, strict=True)), contents=self._contents_of([row[0]]).get(row[0], {})
        )

    def _rows(
        self, sql: str, parameters: Sequence[Any] = (), *, columns: Sequence[Column]
    ) -> Iterator[tuple[Any, ...]]:
        return read_rows(self.db, sql, parameters, columns=columns)

    def _number(self, sql: str, parameters: Sequence[Any] = ()) -> int:
        """Return the one whole number that a query gives."""
        row = read_row(self.db, sql, parameters, columns=(column.whole,))
        if row is None:
            raise damage(self.db.database, "a row of its tables is missing")
        return int(row[0])

    def _ids(self, sql: str, parameters: Sequence[Any] = ()) -> Ids:
        ids = read_numbers(self.db, sql, parameters, width=1).reshape(-1)
        if len(ids) and ids.min() < 0:
            raise damage(self.db.database, f"{ids.min()} is no number of a content")
        return ids

    def _locations(self, sql: str, parameters: Sequence[Any]) -> Locations:
        table = read_numbers(self.db, sql, parameters, width=3)
        contents, shards, places = (np.ascontiguousarray(table[:, place], np.int64) for place in range(3))
        if len(contents) and not (contents[0] >= 0 and (np.diff(contents) > 0).all()):
            raise damage(self.db.database, "the numbers of its contents do not rise")
        return Locations(contents, shards, places)


_ITEM_COLUMNS = ("id", "path", "modality", "fingerprint", "beside", "caption", "metadata", "tabled", "own")
_ITEM_TYPES: tuple[Column, ...] = (
    *(column.whole, column.path, column.kind, column.text, column.text),
    *(maybe(column.text), maybe(column.text), maybe(column.text), maybe(column.text)),
)
_MATCH_TYPES: tuple[Column, ...] = (
    *(column.whole, column.whole, column.path, column.kind),
    *(maybe(column.text), maybe(column.text), column.role, column.text, bool),
    *(column.whole, maybe(column.whole)),
)
_INDEX_FILE_TYPES: tuple[Column, ...] = (
    *(column.modality, column.file_name, column.count, column.text, column.text, column.text),
    *(maybe(column.count), column.count, column.count, column.index_report),
)


def below(path: str) -> tuple[bytes, bytes, bytes]:
    """Return what a path in the database must equal, or be at least and less than, to be this one or lie below it."""
    folder = os.fsencode(path.rstrip("/"))
    return os.fsencode(path), folder + b"/", folder + b"0"


def _marks(values: Sequence[Any]) -> str:
    return ",".join("?" * len(values))
