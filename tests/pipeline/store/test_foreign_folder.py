"""A collection's folder from elsewhere, or exchanged while it is open: nothing outside of it is touched."""

import contextlib
import os
import re
import shutil
import sqlite3
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from trivium.encoders.base import Space, unit_rows
from trivium.encoders.files.reading import regular_descriptor
from trivium.pipeline.collection import Collection
from trivium.pipeline.records import ContentKey, NewItem
from trivium.pipeline.search.retrieval import Retrieval
from trivium.pipeline.store import database_file
from trivium.pipeline.store.database import CollectionError, open_database
from trivium.pipeline.store.database_file import _kept
from trivium.pipeline.store.rows import MalformedError, index_report
from trivium.pipeline.store.store import Store
from trivium.pipeline.store.writer import writing
from trivium.pipeline.upkeep.compaction import compact
from trivium.pipeline.upkeep.verification import verify

SPACE = Space(name="stub", dim=16, revision="1")
MAGIC = bytes.fromhex("d9d505f920a163d7")
VICTIM = "victim.txt"


def add(store: Store, *names: str) -> None:
    keys = [ContentKey("image", f"{name:32}".encode()) for name in names]
    items = [
        NewItem(path=f"/m/{name}", modality="image", fingerprint="f", contents={"content": key})
        for name, key in zip(names, keys, strict=True)
    ]
    with writing(store) as writer:
        writer.commit(items, keys, unit_rows(np.random.default_rng(0).normal(size=(len(names), SPACE.dim))))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    store = Store.create(tmp_path / "c", SPACE, source="stub")
    add(store, "a", "b", "c")
    store.close()
    (tmp_path / VICTIM).write_text("precious")
    return tmp_path / "c"


def uses(folder: Path) -> list[Callable[[], object]]:
    """What people do with a collection."""

    def write() -> None:
        store = Store(folder)
        try:
            add(store, "d")
        finally:
            store.close()

    def compacted() -> None:
        store = Store(folder)
        try:
            compact(store)
        finally:
            store.close()

    return [lambda: Collection.open(folder).info(), write, compacted, lambda: verify(folder, read_data=True)]


