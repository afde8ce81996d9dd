"""What must hold between the tables of a collection's database. SQLite sees to their form, this to their sense.

Nothing here trusts what it reads: a value may have lost its type or its meaning to a flipped bit.
"""

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from trivium.pipeline.records import IndexFile, Part
from trivium.pipeline.store.rows import is_file_name
from trivium.pipeline.store.shards import Shard

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
    db.create_function("trivium_is_part", 1, _is_part, deterministic=True)
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


def _is_part(role: Any) -> bool:
    try:
        return isinstance(role, str) and Part.parse(role).role == role
    except ValueError:
        return False


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and value >= 0
