"""Changing a collection: each change wholly made or not at all, by one writer at a time."""

import contextlib
import json
import os
import re
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from trivium.encoders.base import Modality, Space, Vectors
from trivium.encoders.files.writing import WrittenFile, open_folder, sync_folder
from trivium.indexes import Ids, checked_vectors
from trivium.pipeline.records import ContentKey, IndexFile, NewItem, Traits
from trivium.pipeline.store import rows as column
from trivium.pipeline.store.database import DAMAGED, CollectionError, Connection, failure
from trivium.pipeline.store.database_file import write_checksum
from trivium.pipeline.store.locking import writer_lock
from trivium.pipeline.store.roots import Root, written
from trivium.pipeline.store.rows import read_row
from trivium.pipeline.store.shards import FOLDER as VECTORS
from trivium.pipeline.store.shards import StoredVectors, write_shard
from trivium.pipeline.store.store import INDEX, Store, below
from trivium.pipeline.store.thumbnails import write_thumbnail

# Names of our own: of shards and index files, and of their drafts.
_OWN_FILES = {
    VECTORS: re.compile(r"[0-9]{8,}-[0-9a-f]{16}\.npy|\.[0-9]{8,}-[0-9a-f]{16}\.npy\.new"),
    INDEX: re.compile(
        r"(text|image|audio)-[a-z0-9-]+-[0-9a-f]{8}\.faiss|\.(text|image|audio)-[a-z0-9-]+-[0-9a-f]{8}\.faiss\.new"
    ),
}
CACHE_KIB = 256 * 1024  # at most: the pages of a big collection's look-up trees, which every insert touches


def is_own_file(part: str, name: str) -> bool:
    """Whether a file in a folder of a collection has a name that only Trivium gives."""
    return _OWN_FILES[part].fullmatch(name) is not None


@contextlib.contextmanager
def writing(store: Store) -> Iterator["Writer"]:
    """Be the one writer of a collection.

    Raises:
        CollectionLockedError: If another process or thread is writing.
        CollectionError: If the disk is full or fails; what was committed before is kept.
    """
    with writer_lock(store.folder):
        db = store.db
        db.require_current()  # under the lock: else the files of another collection would be deleted
        try:
            # Read under the lock: the files that the last writer named are all that may stay.
            writer = Writer(store)
            yield writer
        except (OSError, sqlite3.OperationalError) as error:
            raise CollectionError(
                f"cannot write to {store.folder} ({error}): what was committed before is kept; see to the disk and run "
                "again to go on"
            ) from error
        except DAMAGED as error:
            raise failure(db.database, error) from error
        finally:
            with contextlib.suppress(OSError, sqlite3.Error, CollectionError):
                db.require_current()
                write_checksum(store.folder)


