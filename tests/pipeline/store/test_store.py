"""The collection folder: what survives damage, and what is said about it."""

import hashlib
import os
import shutil
import sqlite3
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trivium.encoders.base import Space, unit_rows
from trivium.pipeline.collection import Collection
from trivium.pipeline.records import ContentKey, NewItem
from trivium.pipeline.search.indexing import build_index_file
from trivium.pipeline.search.retrieval import Hit, Retrieval
from trivium.pipeline.search.vectors import usable_index
from trivium.pipeline.store import shards as shards_module
from trivium.pipeline.store.database import CollectionError
from trivium.pipeline.store.schema import FORMAT
from trivium.pipeline.store.shards import ShardSource
from trivium.pipeline.store.store import Store
from trivium.pipeline.store.writer import writing
from trivium.pipeline.upkeep.compaction import compact
from trivium.pipeline.upkeep.verification import verify

SPACE = Space(name="s", dim=4, revision="r")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.create(tmp_path / "c", SPACE, source="s")


def key(name: str) -> ContentKey:
    return ContentKey("image", hashlib.sha256(name.encode()).digest())


def item(name: str) -> NewItem:
    return NewItem(path=f"/m/{name}", modality="image", fingerprint="f", contents={"content": key(name)})


def fill(store: Store, count: int, *, start: int = 0, kind: str | None = "flat") -> None:
    vectors = unit_rows(np.random.default_rng(start).normal(size=(count, SPACE.dim)))
    names = [str(number) for number in range(start, start + count)]
    with writing(store) as writer:
        writer.commit([item(name) for name in names], [key(name) for name in names], vectors)
        if kind:
            build_index_file(writer, "image", kind=kind)


def found(store: Store, k: int = 100) -> list[Hit]:
    return Retrieval(store).search(unit_rows(np.ones((1, SPACE.dim))), k=k)[0]


def index_files(store: Store) -> list[Path]:
    return sorted((store.folder / "index").iterdir())


def shards(store: Store) -> list[Path]:
    return sorted((store.folder / "vectors").iterdir())


def test_folder_and_files_are_private(store: Store) -> None:
    fill(store, 3)
    for path in [store.folder, *store.folder.rglob("*")]:
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path


def test_reopened_store_gives_the_same_hits(store: Store) -> None:
    fill(store, 5)
    fill(store, 4, start=5, kind=None)
    before = found(store)
    assert len(before) == 9
    assert found(Store(store.folder)) == before


def test_shard_left_by_a_crash_is_removed_and_nothing_else(store: Store) -> None:
    fill(store, 2)
    named = shards(store)
    for orphan in ("00000009-0123456789abcdef.npy", ".00000010-0123456789abcdef.npy.new"):
        (store.folder / "vectors" / orphan).write_bytes(b"half")
    with writing(store):
        pass
    assert shards(store) == named


def test_failed_commit_leaves_the_store_as_it_was(store: Store) -> None:
    fill(store, 2, kind=None)
    with writing(store) as writer, pytest.raises(sqlite3.IntegrityError):
        writer.commit([], [key("7"), key("7")], unit_rows(np.ones((2, 4))))  # one content twice
    assert store.generation == 1
    assert store.vector_count() == 2
    with writing(store):
        pass
    assert len(shards(store)) == 1


def test_vectors_that_no_item_of_the_batch_names_are_orphans_until_one_does(store: Store) -> None:
    """Of items that failed, or that wait for another batch: never found, and compaction deletes what stays so."""
    vectors = unit_rows(np.ones((3, SPACE.dim)))
    with writing(store) as writer:
        writer.commit([item("a")], [key("a"), key("waits"), key("failed")], vectors)
        assert store.orphans().tolist() == store.content_ids([key("waits"), key("failed")])
        assert [hit.path for hit in found(store)] == ["/m/a"]
        writer.commit([item("waits")], [], vectors[:0])
    assert store.orphans().tolist() == store.content_ids([key("failed")])
    assert {hit.path for hit in found(store)} == {"/m/a", "/m/waits"}
    assert verify(store.folder).findings == []
    assert compact(store).vectors_removed == 1


@pytest.mark.parametrize("bad", [np.ones((1, 3)), np.full((1, 4), np.nan)])
def test_bad_vectors_are_refused_with_numbers(store: Store, bad: np.ndarray) -> None:
    with writing(store) as writer, pytest.raises(ValueError, match=r"\(n, 4\), got \(1, 3\)|in 1 of 1 rows"):
        writer.commit([item("a")], [key("a")], bad)
    assert not shards(store)


