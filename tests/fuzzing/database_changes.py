"""What a stranger, or a bad disk, does to a collection's database: its values, its rows, its schema, its bytes.

The schema's own constraints stop no change: a NOT NULL or a CHECK is taken out of the stored SQL, and put back when the
value is there.
"""

import contextlib
import random
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

CASES: Any = sys.modules["__main__"]
FOLDER = CASES.load_beside("folder_changes")
VALUES = CASES.load_beside("values")
NUMBERS, TEXTS, JSONS, WORDS = VALUES.NUMBERS, VALUES.TEXTS, VALUES.JSONS, VALUES.WORDS
ROLES, BLOBS, BadText = VALUES.ROLES, VALUES.BLOBS, VALUES.BadText

SPECIAL: dict[tuple[str, str], list[Any]] = {
    ("collection", "wish"): JSONS,
    ("index_file", "report"): JSONS,
    ("item", "metadata"): JSONS,
    ("item", "tabled"): JSONS,
    ("item", "modality"): WORDS,
    ("content", "modality"): WORDS,
    ("vector", "modality"): WORDS,
    ("index_file", "modality"): WORDS,
    ("index_file", "kind"): ["flat", "sq8", "ivf-pq", "nope", "fp16", "hnsw"],
    ("index_file", "effort"): [0, -1, 10**9, 2**63 - 1, 0.5, "x"],
    ("embedding", "role"): ROLES,
    ("item", "path"): [*BLOBS, "/a/text/path", 5],
    ("space", "dim"): [0, 1, 15, 17, -16, 2**31, 2**62, 16.5, "16x", "abc"],
    ("space", "source"): ["open-clip:hf-hub:x/y", "text-model:/nowhere", "", "../x", "stub"],
    ("shard", "name"): ["../outside", "../collection.db", "/etc/passwd", "", ".", "a\0b", "00000001-0.npy"],
    ("index_file", "name"): ["../outside/victim.txt", "../collection.db", "/etc/passwd", "", ".", "..", "a\0b"],
    ("setting", "value"): [0, -1, float("inf"), "abc", "nan", 1e300, b"\xff", "0.5"],
    ("setting", "name"): ["windows", "other"],
}  # fmt: skip
TABLES: dict[str, list[str]] = {
    "space": ["id", "name", "dim", "revision", "source"],
    "collection": ["only_row", "space", "generation", "wish"],
    "content": ["id", "modality", "sha256"],
    "shard": ["id", "name", "rows", "size", "sha256"],
    "vector": ["space", "modality", "content", "shard", "row"],
    "item": ["id", "path", "modality", "fingerprint", "beside", "caption", "metadata", "tabled"],
    "embedding": ["item", "role", "content"],
    "orphan": ["content"],
    "index_file": [
        "space", "modality", "name", "size", "sha256", "state", "kind", "effort", "through", "vectors", "report",
    ],
    "setting": ["name", "value"],
    "sqlite_sequence": ["name", "seq"],
}  # fmt: skip
OTHER_WORDS = [("INTEGER", "TEXT"), ("TEXT", "BLOB"), (" NOT NULL", ""), ("UNIQUE", ""), ("(", "(x, ")]
STEPS, STEPS_AT_ONCE = 10_000_000, 100_000  # of SQLite's machine
ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i AS {} FROM n"
SCHEMAS: list[str] = [
    "CREATE TRIGGER evil AFTER UPDATE ON collection BEGIN DELETE FROM item; END",
    "CREATE TRIGGER evil BEFORE INSERT ON item BEGIN SELECT load_extension('x'); END",
    "CREATE TRIGGER evil AFTER INSERT ON content BEGIN INSERT INTO content (modality, sha256) "
    "VALUES ('text', randomblob(9)); END",
    "CREATE TRIGGER evil BEFORE DELETE ON vector BEGIN SELECT raise(ABORT, 'no'); END",
    "CREATE VIEW evil AS SELECT * FROM evil2",
    "DROP TABLE orphan; CREATE VIEW orphan AS SELECT 1 AS content",
    f"DROP TABLE shard; CREATE VIEW shard AS {ENDLESS.format('id')}",
    f"DROP TABLE collection; CREATE VIEW collection AS {ENDLESS.format('generation')}",
    "DROP TABLE setting; CREATE VIEW setting AS " + ENDLESS.format("value"),
    *(f"DROP TABLE {table}" for table in TABLES if not table.startswith("sqlite")),
    *(f"DELETE FROM {table}" for table in TABLES),
    *(f"ALTER TABLE {table} RENAME TO moved" for table in ("space", "item", "vector", "index_file")),
    *(f"ALTER TABLE {table} ADD COLUMN extra DEFAULT 5" for table in ("space", "item", "shard", "collection")),
    *(f"ALTER TABLE item RENAME COLUMN {column} TO other" for column in ("path", "metadata", "caption")),
    "DROP INDEX embedding_by_content", "DROP TRIGGER content_lost", "DROP TRIGGER content_found",
    "CREATE INDEX evil ON item (abs(id))", "CREATE INDEX evil ON item (json_extract(metadata, '$.a'))",
    "CREATE VIRTUAL TABLE evil USING fts5(a)", "CREATE VIRTUAL TABLE evil USING rtree(a, b, c)",
    "CREATE TABLE evil (a GENERATED ALWAYS AS (1 + 1))",
    "ALTER TABLE item ADD COLUMN g GENERATED ALWAYS AS (length(path))",
    "DROP TABLE orphan; CREATE TABLE orphan (content)",
    "DROP TABLE index_file; CREATE TABLE index_file (a)",
    "CREATE TABLE setting2 AS SELECT * FROM setting; DROP TABLE setting; ALTER TABLE setting2 RENAME TO setting",
    "PRAGMA user_version = 1", "PRAGMA user_version = 2", "PRAGMA user_version = 4", "PRAGMA user_version = -1",
    "PRAGMA application_id = 0",
    "PRAGMA journal_mode = WAL", "PRAGMA page_size = 512; VACUUM", "PRAGMA page_size = 65536; VACUUM",
    "PRAGMA auto_vacuum = FULL; VACUUM", "PRAGMA auto_vacuum = INCREMENTAL; VACUUM",
]  # fmt: skip


