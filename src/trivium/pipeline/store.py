"""The collection folder: what is in a collection, kept so that nothing acknowledged is ever lost.

    NAME/
      collection.db      SQLite: the only truth about items, and which vector lies where
      vectors/           write-once shards, NNNNNNNN-<hash>.npy, float32 (n, d)
      index/             the FAISS file: derived, verified by hash, rebuilt from the shards whenever it does not fit
      lock               one writer at a time

A batch is committed in this order: shard written and synced, renamed to its final name, folder synced, then one
SQLite transaction names it. A crash before the transaction leaves an unnamed file, which the next writer removes;
after it, the batch is complete. A vector belongs to a content (SHA-256 of the bytes), not to a path, so renames,
copies and removed files that come back cost no encoding.
"""

import contextlib
import hashlib
import io
import os
import sqlite3
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import cast

import filelock
import numpy as np
from numpy.typing import NDArray

from trivium.encoders.base import Modality, Space, Vectors
from trivium.indexes import FlatIndex, Ids
from trivium.pipeline.database import (
    CollectionError,
    CollectionLockedError,
    create_database,
    is_free,
    open_database,
    what_is_missing,
)
from trivium.pipeline.records import Match, NewItem, StoredItem


class Store:
    """One collection folder, open for reading; writing needs `writing`."""

    def __init__(self, folder: Path) -> None:
        """Open an existing collection.

        Raises:
            CollectionError: If it is missing, half there, damaged, or of a newer format.
        """
        self.folder = folder
        self._db, self.space, self.space_source = open_database(folder)
        # A collection that nobody closes is closed when it is collected; nothing is ever pending.
        self._close = weakref.finalize(self, _close_quietly, self._db)
        (shards,) = self._db.execute("SELECT count(*) FROM shard").fetchone()
        if shards and not (folder / "vectors").is_dir():
            raise CollectionError(
                f"{folder} is half a collection: its folder 'vectors' is missing. Restore it from a backup, "
                "or delete the collection and index again; your media are untouched"
            )
        self._index: FlatIndex | None = None
        self._index_generation = -1

    @classmethod
    def create(cls, folder: Path, space: Space, *, source: str) -> "Store":
        """Make a new collection in a folder that does not exist or is empty.

        Raises:
            CollectionError: If the folder holds something else, or cannot be made.
        """
        if not is_free(folder):
            raise CollectionError(what_is_missing(folder))
        try:
            # Embeddings and file names are private: the folder is for its owner alone.
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            (folder / "vectors").mkdir(mode=0o700, exist_ok=True)
            (folder / "index").mkdir(mode=0o700, exist_ok=True)
            create_database(folder, space, source=source)
            _sync_folder(folder)
        except (OSError, sqlite3.Error) as error:
            raise CollectionError(f"cannot make a collection in {folder}: {error}") from error
        return cls(folder)

    def require(self, space: Space) -> None:
        """Refuse a space that is not the collection's own.

        Raises:
            CollectionError: With both names.
        """
        if space != self.space:
            raise CollectionError(
                f"{self.folder} was made with space {self.space}, it cannot be used with space {space}: vectors of "
                "different spaces do not compare. Use the collection's own space, or index into a new collection"
            )

    def close(self) -> None:
        """Close the database; nothing is pending."""
        self._close()

    # Reading

    @property
    def generation(self) -> int:
        """Number of commits so far."""
        (generation,) = self._db.execute("SELECT generation FROM collection").fetchone()
        return int(generation)

    def items(self) -> dict[str, StoredItem]:
        """All items by path."""
        contents: dict[int, dict[str, str]] = {}
        for item, role, content in self._db.execute(
            "SELECT e.item, e.role, v.content FROM embedding e JOIN vector v ON v.id = e.vector"
        ):
            contents.setdefault(item, {})[role] = content
        rows = self._db.execute("SELECT id, path, modality, fingerprint, caption_fingerprint, caption FROM item")
        return {
            (path := os.fsdecode(raw)): StoredItem(
                id=id_,
                path=path,
                modality=modality,
                fingerprint=fingerprint,
                caption_fingerprint=caption_fingerprint,
                caption=caption,
                contents=contents.get(id_, {}),
            )
            for id_, raw, modality, fingerprint, caption_fingerprint, caption in rows
        }

    def contents(self) -> set[str]:
        """Keys of all contents that have a vector."""
        return {row[0] for row in self._db.execute("SELECT content FROM vector")}

    def counts(self) -> dict[Modality, int]:
        """Count the items of each modality."""
        rows = self._db.execute("SELECT modality, count(*) FROM item GROUP BY modality ORDER BY modality")
        return {cast(Modality, modality): int(count) for modality, count in rows}

    def vector_count(self) -> int:
        """Count the distinct vectors that belong to an item."""
        (count,) = self._db.execute("SELECT count(DISTINCT vector) FROM embedding").fetchone()
        return int(count)

    def vectors_per_item(self) -> int:
        """Return the most vectors that one item has."""
        (most,) = self._db.execute("SELECT max(n) FROM (SELECT count(*) AS n FROM embedding GROUP BY item)").fetchone()
        return int(most or 0)

    def vectors_of(self, modality: Modality) -> Ids:
        """Ids of the vectors that belong to items of one modality."""
        rows = self._db.execute(
            "SELECT DISTINCT e.vector FROM embedding e JOIN item i ON i.id = e.item WHERE i.modality = ?",
            (modality,),
        )
        return np.fromiter((row[0] for row in rows), np.int64)

    def matches(self, vectors: Sequence[int]) -> Iterator[Match]:
        """Items that these vectors belong to, in the order of the vectors, then of the paths."""
        for vector in vectors:
            rows = self._db.execute(
                "SELECT i.path, i.modality, i.caption, e.role FROM embedding e JOIN item i ON i.id = e.item "
                "WHERE e.vector = ? ORDER BY i.path, e.role DESC",  # a content match is told before a caption's
                (int(vector),),
            )
            for path, modality, caption, role in rows.fetchall():
                yield Match(vector=vector, path=os.fsdecode(path), modality=modality, caption=caption, role=role)

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        """See one generation throughout, whatever a writer does meanwhile."""
        with self._db:
            self._db.execute("BEGIN")
            yield

    def index(self) -> FlatIndex:
        """Return the index over all live vectors, from its file if that is sound and current, else from the shards.

        Raises:
            CollectionError: If a shard is missing or damaged.
        """
        generation = self.generation
        if self._index is None or self._index_generation != generation:
            self._index = self._read_index(generation) or FlatIndex(*self._live_vectors(), dim=self.space.dim)
            self._index_generation = generation
        return self._index

    def has_current_index_file(self) -> bool:
        """Whether the index file belongs to the present generation (its content is checked when it is read)."""
        row = self._db.execute("SELECT name, generation FROM index_file").fetchone()
        return row is not None and row[1] == self.generation and (self.folder / "index" / row[0]).is_file()

    # Writing

    @contextlib.contextmanager
    def writing(self) -> Iterator["Writer"]:
        """Be the one writer.

        Raises:
            CollectionLockedError: If another process is writing.
        """
        lock = filelock.FileLock(self.folder / "lock", mode=0o600)
        holder = self.folder / "lock.holder"
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            pid = holder.read_text() if holder.is_file() else "unknown"
            raise CollectionLockedError(f"{self.folder} is being written by another process (pid {pid})") from None
        try:
            holder.write_text(str(os.getpid()))
            yield Writer(self, self._db)
        finally:
            holder.unlink(missing_ok=True)
            lock.release()

    def _read_index(self, generation: int) -> FlatIndex | None:
        row = self._db.execute("SELECT name, sha256, generation FROM index_file").fetchone()
        if row is None or row[2] != generation:
            return None
        name, sha256, _ = row
        try:
            data = (self.folder / "index" / name).read_bytes()
        except OSError:
            return None
        # FAISS trusts its files and does not notice a flipped bit: they are parsed only when their hash is ours.
        if hashlib.sha256(data).hexdigest() != sha256:
            return None
        return FlatIndex.from_bytes(data)

    def _live_vectors(self) -> tuple[Ids, Vectors]:
        """Ids and vectors of everything that belongs to an item, from the shards."""
        parts = [(np.empty(0, np.int64), np.empty((0, self.space.dim), np.float32))]
        for shard, name in self._db.execute("SELECT id, name FROM shard ORDER BY id").fetchall():
            rows = self._db.execute(
                "SELECT id, row FROM vector WHERE shard = ? AND id IN (SELECT vector FROM embedding) ORDER BY row",
                (shard,),
            ).fetchall()
            if rows:
                ids, positions = np.array(rows, np.int64).T
                parts.append((ids, _read_shard(self.folder / "vectors" / name, dim=self.space.dim)[positions]))
        return np.concatenate([ids for ids, _ in parts]), np.concatenate([vectors for _, vectors in parts])


