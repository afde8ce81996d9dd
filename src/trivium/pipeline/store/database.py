"""The collection's SQLite file: its tables, and how it is made and opened.

It may come from a stranger: what lies beside it is looked at before SQLite opens it (`database_file`), nothing of its
schema runs before that is known to be ours (`foreign_objects`), and no error of SQLite's leaves without the file's
name.
"""

import contextlib
import functools
import os
import re
import sqlite3
import sys
from pathlib import Path

from trivium.encoders.base import Space
from trivium.encoders.files.writing import open_own, sync_folder
from trivium.pipeline.store.database_file import (
    APPLICATION_ID,
    DATABASE,
    DatabaseFileError,
    FileId,
    acquire,
    check_files,
    file_id,
    release,
)

SCHEMA = """
CREATE TABLE space (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL, dim INTEGER NOT NULL, revision TEXT NOT NULL,
    source TEXT NOT NULL,         -- what load_space takes: a name or a folder
    UNIQUE (name, dim, revision)
);
CREATE TABLE collection (
    only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
    space INTEGER NOT NULL REFERENCES space,  -- the one that is searched; others are being migrated to
    generation INTEGER NOT NULL,              -- grows with every commit
    wish TEXT NOT NULL DEFAULT '{}'           -- what kind of index the owner asked for, JSON
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
"""
# Made when they are first needed: collections of this format were made before there were windows and videos.
SETTING = "CREATE TABLE IF NOT EXISTS setting (name TEXT PRIMARY KEY, value NOT NULL)"
VIDEO_ITEM = "CREATE INDEX IF NOT EXISTS video_item ON item (id) WHERE modality = 'video'"
# The first collections of this format had foreign keys there.
_EARLIER = """
CREATE TABLE vector (
    space INTEGER NOT NULL REFERENCES space, modality TEXT NOT NULL,
    content INTEGER NOT NULL REFERENCES content, shard INTEGER NOT NULL REFERENCES shard, row INTEGER NOT NULL,
    PRIMARY KEY (space, modality, content)
) WITHOUT ROWID;
"""
_BY_SQLITE = re.compile("sqlite_(sequence|stat[134]|autoindex_.*)")


def foreign_objects(db: sqlite3.Connection) -> list[str]:
    """Name what a database's schema has that Trivium never made, or has otherwise; nothing of it is run.

    A trigger or a view would run with our next statement, with the rights of whoever opened the collection.

    Raises:
        sqlite3.Error: If the schema cannot be read.
    """
    foreign = []
    known = _known()
    for kind, name, table, sql in db.execute("SELECT type, name, tbl_name, sql FROM sqlite_master"):
        is_own = (kind, name, table, _plain(sql)) in known
        is_sqlites = kind in ("table", "index") and _BY_SQLITE.fullmatch(str(name)) and _is_sqlites(kind, name, sql)
        if not is_own and not is_sqlites:
            foreign.append(f"{kind} '{name}'")
    return foreign