def _change_values(folder: Path, rng: random.Random) -> str:
    table = rng.choice([name for name in TABLES if name != "sqlite_sequence" or rng.random() < 0.5])
    column = rng.choice(TABLES[table])
    special = SPECIAL.get((table, column))
    pool = special if special and rng.random() < 0.6 else rng.choice((NUMBERS, TEXTS, JSONS, BLOBS, [None], WORDS))
    value = rng.choice(pool)
    all_rows = rng.random() < 0.3
    with _unguarded(folder) as db:
        rows = [row[0] for row in db.execute(f"SELECT {column} FROM {table}")]
        where = ""
        if not all_rows and rows:
            where = f"WHERE {column} IS ?"
        given = [value] if not where else [value, rng.choice(rows)]
        mark = "?"
        if isinstance(value, BadText):
            mark, given[0] = "CAST(? AS TEXT)", value.encode("latin-1")
        if table == "orphan" and not rows:
            db.execute(f"INSERT INTO orphan VALUES ({mark})", given[:1])
        else:
            db.execute(f"UPDATE OR IGNORE {table} SET {column} = {mark} {where}", given)
    shown = repr(value)
    shown = shown if len(shown) < 80 else f"{shown[:60]}... ({len(shown)})"
    return f"{table}.{column} = {shown} in {'all rows' if all_rows else 'a row'}"


