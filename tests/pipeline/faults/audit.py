"""Everything that must hold of a collection after any fault, looked at from outside."""

import hashlib
import random
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from trivium.encoders.base import unit_rows
from trivium.encoders.files.reading import file_sha256
from trivium.pipeline.search.retrieval import Retrieval
from trivium.pipeline.search.vectors import usable_index
from trivium.pipeline.store.database import is_free
from trivium.pipeline.store.database_file import DATABASE, change_counter, read_checksum
from trivium.pipeline.store.shards import FOLDER as VECTORS
from trivium.pipeline.store.store import INDEX, Store

HASHED_SHARDS = 3  # the last ones; all have their sizes checked
READ_VECTORS = 20
# Half precision of a unit vector's numbers, which are below 1.
TOLERANCE = 5e-4


@dataclass(frozen=True, slots=True)
class Found:
    """What a sound collection holds."""

    paths: frozenset[str]
    vectors: int  # also of contents that no item has
    generation: int
    revision: str  # of the space that is searched
    has_index: bool


def examine(folder: Path, *, whole: bool = False, may_lack_index: bool = False) -> Found | None:
    """Open a collection as the next user does and check it; None if a kill came before it was made.

    ``whole`` is for the end of a run that nothing has disturbed: then nothing unnamed lies about either. What has taken
    away the folder of index files, which anyone may, says so.
    """
    if not (folder / DATABASE).exists():
        assert is_free(folder), sorted(folder.rglob("*"))
        return None
    with closing(sqlite3.connect(folder / DATABASE)) as db:  # rolls back what a kill has left
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert db.execute("PRAGMA foreign_key_check").fetchall() == []
        _check_rows(db)
    with closing(Store(folder)) as store:
        found = _examine(store, may_lack_index=may_lack_index)
        if whole:
            named = {shard.name for shard in store.shards().values()} | {f.name for f in store.index_files().values()}
            assert {path.name for part in (VECTORS, INDEX) for path in (folder / part).iterdir()} == named
            assert not list(folder.glob("*-journal"))
    _check_checksum(folder, must_fit=whole)
    return found


def _check_rows(db: sqlite3.Connection) -> None:
    """What no constraint of the schema sees."""
    wrong = {
        "content without a vector": "SELECT c.id FROM content c, collection WHERE NOT EXISTS (SELECT 1 FROM vector v "
        "WHERE v.space = collection.space AND v.modality = c.modality AND v.content = c.id)",
        "vector without a content": "SELECT content FROM vector v WHERE NOT EXISTS "
        "(SELECT 1 FROM content c WHERE c.id = v.content AND c.modality = v.modality)",
        "vector in no shard": "SELECT content FROM vector WHERE shard NOT IN (SELECT id FROM shard)",
        "vector past its shard's end": "SELECT content FROM vector v JOIN shard s ON s.id = v.shard "
        "WHERE v.row NOT BETWEEN 0 AND s.rows - 1",
        "two vectors in one place": "SELECT shard, row FROM vector GROUP BY shard, row HAVING count(*) > 1",
        "item without a content": "SELECT id FROM item WHERE id NOT IN (SELECT item FROM embedding)",
        "content of no item that is no orphan": "SELECT id FROM content WHERE id NOT IN "
        "(SELECT content FROM embedding UNION ALL SELECT content FROM orphan)",
        "orphan that an item has": "SELECT content FROM orphan WHERE content IN (SELECT content FROM embedding)",
    }
    for what, query in wrong.items():
        assert db.execute(query).fetchall() == [], what


def _examine(store: Store, *, may_lack_index: bool) -> Found:
    items = list(store.items())
    paths = [item.path for item in items]
    assert len(set(paths)) == len(paths)
    _check_shards(store)
    for file in store.index_files().values():
        is_gone = may_lack_index and not (store.folder / INDEX / file.name).exists()
        assert is_gone or usable_index(store, file) is not None, file
    if items:
        _check_vectors(store, paths)
        dim = store.space.dim
        query = unit_rows(np.ones((1, dim)))
        (hits,) = Retrieval(store).search(query, k=len(items) + 1)
        assert sorted(hit.path for hit in hits) == sorted(paths)
    (vectors,) = store.db.execute("SELECT count(*) FROM vector").fetchone()
    return Found(frozenset(paths), vectors, store.generation, store.space.revision, bool(store.index_files()))


def _check_shards(store: Store) -> None:
    shards = sorted(store.shards().values(), key=lambda shard: shard.name)
    for shard in shards:
        assert (store.folder / VECTORS / shard.name).stat().st_size == shard.size
    for shard in shards[-HASHED_SHARDS:]:
        assert file_sha256(store.folder / VECTORS / shard.name) == shard.sha256


def _check_vectors(store: Store, paths: list[str]) -> None:
    """Some items' vectors are the ones that the stub encoder makes of their files."""
    locations = store.locations("text")
    contents, vectors = store.source(locations).all()
    rows = dict(zip(contents.tolist(), vectors, strict=True))
    for path in random.Random(len(paths)).sample(paths, min(READ_VECTORS, len(paths))):
        item = store.item_at(path)
        assert item is not None
        (content,) = store.db.execute("SELECT content FROM embedding WHERE item = ?", (item.id,)).fetchone()
        data = Path(path).read_bytes()
        assert item.contents["content"].sha256 == hashlib.sha256(data).digest()
        seed = int.from_bytes(hashlib.sha256(data).digest()[:8], "big")
        expected = unit_rows(np.random.default_rng(seed).normal(size=(1, store.space.dim)))[0]
        np.testing.assert_allclose(rows[content].astype(np.float32), expected, atol=TOLERANCE)


def _check_checksum(folder: Path, *, must_fit: bool) -> None:
    changes, _ = change_counter(folder)
    recorded = read_checksum(folder)  # raises if it is torn
    assert recorded is None or recorded.changes <= changes, "the checksum is of a state that never was"
    is_of_now = recorded is not None and recorded.changes == changes
    assert is_of_now or not must_fit, "the checksum is not of the database's last state"
    if recorded is not None and is_of_now:
        assert recorded.sha256 == file_sha256(folder / DATABASE)