class Writer:
    """Changes to a collection; made by `writing`."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._db.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
        self.remove_unnamed_files()

    @property
    def _db(self) -> Connection:
        return self.store.db

    def commit(
        self,
        items: Sequence[NewItem],
        contents: Sequence[ContentKey],
        vectors: Vectors | StoredVectors,
        *,
        traits: Mapping[ContentKey, Traits] | None = None,
    ) -> None:
        """Add a batch of items and the vectors that they bring.

        Args:
            items: Each names only contents that are stored or among ``contents``.
            contents: Keys of the new vectors, unique and not stored yet, n of them.
            vectors: Unit vectors, shape (n, d).
            traits: Of contents that are stored or among ``contents``.

        Raises:
            ValueError: If a vector has another width or is not finite.
            CollectionError: If it cannot be written; nothing of the batch is there then.
        """
        space = self.store.space_id
        checked_vectors(vectors, dim=self.store.space.dim, name="vectors")
        shards = self._write_shards([content.modality for content in contents], vectors)
        self._write_thumbnails(traits or {})
        with self.transaction():
            self._db.executemany("INSERT INTO content (modality, sha256) VALUES (?, ?)", contents)
            ids = [self._content_id(content) for content in contents]
            self._name_vectors(space, shards, ids)
            self._record_traits(traits or {})
            for item in items:
                self._insert_item(item)
            # Of items that failed or wait for another batch: known, but nobody's until an item names it.
            self._db.executemany(
                "INSERT OR IGNORE INTO orphan SELECT ?1 WHERE NOT EXISTS (SELECT 1 FROM embedding WHERE content = ?1)",
                [(id_,) for id_ in ids],
            )

    def set_traits(self, traits: Mapping[ContentKey, Traits]) -> None:
        """Record what has become known of stored contents."""
        self._write_thumbnails(traits)
        with self.transaction(new_generation=False):
            self._record_traits(traits)

    def commit_vectors(self, space: int, modality: Modality, contents: Sequence[int], vectors: Vectors) -> None:
        """Add the vectors of known contents of one modality in another space than the searched one."""
        modalities: list[Modality] = [modality] * len(contents)
        shards = self._write_shards(modalities, vectors)
        with self.transaction():
            self._name_vectors(space, shards, contents)

    def touch(self, states: Mapping[int, tuple[str, str, str | None]]) -> None:
        """Record the state of items that are as they were: fingerprints of file and what is beside it, its own tags."""
        with self.transaction(new_generation=False):
            self._db.executemany(
                "UPDATE item SET fingerprint = ?, beside = ?, own = ? WHERE id = ?",
                [(*state, item) for item, state in states.items()],
            )

    def set_metadata(self, metadata: Mapping[int, tuple[str | None, str | None]]) -> None:
        """Record (metadata, what a table said) of items."""
        with self.transaction():
            self._db.executemany(
                "UPDATE item SET metadata = ?, tabled = ? WHERE id = ?",
                [(merged, tabled, item) for item, (merged, tabled) in metadata.items()],
            )

    def set_windows(self, seconds: float | None) -> None:
        """Record what stretches sounds have vectors of (`Store.windows`), and that they overlap."""
        with self.transaction():
            self._set("windows", seconds)
            self._set("windows_overlap", None if seconds is None else 1)

    def set_thumbnails(self, keeps: bool) -> None:
        """Record whether thumbnails are made (`Store.keeps_thumbnails`)."""
        with self.transaction():
            self._set("thumbnails", int(keeps))

    def _set(self, name: str, value: float | None) -> None:
        self._db.execute("DELETE FROM setting WHERE name = ?", (name,))
        if value is not None:
            self._db.execute("INSERT INTO setting VALUES (?, ?)", (name, value))

    def set_roots(self, roots: Mapping[str, Root]) -> None:
        """Record which files and folders the collection is made of, by path; what was recorded before goes."""
        with self.transaction(new_generation=False):
            self._db.execute("DELETE FROM root")
            self._db.executemany(
                "INSERT INTO root (path, device, settings, passed) VALUES (?, ?, ?, ?)",
                [(os.fsencode(path), *written(root)) for path, root in roots.items()],
            )

    def set_skipped(self, walked: Iterable[str], reasons: Mapping[str, str]) -> None:
        """Record why files could not be indexed, by path: all that is known of what lies below the walked paths."""
        with self.transaction(new_generation=False):
            self._db.executemany("DELETE FROM skipped WHERE path = ? OR path >= ? AND path < ?", map(below, walked))
            self._db.executemany(
                "INSERT OR REPLACE INTO skipped (path, reason) VALUES (?, ?)",
                [(os.fsencode(path), reason.encode("utf-8", "replace").decode()) for path, reason in reasons.items()],
            )

    def set_missing(self, items: Iterable[int], *, missing: bool) -> None:
        """Record whether the files of items are there."""
        with self.transaction():
            self._db.executemany("UPDATE item SET missing = ? WHERE id = ?", [(missing, item) for item in items])

    def remove(self, items: Iterable[int]) -> None:
        """Forget items; their vectors stay in the shards until the collection is compacted."""
        with self.transaction():
            self._db.executemany("DELETE FROM item WHERE id = ?", [(item,) for item in items])

    def add_space(self, space: Space, *, source: str) -> int:
        """Return the id of a space, which is recorded if it is new to the collection."""
        with self.transaction(new_generation=False):
            self._db.execute(
                "INSERT OR IGNORE INTO space (name, dim, revision, source) VALUES (?, ?, ?, ?)",
                (space.name, space.dim, space.revision, source),
            )
        (id_,) = self._db.execute(
            "SELECT id FROM space WHERE name = ? AND dim = ? AND revision = ?", (space.name, space.dim, space.revision)
        ).fetchone()
        return int(id_)

    def switch_space(self, space: int, *, without_items: Iterable[int] = ()) -> None:
        """Make a space, of which all vectors are there, the one that is searched; the others' vectors go."""
        with self.transaction():
            self._db.executemany("DELETE FROM item WHERE id = ?", [(item,) for item in without_items])
            self._db.execute("UPDATE collection SET space = ?", (space,))
            self._db.execute("DELETE FROM index_file WHERE space <> ?", (space,))
            self._db.execute("DELETE FROM vector WHERE space <> ?", (space,))
            # A content without a vector would be taken for known; only what no item has is without one.
            self._db.execute(
                "DELETE FROM content WHERE id IN (SELECT content FROM orphan) AND NOT EXISTS "
                "(SELECT 1 FROM vector v "
                "WHERE v.space = ? AND v.modality = content.modality AND v.content = content.id)",
                (space,),
            )
            self.drop_empty_shards()
            self._db.execute("DELETE FROM space WHERE id <> ?", (space,))
        self.remove_unnamed_files()

    def set_wish(self, wish: Mapping[str, Any]) -> None:
        """Record what kind of index the owner asks for."""
        with self.transaction(new_generation=False):
            self._db.execute("UPDATE collection SET wish = ?", (json.dumps(wish, sort_keys=True),))

    def set_index_file(self, file: IndexFile) -> None:
        """Make a written index file the one of its modality."""
        with self.transaction():
            self.name_index_file(file)
        self.remove_unnamed_files()

    def name_index_file(self, file: IndexFile) -> None:
        """Make a written index file the one of its modality; inside a transaction."""
        self.drop_index_files([file.modality])
        values = asdict(file) | {"report": json.dumps(file.report)}
        self._db.execute(
            f"INSERT INTO index_file (space, {', '.join(values)}) "
            f"VALUES ((SELECT space FROM collection), {', '.join('?' * len(values))})",
            tuple(values.values()),
        )

    def drop_empty_shards(self) -> None:
        """Forget shards that hold nothing any more; inside a transaction."""
        self._db.execute("DELETE FROM shard WHERE id NOT IN (SELECT shard FROM vector)")

    def delete_orphans(self) -> None:
        """Forget the contents that no item has, and their vectors; inside a transaction."""
        self._db.execute(
            "DELETE FROM vector WHERE (space, modality, content) IN "
            "(SELECT s.id, c.modality, c.id FROM orphan o JOIN content c ON c.id = o.content CROSS JOIN space s)"
        )
        self._db.execute("DELETE FROM content WHERE id IN (SELECT content FROM orphan)")

    def move_vectors(self, space: int, modality: Modality, contents: Ids, shard: int) -> None:
        """Record that the vectors of these contents now lie in a shard, in this order; inside a transaction."""
        self._db.executemany(
            "UPDATE vector SET shard = ?, row = ? WHERE space = ? AND modality = ? AND content = ?",
            [(shard, row, space, modality, content) for row, content in enumerate(contents.tolist())],
        )

    def drop_index_files(self, modalities: Iterable[Modality]) -> None:
        """Forget the index files of some modalities; inside a transaction."""
        self._db.executemany(
            "DELETE FROM index_file WHERE space = (SELECT space FROM collection) AND modality = ?",
            [(modality,) for modality in modalities],
        )

    @contextlib.contextmanager
    def transaction(self, *, new_generation: bool = True) -> Iterator[None]:
        """All or nothing; readers see it from the next generation on.

        Raises:
            CollectionError: If another collection was put in the place of this one.
        """
        db = self._db
        db.require_current()
        db.execute("BEGIN IMMEDIATE")
        try:
            yield
            if new_generation:
                db.execute("UPDATE collection SET generation = generation + 1")
            db.execute("COMMIT")
        except BaseException:
            if db.in_transaction:  # SQLite itself rolls back on a full disk
                db.execute("ROLLBACK")
            raise

    def write_shard(self, vectors: Vectors | StoredVectors, *, number: int) -> tuple[str, WrittenFile]:
        """Write a shard that a transaction is about to name."""
        return write_shard(self.store.folder, number, vectors)

    def next_shard(self) -> int:
        """Return the id that the next shard gets."""
        sql = "SELECT seq FROM sqlite_sequence WHERE name = 'shard'"
        row = read_row(self._db, sql, columns=(column.count,))
        return 1 if row is None else int(row[0]) + 1

    def insert_shard(self, name: str, rows: int, file: WrittenFile) -> int:
        """Name a shard that was written; inside a transaction."""
        cursor = self._db.execute(
            "INSERT INTO shard (name, rows, size, sha256) VALUES (?, ?, ?, ?)", (name, rows, file.size, file.sha256)
        )
        assert cursor.lastrowid is not None
        return cursor.lastrowid

    def remove_unnamed_files(self) -> None:
        """Delete what a crash left between writing a file and naming it, and files of the past.

        Only files with names of our own, and only in the folders beside the database that is open: what others keep
        there (a NAS its previews, a file system what it found) stays.

        Raises:
            CollectionError: If another collection was put in the place of this one.
        """
        named = {row[0] for row in self._db.execute("SELECT name FROM shard UNION ALL SELECT name FROM index_file")}
        for part in (VECTORS, INDEX):
            with self._opened(part) as folder:
                with os.scandir(folder) as entries:
                    unnamed = [e.name for e in entries if e.name not in named and is_own_file(part, e.name)]
                if unnamed:
                    # A commit whose last sync failed may be undone by a power cut; then these are named again.
                    sync_folder(self.store.folder)
                    self._db.require_current()
                for name in unnamed:
                    with contextlib.suppress(IsADirectoryError):
                        os.unlink(name, dir_fd=folder)

    @contextlib.contextmanager
    def _opened(self, part: str) -> Iterator[int]:
        """Open a folder of the collection that is open, whatever is put in its place meanwhile; make it if it is gone.

        Raises:
            CollectionError: If it is a link: what it leads to is not ours to write to or delete.
        """
        folder = self.store.folder / part
        folder.mkdir(mode=0o700, exist_ok=True)  # the index folder may be deleted by anyone
        try:
            descriptor = open_folder(folder)
        except OSError as error:
            raise CollectionError(
                f"cannot write to {folder}: {error.strerror}. A collection's folders are its own: to keep one on "
                "another disk, keep the whole collection there"
            ) from error
        try:
            self._db.require_current()
            yield descriptor
        finally:
            os.close(descriptor)

    def _write_shards(
        self, modalities: Sequence[Modality], vectors: Vectors | StoredVectors
    ) -> list[tuple[str, WrittenFile, Modality, Ids]]:
        """Write one shard for each modality; return also which of the vectors it holds."""
        written: list[tuple[str, WrittenFile, Modality, Ids]] = []
        number = self.next_shard()
        for modality in sorted(set(modalities)):
            positions = np.flatnonzero([m == modality for m in modalities])
            one_kind = len(positions) == len(modalities)
            name, file = self.write_shard(vectors if one_kind else vectors[positions], number=number + len(written))
            written.append((name, file, modality, positions))
        return written

    def _name_vectors(
        self, space: int, shards: Sequence[tuple[str, WrittenFile, Modality, Ids]], contents: Sequence[int]
    ) -> None:
        for name, file, modality, positions in shards:
            shard = self.insert_shard(name, len(positions), file)
            self._db.executemany(
                "INSERT INTO vector (space, modality, content, shard, row) VALUES (?, ?, ?, ?, ?)",
                [(space, modality, contents[position], shard, row) for row, position in enumerate(positions.tolist())],
            )

    def _write_thumbnails(self, traits: Mapping[ContentKey, Traits]) -> None:
        for content, known in traits.items():
            if known.thumbnail is not None:
                write_thumbnail(self.store.folder, content.sha256, known.thumbnail)

    def _record_traits(self, traits: Mapping[ContentKey, Traits]) -> None:
        self._db.executemany(
            "UPDATE content SET looks = coalesce(?, looks), seconds = coalesce(?, seconds) "
            "WHERE sha256 = ? AND modality = ?",
            [(known.looks, known.seconds, content.sha256, content.modality) for content, known in traits.items()],
        )

    def _content_id(self, content: ContentKey) -> int:
        (id_,) = self._db.execute(
            "SELECT id FROM content WHERE sha256 = ? AND modality = ?", (content.sha256, content.modality)
        ).fetchone()
        return int(id_)

    def _insert_item(self, item: NewItem) -> None:
        path = os.fsencode(item.path)
        # What lay at this path before, and the item that was renamed to it.
        self._db.execute("DELETE FROM item WHERE path = ?", (path,))
        if item.renamed_from is not None:
            self._db.execute("DELETE FROM item WHERE id = ?", (item.renamed_from,))
        cursor = self._db.execute(
            "INSERT INTO item (path, modality, fingerprint, beside, caption, metadata, tabled, own) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (path, item.modality, item.fingerprint, item.beside, item.caption, item.metadata, item.tabled, item.own),
        )
        for role, content in item.contents.items():
            self._db.execute(
                "INSERT INTO embedding (item, role, content) VALUES (?, ?, ?)",
                (cursor.lastrowid, role, self._content_id(content)),
            )
