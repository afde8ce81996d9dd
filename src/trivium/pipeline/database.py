"""The collection's SQLite file: its form, and how it is made and opened."""

import contextlib
import os
import sqlite3
from pathlib import Path

from trivium.encoders.base import Space

APPLICATION_ID = 0x54524956  # "TRIV", so that `file` and we recognise our own database
FORMAT = 1
DATABASE = "collection.db"
DRAFT = f".{DATABASE}.new"

SCHEMA = f"""
CREATE TABLE collection (
    only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
    space_name TEXT NOT NULL, space_dim INTEGER NOT NULL, space_revision TEXT NOT NULL,
    space_source TEXT NOT NULL,   -- what load_space takes: a name or a folder
    generation INTEGER NOT NULL   -- grows with every commit
);
CREATE TABLE shard (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, rows INTEGER NOT NULL, sha256 TEXT NOT NULL);
CREATE TABLE vector (
    id INTEGER PRIMARY KEY,
    content TEXT NOT NULL UNIQUE, -- "<modality>:<sha256>"
    shard INTEGER NOT NULL REFERENCES shard, row INTEGER NOT NULL
);
CREATE TABLE item (
    id INTEGER PRIMARY KEY,
    path BLOB NOT NULL UNIQUE,    -- as the file system has it: names need not be valid UTF-8
    modality TEXT NOT NULL,
    fingerprint TEXT NOT NULL,    -- size and times of the file when it was read
    caption_fingerprint TEXT NOT NULL,
    caption TEXT
);
CREATE TABLE embedding (
    item INTEGER NOT NULL REFERENCES item ON DELETE CASCADE,
    role TEXT NOT NULL,
    vector INTEGER NOT NULL REFERENCES vector,
    PRIMARY KEY (item, role)
) WITHOUT ROWID;
CREATE INDEX embedding_by_vector ON embedding (vector);
CREATE TABLE index_file (name TEXT NOT NULL, sha256 TEXT NOT NULL, generation INTEGER NOT NULL);
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
        db.execute("INSERT INTO collection VALUES (1, ?, ?, ?, ?, 0)", (space.name, space.dim, space.revision, source))
    draft.rename(folder / DATABASE)


def open_database(folder: Path) -> tuple[sqlite3.Connection, Space, str]:
    """Open a collection's database and return it with the space and what `load_space` takes for it.

    Raises:
        CollectionError: If it is missing, damaged, not ours, or of another format.
    """
    database = folder / DATABASE
    if not database.is_file():
        raise CollectionError(what_is_missing(folder))
    with contextlib.ExitStack() as on_failure:
        try:
            db = _connect(database)
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
            row = db.execute("SELECT space_name, space_dim, space_revision, space_source FROM collection").fetchone()
        except sqlite3.DatabaseError as error:
            raise CollectionError(
                f"{database} is damaged ({error}): restore it from a backup, or delete {folder} and index again; "
                "your media are untouched"
            ) from error
        if row is None:
            raise CollectionError(f"{database} is damaged: it names no space; delete {folder} and index again")
        on_failure.pop_all()
    return db, Space(name=row[0], dim=row[1], revision=row[2]), row[3]


def is_free(folder: Path) -> bool:
    """Whether a collection may be made here: nothing is there, or only what a killed run left before it had begun."""
    if not folder.exists():
        return True
    if not folder.is_dir():
        return False
    return all(
        path.name in (DRAFT, f"{DRAFT}-journal")
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


def _connect(database: Path) -> sqlite3.Connection:
    # No isolation level: transactions are ours alone (the module's own BEGINs come at surprising moments).
    db = sqlite3.connect(database, timeout=30, isolation_level=None)
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