def super_journal(victim: Path, database: Path) -> bytes:
    """A hot journal that names a super-journal, which SQLite deletes when it has rolled back."""
    name = os.fsencode(victim)
    header = MAGIC + struct.pack(">IIIII", 0, 0, database.stat().st_size // 4096, 512, 4096)
    record = struct.pack(">I", 0x40000000 // 4096 + 1) + name + struct.pack(">II", len(name), sum(name)) + MAGIC
    return header.ljust(512, b"\0") + record


def test_a_journal_deletes_no_file(folder: Path, tmp_path: Path) -> None:
    shutil.copy(folder / "collection.db", tmp_path / "plain.db")
    (tmp_path / "plain.db-journal").write_bytes(super_journal(tmp_path / VICTIM, tmp_path / "plain.db"))
    with contextlib.closing(sqlite3.connect(tmp_path / "plain.db")) as db:
        db.execute("SELECT count(*) FROM item").fetchone()
    assert not (tmp_path / VICTIM).exists()  # what SQLite does, if it is let
    (tmp_path / VICTIM).write_text("precious")
    for use in uses(folder):
        (folder / "collection.db-journal").write_bytes(super_journal(tmp_path / VICTIM, folder / "collection.db"))
        with contextlib.suppress(CollectionError):
            use()
        assert (tmp_path / VICTIM).read_text() == "precious"
    with pytest.raises(CollectionError, match="journal names another file, which SQLite would delete"):
        Store(folder)
    (finding,) = [f for f in verify(folder).findings if f.is_damage]
    assert "names another file" in finding.what


@pytest.mark.parametrize("kind", ["link", "pipe", "folder"])
@pytest.mark.parametrize("name", ["collection.db", "collection.db-journal", "collection.db-wal", "collection.db-shm"])
def test_what_is_no_file_of_ours_is_not_opened(folder: Path, tmp_path: Path, name: str, kind: str) -> None:
    (folder / name).unlink(missing_ok=True)
    if kind == "link":
        (folder / name).symlink_to(tmp_path / VICTIM)
    elif kind == "pipe":
        os.mkfifo(folder / name)
    else:
        (folder / name).mkdir()
    with pytest.raises(CollectionError, match=r"is a link|no regular file|which Trivium never makes"):
        Store(folder)
    assert not verify(folder).is_sound
    assert (tmp_path / VICTIM).read_text() == "precious"


def test_a_link_to_another_programs_database_is_refused_before_it_is_touched(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.db"
    with contextlib.closing(sqlite3.connect(other)) as db:
        db.executescript("PRAGMA journal_mode = WAL; CREATE TABLE t (x); INSERT INTO t VALUES (1);")
    before = other.read_bytes()
    for make in (os.symlink, os.link):
        (folder / "collection.db").unlink()
        make(other, folder / "collection.db")
        with pytest.raises(CollectionError, match=r"is a link|is not a Trivium collection"):
            Store(folder)
        assert not verify(folder).is_sound
        assert other.read_bytes() == before


def test_a_database_in_another_mode_is_not_switched_back(folder: Path) -> None:
    with contextlib.closing(sqlite3.connect(folder / "collection.db")) as db:
        db.execute("PRAGMA journal_mode = WAL")
    with pytest.raises(CollectionError, match="switched to a write-ahead log by another program"):
        Store(folder)


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TRIGGER t AFTER INSERT ON item BEGIN DELETE FROM item; END",
        "CREATE VIEW v AS SELECT 1",
        "CREATE TABLE more (x)",
        "CREATE INDEX more ON item (caption)",
        "DROP TRIGGER content_lost; CREATE TRIGGER content_lost AFTER DELETE ON embedding BEGIN SELECT 1; END",
        "DROP TABLE orphan; CREATE VIEW orphan AS WITH RECURSIVE r(content) AS (SELECT 1 UNION ALL SELECT content + 1 "
        "FROM r) SELECT content FROM r",
        "ALTER TABLE item ADD COLUMN more TEXT GENERATED ALWAYS AS (hex(zeroblob(100)))",
    ],
)
def test_foreign_schemas_are_refused_and_do_not_run(folder: Path, statement: str) -> None:
    with contextlib.closing(sqlite3.connect(folder / "collection.db")) as db:
        db.executescript(statement)
    with pytest.raises(CollectionError, match=r"has what Trivium did not make: (trigger|view|table|index) '"):
        Store(folder)
    found = verify(folder, read_data=True)
    assert any("what Trivium did not make" in finding.what for finding in found.findings)
    assert not found.is_sound


def test_a_missing_table_is_damage(folder: Path) -> None:
    with contextlib.closing(sqlite3.connect(folder / "collection.db")) as db:
        db.execute("DROP TABLE index_file")
    with pytest.raises(CollectionError, match=r"damaged \(it has no table index_file\)"):
        Store(folder)


def test_schemas_of_the_first_collections_are_known(folder: Path) -> None:
    with contextlib.closing(sqlite3.connect(folder / "collection.db")) as db:
        db.executescript(
            "DROP TABLE vector; CREATE TABLE vector (\n    space INTEGER NOT NULL REFERENCES space, "
            "modality TEXT NOT NULL, -- as it was\n    content INTEGER NOT NULL REFERENCES content, shard INTEGER "
            "NOT NULL REFERENCES shard, row INTEGER NOT NULL,\n PRIMARY KEY (space, modality, content)\n) "
            "WITHOUT ROWID; ANALYZE;"
        )
    open_database(folder).close()


def test_nothing_of_a_schema_is_trusted(folder: Path) -> None:
    db = open_database(folder)
    assert db.execute("PRAGMA trusted_schema").fetchone() == (0,)
    assert db.execute("PRAGMA cell_size_check").fetchone() == (1,)
    db.close()


# Links inside


@pytest.mark.parametrize("part", ["vectors", "index"])
def test_folders_that_are_links_are_neither_emptied_nor_written_to(folder: Path, tmp_path: Path, part: str) -> None:
    documents = tmp_path / "documents"
    (folder / part).rename(documents)
    (documents / "thesis.docx").write_text("precious")
    (documents / "00000099-0123456789abcdef.npy").write_text("a name like ours")
    (folder / part).symlink_to(documents)
    before = sorted(documents.iterdir())
    store = Store(folder)
    with pytest.raises(CollectionError, match=f"cannot write to .*{part}: it is a link, which is not followed"):
        add(store, "d")
    with pytest.raises(CollectionError, match="it is a link"):
        compact(store)
    assert sorted(documents.iterdir()) == before
    assert any("it is a link" in finding.what for finding in verify(folder).findings)


@pytest.mark.parametrize("name", ["lock.holder", ".collection.db.sha256.new", "collection.db.sha256"])
def test_links_are_never_written_through(folder: Path, tmp_path: Path, name: str) -> None:
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to(tmp_path / VICTIM)
    store = Store(folder)
    add(store, "d")
    assert (tmp_path / VICTIM).read_text() == "precious"
    assert not (folder / name).is_symlink()


@pytest.mark.parametrize("kind", ["link", "folder", "pipe"])
def test_a_lock_that_is_no_file_is_refused(folder: Path, tmp_path: Path, kind: str) -> None:
    (folder / "lock").unlink(missing_ok=True)
    if kind == "link":
        (folder / "lock").symlink_to(tmp_path / VICTIM)
    elif kind == "folder":
        (folder / "lock").mkdir()
    else:
        os.mkfifo(folder / "lock")
    with pytest.raises(CollectionError, match=r"lock is (a link|no regular file)"):
        add(Store(folder), "d")
    assert (tmp_path / VICTIM).read_text() == "precious"


def test_a_holder_that_is_a_pipe_does_not_hang(folder: Path) -> None:
    os.mkfifo(folder / "lock.holder")
    add(Store(folder), "d")
    assert not (folder / "lock.holder").exists()


def test_drafts_of_killed_runs_that_are_links_go_without_what_they_lead_to(tmp_path: Path) -> None:
    (tmp_path / VICTIM).write_text("precious")
    (tmp_path / "c").mkdir()
    for name in (".collection.db.new", ".collection.db.new-journal"):
        (tmp_path / "c" / name).symlink_to(tmp_path / VICTIM)
    Store.create(tmp_path / "c", SPACE, source="stub").close()
    assert (tmp_path / VICTIM).read_text() == "precious"


# Another folder at the same path


def exchanged(folder: Path) -> Path:
    """Put a copy in the folder's place, as a restore does, with files of its own; return where the open one went."""
    aside = folder.with_name("aside")
    shutil.copytree(folder, folder.with_name("copy"))
    folder.rename(aside)
    folder.with_name("copy").rename(folder)
    return aside


def test_a_restored_folder_keeps_its_shards(folder: Path) -> None:
    writer, reader = Store(folder), Store(folder)
    aside = exchanged(folder)
    restored = Store(folder)
    add(restored, "new")
    restored.close()
    shards = sorted((folder / "vectors").iterdir())
    with pytest.raises(CollectionError, match=r"no longer the collection that was opened: .* open it again"):
        add(writer, "d")
    with pytest.raises(CollectionError, match="no longer the collection that was opened"):
        compact(writer)
    with pytest.raises(CollectionError, match="no longer the collection that was opened"):
        Retrieval(reader).search(unit_rows(np.ones((1, SPACE.dim))), k=3)
    assert sorted((folder / "vectors").iterdir()) == shards
    assert len(list((aside / "vectors").iterdir())) == 1
    assert verify(folder, read_data=True).is_sound
    assert verify(aside, read_data=True).is_sound


def test_a_folder_exchanged_during_a_write_loses_nothing(folder: Path) -> None:
    store = Store(folder)
    keys = [ContentKey("image", b"d" * 32)]
    with contextlib.ExitStack() as stack:
        writer = stack.enter_context(writing(store))
        exchanged(folder)
        with pytest.raises(CollectionError, match="no longer the collection that was opened"):
            writer.commit([], keys, unit_rows(np.ones((1, SPACE.dim))))
    found = verify(folder, read_data=True)
    assert found.is_sound
    assert sum(Store(folder).counts().values()) == 3


def test_a_moved_folder_is_told(folder: Path) -> None:
    store = Store(folder)
    folder.rename(folder.with_name("elsewhere"))
    with pytest.raises(CollectionError, match="it was moved"), store.reading():
        pass


# The descriptor that is kept open beside SQLite


def test_the_file_is_closed_with_the_last_connection(folder: Path) -> None:
    before = dict(_kept)
    one, two = Store(folder), Store(folder)
    add(one, "d")
    assert len(_kept) == len(before) + 1
    one.close()
    assert len(_kept) == len(before) + 1
    two.close()
    assert _kept == before


def test_looking_at_the_file_keeps_the_locks_of_a_search(folder: Path) -> None:
    store = Store(folder)
    with store.reading():
        store.counts()
        Store(folder).close()
        verify(folder, read_data=True)
        with contextlib.closing(sqlite3.connect(folder / "collection.db", timeout=0)) as db:
            db.execute("BEGIN IMMEDIATE")
            db.execute("UPDATE collection SET generation = 99")
            with pytest.raises(sqlite3.OperationalError, match="locked"):
                db.execute("COMMIT")
            db.rollback()


# Bytes that are no text


def test_any_byte_of_the_schema_may_be_wrong(folder: Path) -> None:
    database = folder / "collection.db"
    sound = database.read_bytes()
    places = [place for found in re.finditer(rb"CREATE [ -~\n]+", sound) for place in range(*found.span(), 9)]
    assert len(places) > 300
    for place in places:
        database.write_bytes(sound[:place] + bytes([sound[place] ^ 0x80]) + sound[place + 1 :])
        with contextlib.suppress(CollectionError):
            Store(folder).close()
        verify(folder)
    database.write_bytes(sound)
    assert verify(folder, read_data=True).is_sound


# What is stored is of its type, or the message says which column is not


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("UPDATE collection SET generation = 'abc'", "in its column 'generation', 'abc' is no whole number"),
        ("UPDATE item SET path = 7 WHERE id = 1", "in its column 'path', 7 is no path of a file"),
        ("UPDATE item SET path = CAST('relative' AS BLOB) WHERE id = 1", "is no path of a file"),
        ("UPDATE item SET modality = 'odour'", "in its column 'modality', 'odour' is no kind of item"),
        ("UPDATE embedding SET role = 'window x'", "'window x' is no part of an item"),
        ("UPDATE collection SET wish = '{\"colour\": 1}'", "what is asked of its index makes no sense"),
        ("UPDATE collection SET wish = '[]'", "is no object in JSON"),
        (f"UPDATE collection SET wish = '{'[' * 100_000}'", "is no JSON"),
        ("UPDATE collection SET wish = CAST(x'ff' AS TEXT)", "Could not decode to UTF-8"),
        ("UPDATE space SET dim = -1", "in its column 'dim', -1 is no width of a vector"),
        ("UPDATE shard SET name = '../../secret'", "is no name of a file"),
        ("UPDATE vector SET shard = 99", "vectors lie in shard 99, which is not recorded"),
        ("UPDATE vector SET row = 99", "row 99 of .* is named, it has 3"),
    ],
)
def test_wrong_values_are_told_by_their_column(folder: Path, statement: str, message: str) -> None:
    with contextlib.closing(sqlite3.connect(folder / "collection.db")) as db:
        db.execute(statement)
        db.commit()

    def use() -> None:
        with contextlib.closing(Store(folder)) as store, store.reading():
            Collection.open(folder).info()
            store.states()
            Retrieval(store).search(unit_rows(np.ones((1, SPACE.dim))), k=3)

    with pytest.raises(CollectionError, match=message):
        use()
    verify(folder, read_data=True)