class Writer:
    """Changes to a collection, each wholly made or not at all; made by `Store.writing`."""

    def __init__(self, store: Store, db: sqlite3.Connection) -> None:
        self._store = store
        self._db = db
        self._remove_unnamed_files()

    def commit(self, items: Sequence[NewItem], contents: Sequence[str], vectors: Vectors) -> None:
        """Add a batch of items and the vectors that they bring.

        Args:
            items: Each names only contents that are stored or among ``contents``.
            contents: Keys of the new vectors, unique and not stored yet, n of them.
            vectors: Unit vectors, shape (n, d).
        """
        shard_name, shard_hash = self._write_shard(vectors) if len(contents) else ("", "")
        with self._transaction():
            if shard_name:
                cursor = self._db.execute(
                    "INSERT INTO shard (name, rows, sha256) VALUES (?, ?, ?)",
                    (shard_name, len(vectors), shard_hash),
                )
                self._db.executemany(
                    "INSERT INTO vector (content, shard, row) VALUES (?, ?, ?)",
                    [(content, cursor.lastrowid, row) for row, content in enumerate(contents)],
                )
            for item in items:
                # What lay at this path before, and the item that was renamed to it.
                self._db.execute(
                    "DELETE FROM item WHERE path = ? OR id = ?", (os.fsencode(item.path), item.renamed_from)
                )
                cursor = self._db.execute(
                    "INSERT INTO item (path, modality, fingerprint, caption_fingerprint, caption) "
                    "VALUES (?, ?, ?, ?, ?)",
                    (
                        os.fsencode(item.path),
                        item.modality,
                        item.fingerprint,
                        item.caption_fingerprint,
                        item.caption,
                    ),
                )
                self._db.executemany(
                    "INSERT INTO embedding (item, role, vector) SELECT ?, ?, id FROM vector WHERE content = ?",
                    [(cursor.lastrowid, role, content) for role, content in item.contents.items()],
                )

    def touch(self, fingerprints: Mapping[int, tuple[str, str]]) -> None:
        """Record new (file, caption) fingerprints of items whose content is as it was."""
        with self._transaction(new_generation=False):
            self._db.executemany(
                "UPDATE item SET fingerprint = ?, caption_fingerprint = ? WHERE id = ?",
                [(file, caption, item) for item, (file, caption) in fingerprints.items()],
            )

    def remove(self, items: Iterable[int]) -> None:
        """Forget items; their vectors stay in the shards until the collection is compacted."""
        with self._transaction():
            self._db.executemany("DELETE FROM item WHERE id = ?", [(item,) for item in items])

    def save_index(self) -> None:
        """Write the index of the present generation, unless its file is there already."""
        store = self._store
        if store.has_current_index_file():
            return
        generation = store.generation
        folder = store.folder / "index"
        name = f"flat-{generation:08d}.faiss"
        sha256 = _write_file(folder / name, store.index().to_bytes())
        with self._transaction(new_generation=False):
            self._db.execute("DELETE FROM index_file")
            self._db.execute("INSERT INTO index_file VALUES (?, ?, ?)", (name, sha256, generation))
        self._remove_unnamed_files()

    @contextlib.contextmanager
    def _transaction(self, *, new_generation: bool = True) -> Iterator[None]:
        with self._db:
            self._db.execute("BEGIN IMMEDIATE")
            yield
            if new_generation:
                self._db.execute("UPDATE collection SET generation = generation + 1")

    def _write_shard(self, vectors: Vectors) -> tuple[str, str]:
        """Write vectors to a new shard, to the disk, and return its name and SHA-256."""
        buffer = io.BytesIO()
        np.save(buffer, np.ascontiguousarray(vectors, np.float32), allow_pickle=False)
        data = buffer.getvalue()
        (number,) = self._db.execute("SELECT coalesce(max(id), 0) + 1 FROM shard").fetchone()
        name = f"{number:08d}-{hashlib.sha256(data).hexdigest()[:16]}.npy"
        return name, _write_file(self._store.folder / "vectors" / name, data)

    def _remove_unnamed_files(self) -> None:
        """Delete what a crash left between writing a file and naming it, and index files of the past."""
        named = {row[0] for row in self._db.execute("SELECT name FROM shard UNION SELECT name FROM index_file")}
        for part in ("vectors", "index"):
            (self._store.folder / part).mkdir(mode=0o700, exist_ok=True)  # the index folder may be deleted by anyone
            for path in (self._store.folder / part).iterdir():
                if path.name not in named:
                    path.unlink()