def _insert_rows(folder: Path, rng: random.Random) -> str:
    table = rng.choice([name for name in TABLES if name != "sqlite_sequence"])
    values: list[Any] = []
    for column in TABLES[table]:
        special = SPECIAL.get((table, column), NUMBERS)
        values.append(rng.choice(rng.choice((special, NUMBERS, TEXTS[:8], [None], WORDS))))
    values = [value.encode("latin-1") if isinstance(value, BadText) else value for value in values]
    with _unguarded(folder) as db:
        db.execute(f"INSERT OR REPLACE INTO {table} VALUES ({','.join('?' * len(values))})", values)
    return f"row in {table}: {[repr(value)[:40] for value in values]}"


def _delete_rows(folder: Path, rng: random.Random) -> str:
    table = rng.choice(list(TABLES))
    with _unguarded(folder) as db:
        count = db.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
        column = rng.choice(TABLES[table])
        value = db.execute(f"SELECT {column} FROM {table} LIMIT 1 OFFSET ?", (rng.randrange(max(count, 1)),)).fetchone()
        db.execute(f"DELETE FROM {table} WHERE {column} IS ?", value or (None,))
    return f"rows of {table} deleted where {column} is {value!r}"


def _change_schema(folder: Path, rng: random.Random) -> str:
    sql = rng.choice(SCHEMAS)
    with contextlib.closing(_connect(folder)) as db:
        db.executescript(sql)
    return sql


def _break_order(folder: Path, rng: random.Random) -> str:
    """Rows of a tree in another order than its schema says: ids that do not rise."""
    table, key, wrong = rng.choice(
        [
            ("vector", "PRIMARY KEY (space, modality, content)", "PRIMARY KEY (space, modality, content DESC)"),
            ("embedding", "PRIMARY KEY (item, role)", "PRIMARY KEY (item, role DESC)"),
            ("embedding", "PRIMARY KEY (item, role)", "PRIMARY KEY (item DESC, role)"),
        ]
    )
    with contextlib.closing(_connect(folder)) as db:
        (sql,) = db.execute("SELECT sql FROM sqlite_master WHERE name = ?", (table,)).fetchone()
        rows = db.execute(f"SELECT * FROM {table}").fetchall()
        others = db.execute(
            "SELECT sql FROM sqlite_master WHERE tbl_name = ? AND name <> ? AND sql IS NOT NULL", (table, table)
        ).fetchall()
        db.execute(f"DROP TABLE {table}")
        db.execute(sql.replace(key, wrong))
        for (other,) in others:
            db.execute(other)
        db.executemany(f"INSERT INTO {table} VALUES ({','.join('?' * len(rows[0]))})", rows)
        _write_schema(db, lambda text: text.replace(wrong, key))
    return f"{table} stored in the order of {wrong}"


