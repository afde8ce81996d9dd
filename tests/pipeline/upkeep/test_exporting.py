"""Exported files: complete, private, of one generation, and never half there."""

import contextlib
import hashlib
import importlib
import json
import os
import resource
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trivium.encoders.base import Space, unit_rows
from trivium.pipeline.collection import Collection
from trivium.pipeline.records import ContentKey, NewItem
from trivium.pipeline.store.database import CollectionError
from trivium.pipeline.store.filters import Filter
from trivium.pipeline.store.store import Store
from trivium.pipeline.store.writer import writing
from trivium.pipeline.upkeep import exporting
from trivium.pipeline.upkeep.compaction import compact
from trivium.pipeline.upkeep.exporting import export, load_pyarrow

SPACE = Space(name="s", dim=8, revision="r")
_, pq = load_pyarrow()
FORMATS = ("x.parquet", "x.npy")


def key(name: str) -> ContentKey:
    return ContentKey("image", hashlib.sha256(name.encode()).digest())


def vector_of(name: str) -> np.ndarray:
    seed = int.from_bytes(key(name).sha256[:8], "big")
    vector: np.ndarray = unit_rows(np.random.default_rng(seed).normal(size=(1, SPACE.dim)))[0]
    return vector.astype(np.float16)


def add(store: Store, *names: str) -> None:
    items = [
        NewItem(
            path=f"/m/{name}",
            modality="image",
            fingerprint="f",
            contents={"content": key(name)},
            caption=f"picture {name}",
            metadata=json.dumps({"name": name}),
        )
        for name in names
    ]
    with writing(store) as writer:
        writer.commit(items, [key(name) for name in names], np.stack([vector_of(name) for name in names]))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store.create(tmp_path / "c", SPACE, source="s")
    add(store, "a", "b")
    add(store, "c", "d", "e")
    return store


def exported(target: Path) -> list[dict[str, Any]]:
    """Rows of either format as other programs read them."""
    if target.suffix == ".parquet":
        rows: list[dict[str, Any]] = pq.read_table(target, page_checksum_verification=True).to_pylist()
        return [row | {"metadata": row["metadata"] and json.loads(row["metadata"])} for row in rows]
    matrix = np.load(target, allow_pickle=False)
    assert matrix.dtype == np.float32
    lines = [json.loads(line) for line in target.with_suffix(".jsonl").read_bytes().splitlines()]
    assert len(lines) == len(matrix)
    return [line | {"vector": vector.tolist()} for line, vector in zip(lines, matrix, strict=True)]


def names_of(target: Path) -> list[str]:
    return [row["path"].removeprefix("/m/") for row in exported(target)]


