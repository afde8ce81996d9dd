"""The collection's SQLite file: its form, and how it is made and opened."""

import contextlib
import os
import sqlite3
from pathlib import Path

from trivium.encoders.base import Space
from trivium.pipeline.durable import sync_folder

APPLICATION_ID = 0x54524956  # "TRIV", so that `file` and we recognise our own database
FORMAT = 2
DATABASE = "collection.db"
DRAFT = f".{DATABASE}.new"
BUSY_SECONDS = 30  # readers wait for a commit, which takes some ten milliseconds, and a commit for readers
LOCK, LOCK_HOLDER = "lock", "lock.holder"

SCHEMA = f"""
CREATE TABLE space (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL, dim INTEGER NOT NULL, revision TEXT NOT NULL,
    source TEXT NOT NULL,         -- what load_space takes: a name or a folder
    UNIQUE (name, dim, revision)
);
CREATE TABLE collection (
    only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
    space INTEGER NOT NULL REFERENCES space,  -- the one that is searched; others are being migrated to
    generation INTEGER NOT NULL,              -- grows with every commit
    wish TEXT NOT NULL DEFAULT '{{}}'           -- what kind of index the owner asked for, JSON
);
CREATE TABLE content (
    id INTEGER PRIMARY KEY AUTOINCREMENT,     -- never used twice: index files of the past know it too
    modality TEXT NOT NULL,
    sha256 BLOB NOT NULL,                     -- of the file's bytes, or of the caption
    UNIQUE (sha256, modality)
);
CREATE TABLE shard (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL UNIQUE, rows INTEGER NOT NULL, size INTEGER NOT NULL, sha256 TEXT NOT NULL
);
CREATE TABLE vector (
    space INTEGER NOT NULL REFERENCES space,
    modality TEXT NOT NULL,                   -- the content's: the newest of one modality are found in one step
    -- No foreign keys here: without trees of their own they would make each deletion a walk over all vectors.
    content INTEGER NOT NULL, shard INTEGER NOT NULL, row INTEGER NOT NULL,
    PRIMARY KEY (space, modality, content)
) WITHOUT ROWID;
CREATE TABLE item (
    id INTEGER PRIMARY KEY,
    path BLOB NOT NULL UNIQUE,    -- as the file system has it: names need not be valid UTF-8
    modality TEXT NOT NULL,
    fingerprint TEXT NOT NULL,    -- size and times of the file when it was read
    beside TEXT NOT NULL,         -- the same of its caption and its sidecar
    caption TEXT,
    metadata TEXT,                -- what filters see, JSON: the sidecar's over the table's
    tabled TEXT                   -- what a metadata table said, JSON
);
CREATE TABLE embedding (
    item INTEGER NOT NULL REFERENCES item ON DELETE CASCADE,
    role TEXT NOT NULL,
    content INTEGER NOT NULL REFERENCES content,
    PRIMARY KEY (item, role)
) WITHOUT ROWID;
CREATE INDEX embedding_by_content ON embedding (content);
CREATE INDEX caption_embedding ON embedding (item, content) WHERE role <> 'content';
-- Contents that no item has any more: never found, and deleted by the next compaction.
CREATE TABLE orphan (content INTEGER PRIMARY KEY REFERENCES content ON DELETE CASCADE);
CREATE TRIGGER content_lost AFTER DELETE ON embedding BEGIN
    INSERT OR IGNORE INTO orphan SELECT OLD.content
    WHERE NOT EXISTS (SELECT 1 FROM embedding WHERE content = OLD.content);
END;
CREATE TRIGGER content_found AFTER INSERT ON embedding BEGIN
    DELETE FROM orphan WHERE content = NEW.content;
END;
CREATE TABLE index_file (
    space INTEGER NOT NULL REFERENCES space, modality TEXT NOT NULL,
    name TEXT NOT NULL UNIQUE, size INTEGER NOT NULL, sha256 TEXT NOT NULL,
    state TEXT NOT NULL,          -- inode and times of the file whose hash this is
    kind TEXT NOT NULL, effort INTEGER,
    through INTEGER NOT NULL,     -- holds every vector whose content's id is at most this
    vectors INTEGER NOT NULL,
    report TEXT NOT NULL,         -- why this kind, and the recall that was measured; JSON
    PRIMARY KEY (space, modality)
);
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {FORMAT};
"""


class CollectionError(Exception):
    """A collection that is missing, damaged, of another format, or not to be used as asked."""


class CollectionLockedError(CollectionError):
    """Another process is writing to the collection."""


