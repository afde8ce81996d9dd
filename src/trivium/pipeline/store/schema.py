"""The tables of a collection's database, in this format and in those before, and the way from one to the next.

A database may come from a stranger: nothing of its schema runs before it is known to be ours (`foreign_objects`).
"""

import functools
import re
import sqlite3

FORMAT = 3
OLDEST = 2  # that is brought to this format when it is opened

# In format 2 `setting` and `video_item` were made when they were first needed.
_SINCE_3 = (
    "CREATE TABLE IF NOT EXISTS setting (name TEXT PRIMARY KEY, value NOT NULL)",
    """CREATE TABLE root (
        path BLOB PRIMARY KEY,        -- a file or folder that was indexed by its name; as in item
        device INTEGER,               -- where it lay when it was last looked at: st_dev
        settings TEXT NOT NULL,       -- how it is indexed, JSON
        passed TEXT NOT NULL          -- what the last look passed over: counts by suffix, JSON
    ) WITHOUT ROWID""",
    """CREATE TABLE skipped (
        path BLOB PRIMARY KEY,        -- of a file below a root that could not be indexed
        reason TEXT NOT NULL
    ) WITHOUT ROWID""",
    "CREATE INDEX IF NOT EXISTS video_item ON item (id) WHERE modality = 'video'",
)
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
    looks INTEGER,                            -- a picture's perceptual hash, 64 bits, where it is known
    seconds REAL,                             -- how long a sound or a video is, where it is known
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
    metadata TEXT,                -- what filters see, JSON: the sidecar's over the table's over the file's own
    tabled TEXT,                  -- what a metadata table said, JSON
    own TEXT,                     -- what the file says of itself, JSON
    missing INTEGER NOT NULL DEFAULT 0  -- whether its file was not there when it was last looked for
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
SCHEMA += "".join(f"{statement};\n" for statement in _SINCE_3)
# The tables of format 2 that are otherwise now; its first collections had foreign keys in `vector`.
_BEFORE = """
CREATE TABLE content (
    id INTEGER PRIMARY KEY AUTOINCREMENT, modality TEXT NOT NULL, sha256 BLOB NOT NULL, UNIQUE (sha256, modality)
);
CREATE TABLE item (
    id INTEGER PRIMARY KEY, path BLOB NOT NULL UNIQUE, modality TEXT NOT NULL, fingerprint TEXT NOT NULL,
    beside TEXT NOT NULL, caption TEXT, metadata TEXT, tabled TEXT
);
CREATE TABLE vector (
    space INTEGER NOT NULL REFERENCES space, modality TEXT NOT NULL,
    content INTEGER NOT NULL REFERENCES content, shard INTEGER NOT NULL REFERENCES shard, row INTEGER NOT NULL,
    PRIMARY KEY (space, modality, content)
) WITHOUT ROWID;
"""
# To be run in one transaction; nothing is encoded again.
UPGRADE = (
    "ALTER TABLE content ADD COLUMN looks INTEGER",
    "ALTER TABLE content ADD COLUMN seconds REAL",
    "ALTER TABLE item ADD COLUMN own TEXT",
    "ALTER TABLE item ADD COLUMN missing INTEGER NOT NULL DEFAULT 0",
    *_SINCE_3,
    f"PRAGMA user_version = {FORMAT}",
)
_BY_SQLITE = re.compile("sqlite_(sequence|stat[134]|autoindex_.*)")


def foreign_objects(db: sqlite3.Connection, *, version: int) -> list[str]:
    """Name what a database's schema has that no Trivium of its format made, or made otherwise; nothing of it is run.

    A trigger or a view would run with our next statement, with the rights of whoever opened the collection.

    Raises:
        sqlite3.Error: If the schema cannot be read.
    """
    foreign = []
    known = _known(version)
    for kind, name, table, sql in db.execute("SELECT type, name, tbl_name, sql FROM sqlite_master"):
        is_own = (kind, name, table, _plain(sql)) in known
        is_sqlites = kind in ("table", "index") and _BY_SQLITE.fullmatch(str(name)) and _is_sqlites(kind, name, sql)
        if not is_own and not is_sqlites:
            foreign.append(f"{kind} '{name}'")
    return foreign


def missing_tables(db: sqlite3.Connection, *, version: int) -> list[str]:
    """Name the tables that each collection of a format has, and a database has not.

    Raises:
        sqlite3.Error: If the schema cannot be read.
    """
    found = {name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    due = {name for kind, name, _, _ in _known(version) if kind == "table"}
    return sorted(due - found - ({"setting", "root", "skipped"} if version < FORMAT else set()))


def _is_sqlites(kind: str, name: str, sql: object) -> bool:
    """Whether an object of such a name is one that SQLite makes itself."""
    if kind == "index":
        return sql is None and name.startswith("sqlite_autoindex_")
    return isinstance(sql, str) and re.fullmatch(r"CREATE TABLE \w+\([\w,]+\)", sql) is not None


@functools.cache
def _known(version: int) -> frozenset[tuple[str, str, str, str]]:
    """Return kind, name, table and statement of all that a database of a format may have."""
    now, before = _objects(SCHEMA), _objects(_BEFORE)
    if version < FORMAT:
        return frozenset({row for row in now if row[1] not in ("content", "item")} | before)
    return frozenset(now | _objects("; ".join((_BEFORE, *UPGRADE))))


def _objects(script: str) -> set[tuple[str, str, str, str]]:
    db = sqlite3.connect(":memory:")
    try:
        db.executescript(script)
        rows = db.execute("SELECT type, name, tbl_name, sql FROM sqlite_master WHERE sql IS NOT NULL")
        return {(kind, name, table, _plain(sql)) for kind, name, table, sql in rows if not name.startswith("sqlite_")}
    finally:
        db.close()


def _plain(sql: object) -> str:
    """Return a statement without its comments and line breaks, which versions have otherwise."""
    if not isinstance(sql, str):
        return ""
    return re.sub(r" ?([(),]) ?", r"\1", " ".join(re.sub(r"--[^\n]*", "", sql).split()))
