"""A collection of every released format stays readable; `tests/golden/make_collection.py` says how it was made."""

import contextlib
import json
import shutil
import sqlite3
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trivium.encoders.base import Space, unit_rows
from trivium.indexes import FaissIndex
from trivium.pipeline.collection import Collection
from trivium.pipeline.records import ContentKey, NewItem
from trivium.pipeline.search.indexing import Indexer
from trivium.pipeline.search.retrieval import Retrieval
from trivium.pipeline.search.vectors import usable_index
from trivium.pipeline.store import database
from trivium.pipeline.store.database import CollectionError
from trivium.pipeline.store.filters import Filter
from trivium.pipeline.store.roots import Root, RootSettings
from trivium.pipeline.store.store import Store
from trivium.pipeline.store.writer import writing
from trivium.pipeline.upkeep.compaction import compact
from trivium.pipeline.upkeep.exporting import export
from trivium.pipeline.upkeep.importing import import_vectors
from trivium.pipeline.upkeep.verification import verify

GOLDEN = Path(__file__).parents[1] / "golden"
RECORDED: Any = json.loads((GOLDEN / "collection_v2.json").read_text())  # each format's answers are the same
FOLDERS = ("collection_v2", "collection_v3")
SPACE = Space(name="stub", dim=16, revision="1")


def copied(name: str, target: Path) -> Path:
    """Copy one, as git does not keep modes, and because tests write to it."""
    shutil.copytree(GOLDEN / name, target)
    for path in [target, *target.rglob("*")]:
        path.chmod(0o700 if path.is_dir() else 0o600)
    return target


