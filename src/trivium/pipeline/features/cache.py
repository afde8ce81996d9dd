"""Features of one frozen backbone by content, in a SQLite file: those that are asked for are found at once.

A row holds all that the backbone says of an item (pooled features, a classifier's scores, inner layers), float32, with
its checksum: a damaged row counts as not there, and a damaged file, or one that is not ours, is dropped. What it says
of an item tells much of the item: the file is for its owner alone. Several processes may use it at once.
"""

import contextlib
import json
import os
import sqlite3
import stat
import zlib
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trivium.encoders.base import Features
from trivium.encoders.files.user_cache import cache_folder, close_to_others, private_folder

FORMAT = 4  # another one encodes all anew
FILE = "features.sqlite"
BUSY_SECONDS = 60.0
KEYS_AT_ONCE = 500  # SQLite takes 999 in one statement
MOST_NUMBERS = 1 << 20  # of a row
POOLED, LOGITS, LAYERS = "pooled", "logits.", "layers."  # names of what a row holds
# Rows have some 20 kB: with small pages each would be a chain of five. Nothing is synced: what a failing machine makes
# of the file is noticed, and made anew.
SETTINGS = """
PRAGMA page_size = 32768;
PRAGMA synchronous = OFF;
PRAGMA trusted_schema = OFF;
PRAGMA cell_size_check = ON;
PRAGMA secure_delete = ON;
"""
SCHEMA = """
CREATE TABLE IF NOT EXISTS layout (
    only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
    widths TEXT NOT NULL  -- of what a row holds, in its order: JSON
);
CREATE TABLE IF NOT EXISTS item (sha256 BLOB PRIMARY KEY, checksum INTEGER NOT NULL, row BLOB NOT NULL);
"""
OURS = {b"layout", b"item", b"sqlite_autoindex_item_1"}
# What SQLite says that is no fault of the file: of the disk, of memory, of others that use it.
NOT_OF_THE_FILE = {
    *(sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM),
    *(sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_INTERRUPT),
}
Damage = (sqlite3.DatabaseError, UnicodeDecodeError)  # the latter: SQLite quotes damaged texts in what it says


class FeatureCache:
    """What one backbone says of contents, which are known by their SHA-256."""

    def __init__(self, revision: str, *, folder: Path | None = None) -> None:
        """Name the backbone's revision; ``folder`` is Trivium's cache if None."""
        self._folder = folder or cache_folder() / f"features-{FORMAT}"
        self._is_own = folder is None
        self.path = self._folder / revision / FILE

    def load(self, wanted: Iterable[bytes]) -> tuple[dict[bytes, int], Features | None]:
        """Return the row of each content that is there, and the rows."""
        keys = list(dict.fromkeys(wanted))
        try:
            with closing(self._opened()) as db:
                return _load(db, keys)
        except Damage as error:
            self._drop(error)
            return {}, None

    def save(self, keys: Sequence[bytes], features: Features) -> None:
        """Keep what is said of some contents, in the place of what was known before."""
        arrays = _arrays(features)
        try:
            with closing(self._opened()) as db, db:
                _save(db, keys, arrays)
        except Damage as error:
            self._drop(error)
            with closing(self._opened()) as db, db:
                _save(db, keys, arrays)

    def forget(self, keys: Iterable[bytes]) -> int:
        """Delete what is said of some contents; return of how many."""
        try:
            with closing(self._opened()) as db, db:
                return sum(db.execute("DELETE FROM item WHERE sha256 = ?", (key,)).rowcount for key in keys)
        except Damage as error:
            self._drop(error)
            return 0

    def delete(self) -> None:
        """Delete the file, when no process is writing to it; each opens it anew when it reads or writes."""
        try:
            with closing(self._opened()) as db:
                db.execute("BEGIN EXCLUSIVE")
                self._unlink()
        except Damage as error:
            self._drop(error)

    def _opened(self) -> sqlite3.Connection:
        if self._is_own:
            private_folder(self._folder)
        private_folder(self.path.parent)
        self._prepare()
        db = sqlite3.connect(self.path, timeout=BUSY_SECONDS)
        try:
            db.executescript(SETTINGS)
            found = {name for (name,) in db.execute("SELECT CAST(name AS BLOB) FROM sqlite_master")}
            if not found <= OURS:
                raise sqlite3.DatabaseError("it has other tables than ours, views or triggers")
            if found != OURS:
                db.executescript(SCHEMA)
        except BaseException:
            db.close()
            raise
        return db

    def _prepare(self) -> None:
        """See that there is a file of our own, for its owner alone; SQLite gives its journal the same rights."""
        for path in (self.path, self._journal):
            try:
                status = path.lstat()
            except FileNotFoundError:
                continue
            if stat.S_ISREG(status.st_mode) and status.st_nlink == 1:
                close_to_others(path)
            else:
                path.unlink()  # a link: what it leads to is none of ours
        with contextlib.suppress(FileExistsError):
            os.close(os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))

    @property
    def _journal(self) -> Path:
        return self.path.with_name(f"{FILE}-journal")

    def _drop(self, error: Exception) -> None:
        """Remove a file that is damaged; raise again what is no fault of the file: a full disk, an endless lock."""
        code = getattr(error, "sqlite_errorcode", None)
        if code is not None and code & 0xFF in NOT_OF_THE_FILE:
            raise error
        self._unlink()

    def _unlink(self) -> None:
        for path in (self.path, self._journal):
            path.unlink(missing_ok=True)


def _load(db: sqlite3.Connection, keys: Sequence[bytes]) -> tuple[dict[bytes, int], Features | None]:
    if not keys or not (widths := _widths(db)):
        return {}, None
    row_of: dict[bytes, int] = {}
    arrays = {name: np.empty((len(keys), width), np.float32) for name, width in widths.items()}
    size = 4 * sum(widths.values())
    asked = set(keys)
    for start in range(0, len(keys), KEYS_AT_ONCE):
        part = keys[start : start + KEYS_AT_ONCE]
        marks = ",".join("?" * len(part))
        for key, checksum, row in db.execute(f"SELECT sha256, checksum, row FROM item WHERE sha256 IN ({marks})", part):
            if key not in asked or key in row_of or not isinstance(row, bytes):
                continue  # the tree is damaged
            if len(row) == size and _checksum(key, row) == checksum:
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
        ((key, _checksum(key, row), row) for key, row in zip(keys, rows, strict=True)),
    )


def _checksum(key: bytes, row: bytes) -> int:
    """Return a row's checksum; of its key too, which a damaged tree may bring together with another row."""
    return zlib.crc32(row, zlib.crc32(key))


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
