"""Is a collection's database whole? Its structure, its bytes by the checksum beside it, and the sense of its tables.

Nothing here trusts what it reads: a value may have lost its type or its meaning to a flipped bit.
"""

import contextlib
import hashlib
import os
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trivium.pipeline.records import IndexFile, is_role
from trivium.pipeline.store.database import (
    DAMAGED,
    CollectionError,
    CollectionLockedError,
    Connection,
    connect,
)
from trivium.pipeline.store.database_file import (
    APPLICATION_ID,
    CHECKSUM,
    DATABASE,
    Checksum,
    DatabaseFileError,
    change_counter,
    check_files,
    database_pieces,
    read_checksum,
)
from trivium.pipeline.store.rows import is_file_name
from trivium.pipeline.store.schema import FORMAT, OLDEST, foreign_objects, missing_tables
from trivium.pipeline.store.shards import Shard
from trivium.pipeline.upkeep.findings import Report, other_bytes, reason

HEADER_BYTES = 1 << 16  # of a `.npy` file, at most: it has 2 bytes for their number

# Each counts rows that must not be there, and says what they are.
_RULES = (
    (
        "SELECT count(*) FROM collection WHERE typeof(generation) <> 'integer' OR generation < 0",
        "it has no sensible number of its generation",
    ),
    ("SELECT count(*) FROM space WHERE typeof(dim) <> 'integer' OR dim < 1", "{:,} spaces have no sensible width"),
    (
        "SELECT count(*) FROM content WHERE typeof(sha256) <> 'blob' OR length(sha256) <> 32",
        "{:,} contents have no SHA-256",
    ),
    (
        "SELECT count(*) FROM vector v LEFT JOIN content c ON c.id = v.content WHERE c.modality IS NOT v.modality",
        "{:,} vectors belong to no content of their modality",
    ),
    (
        "SELECT count(*) FROM content c LEFT JOIN vector v ON v.space = (SELECT space FROM collection) "
        "AND v.modality = c.modality AND v.content = c.id WHERE v.content IS NULL",
        "{:,} contents have no vector in the space that is searched",
    ),
    (
        "SELECT count(*) FROM item i WHERE NOT EXISTS "
        "(SELECT 1 FROM embedding e WHERE e.item = i.id AND e.role = 'content')",
        "{:,} items have no content",
    ),
    (
        "SELECT count(*) FROM embedding WHERE role NOT IN ('content', 'caption') AND NOT trivium_is_part(role)",
        "{:,} vectors are said to be of parts that make no sense",
    ),
    (
        "SELECT count(*) FROM embedding e JOIN item i ON i.id = e.item JOIN content c ON c.id = e.content "
        "WHERE c.modality IS NOT CASE WHEN e.role = 'caption' THEN 'text' WHEN i.modality <> 'video' THEN i.modality "
        "WHEN e.role GLOB 'window *' THEN 'audio' ELSE 'image' END",
        "{:,} vectors are of another modality than their part of the item",
    ),
    (
        "SELECT count(*) FROM content c WHERE NOT EXISTS (SELECT 1 FROM embedding e WHERE e.content = c.id) "
        "AND NOT EXISTS (SELECT 1 FROM orphan o WHERE o.content = c.id)",
        "{:,} contents that no item has are not listed as such",
    ),
    (
        "SELECT count(*) FROM orphan o WHERE EXISTS (SELECT 1 FROM embedding e WHERE e.content = o.content)",
        "{:,} contents are listed as no item's, and an item has them",
    ),
)


@dataclass(slots=True)
class Manifest:
    """The files that a database names, as far as their records make sense."""

    shards: list[Shard] = field(default_factory=list)
    dims: dict[str, int] = field(default_factory=dict)  # numbers per vector, by the shard's name
    index_files: list[IndexFile] = field(default_factory=list)
    vectors_through: dict[str, int] = field(default_factory=dict)  # that an index file should hold, by its name
    newest: int = 0  # the largest id that a content ever had
    contradictions: list[str] = field(default_factory=list)


def read_manifest(db: sqlite3.Connection) -> Manifest:
    """Read what a database of a sound structure names, and tell what in it contradicts itself.

    Raises:
        sqlite3.Error: If it cannot be read.
    """
    db.create_function("trivium_is_part", 1, is_role, deterministic=True)
    manifest = Manifest()
    wrong = manifest.contradictions
    wrong += _broken_references(db)
    for rule, sentence in _RULES:
        (count,) = db.execute(rule).fetchone()
        if count:
            wrong.append(sentence.format(count))
    _read_shards(db, manifest)
    _read_index_files(db, manifest)
    return manifest


