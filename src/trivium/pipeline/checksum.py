"""The database's checksum: SQLite notices damage to its structure, not to what is stored in it.

Kept beside the database and written when a writer has finished; not written when the writer is killed, so it says which
state of the database it is of (SQLite's change counter), and `verify` can tell an old checksum from damage.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from trivium.pipeline.database import DATABASE
from trivium.pipeline.durable import file_sha256, write_durably

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
    with open(folder / DATABASE, "rb") as file:
        header = file.read(100)
    return int.from_bytes(header[24:28], "big"), int.from_bytes(header[92:96], "big")


def write_checksum(folder: Path) -> None:
    """Record the checksum of a database that nobody is writing to, unless it is recorded already.

    Raises:
        OSError: If the disk is full or fails.
    """
    changes, _ = change_counter(folder)
    try:
        recorded = read_checksum(folder)
    except ValueError:
        recorded = None
    if recorded is not None and recorded.changes == changes:
        return
    fields = json.dumps({"changes": changes, "sha256": file_sha256(folder / DATABASE)})
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
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{folder / CHECKSUM} is damaged") from error


def _check(fields: str) -> str:
    return hashlib.sha256(fields.encode()).hexdigest()