@contextlib.contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """A disk that is full: writing beyond ``size`` bytes of any file fails."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("name", FORMATS)
def test_every_vector_of_every_item_is_a_row(collection: Collection, tmp_path: Path, name: str) -> None:
    store = Store(collection.folder)
    told: list[tuple[int, int]] = []
    assert export(store, tmp_path / name, progress=lambda done, total: told.append((done, total))) == 9
    assert told == [(9, 9)]
    rows = exported(tmp_path / name)
    items = {item.id: item for item in store.items()}
    assert [(row["id"], row["role"]) for row in rows] == [
        (item.id, role) for item in items.values() for role in ("content", "caption") if role in item.contents
    ]
    for row in rows:
        item = items[row["id"]]
        content = item.contents[row["role"]]
        assert (row["path"], row["modality"], row["caption"]) == (item.path, item.modality, item.caption)
        assert row["path_bytes"] is None
        assert row["sha256"] == content.sha256.hex()
        (content_id,) = store.db.execute(
            "SELECT id FROM content WHERE sha256 = ? AND modality = ?", (content.sha256, content.modality)
        ).fetchone()
        stored = store.source(store.locations_of(content.modality, np.array([content_id]))).all()[1][0]
        np.testing.assert_array_equal(np.array(row["vector"], np.float32), stored.astype(np.float32))
    for file in tmp_path.glob("x.*"):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600


@pytest.mark.parametrize("name", FORMATS)
def test_metadata_and_path_bytes_that_are_no_text(store: Store, tmp_path: Path, name: str) -> None:
    odd = os.fsdecode(b"/m/odd-\xff\n.png")
    content = ContentKey("image", b"o" * 32)
    with writing(store) as writer:
        metadata = '{"tags":["ä","b\\n"],"year":2020}'
        item = NewItem(
            path=odd, modality="image", fingerprint="f", contents={"content": content}, caption="ö\n", metadata=metadata
        )
        writer.commit([item], [content], vector_of("odd")[np.newaxis])
    export(store, tmp_path / name)
    row = exported(tmp_path / name)[-1]
    assert row["path"] == "/m/odd-\\xff\n.png"
    assert row["path_bytes"] in (os.fsencode(odd), os.fsencode(odd).hex())
    assert row["metadata"] == {"tags": ["ä", "b\n"], "year": 2020}
    assert row["caption"] == "ö\n"


@pytest.mark.parametrize("name", FORMATS)
def test_filter(store: Store, tmp_path: Path, name: str) -> None:
    assert export(store, tmp_path / name, filter=Filter(where="name in (b, e)")) == 2
    assert names_of(tmp_path / name) == ["b", "e"]
    assert export(store, tmp_path / f"none-{name}", filter=Filter(where="name = nothing")) == 0
    assert names_of(tmp_path / f"none-{name}") == []


@pytest.mark.parametrize("name", FORMATS)
def test_many_chunks_are_one_file(store: Store, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporting, "CHUNK_ROWS", 2)
    told: list[tuple[int, int]] = []
    export(store, tmp_path / name, progress=lambda done, total: told.append((done, total)))
    assert told == [(2, 5), (4, 5), (5, 5)]
    assert names_of(tmp_path / name) == list("abcde")
    for row in exported(tmp_path / name):
        np.testing.assert_array_equal(row["vector"], vector_of(row["path"].removeprefix("/m/")).astype(np.float32))


@pytest.mark.parametrize("taken", ["x.parquet", "x.npy", "x.jsonl", "x.json"])
def test_files_are_not_overwritten_unasked(store: Store, tmp_path: Path, taken: str) -> None:
    target = tmp_path / ("x.parquet" if taken == "x.parquet" else "x.npy")
    (tmp_path / taken).write_text("mine")
    with pytest.raises(CollectionError, match=rf"{taken} exists already: name another file, or ask to overwrite"):
        export(store, target)
    assert (tmp_path / taken).read_text() == "mine"
    export(store, target, overwrite=True)
    assert names_of(target) == list("abcde")


def test_other_formats_are_refused(store: Store, tmp_path: Path) -> None:
    with pytest.raises(CollectionError, match=r"x\.txt: the name must end in \.parquet or \.npy or \.csv"):
        export(store, tmp_path / "x.txt")


def test_missing_pyarrow_is_told(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str) -> Any:
        raise ImportError(f"No module named '{name}'")

    monkeypatch.setattr(importlib, "import_module", refuse)
    with pytest.raises(CollectionError, match=r"need pyarrow \(No module.*pip install 'trivium\[parquet\]'"):
        export(store, tmp_path / "x.parquet")


@pytest.mark.parametrize("place", [".", "vectors", "index"])
def test_the_collections_own_folder_is_refused(store: Store, place: str) -> None:
    """There the next writer would delete it, and `compact` would leave in it what was removed."""
    with pytest.raises(CollectionError, match="lies in the collection's own folder"):
        export(store, store.folder / place / "x.npy")


def test_missing_folder(store: Store, tmp_path: Path) -> None:
    with pytest.raises(CollectionError, match=r"cannot export to .*/no/x\.npy: No such file"):
        export(store, tmp_path / "no" / "x.npy")


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_full_disk_leaves_no_half_export(store: Store, tmp_path: Path, name: str, overwrite: bool) -> None:
    target = tmp_path / name
    export(store, target)
    whole = {path: path.read_bytes() for path in tmp_path.glob("*x.*")}
    limits = [0, 1, 100, max(map(len, whole.values())) - 1]
    for limit in limits:
        if not overwrite:
            for path in tmp_path.glob("*x.*"):
                path.unlink()
        with (
            files_of_at_most(limit),
            pytest.raises(CollectionError, match=rf"cannot export to .*{name}: File too large"),
        ):
            export(store, target, overwrite=overwrite)
        assert {path: path.read_bytes() for path in tmp_path.glob("*x.*")} == (whole if overwrite else {}), limit
        assert not list(tmp_path.glob(".*.new"))
    export(store, target, overwrite=overwrite)
    assert names_of(target) == list("abcde")


@pytest.mark.parametrize("name", FORMATS)
def test_a_draft_that_was_left_is_replaced_and_never_written_through(store: Store, tmp_path: Path, name: str) -> None:
    (tmp_path / "victim").write_text("mine")
    (tmp_path / f".{name}.new").symlink_to(tmp_path / "victim")
    export(store, tmp_path / name)
    assert (tmp_path / "victim").read_text() == "mine"
    assert names_of(tmp_path / name) == list("abcde")
    assert not list(tmp_path.glob(".*.new"))


@pytest.mark.parametrize("name", FORMATS)
def test_of_two_exports_to_one_name_the_first_gives_way(store: Store, tmp_path: Path, name: str) -> None:
    second = Store(store.folder)
    begun = False

    def begin_another(done: int, total: int) -> None:
        nonlocal begun
        if not begun:
            begun = True
            export(second, tmp_path / name, filter=Filter(where="name = a"), overwrite=True)

    with pytest.raises(CollectionError, match="another export to this name has begun"):
        export(store, tmp_path / name, progress=begin_another)
    assert names_of(tmp_path / name) == ["a"]
    assert not list(tmp_path.glob(".*.new"))


@pytest.mark.parametrize("name", FORMATS)
def test_commits_go_on_and_the_export_is_of_one_generation(
    store: Store, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An export that held a lock would make the commit in its middle wait, and fail."""
    monkeypatch.setattr(exporting, "CHUNK_ROWS", 2)
    other = Store(store.folder)
    other.db.execute("PRAGMA busy_timeout = 0")

    def change(done: int, total: int) -> None:
        if done == 2:
            add(other, "f")
            last = other.item_at("/m/e")
            assert last is not None
            with writing(other) as writer:
                writer.remove([last.id])
                writer.set_metadata({4: ('{"name":"changed"}', None)})

    export(store, tmp_path / name, progress=change)
    assert [row["metadata"]["name"] for row in exported(tmp_path / name)] == list("abcde")
    assert store.item_at("/m/f") is not None


