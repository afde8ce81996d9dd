"""The collection's SQLite file: how it is made, opened, and brought to this format.

It may come from a stranger: what lies beside it is looked at before SQLite opens it (`database_file`), nothing of its
schema runs before that is known to be ours (`foreign_objects`), and no error of SQLite's leaves without the file's
name.
"""

import contextlib
import logging
import os
import sqlite3
import sys
from pathlib import Path

from trivium.encoders.base import Space
from trivium.encoders.files.writing import open_own, sync_folder
from trivium.pipeline.escaping import printable
from trivium.pipeline.store.database_file import (
    APPLICATION_ID,
    DATABASE,
    DatabaseFileError,
    FileId,
    acquire,
    check_files,
    file_id,
    release,
    write_checksum,
)
from trivium.pipeline.store.schema import FORMAT, OLDEST, SCHEMA, UPGRADE, foreign_objects, missing_tables

log = logging.getLogger(__name__)
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

    One of an older format is brought to this one, in a moment: nothing is encoded again.

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
            version = _require_form(db, folder)
            _keep_safe(db)
            if version < FORMAT:
                _upgrade(db, folder, version)
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


def _require_form(db: Connection, folder: Path) -> int:
    """Refuse a database that is not ours, before a statement touches a table of it; return its format."""
    (application,) = db.execute("PRAGMA application_id").fetchone()
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if application != APPLICATION_ID:
        raise CollectionError(f"{db.database} is not a Trivium collection, or damaged")
    if not OLDEST <= version <= FORMAT:
        raise CollectionError(
            f"{folder} has format {version}, this Trivium reads format {FORMAT}: "
            + ("install a newer Trivium" if version > FORMAT else "index the media anew")
        )
    if foreign := foreign_objects(db, version=version):
        raise CollectionError(
            f"{db.database} is damaged or a stranger's: it has what Trivium did not make: {', '.join(foreign[:5])}. "
            "Nothing of it was run; restore a backup with `trivium restore`, or make a collection of your own"
        )
    if missing := missing_tables(db, version=version):
        raise damage(db.database, f"it has no table {', '.join(missing)}")
    return int(version)


def _upgrade(db: Connection, folder: Path, version: int) -> None:
    """Bring a database to this format: all of it or nothing.

    Raises:
        CollectionError: If it cannot be written.
    """
    try:
        db.execute("BEGIN IMMEDIATE")
        (found,) = db.execute("PRAGMA user_version").fetchone()
        if found == version:  # else another program was quicker
            for statement in UPGRADE:
                db.execute(statement)
        db.execute("COMMIT")
    except sqlite3.OperationalError as error:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise CollectionError(
            f"{folder} has format {version}, and cannot be brought to format {FORMAT} ({error}): open it once with "
            "the right to write to it, for instance with `trivium info`"
        ) from error
    log.warning(
        "%s was brought from an earlier format to this one: an earlier Trivium no longer opens it, and nothing was "
        "encoded again",
        printable(folder),
    )
    with contextlib.suppress(OSError):  # a later writer records it
        write_checksum(folder)


def _keep_safe(db: Connection) -> None:
    # A rollback journal, not WAL: the WAL of SQLite before 3.51.3, which Debian 12 has, can corrupt a database.
    db.execute("PRAGMA journal_mode = DELETE")
    db.execute("PRAGMA synchronous = EXTRA")  # FULL, and the folder is synced when the journal goes
    db.execute("PRAGMA foreign_keys = ON")
    db.execute("PRAGMA secure_delete = ON")