def _read_shard(path: Path, *, dim: int) -> NDArray[np.float32]:
    try:
        vectors: NDArray[np.float32] = np.load(path, allow_pickle=False, mmap_mode="r")
    except (OSError, ValueError) as error:
        raise CollectionError(
            f"{path} is missing or damaged ({error}): delete the collection and index again; your media are untouched"
        ) from error
    if vectors.ndim != 2 or vectors.shape[1] != dim or vectors.dtype != np.float32:
        raise CollectionError(f"{path} is damaged: it holds {vectors.dtype} {vectors.shape}, not float32 (n, {dim})")
    return vectors


def _close_quietly(db: sqlite3.Connection) -> None:
    with contextlib.suppress(sqlite3.ProgrammingError):  # collected in another thread than the one that opened it
        db.close()


def _sync_folder(folder: Path) -> None:
    """Make a rename in ``folder`` survive a power cut."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_file(path: Path, data: bytes) -> str:
    """Write a new file whole, to the disk, for its owner alone; return its SHA-256."""
    draft = path.with_name(f".{path.name}.new")
    # Opened through Python, not by faiss.write_index, which can report success on a full disk.
    with open(draft, "wb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    draft.rename(path)
    _sync_folder(path.parent)
    return hashlib.sha256(data).hexdigest()