def missing_tables(db: sqlite3.Connection) -> list[str]:
    """Name the tables that each collection has, and a database has not.

    Raises:
        sqlite3.Error: If the schema cannot be read.
    """
    found = {name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    return sorted(name for kind, name, _, _ in _known() if kind == "table" and name not in found | {"setting"})


def _is_sqlites(kind: str, name: str, sql: object) -> bool:
    """Whether an object of such a name is one that SQLite makes itself."""
    if kind == "index":
        return sql is None and name.startswith("sqlite_autoindex_")
    return isinstance(sql, str) and re.fullmatch(r"CREATE TABLE \w+\([\w,]+\)", sql) is not None


@functools.cache
def _known() -> frozenset[tuple[str, str, str, str]]:
    found = set()
    for script in (f"{SCHEMA}{SETTING};{VIDEO_ITEM};", _EARLIER):
        db = sqlite3.connect(":memory:")
        try:
            db.executescript(script)
            rows = db.execute("SELECT type, name, tbl_name, sql FROM sqlite_master WHERE sql IS NOT NULL")
            found |= {(kind, name, table, _plain(sql)) for kind, name, table, sql in rows}
        finally:
            db.close()
    return frozenset(row for row in found if not row[1].startswith("sqlite_"))


def _plain(sql: object) -> str:
    """Return a statement without its comments and line breaks, which older versions had otherwise."""
    return " ".join(re.sub(r"--[^\n]*", "", sql).split()) if isinstance(sql, str) else ""


FORMAT = 2
DRAFT = f".{DATABASE}.new"
BUSY_SECONDS = 30  # readers wait for a commit, which takes some ten milliseconds, and a commit for readers
LOCK, LOCK_HOLDER = "lock", "lock.holder"

# Of one row or one statement: the longest that we write are an item's metadata and a list of its ids.
MAX_ROW_BYTES = 256 << 20
DAMAGED = (sqlite3.DatabaseError, UnicodeDecodeError)  # the latter when SQLite's message quotes bytes that are no text


class CollectionError(Exception):
    """A collection that is missing, damaged, of another format, or not to be used as asked."""


class CollectionLockedError(CollectionError):
    """Another process is writing to the collection."""


class Connection(sqlite3.Connection):
    """A connection that knows its file, and keeps it from being closed beside SQLite (`database_file.kept_open`)."""

    database: Path
    file: FileId | None = None

    def close(self) -> None:
        """Close it; the file may be closed from then on."""
        super().close()
        self._release()

    def _release(self) -> None:
        file, self.file = self.file, None
        if file is not None:
            release(file)

    def __del__(self) -> None:
        # Of another thread it cannot be closed here; it is when it is freed, which comes next.
        with contextlib.suppress(sqlite3.ProgrammingError):
            super().close()
        self._release()

    def require_current(self) -> None:
        """See that the file that is open is still the one at its path, before a transaction begins.

        Raises:
            CollectionError: If the collection's folder was moved, or another put in its place, by a restore say; or if
                a journal that is not ours was put beside it.
        """
        try:
            is_current = file_id(self.database) == self.file
        except OSError:
            is_current = False
        if not is_current:
            raise CollectionError(
                f"{self.database.parent} is no longer the collection that was opened: it was moved, or another was put "
                "in its place (restored from a backup?) meanwhile. Nothing was changed there; open it again"
            )
        require_own_files(self.database)


def create_database(folder: Path, space: Space, *, source: str) -> None:
    """Make the database of an empty collection.

    It gets its final name when it is complete, so that half a collection is never taken for one.
    """
    draft = folder / DRAFT
    for left in (draft, folder / f"{DRAFT}-journal"):
        left.unlink(missing_ok=True)  # by a run that was killed
    os.close(open_own(str(draft), os.O_WRONLY))
    with contextlib.closing(connect(draft)) as db:
        _keep_safe(db)
        db.executescript(
            f"BEGIN; {SCHEMA} PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {FORMAT}; COMMIT;"
        )
        db.execute("BEGIN")
        db.execute("INSERT INTO space VALUES (1, ?, ?, ?, ?)", (space.name, space.dim, space.revision, source))
        db.execute("INSERT INTO collection (only_row, space, generation) VALUES (1, 1, 0)")
        db.execute("COMMIT")
    draft.rename(folder / DATABASE)
    sync_folder(folder)


def open_database(folder: Path, *, any_thread: bool = False) -> Connection:
    """Open a collection's database; ``any_thread`` is for callers that see to it that one thread uses it at a time.

    Raises:
        CollectionError: If it is missing, damaged, not ours, or of another format.
    """
    database = folder / DATABASE
    if not os.path.lexists(database):
        raise CollectionError(what_is_missing(folder))
    require_own_files(database)
    with contextlib.ExitStack() as on_failure:
        try:
            db = connect(database, any_thread=any_thread)
            on_failure.callback(db.close)
            _require_form(db, folder)
            _keep_safe(db)
            row = db.execute("SELECT 1 FROM collection JOIN space ON space.id = collection.space").fetchone()
        except DAMAGED as error:
            raise failure(database, error) from error
        except OSError as error:  # gone since it was looked at
            raise failure(database, error) from error
        if row is None:
            raise damage(database, "it names no space")
        on_failure.pop_all()
    return db


def require_own_files(database: Path) -> None:
    """Refuse what SQLite must not open: see `check_files`.

    Raises:
        CollectionError: If it must not, or it cannot be read.
    """
    try:
        check_files(database.parent)
    except DatabaseFileError as error:
        raise CollectionError(str(error)) from error
    except OSError as error:
        raise failure(database, error) from error


def connect(database: Path, *, any_thread: bool = False, mode: str = "rw") -> Connection:
    """Connect to a database whose files were looked at, and let nothing of its schema run.

    Args:
        database: The file.
        any_thread: See `open_database`.
        mode: ``rw``, or ``ro`` where nothing may be written, not even what an interrupted write needs.

    Raises:
        sqlite3.Error: If it cannot be opened.
        OSError: If it is not there.
    """
    file = acquire(database)
    try:
        # No isolation level: transactions are ours alone (the module's own BEGINs come at surprising moments).
        db = sqlite3.connect(
            f"{database.absolute().as_uri()}?mode={mode}",
            uri=True,
            timeout=BUSY_SECONDS,
            isolation_level=None,
            check_same_thread=not any_thread,
            factory=Connection,
        )
    except BaseException:
        release(file)
        raise
    db.database, db.file = database, file
    try:
        db.execute("PRAGMA trusted_schema = OFF")
        db.execute("PRAGMA cell_size_check = ON")
        db.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_ROW_BYTES)
        if sys.version_info >= (3, 12):
            db.setconfig(sqlite3.SQLITE_DBCONFIG_DEFENSIVE, True)
    except BaseException:
        db.close()
        raise
    return db


