"""The tables of a collection's database, and what in a database is not of them."""

import functools
import re
import sqlite3

SCHEMA = """
CREATE TABLE space (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL, dim INTEGER NOT NULL, revision TEXT NOT NULL,
    source TEXT NOT NULL,         -- what load_space takes: a name or a folder
    UNIQUE (name, dim, revision)
);
CREATE TABLE collection (
    only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
    space INTEGER NOT NULL REFERENCES space,  -- the one that is searched; others are being migrated to
    generation INTEGER NOT NULL,              -- grows with every commit
    wish TEXT NOT NULL DEFAULT '{}'           -- what kind of index the owner asked for, JSON
);
CREATE TABLE content (
    id INTEGER PRIMARY KEY AUTOINCREMENT,     -- never used twice: index files of the past know it too
    modality TEXT NOT NULL,
    sha256 BLOB NOT NULL,                     -- of the file's bytes, or of the caption
    UNIQUE (sha256, modality)
);
CREATE TABLE shard (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL UNIQUE, rows INTEGER NOT NULL, size INTEGER NOT NULL, sha256 TEXT NOT NULL
);
CREATE TABLE vector (
    space INTEGER NOT NULL REFERENCES space,
    modality TEXT NOT NULL,                   -- the content's: the newest of one modality are found in one step
    -- No foreign keys here: without trees of their own they would make each deletion a walk over all vectors.
    content INTEGER NOT NULL, shard INTEGER NOT NULL, row INTEGER NOT NULL,
    PRIMARY KEY (space, modality, content)
) WITHOUT ROWID;
CREATE TABLE item (
    id INTEGER PRIMARY KEY,
    path BLOB NOT NULL UNIQUE,    -- as the file system has it: names need not be valid UTF-8
    modality TEXT NOT NULL,
    fingerprint TEXT NOT NULL,    -- size and times of the file when it was read
    beside TEXT NOT NULL,         -- the same of its caption and its sidecar
    caption TEXT,
    metadata TEXT,                -- what filters see, JSON: the sidecar's over the table's
    tabled TEXT                   -- what a metadata table said, JSON
);
CREATE TABLE embedding (
    item INTEGER NOT NULL REFERENCES item ON DELETE CASCADE,
    role TEXT NOT NULL,
    content INTEGER NOT NULL REFERENCES content,
    PRIMARY KEY (item, role)
) WITHOUT ROWID;
CREATE INDEX embedding_by_content ON embedding (content);
CREATE INDEX caption_embedding ON embedding (item, content) WHERE role <> 'content';
-- Contents that no item has any more: never found, and deleted by the next compaction.
CREATE TABLE orphan (content INTEGER PRIMARY KEY REFERENCES content ON DELETE CASCADE);
CREATE TRIGGER content_lost AFTER DELETE ON embedding BEGIN
    INSERT OR IGNORE INTO orphan SELECT OLD.content
    WHERE NOT EXISTS (SELECT 1 FROM embedding WHERE content = OLD.content);
END;
CREATE TRIGGER content_found AFTER INSERT ON embedding BEGIN
    DELETE FROM orphan WHERE content = NEW.content;
END;
CREATE TABLE index_file (
    space INTEGER NOT NULL REFERENCES space, modality TEXT NOT NULL,
    name TEXT NOT NULL UNIQUE, size INTEGER NOT NULL, sha256 TEXT NOT NULL,
    state TEXT NOT NULL,          -- inode and times of the file whose hash this is
    kind TEXT NOT NULL, effort INTEGER,
    through INTEGER NOT NULL,     -- holds every vector whose content's id is at most this
    vectors INTEGER NOT NULL,
    report TEXT NOT NULL,         -- why this kind, and the recall that was measured; JSON
    PRIMARY KEY (space, modality)
);
"""
# Made when they are first needed: collections of this format were made before there were windows and videos.
SETTING = "CREATE TABLE IF NOT EXISTS setting (name TEXT PRIMARY KEY, value NOT NULL)"
VIDEO_ITEM = "CREATE INDEX IF NOT EXISTS video_item ON item (id) WHERE modality = 'video'"
# The first collections of this format had foreign keys there.
_EARLIER = """
CREATE TABLE vector (
    space INTEGER NOT NULL REFERENCES space, modality TEXT NOT NULL,
    content INTEGER NOT NULL REFERENCES content, shard INTEGER NOT NULL REFERENCES shard, row INTEGER NOT NULL,
    PRIMARY KEY (space, modality, content)
) WITHOUT ROWID;
"""
_BY_SQLITE = re.compile("sqlite_(sequence|stat[134]|autoindex_.*)")


def foreign_objects(db: sqlite3.Connection) -> list[str]:
    """Name what a database's schema has that Trivium never made, or has otherwise; nothing of it is run.

    A trigger or a view would run with our next statement, with the rights of whoever opened the collection.

    Raises:
        sqlite3.Error: If the schema cannot be read.
    """
    foreign = []
    known = _known()
    for kind, name, table, sql in db.execute("SELECT type, name, tbl_name, sql FROM sqlite_master"):
        is_own = (kind, name, table, _plain(sql)) in known
        is_sqlites = kind in ("table", "index") and _BY_SQLITE.fullmatch(str(name)) and _is_sqlites(kind, name, sql)
        if not is_own and not is_sqlites:
            foreign.append(f"{kind} '{name}'")
    return foreign


def missing_tables(db: sqlite3.Connection) -> list[str]:
    """Name the tables that each collection has, and a database has not.

    Raises:
        sqlite3.Error: If the schema cannot be read.
    """
    found = {name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    return sorted(name for kind, name, _, _ in _known() if kind == "table" and name not in found | {"setting"})


def _is_sqlites(kind: str, name: str, sql: object) -> bool:
    """Whether an object of such a name is one that SQLite makes itself."""
    if kind == "index":
        return sql is None and name.startswith("sqlite_autoindex_")
    return isinstance(sql, str) and re.fullmatch(r"CREATE TABLE \w+\([\w,]+\)", sql) is not None


@functools.cache
def _known() -> frozenset[tuple[str, str, str, str]]:
    found = set()
    for script in (f"{SCHEMA}{SETTING};{VIDEO_ITEM};", _EARLIER):
        db = sqlite3.connect(":memory:")
        try:
            db.executescript(script)
            rows = db.execute("SELECT type, name, tbl_name, sql FROM sqlite_master WHERE sql IS NOT NULL")
            found |= {(kind, name, table, _plain(sql)) for kind, name, table, sql in rows}
        finally:
            db.close()
    return frozenset(row for row in found if not row[1].startswith("sqlite_"))


def _plain(sql: object) -> str:
    """Return a statement without its comments and line breaks, which older versions had otherwise."""
    return " ".join(re.sub(r"--[^\n]*", "", sql).split()) if isinstance(sql, str) else ""