def create_database(folder: Path, space: Space, *, source: str) -> None:
    """Make the database of an empty collection.

    It gets its final name when it is complete, so that half a collection is never taken for one.
    """
    draft = folder / DRAFT
    for left in (draft, folder / f"{DRAFT}-journal"):
        left.unlink(missing_ok=True)  # by a run that was killed
    os.close(os.open(draft, os.O_CREAT | os.O_WRONLY, 0o600))
    with contextlib.closing(_connect(draft)) as db:
        db.executescript(f"BEGIN; {SCHEMA} COMMIT;")
        db.execute("BEGIN")
        db.execute("INSERT INTO space VALUES (1, ?, ?, ?, ?)", (space.name, space.dim, space.revision, source))
        db.execute("INSERT INTO collection (only_row, space, generation) VALUES (1, 1, 0)")
        db.execute("COMMIT")
    draft.rename(folder / DATABASE)
    sync_folder(folder)


def open_database(folder: Path, *, any_thread: bool = False) -> sqlite3.Connection:
    """Open a collection's database; ``any_thread`` is for callers that see to it that one thread uses it at a time.

    Raises:
        CollectionError: If it is missing, damaged, not ours, or of another format.
    """
    database = folder / DATABASE
    if not database.is_file():
        raise CollectionError(what_is_missing(folder))
    with contextlib.ExitStack() as on_failure:
        try:
            db = _connect(database, any_thread=any_thread)
            on_failure.callback(db.close)
            (application,) = db.execute("PRAGMA application_id").fetchone()
            (version,) = db.execute("PRAGMA user_version").fetchone()
            if application != APPLICATION_ID:
                raise CollectionError(f"{database} is not a Trivium collection, or damaged")
            if version != FORMAT:
                raise CollectionError(
                    f"{folder} has format {version}, this Trivium reads format {FORMAT}: "
                    + ("install a newer Trivium" if version > FORMAT else "index the media anew")
                )
            row = db.execute("SELECT 1 FROM collection JOIN space ON space.id = collection.space").fetchone()
        except sqlite3.DatabaseError as error:
            # A lock or the disk's refusal is no damage; the plain error is a table that is not there.
            if isinstance(error, sqlite3.OperationalError) and error.sqlite_errorcode != sqlite3.SQLITE_ERROR:
                raise CollectionError(
                    f"cannot read {database} ({error}): see to the disk and the folder's permissions, or wait for "
                    "the program that is using it, then try again"
                ) from error
            raise CollectionError(
                f"{database} is damaged ({error}): restore it from a backup, or delete {folder} and index again; "
                "your media are untouched"
            ) from error
        if row is None:
            raise CollectionError(f"{database} is damaged: it names no space; delete {folder} and index again")
        on_failure.pop_all()
    return db


def is_free(folder: Path) -> bool:
    """Whether a collection may be made here: nothing is there, or only what a killed run left before it had begun."""
    if not folder.exists():
        return True
    if not folder.is_dir():
        return False
    return all(
        path.name in (DRAFT, f"{DRAFT}-journal", LOCK, LOCK_HOLDER)
        or (path.name in ("vectors", "index") and path.is_dir() and not any(path.iterdir()))
        for path in folder.iterdir()
    )


def what_is_missing(folder: Path) -> str:
    """Say why a folder is not a collection."""
    if not folder.exists():
        return f"no collection at {folder}: make one with `trivium index {folder} MEDIA...`"
    if not folder.is_dir():
        return f"{folder} is a file, not a collection"
    if (folder / "vectors").is_dir() and not (folder / DATABASE).exists():
        return (
            f"{folder} is half a collection: {DATABASE} is missing. Restore it from a backup, "
            "or delete the folder and index again; your media are untouched"
        )
    return f"{folder} is not a collection: it has no {DATABASE}. Name a folder that does not exist yet, or is empty"


def _connect(database: Path, *, any_thread: bool = False) -> sqlite3.Connection:
    # No isolation level: transactions are ours alone (the module's own BEGINs come at surprising moments).
    db = sqlite3.connect(database, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=not any_thread)
    try:
        # A rollback journal, not WAL: the WAL of SQLite before 3.51.3, which Debian 12 has, can corrupt a database.
        db.execute("PRAGMA journal_mode = DELETE")
        db.execute("PRAGMA synchronous = EXTRA")  # FULL, and the folder is synced when the journal goes
        db.execute("PRAGMA foreign_keys = ON")
        db.execute("PRAGMA secure_delete = ON")
    except sqlite3.DatabaseError:
        db.close()
        raise
    return db