@pytest.fixture(params=FOLDERS)
def folder(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """One of each format."""
    return copied(request.param, tmp_path / "c")


@pytest.fixture
def older(tmp_path: Path) -> Path:
    """One of format 2."""
    return copied("collection_v2", tmp_path / "c")


def check_items(store: Store) -> None:
    items = [
        {
            "path": item.path,
            "modality": item.modality,
            "caption": item.caption,
            "metadata": item.metadata,
            "contents": {role: [key.modality, key.sha256.hex()] for role, key in sorted(item.contents.items())},
        }
        for item in sorted(store.items(), key=lambda item: item.path)
    ]
    assert items == sorted(RECORDED["items"], key=lambda item: item["path"])


def check_searches(store: Store) -> None:
    for search in RECORDED["searches"]:
        query = np.array([search["query"]], np.float32)
        (found,) = Retrieval(store).search(query, k=5, filter=Filter(**search["filter"]), fold="none")
        assert [(hit.path, hit.matched) for hit in found] == [(hit["path"], hit["matched"]) for hit in search["hits"]]
        # 1e-3: what half precision and an index that stores less may change.
        np.testing.assert_allclose([hit.score for hit in found], [hit["score"] for hit in search["hits"]], atol=1e-3)


@pytest.mark.parametrize("name", FOLDERS)
def test_it_is_small_and_names_no_machine(name: str) -> None:
    assert json.loads((GOLDEN / f"{name}.json").read_text()) == RECORDED
    files = [path for path in (GOLDEN / name).rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 200_000
    paths = [item["path"] for item in RECORDED["items"]]
    assert all(path.startswith("/media/") for path in paths)
    for path in files:
        assert not any(trace in path.read_bytes() for trace in (b"/home/", b"/tmp/", b"/root/", b"/work/", b"/Users/"))


def test_it_opens_and_answers_as_recorded(folder: Path) -> None:
    store = Store(folder)
    assert (store.space, store.space_source) == (SPACE, "stub")
    assert store.counts() == {"audio": 2, "image": 5, "text": 2}
    assert len(store.orphans()) == 1
    file = store.index_files()["image"]
    assert usable_index(store, file) is None  # it was not made on this machine
    path = folder / "index" / file.name
    assert len(FaissIndex.read(path, kind=file.kind, effort=file.effort, dim=SPACE.dim)) == file.vectors
    assert store.locations("image", after=file.through).contents.size == 2  # searched beside the index file
    check_items(store)
    check_searches(store)


def test_a_writer_can_add_to_it(folder: Path) -> None:
    store = Store(folder)
    vectors = unit_rows(np.random.default_rng(5).normal(size=(1, SPACE.dim)))
    key = ContentKey("image", b"n" * 32)
    item = NewItem(path="/media/new.png", modality="image", fingerprint="f", contents={"content": key})
    with writing(store) as writer:
        writer.commit([item], [key], vectors)
    for reader in (store, Store(folder)):
        (found,) = Retrieval(reader).search(vectors, k=1)
        assert (found[0].path, round(found[0].score, 2)) == ("/media/new.png", 1.0)
    added = store.item_at("/media/new.png")
    assert added is not None
    with writing(store) as writer:
        writer.remove([added.id])
    check_items(store)
    check_searches(store)


def test_its_removed_vector_comes_back_with_its_item(folder: Path) -> None:
    store = Store(folder)
    (sha256,) = store.db.execute("SELECT sha256 FROM content JOIN orphan ON orphan.content = content.id").fetchone()
    item = NewItem(
        path="/media/back.jpg", modality="image", fingerprint="f", contents={"content": ContentKey("image", sha256)}
    )
    with writing(store) as writer:
        writer.commit([item], [], np.empty((0, SPACE.dim), np.float32))
    (found,) = Retrieval(store).search(np.array([RECORDED["searches"][0]["query"]], np.float32), k=20)
    assert "/media/back.jpg" in [hit.path for hit in found]


def test_rebuild_compact_export_and_import_work(folder: Path, tmp_path: Path) -> None:
    store = Store(folder)
    with writing(store) as writer:
        writer.set_wish({"kind": "flat"})
        Indexer(writer).rebuild()
    assert set(store.index_files()) == {"text", "image", "audio"}
    check_searches(store)
    assert compact(store).vectors_removed == 1
    check_items(store)
    check_searches(store)
    export(store, tmp_path / "x.npy")
    copy = Store.create(tmp_path / "new", SPACE, source="stub")
    assert import_vectors(copy, tmp_path / "x.npy").problem_count == 0
    check_items(copy)
    check_searches(copy)


def test_what_came_with_format_3(tmp_path: Path) -> None:
    with contextlib.closing(Store(copied("collection_v3", tmp_path / "c"))) as store:
        settings = RootSettings(captions=False, metadata=("/media/table.csv",), exclude=("*.tmp",))
        root = Root(path="/media", device=7, settings=settings, passed={".pdf": 2})
        assert store.roots() == {"/media": root, "/media/sounds": Root(path="/media/sounds")}
        assert store.skipped() == {"/media/photos/bad.png": "not a picture"}
        assert (store.windows, store.missing_count()) == (5.0, 1)
        assert {item.own for item in store.items()} == {None, '{"width":640}'}
        contents, looks = store.looks()
        assert (len(contents), len(set(looks.tolist()))) == (4, 4)


def test_it_is_brought_to_this_format(older: Path, caplog: pytest.LogCaptureFixture) -> None:
    before = {path: path.read_bytes() for path in older.rglob("*") if path.suffix in (".npy", ".faiss")}
    Store(older).close()
    assert "was brought from an earlier format" in caplog.text
    caplog.clear()
    store = Store(older)
    assert (store.db.execute("PRAGMA user_version").fetchone(), caplog.text) == ((3,), "")
    assert {path: path.read_bytes() for path in before} == before
    made = Store.create(older.parent / "made", SPACE, source="stub")
    columns = (
        "SELECT m.name, c.name, c.type, c.[notnull] FROM sqlite_master m JOIN pragma_table_info(m.name) c ORDER BY 1, 2"
    )
    assert store.db.execute(columns).fetchall() == made.db.execute(columns).fetchall()
    assert verify(older, read_data=True).is_sound


def test_it_is_verified_as_it_is(older: Path) -> None:
    assert verify(older, read_data=True).is_sound
    with contextlib.closing(sqlite3.connect(older / "collection.db")) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (2,)


def test_one_that_cannot_be_written_says_what_to_do(older: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "connect", partial(database.connect, mode="ro"))  # root may write everywhere
    with pytest.raises(CollectionError, match=r"cannot be brought to format 3 \(attempt to write a readonly"):
        Store(older)


def test_this_format_under_the_older_number_is_refused(tmp_path: Path) -> None:
    Store.create(tmp_path / "c", SPACE, source="stub").close()
    set_version(tmp_path / "c", 2)
    with pytest.raises(CollectionError, match=r"did not make: .*'content'"):
        Store(tmp_path / "c")


def set_version(folder: Path, version: int) -> None:
    with contextlib.closing(sqlite3.connect(folder / "collection.db")) as db:
        db.execute(f"PRAGMA user_version = {version}")
        db.commit()


def test_a_newer_format_is_refused(folder: Path) -> None:
    set_version(folder, 4)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    for opening in (Store, Collection.open):
        with pytest.raises(
            CollectionError, match=r"has format 4, this Trivium reads format 3: install a newer Trivium"
        ):
            opening(folder)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_the_first_format_is_refused(folder: Path) -> None:
    set_version(folder, 1)
    with pytest.raises(CollectionError, match=r"has format 1, this Trivium reads format 3: index the media anew"):
        Collection.open(folder)