def failure(database: Path, error: Exception) -> CollectionError:
    """Say what SQLite or the disk has against a database, and what to do."""
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF  # the bits above tell details
    if isinstance(error, OSError) or (
        # A lock or the disk's refusal is no damage; the plain error is a table that is not there.
        isinstance(error, sqlite3.OperationalError) and code != sqlite3.SQLITE_ERROR
    ):
        return CollectionError(
            f"cannot read {database} ({error}): see to the disk and the folder's permissions, or wait for the program "
            "that is using it, then try again"
        )
    return damage(database, str(error))


def damage(database: Path, what: str) -> CollectionError:
    """Say what is wrong in a database, and what to do."""
    return CollectionError(
        f"{database} is damaged ({what}): restore a backup (`trivium restore BACKUP {database.parent}`), or delete "
        f"the folder and index again; your media are untouched. `trivium verify --read-data` tells more"
    )


def is_free(folder: Path) -> bool:
    """Whether a collection may be made here: nothing is there, or only what a killed run left before it had begun."""
    if not os.path.lexists(folder):
        return True
    if not folder.is_dir():
        return False
    return all(
        path.name in (DRAFT, f"{DRAFT}-journal", LOCK, LOCK_HOLDER)
        or (path.name in ("vectors", "index") and not path.is_symlink() and path.is_dir() and not any(path.iterdir()))
        for path in folder.iterdir()
    )


def what_is_missing(folder: Path) -> str:
    """Say why a folder is not a collection."""
    if folder.is_symlink() and not folder.exists():
        return f"{folder} is a link to what is not there: make that folder, or name another one"
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


def _require_form(db: Connection, folder: Path) -> None:
    """Refuse a database that is not ours, before a statement touches a table of it."""
    (application,) = db.execute("PRAGMA application_id").fetchone()
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if application != APPLICATION_ID:
        raise CollectionError(f"{db.database} is not a Trivium collection, or damaged")
    if version != FORMAT:
        raise CollectionError(
            f"{folder} has format {version}, this Trivium reads format {FORMAT}: "
            + ("install a newer Trivium" if version > FORMAT else "index the media anew")
        )
    if foreign := foreign_objects(db):
        raise CollectionError(
            f"{db.database} is damaged or a stranger's: it has what Trivium did not make: {', '.join(foreign[:5])}. "
            "Nothing of it was run; restore a backup with `trivium restore`, or make a collection of your own"
        )
    if missing := missing_tables(db):
        raise damage(db.database, f"it has no table {', '.join(missing)}")


def _keep_safe(db: Connection) -> None:
    # A rollback journal, not WAL: the WAL of SQLite before 3.51.3, which Debian 12 has, can corrupt a database.
    db.execute("PRAGMA journal_mode = DELETE")
    db.execute("PRAGMA synchronous = EXTRA")  # FULL, and the folder is synced when the journal goes
    db.execute("PRAGMA foreign_keys = ON")
    db.execute("PRAGMA secure_delete = ON")
