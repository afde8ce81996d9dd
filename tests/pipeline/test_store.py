"""The collection folder: what survives damage, and what is said about it."""

import os
import shutil
import sqlite3
import stat
from pathlib import Path

import numpy as np
import pytest

from trivium.encoders.base import Space, unit_rows
from trivium.pipeline.collection import Collection
from trivium.pipeline.database import FORMAT, CollectionError
from trivium.pipeline.records import NewItem
from trivium.pipeline.store import Store

SPACE = Space(name="s", dim=4, revision="r")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.create(tmp_path / "c", SPACE, source="s")


def item(name: str, content: str) -> NewItem:
    return NewItem(
        path=f"/m/{name}", modality="image", fingerprint="f", caption_fingerprint="", caption=None,
        contents={"content": content},
    )  # fmt: skip


def fill(store: Store, count: int, *, start: int = 0) -> None:
    vectors = unit_rows(np.random.default_rng(start).normal(size=(count, SPACE.dim)))
    contents = [f"image:{number}" for number in range(start, start + count)]
    with store.writing() as writer:
        writer.commit([item(content, content) for content in contents], contents, vectors)
        writer.save_index()


def shards(store: Store) -> list[Path]:
    return sorted((store.folder / "vectors").iterdir())


def test_folder_and_files_are_private(store: Store) -> None:
    fill(store, 3)
    for path in [store.folder, *store.folder.rglob("*")]:
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path


def test_reopened_store_gives_the_same_hits(store: Store) -> None:
    fill(store, 5)
    fill(store, 4, start=5)
    query = unit_rows(np.ones((1, SPACE.dim)))
    before = store.index().search(query, k=9)
    after = Store(store.folder).index().search(query, k=9)
    np.testing.assert_array_equal(before.ids, after.ids)
    np.testing.assert_array_equal(before.scores, after.scores)


def test_shard_left_by_a_crash_is_removed_and_nothing_else(store: Store) -> None:
    fill(store, 2)
    named = shards(store)
    for orphan in ("00000009-0123456789abcdef.npy", ".00000010-0123456789abcdef.npy.new"):
        (store.folder / "vectors" / orphan).write_bytes(b"half")
    with store.writing():
        pass
    assert shards(store) == named


def test_failed_commit_leaves_the_store_as_it_was(store: Store) -> None:
    fill(store, 2)
    with store.writing() as writer, pytest.raises(sqlite3.IntegrityError):
        writer.commit([], ["image:7", "image:7"], unit_rows(np.ones((2, 4))))  # one content twice
    assert store.generation == 1
    assert store.contents() == {"image:0", "image:1"}
    with store.writing():
        pass
    assert len(shards(store)) == 1


@pytest.mark.parametrize("damage", ["flip", "truncate", "delete", "garbage"])
def test_damaged_index_file_is_never_served_but_rebuilt(store: Store, damage: str) -> None:
    fill(store, 20)
    query = unit_rows(np.ones((1, SPACE.dim)))
    sound = store.index().search(query, k=20)
    (file,) = (store.folder / "index").iterdir()
    data = bytearray(file.read_bytes())
    if damage == "flip":
        data[len(data) // 2] ^= 0x40
    elif damage == "truncate":
        data = data[: len(data) // 2]
    elif damage == "garbage":
        data = bytearray(os.urandom(len(data)))
    file.unlink() if damage == "delete" else file.write_bytes(data)
    again = Store(store.folder).index().search(query, k=20)
    np.testing.assert_array_equal(sound.ids, again.ids)
    np.testing.assert_array_equal(sound.scores, again.scores)


def test_missing_index_file_is_written_again_by_the_next_writer(store: Store) -> None:
    fill(store, 3)
    (file,) = (store.folder / "index").iterdir()
    file.unlink()
    assert not store.has_current_index_file()
    with store.writing() as writer:
        writer.save_index()
    assert store.has_current_index_file()


@pytest.mark.parametrize("damage", ["delete", "truncate"])
def test_damaged_shard_is_an_error_that_names_it(store: Store, damage: str) -> None:
    fill(store, 3)
    (shard,) = shards(store)
    for file in (store.folder / "index").iterdir():
        file.unlink()
    if damage == "delete":
        shard.unlink()
    else:
        shard.write_bytes(shard.read_bytes()[:100])
    with pytest.raises(CollectionError, match=shard.name):
        Store(store.folder).index()


def test_removed_items_never_come_back(store: Store) -> None:
    fill(store, 6)
    with store.writing() as writer:
        writer.remove([next(iter(store.items().values())).id])
    assert len(store.index()) == 5  # before the index file is written again
    assert len(Store(store.folder).index()) == 5


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
    assert len(Store(store.folder).index()) == 2
    fill(store, 2, start=2)
    assert store.has_current_index_file()


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
    fill(store, 2)
    with pytest.raises(CollectionError):
        Store.create(store.folder, SPACE, source="s")
    assert Store(store.folder).generation == 1
