"""The database as a file, looked at before SQLite opens it; and the descriptors that must stay open meanwhile.

SQLite does what the files beside a database say: it rolls a journal back, deletes the "super-journal" that one names
(sqlite.org/atomiccommit.html, section 5), and takes a write-ahead log in. In a folder from elsewhere that is a
stranger's word, so each such file is looked at first: ours are regular files, and a journal of ours names no other.

SQLite notices damage to its structure, not to what is stored in it: a checksum tells that. It is kept beside the
database and written when a writer has finished; not when the writer is killed, so it says which state of the database
it is of (SQLite's change counter), and `verify` can tell an old checksum from damage.
"""

import contextlib
import hashlib
import json
import os
import stat
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from trivium.encoders.files.reading import CHUNK_BYTES, open_regular, regular_descriptor
from trivium.encoders.files.writing import write_durably

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
        is_hot = _check_journal(journal, database=descriptor, page_bytes=_page_bytes(header))
    if status.st_size > SPARSE_BYTES and 512 * getattr(status, "st_blocks", status.st_size) < status.st_size // 100:
        raise DatabaseFileError(
            f"{database} is damaged or a stranger's: it has {status.st_size:,} bytes, of which hardly any are on the "
            "disk. Restore a backup with `trivium restore`"
        )
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
            descriptor = regular_descriptor(database)
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


_kept: dict[FileId, tuple[int, int]] = {}  # descriptor, and how often it is needed
_keeping = threading.RLock()  # a collected connection may release one at any moment, in this thread too


def _id(status: os.stat_result) -> FileId:
    return status.st_dev, status.st_ino


def _require_regular(path: Path) -> None:
    mode = os.stat(str(path), follow_symlinks=False).st_mode  # of a Path it says nonsense where memory runs out
    if not stat.S_ISREG(mode):
        kind = "a link, which is not followed" if stat.S_ISLNK(mode) else "no regular file"
        raise DatabaseFileError(f"{path} is {kind}: it is not what Trivium made")


def _check_journal(journal: Path, *, database: int, page_bytes: int) -> bool:
    """Refuse a journal that is not ours; return whether there is one that SQLite would roll back."""
    try:
        _require_regular(journal)
        descriptor = regular_descriptor(journal)
    except FileNotFoundError:
        return False
    try:
        # In this order: a writer may begin, grow the database and end meanwhile. What its journal says of the database
        # holds from then on, and what it cuts off is in the journal before.
        header = os.pread(descriptor, 28, 0)
        database_bytes, size = os.fstat(database).st_size, os.fstat(descriptor).st_size
        # A super-journal's name stands at the end, before its length, its sum and the magic number.
        is_named = size >= 16 and os.pread(descriptor, 8, size - 8) == JOURNAL_MAGIC
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


CHECKSUM = f"{DATABASE}.sha256"
MAX_CHECKSUM_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Checksum:
    """SHA-256 of the database in one state."""

    changes: int  # SQLite's change counter
    sha256: str


def change_counter(folder: Path) -> tuple[int, int]:
    """Return the change counter and its copy, which are equal in a sound database (sqlite.org/fileformat2.html, 1.3).

    Raises:
        OSError: If the database cannot be read.
    """
    with kept_open(folder / DATABASE) as descriptor:
        header = os.pread(descriptor, 100, 0)
    return int.from_bytes(header[24:28], "big"), int.from_bytes(header[92:96], "big")


def write_checksum(folder: Path) -> None:
    """Record the checksum of a database that nobody is writing to, unless it is recorded already.

    A database with a journal is half of a state: the next that opens it takes it back to the one before.

    Raises:
        OSError: If the disk is full or fails.
    """
    if (folder / f"{DATABASE}-journal").exists():
        return
    changes, _ = change_counter(folder)
    try:
        recorded = read_checksum(folder)
    except (OSError, ValueError):  # damaged, or no file of ours: made anew
        recorded = None
    if recorded is not None and recorded.changes == changes:
        return
    if os.name != "nt":
        # VACUUM shortens the file behind its last sync: a power cut could bring back the old end, and what was deleted.
        with kept_open(folder / DATABASE) as descriptor:
            os.fsync(descriptor)
    fields = json.dumps({"changes": changes, "sha256": database_sha256(folder)})
    line = json.dumps({"fields": fields, "check": _check(fields)}) + "\n"
    write_durably(folder / CHECKSUM, lambda write: write(line.encode()))


def read_checksum(folder: Path) -> Checksum | None:
    """Return the recorded checksum, None if there is none.

    Raises:
        ValueError: If it is damaged itself.
        OSError: If it cannot be read.
    """
    try:
        with open_regular(folder / CHECKSUM) as file:
            line = file.read(MAX_CHECKSUM_BYTES)
    except FileNotFoundError:
        return None
    try:
        outer = json.loads(line)
        fields = outer["fields"]
        if line != (json.dumps(outer) + "\n").encode() or outer["check"] != _check(fields):
            raise ValueError
        told = json.loads(fields)
        return Checksum(int(told["changes"]), str(told["sha256"]))
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise ValueError(f"{folder / CHECKSUM} is damaged") from error


def database_pieces(folder: Path) -> Iterator[bytes]:
    """Yield the database's bytes, as many as it says, without dropping the locks that this process has on it.

    Raises:
        OSError: If it cannot be read.
    """
    offset = 0
    with kept_open(folder / DATABASE) as descriptor:
        end = said_bytes(os.pread(descriptor, 100, 0)) or os.fstat(descriptor).st_size
        while data := os.pread(descriptor, min(CHUNK_BYTES, end - offset), offset):
            yield data
            offset += len(data)


def database_sha256(folder: Path) -> str:
    """Hash the database; see `database_pieces`."""
    digest = hashlib.sha256()
    for piece in database_pieces(folder):
        digest.update(piece)
    return digest.hexdigest()


def _check(fields: str) -> str:
    return hashlib.sha256(fields.encode()).hexdigest()


def size_bytes(folder: Path) -> int:
    """Bytes of all files of a collection, also while a writer adds and removes some; links are not followed."""
    total = 0
    folders = [os.fspath(folder)]
    while folders:
        with contextlib.suppress(OSError), os.scandir(folders.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)
                elif entry.is_file(follow_symlinks=False):
                    with contextlib.suppress(FileNotFoundError):
                        total += entry.stat(follow_symlinks=False).st_size
    return total