def test_vectors_that_are_moved_meanwhile_are_found(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporting, "CHUNK_ROWS", 2)
    other = Store(store.folder)

    def merge(done: int, total: int) -> None:
        if done == 2:
            assert compact(other).shards_after == 1

    export(store, tmp_path / "x.npy", progress=merge)
    for row in exported(tmp_path / "x.npy"):
        np.testing.assert_array_equal(row["vector"], vector_of(row["path"].removeprefix("/m/")).astype(np.float32))


def test_vectors_that_are_deleted_meanwhile_stop_it(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporting, "CHUNK_ROWS", 2)
    other = Store(store.folder)

    def delete(done: int, total: int) -> None:
        if done == 2:
            with writing(other) as writer:
                writer.remove([5])
            compact(other)

    with pytest.raises(CollectionError, match=r"the vector of /m/e was deleted while .*; export again"):
        export(store, tmp_path / "x.npy", progress=delete)
    assert not list(tmp_path.glob("*x.*"))
    assert export(store, tmp_path / "x.npy") == 4


def test_a_missing_vector_is_damage(store: Store, tmp_path: Path) -> None:
    store.db.execute("DELETE FROM vector WHERE content = 2")
    with pytest.raises(CollectionError, match="is damaged: the content of /m/b has no vector"):
        export(store, tmp_path / "x.npy")


def test_a_flipped_bit_in_a_shard_is_not_exported(store: Store, tmp_path: Path) -> None:
    shard = sorted((store.folder / "vectors").iterdir())[1]
    data = bytearray(shard.read_bytes())
    data[-1] ^= 1
    shard.write_bytes(data)
    assert export(store, tmp_path / "first.npy", filter=Filter(where="name in (a, b)")) == 2  # in the other one
    with pytest.raises(CollectionError, match=rf"{shard.name} is damaged: its bytes are not those that were written"):
        export(store, tmp_path / "x.npy")