@pytest.mark.parametrize("damage", ["flip", "truncate", "delete", "garbage"])
def test_damaged_index_file_is_never_served(store: Store, damage: str) -> None:
    fill(store, 20)
    sound = found(store)
    (file,) = index_files(store)
    data = bytearray(file.read_bytes())
    if damage == "flip":
        data[len(data) // 2] ^= 0x40
    elif damage == "truncate":
        data = data[: len(data) // 2]
    elif damage == "garbage":
        data = bytearray(os.urandom(len(data)))
    file.unlink() if damage == "delete" else file.write_bytes(data)
    assert [hit.path for hit in found(Store(store.folder))] == [hit.path for hit in sound]


def test_index_file_of_a_copied_collection_is_used(store: Store, tmp_path: Path) -> None:
    """Inode and times are others, the bytes are the same."""
    fill(store, 20)
    shutil.copytree(store.folder, tmp_path / "copy")
    copy = Store(tmp_path / "copy")
    assert usable_index(copy, copy.index_files()["image"]) is not None


@pytest.mark.parametrize("damage", ["delete", "truncate"])
def test_damaged_shard_is_an_error_that_names_it(store: Store, damage: str) -> None:
    fill(store, 3, kind=None)
    (shard,) = shards(store)
    if damage == "delete":
        shard.unlink()
    else:
        shard.write_bytes(shard.read_bytes()[:100])
    with pytest.raises(CollectionError, match=shard.name):
        found(Store(store.folder))


@pytest.mark.parametrize("kind", ["flat", None])
def test_removed_items_never_come_back_but_their_vectors_do_with_them(store: Store, kind: str | None) -> None:
    fill(store, 6, kind=kind)
    lost = store.item_at("/m/3")
    assert lost is not None
    with writing(store) as writer:
        writer.remove([lost.id])
    assert len(found(store)) == len(found(Store(store.folder))) == 5
    assert "/m/3" not in [hit.path for hit in found(store)]
    with writing(store) as writer:
        writer.commit([item("3")], [], np.empty((0, SPACE.dim), np.float32))
    assert len(found(store)) == len(found(Store(store.folder))) == 6


def test_missing_collection(tmp_path: Path) -> None:
    with pytest.raises(CollectionError, match=r"no collection at .*trivium index"):
        Store(tmp_path / "nothing")
    collection = Collection.open(tmp_path / "nothing")
    with pytest.raises(CollectionError, match="no collection at"):
        collection.info()
    assert not (tmp_path / "nothing").exists()


def test_half_a_collection(store: Store) -> None:
    fill(store, 2)
    (store.folder / "collection.db").unlink()
    with pytest.raises(CollectionError, match=r"half a collection: collection\.db is missing"):
        Collection.open(store.folder)


def test_creation_that_was_killed_is_begun_again(tmp_path: Path, media: Path, space) -> None:
    folder = tmp_path / "c"
    (folder / "vectors").mkdir(parents=True)
    (folder / "index").mkdir()
    (folder / ".collection.db.new").write_bytes(b"half")
    collection = Collection.open(folder, space=space)
    assert collection.add(media).added == 7


def test_missing_vectors_folder(store: Store) -> None:
    fill(store, 2)
    shutil.rmtree(store.folder / "vectors")
    with pytest.raises(CollectionError, match="half a collection: its folder 'vectors' is missing"):
        Collection.open(store.folder)


def test_missing_index_folder_is_made_again(store: Store) -> None:
    fill(store, 2)
    shutil.rmtree(store.folder / "index")
    assert len(found(Store(store.folder))) == 2
    fill(store, 2, start=2)
    assert len(index_files(store)) == 1


def test_a_folder_with_other_things_is_never_written_to(tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(b"x")
    with pytest.raises(CollectionError, match="not a collection"):
        Collection.open(tmp_path)
    with pytest.raises(CollectionError, match="not a collection"):
        Store.create(tmp_path, SPACE, source="s")
    assert [path.name for path in tmp_path.iterdir()] == ["photo.jpg"]


def test_a_file_is_no_collection(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("x")
    with pytest.raises(CollectionError, match="is a file"):
        Collection.open(tmp_path / "f")


def test_newer_format_is_refused(store: Store) -> None:
    with sqlite3.connect(store.folder / "collection.db") as db:
        db.execute(f"PRAGMA user_version = {FORMAT + 1}")
    db.close()
    with pytest.raises(CollectionError, match=rf"format {FORMAT + 1}, .* reads format {FORMAT}: install a newer"):
        Store(store.folder)


@pytest.mark.parametrize("content", [b"", b"not a database at all, but long enough to be read as a header" * 40])
def test_damaged_database(store: Store, content: bytes) -> None:
    store.close()
    (store.folder / "collection.db").write_bytes(content)
    with pytest.raises(CollectionError, match=r"damaged|not a Trivium collection"):
        Store(store.folder)


def test_two_creators_do_not_overwrite_each_other(store: Store) -> None:
    fill(store, 2, kind=None)
    assert Store.create(store.folder, SPACE, source="s").generation == 1
    with pytest.raises(CollectionError, match="vectors of different spaces"):
        Store.create(store.folder, Space(name="other", dim=4, revision="r"), source="s")


def test_a_search_that_failed_halfway_takes_nothing_twice(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(store, 5, kind=None)
    retrieval, query = Retrieval(store), unit_rows(np.ones((1, SPACE.dim)))
    retrieval.search(query, k=1)
    fill(store, 10, start=5, kind=None)
    monkeypatch.setattr(shards_module, "CHUNK_ROWS", 4)
    read, calls = ShardSource._read, iter(range(100))

    def fail_once(self: ShardSource, *arguments: Any) -> Any:
        if next(calls) == 1:
            raise CollectionError("the disk failed")
        return read(self, *arguments)

    monkeypatch.setattr(ShardSource, "_read", fail_once)
    with pytest.raises(CollectionError, match="the disk failed"):
        retrieval.search(query, k=100)
    assert [hit.path for hit in retrieval.search(query, k=100)[0]] == [hit.path for hit in found(store)]
    assert len(found(store)) == 15


def test_nothing_of_no_vectors(store: Store) -> None:
    contents, vectors = store.source(store.locations("image")).all()
    assert (contents.shape, vectors.shape) == ((0,), (0, SPACE.dim))