def _change_schema_text(folder: Path, rng: random.Random) -> str:
    """The stored SQL says something else than the trees under it."""
    with contextlib.closing(_connect(folder)) as db:
        name, sql = rng.choice(db.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL").fetchall())
        data = bytearray(sql.encode())
        how = rng.choice(("bit", "word", "null", "invalid", "root"))
        if how == "root":
            root = rng.choice((0, 1, 2, 3, 5, 10, 10**6, -1, 2**40))
            db.execute("PRAGMA writable_schema = ON")
            db.execute("UPDATE sqlite_master SET rootpage = ? WHERE name = ?", (root, name))
            return f"rootpage of {name} is {root}"
        if how == "bit":
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        elif how == "word":
            data = bytearray(sql.replace(*rng.choice(OTHER_WORDS), 1).encode())
        elif how == "invalid":
            data = bytearray(rng.choice((b"", b"CREATE", b"\xff", b"SELECT 1", b"CREATE VIEW x AS SELECT 1")))
        db.execute("PRAGMA writable_schema = ON")
        db.execute(
            "UPDATE sqlite_master SET sql = CAST(? AS TEXT) WHERE name = ?",
            (None if how == "null" else bytes(data), name),
        )
    return f"SQL of {name}: {how}: {bytes(data)[-120:]!r}"


def _change_bytes(folder: Path, rng: random.Random) -> str:
    path = folder / "collection.db"
    data = bytearray(path.read_bytes())
    if not data:
        return "nothing left"
    page = 4096
    how = rng.choice(
        ("bits", "bits", "header", "extreme", "extreme", "truncate", "zero page", "swap pages", "noise", "append")
    )
    at = rng.randrange(len(data))
    if how == "bits":
        for _ in range(rng.randrange(1, 4)):
            at = rng.choice((rng.randrange(len(data)), rng.randrange(min(page, len(data)))))
            data[at] ^= 1 << rng.randrange(8)
    elif how == "header":
        at = rng.randrange(100)
        data[at] = rng.choice((0, 1, 2, 255))
    elif how == "extreme":
        at = rng.randrange(len(data) // page) * page + rng.choice((0, 1, 3, 5, 7, 8, 12, 16, 24, 28, 32, 36, 40))
        width = rng.choice((1, 2, 4))
        data[at : at + width] = rng.choice((0, 1, 0x7F, 0xFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF)).to_bytes(4, "big")[
            -width:
        ]
    elif how == "truncate":
        del data[at:]
    elif how == "zero page":
        at = at // page * page
        data[at : at + page] = bytes(page)
    elif how == "swap pages" and len(data) > 2 * page:
        a, b = (rng.randrange(1, len(data) // page) * page for _ in range(2))
        data[a : a + page], data[b : b + page] = data[b : b + page], data[a : a + page]
    elif how == "noise":
        data[at : at + 64] = rng.randbytes(64)
    else:
        data += rng.randbytes(rng.randrange(1, 2 * page))
    path.write_bytes(data)
    return f"bytes of the database: {how} at {at}"


CHANGES: dict[Callable[[Path, random.Random], str], int] = {
    _change_values: 50,
    _insert_rows: 8,
    _delete_rows: 5,
    _change_schema: 12,
    _change_schema_text: 5,
    _break_order: 2,
    _change_bytes: 12,
    FOLDER.change_folder: 14,
}


def _connect(folder: Path) -> sqlite3.Connection:
    db = sqlite3.connect(folder / "collection.db", isolation_level=None)
    steps = iter(range(STEPS // STEPS_AT_ONCE))
    db.set_progress_handler(lambda: next(steps, None) is None, STEPS_AT_ONCE)  # an earlier change made an endless view
    return db


def _write_schema(db: sqlite3.Connection, change: Callable[[str], str]) -> None:
    db.execute("PRAGMA writable_schema = ON")
    for rowid, sql in db.execute("SELECT rowid, sql FROM sqlite_master WHERE sql IS NOT NULL").fetchall():
        db.execute("UPDATE sqlite_master SET sql = ? WHERE rowid = ?", (change(sql), rowid))
    (version,) = db.execute("PRAGMA schema_version").fetchone()
    db.execute(f"PRAGMA schema_version = {version + 1}")


@contextlib.contextmanager
def _unguarded(folder: Path) -> Any:
    """A connection to a database without NOT NULL, CHECK, foreign keys and triggers, which come back afterwards."""
    with contextlib.closing(_connect(folder)) as db:
        texts = db.execute("SELECT rowid, sql FROM sqlite_master WHERE sql IS NOT NULL").fetchall()
        triggers = db.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'").fetchall()
        _write_schema(db, lambda sql: sql.replace(" NOT NULL", "") if sql.startswith("CREATE TABLE") else sql)
    with contextlib.closing(_connect(folder)) as db:
        db.execute("PRAGMA ignore_check_constraints = ON")
        db.execute("PRAGMA foreign_keys = OFF")
        for name, _ in triggers:
            db.execute(f"DROP TRIGGER {name}")
        yield db
        for _, sql in triggers:
            db.execute(sql)
        ours = {sql.replace(" NOT NULL", ""): sql for _, sql in texts if sql.startswith("CREATE TABLE")}
        _write_schema(db, lambda sql: ours.get(sql, sql))