@pytest.mark.parametrize(
    "report",
    ["[]", '{"recall": [1]}', '{"recall": {"text": 1}, "queries": {}}', '{"notes": [1]}', '{"reason": {"a": 1}}'],
)
def test_wrong_reports_are_told(report: str) -> None:
    with pytest.raises(MalformedError, match=r"is no (report of an index file|object in JSON)"):
        index_report(report)


def test_a_journal_of_a_huge_database_is_refused(folder: Path) -> None:
    header = MAGIC + struct.pack(">IIIII", 5, 0, 1 << 31, 512, 4096)
    (folder / "collection.db-journal").write_bytes(header.ljust(4616, b"\0"))
    size = (folder / "collection.db").stat().st_size
    with pytest.raises(CollectionError, match=r"is of a database of 8,796,093,022,208 bytes"):
        Store(folder)
    assert (folder / "collection.db").stat().st_size == size


def test_vectors_that_are_none_are_damage(folder: Path) -> None:
    (shard,) = (folder / "vectors").iterdir()
    data = bytearray(shard.read_bytes())
    data[-SPACE.dim * 2 :] = b"\xff\x7f" * SPACE.dim  # NaN
    shard.write_bytes(data)
    with pytest.raises(CollectionError, match="what is stored of image are no vectors"):
        Retrieval(Store(folder)).search(unit_rows(np.ones((1, SPACE.dim))), k=3)