def _broken_references(db: sqlite3.Connection) -> Iterator[str]:
    counts: dict[tuple[str, str], int] = {}
    for table, _, parent, _ in db.execute("PRAGMA foreign_key_check"):
        counts[table, parent] = counts.get((table, parent), 0) + 1
    for (table, parent), count in counts.items():
        yield f"{count:,} rows of its table '{table}' name a '{parent}' that is not there"


def _read_shards(db: sqlite3.Connection, manifest: Manifest) -> None:
    dims = dict(db.execute("SELECT id, dim FROM space").fetchall())
    uses = {
        row[0]: row[1:]
        for row in db.execute(
            "SELECT shard, count(*), count(DISTINCT row), min(row), max(row), min(space), "
            "count(DISTINCT space), count(DISTINCT modality) FROM vector GROUP BY shard"
        )
    }
    for id_, name, rows, size, sha256 in db.execute("SELECT id, name, rows, size, sha256 FROM shard"):
        use = uses.pop(id_, None)
        if not (is_file_name(name) and _is_count(rows) and _is_count(size) and isinstance(sha256, str)):
            manifest.contradictions.append(f"its record of shard {id_} makes no sense")
            continue
        if not name.endswith(f"-{sha256[:16]}.npy"):
            manifest.contradictions.append(f"shard {name} is recorded with another hash ({sha256[:16]}...)")
        manifest.shards.append(Shard(name, rows, size, sha256))
        if use is not None:
            count, places, first, last, space, spaces, modalities = use
            if not (_is_count(first) and _is_count(last) and last < rows):
                manifest.contradictions.append(f"rows {first} to {last} of shard {name} are named, it has {rows:,}")
            if places != count:
                manifest.contradictions.append(f"{count:,} vectors lie in {places:,} rows of shard {name}")
            if spaces > 1 or modalities > 1:
                manifest.contradictions.append(f"shard {name} holds vectors of different spaces or modalities")
            elif _is_count(dims.get(space)) and dims[space]:
                if 0 < size - rows * dims[space] * 2 <= HEADER_BYTES:
                    manifest.dims[name] = dims[space]
                else:
                    manifest.contradictions.append(
                        f"shard {name} is recorded with {size:,} bytes for {rows:,} x {dims[space]:,} numbers"
                    )
    manifest.contradictions += [
        f"{use[0]:,} vectors lie in shard {shard}, which is not recorded" for shard, use in uses.items()
    ]


def _read_index_files(db: sqlite3.Connection, manifest: Manifest) -> None:
    (newest,) = db.execute("SELECT max(seq) FROM sqlite_sequence WHERE name = 'content'").fetchone()
    manifest.newest = newest if _is_count(newest) else 0
    for modality, name, size, sha256, state, kind, through, vectors, expected in db.execute(
        "SELECT modality, name, size, sha256, state, kind, through, vectors, (SELECT count(*) FROM vector v "
        "WHERE v.space = f.space AND v.modality = f.modality AND v.content <= f.through) FROM index_file f"
    ).fetchall():
        texts = all(isinstance(value, str) for value in (modality, sha256, state, kind))
        if not (texts and is_file_name(name) and all(map(_is_count, (size, through, vectors)))):
            manifest.contradictions.append(f"its record of the index file for {modality!r} makes no sense")
            continue
        manifest.vectors_through[name] = expected
        manifest.index_files.append(
            IndexFile(
                modality=modality,
                name=name,
                size=size,
                sha256=sha256,
                state=state,
                kind=kind,
                effort=None,
                through=through,
                vectors=vectors,
                report={},
            )
        )


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and value >= 0


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
    is_read = OLDEST <= version <= FORMAT
    if not is_read:
        report.damage(
            path,
            f"it says that it has format {version}, this Trivium reads format {FORMAT}: its tables were not checked",
            f"if another Trivium wrote it, verify it with that one; else restore {report.folder} from a backup, or "
            "delete it and index again",
        )
    if faults or not is_read:
        return None
    if foreign := foreign_objects(db, version=version):
        report.damage(path, f"it has what Trivium did not make: {', '.join(foreign[:5])}; its tables were not read")
        return None
    if missing := missing_tables(db, version=version):
        report.damage(path, f"it has no table {', '.join(missing)}")
        return None
    if db.execute("SELECT 1 FROM collection JOIN space ON space.id = collection.space").fetchone() is None:
        report.damage(path, "it names no space")
    manifest = read_manifest(db)
    for contradiction in manifest.contradictions:
        report.damage(path, f"it contradicts itself: {contradiction}")
    return manifest
