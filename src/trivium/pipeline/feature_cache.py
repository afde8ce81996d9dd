"""Features of one frozen backbone by content, in a SQLite file: those that are asked for are found at once.

A row holds all that the backbone says of an item (pooled features, a classifier's scores, inner layers), float32, with
its checksum: a damaged row counts as not there, and a damaged file is dropped. Several processes may use it at once.
"""

import json
import sqlite3
import zlib
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trivium.encoders.base import Features
from trivium.encoders.weights import cache_folder

FORMAT = 3  # another one encodes all anew
FILE = "features.sqlite"
BUSY_SECONDS = 60.0
KEYS_AT_ONCE = 500  # SQLite takes 999 in one statement
MOST_NUMBERS = 1 << 20  # of a row
POOLED, LOGITS, LAYERS = "pooled", "logits.", "layers."  # names of what a row holds
# Rows have some 20 kB: with small pages each would be a chain of five. Nothing is synced: what a failing machine makes
# of the file is noticed, and made anew.
SCHEMA = """
PRAGMA page_size = 32768;
PRAGMA synchronous = OFF;
CREATE TABLE IF NOT EXISTS layout (
    only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
    widths TEXT NOT NULL  -- of what a row holds, in its order: JSON
);
CREATE TABLE IF NOT EXISTS item (sha256 BLOB PRIMARY KEY, checksum INTEGER NOT NULL, row BLOB NOT NULL);
"""


class FeatureCache:
    """What one backbone says of contents, which are known by their SHA-256."""

    def __init__(self, revision: str, *, folder: Path | None = None) -> None:
        """Name the backbone's revision; ``folder`` is Trivium's cache if None."""
        self.path = (folder or cache_folder() / f"features-{FORMAT}") / revision / FILE

    def load(self, wanted: Iterable[bytes]) -> tuple[dict[bytes, int], Features | None]:
        """Return the row of each content that is there, and the rows."""
        keys = list(dict.fromkeys(wanted))
        try:
            with closing(self._opened()) as db:
                return _load(db, keys)
        except sqlite3.DatabaseError as error:
            self._drop(error)
            return {}, None

    def save(self, keys: Sequence[bytes], features: Features) -> None:
        """Keep what is said of some contents, in the place of what was known before."""
        arrays = _arrays(features)
        try:
            with closing(self._opened()) as db, db:
                _save(db, keys, arrays)
        except sqlite3.DatabaseError as error:
            self._drop(error)
            with closing(self._opened()) as db, db:
                _save(db, keys, arrays)

    def _opened(self) -> sqlite3.Connection:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        db = sqlite3.connect(self.path, timeout=BUSY_SECONDS)
        try:
            db.executescript(SCHEMA)
        except BaseException:
            db.close()
            raise
        return db

    def _drop(self, error: sqlite3.DatabaseError) -> None:
        """Remove a file that is damaged; raise again what is no fault of the file: a full disk, an endless lock."""
        if isinstance(error, sqlite3.OperationalError):
            raise error
        for end in ("", "-journal"):
            self.path.with_name(self.path.name + end).unlink(missing_ok=True)


def _load(db: sqlite3.Connection, keys: Sequence[bytes]) -> tuple[dict[bytes, int], Features | None]:
    if not keys or not (widths := _widths(db)):
        return {}, None
    row_of: dict[bytes, int] = {}
    arrays = {name: np.empty((len(keys), width), np.float32) for name, width in widths.items()}
    size = 4 * sum(widths.values())
    for start in range(0, len(keys), KEYS_AT_ONCE):
        part = keys[start : start + KEYS_AT_ONCE]
        marks = ",".join("?" * len(part))
        for key, checksum, row in db.execute(f"SELECT sha256, checksum, row FROM item WHERE sha256 IN ({marks})", part):
            if len(row) == size and zlib.crc32(row) == checksum:
                _put(arrays, len(row_of), np.frombuffer(row, np.float32))
                row_of[key] = len(row_of)
    return row_of, _features({name: array[: len(row_of)] for name, array in arrays.items()}) if row_of else None


def _save(db: sqlite3.Connection, keys: Sequence[bytes], arrays: Mapping[str, NDArray[np.float32]]) -> None:
    widths = {name: array.shape[1] for name, array in arrays.items()}
    db.execute("BEGIN IMMEDIATE")  # what is read must still hold when it is written
    if _widths(db) != widths:  # nothing is known yet, or of a backbone whose revision should have changed
        db.execute("DELETE FROM item")
        db.execute("INSERT OR REPLACE INTO layout VALUES (1, ?)", (json.dumps(widths),))
    rows = (b"".join(array[place].tobytes() for array in arrays.values()) for place in range(len(keys)))
    db.executemany(
        "INSERT OR REPLACE INTO item VALUES (?, ?, ?)",
        ((key, zlib.crc32(row), row) for key, row in zip(keys, rows, strict=True)),
    )


def _widths(db: sqlite3.Connection) -> dict[str, int]:
    """Return how many numbers each array has in a row; nothing if no row was ever kept."""
    found = db.execute("SELECT widths FROM layout").fetchone()
    try:
        widths: dict[str, int] = {} if found is None else json.loads(found[0])
        if not 0 <= sum(widths.values()) <= MOST_NUMBERS or min(widths.values(), default=0) < 0:
            raise ValueError
    except (ValueError, TypeError, AttributeError):
        raise sqlite3.DatabaseError("the layout of its rows is damaged") from None
    return widths


def _arrays(features: Features) -> dict[str, NDArray[np.float32]]:
    found = {
        POOLED: features.pooled,
        **{f"{LOGITS}{head}": rows for head, rows in sorted(features.logits.items())},
        **{f"{LAYERS}{layer}": rows for layer, rows in sorted(features.layers.items())},
    }
    return {name: rows.astype(np.float32, copy=False) for name, rows in found.items()}


def _features(arrays: Mapping[str, NDArray[np.float32]]) -> Features:
    def named(prefix: str) -> dict[str, NDArray[np.float32]]:
        return {name.removeprefix(prefix): rows for name, rows in arrays.items() if name.startswith(prefix)}

    return Features(pooled=arrays[POOLED], logits=named(LOGITS), layers=named(LAYERS))


def _put(arrays: Mapping[str, NDArray[np.float32]], place: int, row: NDArray[np.float32]) -> None:
    start = 0
    for array in arrays.values():
        stop = start + array.shape[1]
        array[place] = row[start:stop]
        start = stop