def test_a_sparse_database_is_refused(folder: Path) -> None:
    os.truncate(folder / "collection.db", 1 << 40)
    with pytest.raises(CollectionError, match="1,099,511,627,776 bytes, of which hardly any are on the disk"):
        Store(folder)
    assert not verify(folder, read_data=True).is_sound


def test_what_lies_behind_the_database_is_of_no_matter(folder: Path) -> None:
    with (folder / "collection.db").open("ab") as file:
        file.write(bytes(1 << 20))  # as a power cut may bring back what a VACUUM cut off
    assert verify(folder, read_data=True).is_sound


def test_a_writer_that_is_quicker_than_the_look_at_its_journal_is_no_damage(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look at the database and that at its journal one commit ends, and the next begins."""
    with contextlib.closing(Store(folder)) as store:
        store.db.execute("BEGIN IMMEDIATE")
        store.db.execute("UPDATE item SET caption = ?", ("a" * 200_000,))
        database, journal, real = folder / "collection.db", folder / "collection.db-journal", regular_descriptor
        assert journal.exists()

        def late(path: Path) -> int:
            if path == journal:
                store.db.execute("COMMIT")
                pages = database.stat().st_size // 4096
                journal.write_bytes((MAGIC + struct.pack(">IIIII", 1, 0, pages, 512, 4096)).ljust(4616, b"\0"))
            return real(path)

        monkeypatch.setattr(database_file, "regular_descriptor", late)
        database_file.check_files(folder)
        journal.unlink()
