"""The database's checksum: SQLite notices damage to its structure, not to what is stored in it.

Kept beside the database and written when a writer has finished; not written when the writer is killed, so it says which
state of the database it is of (SQLite's change counter), and `verify` can tell an old checksum from damage.
"""

import hashlib
import json
import os
import threading
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from trivium.pipeline.database import DATABASE
from trivium.pipeline.durable import CHUNK_BYTES, write_durably

CHECKSUM = f"{DATABASE}.sha256"
MAX_BYTES = 4096


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
    header = os.pread(_kept_open(folder / DATABASE), 100, 0)
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
    except ValueError:
        recorded = None
    if recorded is not None and recorded.changes == changes:
        return
    if os.name != "nt":
        # VACUUM shortens the file behind its last sync: a power cut could bring back the old end, and what was deleted.
        os.fsync(_kept_open(folder / DATABASE))
    fields = json.dumps({"changes": changes, "sha256": _database_sha256(folder)})
    line = json.dumps({"fields": fields, "check": _check(fields)}) + "\n"
    write_durably(folder / CHECKSUM, lambda write: write(line.encode()))


def read_checksum(folder: Path) -> Checksum | None:
    """Return the recorded checksum, None if there is none.

    Raises:
        ValueError: If it is damaged itself.
        OSError: If it cannot be read.
    """
    try:
        with open(folder / CHECKSUM, "rb") as file:
            line = file.read(MAX_BYTES)
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
    """Yield the database's bytes, without dropping the locks that this process has on it.

    Raises:
        OSError: If it cannot be read.
    """
    descriptor, offset = _kept_open(folder / DATABASE), 0
    while data := os.pread(descriptor, CHUNK_BYTES, offset):
        yield data
        offset += len(data)


def _database_sha256(folder: Path) -> str:
    digest = hashlib.sha256()
    for piece in database_pieces(folder):
        digest.update(piece)
    return digest.hexdigest()


_KEPT_MOST = 64  # collections
_kept: OrderedDict[tuple[int, int], int] = OrderedDict()  # by device and inode
_keeping = threading.Lock()


def _kept_open(database: Path) -> int:
    """Return a descriptor that stays open.

    To close any descriptor of a file drops all locks that the process has on it (sqlite.org/howtocorrupt.html, 2.2), so
    that a search in another thread would no longer be safe from the next writer.
    """
    status = os.stat(database)
    file = status.st_dev, status.st_ino
    with _keeping:
        if file not in _kept:
            _kept[file] = os.open(database, os.O_RDONLY | os.O_CLOEXEC)
            gone = [old for old, descriptor in _kept.items() if not os.fstat(descriptor).st_nlink]
            for old in gone or list(_kept)[:-_KEPT_MOST]:
                os.close(_kept.pop(old))
        _kept.move_to_end(file)
        return _kept[file]


def _check(fields: str) -> str:
    return hashlib.sha256(fields.encode()).hexdigest()
