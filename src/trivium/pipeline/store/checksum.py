"""The database's checksum: SQLite notices damage to its structure, not to what is stored in it.

Kept beside the database and written when a writer has finished; not written when the writer is killed, so it says which
state of the database it is of (SQLite's change counter), and `verify` can tell an old checksum from damage.
"""

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from trivium.encoders.files.durable import CHUNK_BYTES, open_regular, write_durably
from trivium.pipeline.store.database_file import DATABASE, kept_open, said_bytes

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
        with open_regular(folder / CHECKSUM) as file:
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


def _database_sha256(folder: Path) -> str:
    digest = hashlib.sha256()
    for piece in database_pieces(folder):
        digest.update(piece)
    return digest.hexdigest()


def _check(fields: str) -> str:
    return hashlib.sha256(fields.encode()).hexdigest()
