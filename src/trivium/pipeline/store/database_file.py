"""The database as a file, looked at before SQLite opens it; and the descriptors that must stay open meanwhile.

SQLite does what the files beside a database say: it rolls a journal back, deletes the "super-journal" that one names
(sqlite.org/atomiccommit.html, section 5), and takes a write-ahead log in. In a folder from elsewhere that is a
stranger's word, so each such file is looked at first: ours are regular files, and a journal of ours names no other.
"""

import contextlib
import os
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

DATABASE = "collection.db"
APPLICATION_ID = 0x54524956  # "TRIV", so that `file` and we recognise our own database
JOURNAL_MAGIC = bytes.fromhex("d9d505f920a163d7")  # sqlite.org/fileformat2.html, section 3: begins each header
_HEADER_MAGIC = b"SQLite format 3\0"
_ROLLBACK = b"\1\1"  # the file's write and read version where a journal is used; 2 is a write-ahead log
# Files that SQLite may make beside a database in modes that we never use.
_FOREIGN_ENDS = ("-wal", "-shm")

SPARSE_BYTES = 64 << 20  # smaller ones are read in no time, whatever they are
FileId = tuple[int, int]  # device and inode


class DatabaseFileError(Exception):
    """A database, or a file beside it, that SQLite must not open; the message says what to do."""


def check_files(folder: Path) -> None:
    """Refuse a collection's database that is not ours, or that has something beside it that is not.

    Nothing is opened by SQLite, and nothing is changed. What a writer that was killed has left passes.

    Raises:
        DatabaseFileError: If SQLite must not open it.
        OSError: If it cannot be read.
    """
    database, journal = folder / DATABASE, folder / f"{DATABASE}-journal"
    _require_regular(database)
    for end in _FOREIGN_ENDS:
        if os.path.lexists(folder / f"{DATABASE}{end}"):
            raise DatabaseFileError(
                f"{folder / (DATABASE + end)} is there, which Trivium never makes: another program has opened the "
                "database in a mode of its own. Close that program, or restore a backup with `trivium restore`"
            )
    with kept_open(database) as descriptor:
        header, status = os.pread(descriptor, 100, 0), os.fstat(descriptor)
    if status.st_size > SPARSE_BYTES and 512 * getattr(status, "st_blocks", status.st_size) < status.st_size // 100:
        raise DatabaseFileError(
            f"{database} is damaged or a stranger's: it has {status.st_size:,} bytes, of which hardly any are on the "
            "disk. Restore a backup with `trivium restore`"
        )
    is_hot = _check_journal(journal, database_bytes=status.st_size, page_bytes=_page_bytes(header))
    if not header.startswith(_HEADER_MAGIC) or len(header) < 100:
        # Half-written when the power failed: the journal has what was there. A hard link may be another's database.
        if not is_hot or status.st_nlink > 1:
            raise DatabaseFileError(f"{database} is damaged: it does not begin as a database does")
        return
    if int.from_bytes(header[68:72], "big") != APPLICATION_ID:
        raise DatabaseFileError(f"{database} is not a Trivium collection, or damaged")
    if header[18:20] != _ROLLBACK:
        raise DatabaseFileError(
            f"{database} was switched to a write-ahead log by another program: switch it back with `sqlite3 "
            f"{database} 'PRAGMA journal_mode = DELETE'`, or restore a backup with `trivium restore`"
        )


@contextlib.contextmanager
def kept_open(database: Path) -> Iterator[int]:
    """Give a descriptor to read the database by, beside SQLite; it is closed when no connection needs it any more.

    To close any descriptor of a file drops all locks that the process has on it (sqlite.org/howtocorrupt.html, 2.2), so
    that a search in another thread would no longer be safe from the next writer.

    Raises:
        OSError: If it cannot be opened.
    """
    file = acquire(database)
    try:
        yield _kept[file][0]
    finally:
        release(file)


def acquire(database: Path) -> FileId:
    """Keep the file open until `release`: as long as SQLite has it open.

    Raises:
        OSError: If it cannot be opened.
    """
    with _keeping:
        file = file_id(database)
        if file not in _kept:
            descriptor = os.open(database, _READING)
            file = _id(os.fstat(descriptor))
            # Exchanged just now for one that is open already: to close this descriptor would drop that one's locks.
            _kept.setdefault(file, (descriptor, 0))
        descriptor, uses = _kept[file]
        _kept[file] = descriptor, uses + 1
        return file


def release(file: FileId) -> None:
    """Say that a file is needed once less."""
    with _keeping:
        descriptor, uses = _kept[file]
        if uses > 1:
            _kept[file] = descriptor, uses - 1
        else:
            del _kept[file]
            os.close(descriptor)


def said_bytes(header: bytes) -> int | None:
    """Return how long a database is by its first 100 bytes, if they say so; what lies behind is of no matter."""
    is_said = header[24:28] == header[92:96]  # else another program has left it as it was (fileformat2.html, 1.3.8)
    return _page_bytes(header) * int.from_bytes(header[28:32], "big") or None if is_said else None


def _page_bytes(header: bytes) -> int:
    size = int.from_bytes(header[16:18], "big")
    return 1 << 16 if size == 1 else size


def file_id(path: Path) -> FileId:
    """Tell one file from another at the same path; a link is a file of its own.

    Raises:
        OSError: If there is none.
    """
    return _id(os.stat(path, follow_symlinks=False))


_READING = os.O_RDONLY | os.O_CLOEXEC | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
_kept: dict[FileId, tuple[int, int]] = {}  # descriptor, and how often it is needed
_keeping = threading.RLock()  # a collected connection may release one at any moment, in this thread too


def _id(status: os.stat_result) -> FileId:
    return status.st_dev, status.st_ino


def _require_regular(path: Path) -> None:
    mode = os.stat(path, follow_symlinks=False).st_mode
    if not stat.S_ISREG(mode):
        kind = "a link, which is not followed" if stat.S_ISLNK(mode) else "no regular file"
        raise DatabaseFileError(f"{path} is {kind}: it is not what Trivium made")


def _check_journal(journal: Path, *, database_bytes: int, page_bytes: int) -> bool:
    """Refuse a journal that is not ours; return whether there is one that SQLite would roll back."""
    try:
        _require_regular(journal)
        descriptor = os.open(journal, _READING)
    except FileNotFoundError:
        return False
    try:
        size = os.fstat(descriptor).st_size
        # A super-journal's name stands at the end, before its length, its sum and the magic number.
        is_named = size >= 16 and os.pread(descriptor, 8, size - 8) == JOURNAL_MAGIC
        header = os.pread(descriptor, 28, 0)
    finally:
        os.close(descriptor)
    if is_named:
        raise DatabaseFileError(
            f"{journal} names another file, which SQLite would delete: no journal of Trivium's does. The collection is "
            "not from Trivium, or was tampered with; delete this journal only if you made the collection yourself, "
            "then run `trivium verify --read-data`"
        )
    if not header.startswith(JOURNAL_MAGIC) or len(header) < 28:
        return False
    # What a transaction has cut off the database is in its journal: more than both together was never there.
    pages = int.from_bytes(header[16:20], "big")
    page_bytes = int.from_bytes(header[24:28], "big") or page_bytes
    if pages * page_bytes > database_bytes + size + page_bytes:
        raise DatabaseFileError(
            f"{journal} is of a database of {pages * page_bytes:,} bytes, this one has {database_bytes:,}: it is "
            "damaged, or was put there. Restore a backup with `trivium restore`"
        )
    return True
