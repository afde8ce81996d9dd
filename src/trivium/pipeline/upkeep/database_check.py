"""Is a collection's database whole? Its structure, its tables, and its bytes by the checksum beside it."""

import contextlib
import hashlib
import os
import sqlite3
from pathlib import Path

from trivium.pipeline.store.checksum import CHECKSUM, Checksum, change_counter, database_pieces, read_checksum
from trivium.pipeline.store.database import DAMAGED, FORMAT, CollectionError, CollectionLockedError, Connection, connect
from trivium.pipeline.store.database_file import APPLICATION_ID, DATABASE, DatabaseFileError, check_files
from trivium.pipeline.store.schema import foreign_objects, missing_tables
from trivium.pipeline.upkeep.consistency import Manifest, read_manifest
from trivium.pipeline.upkeep.findings import Report, other_bytes, reason


def connect_to_check(folder: Path, *, writable: bool) -> Connection:
    """Open a database that may be damaged. Where it is writable, SQLite rolls an interrupted write back.

    Raises:
        sqlite3.Error: If it cannot be opened.
        OSError: If it is not there.
        DatabaseFileError: If SQLite must not open it.
    """
    check_files(folder)
    db = connect(folder / DATABASE, mode="rw" if writable else "ro")
    try:
        db.text_factory = lambda text: text.decode("utf-8", "replace")
        db.execute("PRAGMA query_only = ON")
    except BaseException:
        db.close()
        raise
    return db


def changes(folder: Path) -> tuple[int, int] | None:
    """Return the database's change counter and the copy of it, None if there is none to be read."""
    try:
        return change_counter(folder)
    except OSError:
        return None


def check_database(report: Report, *, writable: bool) -> Manifest | None:
    """Check the database's structure; return what it names, None if that cannot be known.

    Raises:
        CollectionLockedError: If another program keeps it to itself.
        CollectionError: If there is no room for temporary files.
    """
    path = report.folder / DATABASE
    if not os.path.lexists(path):
        report.damage(path, "it is missing")
        return None
    report.files += 1
    try:
        with contextlib.closing(connect_to_check(report.folder, writable=writable)) as db:
            manifest = _read(db, report)
    except (*DAMAGED, DatabaseFileError, OSError) as error:
        tell_unreadable(report, error, writable=writable)
        return None
    counters = changes(report.folder)
    if counters is not None and counters[0] != counters[1]:
        report.damage(path, f"its change counter ({counters[0]:,}) and the copy of it ({counters[1]:,}) differ")
    return manifest


def tell_unreadable(report: Report, error: Exception, *, writable: bool) -> None:
    """Report what SQLite could not read, if the database is to blame.

    Raises:
        CollectionLockedError: If another program keeps it to itself.
        CollectionError: If there is no room for temporary files.
    """
    path = report.folder / DATABASE
    if isinstance(error, DatabaseFileError):
        report.damage(path, f"SQLite was not let at it: {error}")
        return
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # the bits above tell details
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        raise CollectionLockedError(f"{path} is in use by another program; try again when it has finished") from error
    if code in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_NOMEM):
        raise CollectionError(
            f"cannot check {path} ({error}): make room for temporary files, then try again"
        ) from error
    if not writable and path.with_name(f"{DATABASE}-journal").exists():
        report.damage(
            path,
            f"a write was interrupted, and cannot be rolled back without writing to {report.folder} ({error})",
            "verify it with the right to write to it",
        )
    else:
        report.damage(path, f"SQLite cannot read it ({error}), so that nothing else could be checked")


def check_checksum(report: Report, *, read_data: bool) -> None:
    """Check the database's checksum, and the database by it."""
    database, path = report.folder / DATABASE, report.folder / CHECKSUM
    counters = changes(report.folder)
    recorded = _recorded(report, path)
    is_due = False
    if recorded is not None and counters is not None and counters[0] == counters[1]:
        if recorded.changes < counters[0]:
            report.note(
                path,
                f"it is of change {recorded.changes:,} of {DATABASE}, which is at change {counters[0]:,} (a writer was "
                "killed?): they cannot be compared",
                _RENEWAL,
            )
        elif recorded.changes > counters[0]:
            report.damage(
                database, f"it is at change {counters[0]:,}, but change {recorded.changes:,} was made: it is an old one"
            )
        else:
            is_due = True
    if not read_data:
        return
    try:
        if recorded is None or not is_due:
            report.pass_over(database.stat().st_size)
            return
        digest = hashlib.sha256()
        for piece in database_pieces(report.folder):
            report.count(piece)
            digest.update(piece)
    except OSError as error:
        report.damage(database, f"it cannot be read ({reason(error)})")
        return
    found = digest.hexdigest()
    if found != recorded.sha256:
        report.damage(
            database,
            f"its bytes are not those that were written: {other_bytes(found, recorded.sha256)}. SQLite finds its "
            "structure sound, so that something stored in it is wrong",
        )


_RENEWAL = "the next command that writes to the collection, for instance `trivium rebuild`, records it anew"


def _recorded(report: Report, path: Path) -> Checksum | None:
    try:
        recorded = read_checksum(report.folder)
    except (OSError, ValueError) as error:
        report.note(path, f"it cannot be used ({error}): {DATABASE} cannot be compared with it", _RENEWAL)
        return None
    if recorded is None:
        report.note(path, f"it is missing (a writer was killed?): {DATABASE} cannot be compared with it", _RENEWAL)
    else:
        report.files += 1
    return recorded


def _read(db: sqlite3.Connection, report: Report) -> Manifest | None:
    path = report.folder / DATABASE
    (application,) = db.execute("PRAGMA application_id").fetchone()
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if application != APPLICATION_ID:
        report.damage(path, f"it is not a collection's database: its mark is {application}, not {APPLICATION_ID}")
        return None
    faults = [fault for (fault,) in db.execute("PRAGMA integrity_check") if fault != "ok"]
    if faults:
        report.damage(path, f"SQLite finds {len(faults)} or more faults in its structure, first: {faults[0]}")
    if version != FORMAT:
        report.damage(
            path,
            f"it says that it has format {version}, this Trivium reads format {FORMAT}: its tables were not checked",
            f"if another Trivium wrote it, verify it with that one; else restore {report.folder} from a backup, or "
            "delete it and index again",
        )
    if faults or version != FORMAT:
        return None
    if foreign := foreign_objects(db):
        report.damage(path, f"it has what Trivium did not make: {', '.join(foreign[:5])}; its tables were not read")
        return None
    if missing := missing_tables(db):
        report.damage(path, f"it has no table {', '.join(missing)}")
        return None
    if db.execute("SELECT 1 FROM collection JOIN space ON space.id = collection.space").fetchone() is None:
        report.damage(path, "it names no space")
    manifest = read_manifest(db)
    for contradiction in manifest.contradictions:
        report.damage(path, f"it contradicts itself: {contradiction}")
    return manifest
