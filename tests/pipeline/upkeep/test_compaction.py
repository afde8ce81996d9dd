"""Compaction: what was removed is nowhere, what was kept is found as before, whatever stops it in between."""

import contextlib
import hashlib
import os
import resource
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trivium.encoders.base import MODALITIES, Modality, Space, unit_rows
from trivium.pipeline.records import ContentKey, NewItem
from trivium.pipeline.search.indexing import Indexer
from trivium.pipeline.search.retrieval import Hit, Retrieval
from trivium.pipeline.store.database import CollectionError, CollectionLockedError
from trivium.pipeline.store.locking import writer_lock
from trivium.pipeline.store.store import Store
from trivium.pipeline.store.writer import Writer, writing
from trivium.pipeline.upkeep import compaction
from trivium.pipeline.upkeep.compaction import Compaction, compact

SPACE = Space(name="s", dim=8, revision="r")
OTHER = Space(name="s", dim=12, revision="newer")
QUERIES = unit_rows(np.random.default_rng(9).normal(size=(4, SPACE.dim)))
Traces = dict[str, bytes]  # what must not be found, by what it is


def key(name: str) -> ContentKey:
    return ContentKey(MODALITIES[int(name) % 3], hashlib.sha256(name.encode()).digest())


def vector_of(name: str, dim: int = SPACE.dim) -> np.ndarray:
    vector: np.ndarray = unit_rows(np.random.default_rng([int(name), dim]).normal(size=(1, dim)))[0]
    return vector.astype(np.float16)


def caption_key(name: str) -> ContentKey:
    return ContentKey("text", hashlib.sha256(caption(name).encode()).digest())


def caption(name: str) -> str:
    return f"the secret caption of <{name}>"


def path(name: str) -> str:
    return f"/media/private-{name}/{name}.png"


def add(store: Store, names: Sequence[str]) -> None:
    """Add items of all modalities, each with a caption that is embedded and metadata."""
    items = [
        NewItem(
            path=path(name),
            modality=key(name).modality,
            fingerprint=f"fingerprint-<{name}>",
            contents={"content": key(name), "caption": caption_key(name)},
            caption=caption(name),
            metadata=f'{{"note":"secret note of <{name}>"}}',
            tabled=f'{{"note":"secret note of <{name}>"}}',
        )
        for name in names
    ]
    keys = [content for name in names for content in (key(name), caption_key(name))]
    vectors = [vector for name in names for vector in (vector_of(name), vector_of(f"{name}000"))]
    with writing(store) as writer:
        writer.commit(items, keys, np.stack(vectors))


def remove(store: Store, names: Sequence[str]) -> None:
    items = [store.item_at(path(name)) for name in names]
    with writing(store) as writer:
        writer.remove([item.id for item in items if item is not None])


def traces(names: Sequence[str]) -> Traces:
    found: Traces = {}
    for name in names:
        found[f"path {name}"] = os.fsencode(path(name))
        found[f"caption {name}"] = caption(name).encode()
        found[f"metadata {name}"] = f"secret note of <{name}>".encode()
        found[f"fingerprint {name}"] = f"fingerprint-<{name}>".encode()
        for what, content in (("content", key(name)), ("caption", caption_key(name))):
            found[f"sha256 of {what} {name}"] = content.sha256
            found[f"hex sha256 of {what} {name}"] = content.sha256.hex().encode()
        vectors = {
            "content": vector_of(name),
            "caption": vector_of(f"{name}000"),
            "content in the other space": vector_of(name, OTHER.dim),
        }
        for what, vector in vectors.items():
            found[f"float16 of {what} {name}"] = vector.tobytes()
            found[f"float32 of {what} {name}"] = vector.astype(np.float32).tobytes()
    return found


def found_in(folder: Path, what: Traces) -> list[str]:
    """Look through every byte of every file, and every file's name."""
    found = []
    for file in sorted(folder.rglob("*")):
        data = os.fsencode(file.name) + (file.read_bytes() if file.is_file() else b"")
        found += [f"{name} in {file.name}" for name, trace in what.items() if trace in data]
    return found


def hits(store: Store) -> list[list[Hit]]:
    return Retrieval(store).search(QUERIES, k=1000)


def same_hits(one: list[list[Hit]], other: list[list[Hit]]) -> None:
    for first, second in zip(one, other, strict=True):
        assert [hit.path for hit in first] == [hit.path for hit in second]
        np.testing.assert_allclose([hit.score for hit in first], [hit.score for hit in second], atol=1e-5)


def shard_names(store: Store) -> list[str]:
    return sorted(os.listdir(store.folder / "vectors"))


def begin_migration(store: Store) -> None:
    """Give a part of the contents vectors in a second space, as a migration that was stopped does."""
    with writing(store) as writer:
        target = writer.add_space(OTHER, source="s")
        for modality in MODALITIES:
            rows = store.db.execute("SELECT id, sha256 FROM content WHERE modality = ?", (modality,)).fetchall()
            names = {key(str(number)).sha256: str(number) for number in range(100)}
            known = [(id_, names[sha256]) for id_, sha256 in rows if sha256 in names]
            vectors = np.stack([vector_of(name, OTHER.dim) for _, name in known])
            writer.commit_vectors(target, modality, [id_ for id_, _ in known], vectors)


NAMES = [str(number) for number in range(40)]
REMOVED = [str(number) for number in range(0, 40, 4)]
KEPT = [name for name in NAMES if name not in REMOVED]


@pytest.fixture(params=["flat", None])
def store(tmp_path: Path, request: pytest.FixtureRequest) -> Store:
    """40 items in 4 commits, 10 of them removed; with index files of a kind, or without."""
    made = Store.create(tmp_path / "c", SPACE, source="s")
    if request.param is not None:
        with writing(made) as writer:
            writer.set_wish({"kind": request.param})
    for start in range(0, 40, 10):
        add(made, NAMES[start : start + 10])
    with writing(made) as writer:
        Indexer(writer).rebuild()
    return made


def test_traces_are_found_before(store: Store) -> None:
    """Else the tests below would look for the wrong bytes."""
    begin_migration(store)
    remove(store, REMOVED)
    found = found_in(store.folder, traces(["4"]))
    expected = [
        "float16 of content 4 in 0",
        "float16 of caption 4 in 0",
        "float16 of content in the other space 4 in 0",
    ]
    expected += [f"sha256 of {what} 4 in collection.db" for what in ("content", "caption")]
    if store.index_files():
        expected += ["float32 of content 4 in image-flat", "float32 of caption 4 in text-flat"]
    for what in expected:
        assert any(one.startswith(what) for one in found), (what, found)


@pytest.mark.parametrize("second_space", [False, True])
def test_what_was_removed_is_nowhere(store: Store, second_space: bool) -> None:
    if second_space:
        begin_migration(store)
    remove(store, REMOVED)
    before = hits(store)
    done = compact(store)
    assert done.vectors_removed == 2 * len(REMOVED)
    assert found_in(store.folder, traces(REMOVED)) == []
    same_hits(hits(store), before)
    same_hits(hits(Store(store.folder)), before)
    assert len(before[0]) == len(KEPT)
    for name in KEPT:
        item = store.item_at(path(name))
        assert item is not None
        assert (item.caption, item.contents["content"]) == (caption(name), key(name))
    if second_space:  # its vectors are still there, at their contents
        target = next(id_ for id_, space in store.spaces().items() if space == OTHER)
        for modality in MODALITIES:
            locations = store.locations(modality, space=target)
            for content, vector in zip(*store.source(locations, dim=OTHER.dim).all(), strict=True):
                ((sha256,),) = store.db.execute("SELECT sha256 FROM content WHERE id = ?", (int(content),))
                (name,) = [name for name in KEPT if key(name).sha256 == sha256]
                np.testing.assert_array_equal(vector, vector_of(name, OTHER.dim))


def test_the_removed_path_of_a_copy_is_nowhere(store: Store) -> None:
    """Nothing becomes an orphan: another item has the same content."""
    item = NewItem(path="/media/copy", modality=key("1").modality, fingerprint="f", contents={"content": key("1")})
    with writing(store) as writer:
        writer.commit([item], [], np.empty((0, SPACE.dim), np.float32))
        copy = store.item_at("/media/copy")
        assert copy is not None
        writer.remove([copy.id])
    assert compact(store).vectors_removed == 0
    assert found_in(store.folder, {"path": b"/media/copy"}) == []


def test_everything_removed(store: Store) -> None:
    remove(store, NAMES)
    done = compact(store)
    assert (done.vectors_removed, done.shards_after) == (80, 0)
    assert found_in(store.folder, traces(NAMES)) == []
    assert hits(store) == [[], [], [], []]
    assert os.listdir(store.folder / "index") == []
    add(store, NAMES[:3])
    assert len(hits(store)[0]) == 3


def test_what_comes_back_after_a_compaction_is_found(store: Store) -> None:
    remove(store, REMOVED)
    compact(store)
    add(store, REMOVED)
    assert len(hits(store)[0]) == len(hits(Store(store.folder))[0]) == len(NAMES)


def test_many_shards_become_few_and_then_nothing_is_rewritten(store: Store) -> None:
    before, names = hits(store), shard_names(store)
    assert len(names) == 12  # 4 commits of 3 modalities
    told: list[tuple[int, int]] = []
    done = compact(store, progress=lambda moved, total: told.append((moved, total)))
    assert (done.vectors_removed, done.shards_before, done.shards_after) == (0, 12, 3)
    assert told[-1] == (80, 80)
    same_hits(hits(store), before)
    files = {file: file.stat().st_ino for part in ("vectors", "index") for file in (store.folder / part).iterdir()}
    generation = store.generation
    again = compact(store)
    assert again == Compaction(
        vectors_removed=0,
        shards_before=3,
        shards_after=3,
        bytes_before=again.bytes_before,
        bytes_after=again.bytes_after,
    )
    assert {
        file: file.stat().st_ino for part in ("vectors", "index") for file in (store.folder / part).iterdir()
    } == files
    assert store.generation == generation


def test_shards_of_a_good_size_stay(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compaction, "SHARD_BYTES", 2 * SPACE.dim * 8)  # 8 rows; fewer than 4 are small
    before = {shard.name: shard.rows for shard in store.shards().values()}
    assert min(before.values()) == 3
    compact(store)
    after = {shard.name: shard.rows for shard in store.shards().values()}
    assert {name for name, rows in before.items() if rows >= 4} <= after.keys()
    assert sum(rows < 4 for rows in after.values()) <= 2  # one of pictures, one of sounds
    remove(store, ["1"])
    compact(store)
    assert len(after.keys() - set(shard_names(store))) == 3  # the content's, the caption's, and a small one
    assert found_in(store.folder, traces(["1"])) == []


STEPS: list[tuple[Any, str]] = [
    (Writer, "write_shard"),
    (Indexer, "prepared_without"),
    (Writer, "insert_shard"),
    (Writer, "move_vectors"),
    (Writer, "delete_orphans"),
    (Writer, "drop_empty_shards"),
    (Writer, "drop_index_files"),
    (Writer, "name_index_file"),
    (Writer, "remove_unnamed_files"),
    (Indexer, "finish"),
    (compaction, "_vacuum"),
]


class Killed(BaseException):
    """As abrupt as an exception can be."""


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("store", ["flat"], indirect=True)
@pytest.mark.parametrize(("owner", "step"), STEPS, ids=[step for _, step in STEPS])
def test_a_compaction_that_was_stopped_anywhere_is_done_by_the_next(
    store: Store, owner: Any, step: str, after: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin_migration(store)
    remove(store, REMOVED)
    before = hits(store)
    original = getattr(owner, step)
    calls = 0

    def stop(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if step == "remove_unnamed_files" and calls == 1:  # by `writing`, before anything is done
            return original(*args, **kwargs)
        if after:
            original(*args, **kwargs)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(owner, step, stop)
        with pytest.raises(Killed):
            compact(store)
    for reader in (store, Store(store.folder)):
        same_hits(hits(reader), before)
    named = {shard.name for shard in store.shards().values()}
    assert named <= set(shard_names(store))
    assert step == "remove_unnamed_files" or named == set(shard_names(store))  # nothing half is left to fill the disk
    compact(store)
    assert found_in(store.folder, traces(REMOVED)) == []
    same_hits(hits(store), before)
    assert len(store.orphans()) == 0


@contextlib.contextmanager
def full_disk() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8_192, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@contextlib.contextmanager
def long_search(folder: Path) -> Iterator[None]:
    with contextlib.closing(sqlite3.connect(folder / "collection.db", isolation_level=None)) as db:
        db.execute("BEGIN")
        db.execute("SELECT * FROM item").fetchone()
        yield


@pytest.mark.parametrize("reason", ["database is locked", "disk"])
@pytest.mark.parametrize("store", [None], indirect=True)
def test_a_database_that_cannot_be_written_anew(store: Store, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """VACUUM needs room, and nobody who reads; the message says what is done, and what is not."""
    remove(store, REMOVED)
    before = hits(store)
    store.db.execute("PRAGMA busy_timeout = 0")
    original = compaction._vacuum

    def hindered(of: Store) -> None:
        with full_disk() if reason == "disk" else long_search(of.folder):
            original(of)

    with monkeypatch.context() as patch:
        patch.setattr(compaction, "_vacuum", hindered)
        with pytest.raises(CollectionError, match=rf"is compacted, but for its database.*{reason}.*SQLITE_TMPDIR"):
            compact(store)
    same_hits(hits(store), before)
    assert len(store.orphans()) == 0
    compact(store)
    assert found_in(store.folder, traces(REMOVED)) == []


@pytest.mark.parametrize("damage", ["flip", "missing"])
@pytest.mark.parametrize("store", [None], indirect=True)
def test_a_damaged_shard_is_not_given_a_hash_that_fits(store: Store, damage: str) -> None:
    name = shard_names(store)[1]
    shard = store.folder / "vectors" / name
    data = bytearray(shard.read_bytes())
    data[-1] ^= 1
    shard.write_bytes(data) if damage == "flip" else shard.unlink()
    match = (
        f"{name} is damaged: its bytes are not those" if damage == "flip" else f"{name} is missing or cannot be read"
    )
    before = set(shard_names(store))
    with pytest.raises(CollectionError, match=match):
        compact(store)
    assert set(shard_names(store)) == before


def test_a_search_in_another_store_goes_on(store: Store) -> None:
    """It has the old index mapped and the old vectors in memory."""
    remove(store, REMOVED)
    reader = Store(store.folder)
    retrieval = Retrieval(reader)
    before = retrieval.search(QUERIES, k=1000)
    during: list[list[list[Hit]]] = []
    compact(store, progress=lambda moved, total: during.append(retrieval.search(QUERIES, k=1000)))
    during.append(retrieval.search(QUERIES, k=1000))
    assert len(during) > 1
    for found in during:
        same_hits(found, before)


def test_an_index_is_measured_with_the_examples(tmp_path: Path) -> None:
    store = Store.create(tmp_path / "c", SPACE, source="s")
    with writing(store) as writer:
        writer.set_wish({"kind": "hnsw"})
    pictures = [str(number) for number in range(1, 90, 3)]
    assert {key(name).modality for name in pictures} == {"image"}
    with writing(store) as writer:
        items = [
            NewItem(path=path(name), modality="image", fingerprint="f", contents={"content": key(name)})
            for name in pictures
        ]
        writer.commit(items, [key(name) for name in pictures], np.stack([vector_of(name) for name in pictures]))
        Indexer(writer).rebuild()
    remove(store, pictures[:1])
    asked: list[Modality] = []

    def examples() -> dict[Modality, np.ndarray]:
        asked.append("text")
        return {"text": QUERIES}

    compact(store, examples=examples)
    report: Any = store.index_files()["image"].report
    assert asked
    assert set(report["recall"]) == {"text", "image"}


def test_the_second_writer_is_refused(store: Store) -> None:
    with writer_lock(store.folder), pytest.raises(CollectionLockedError, match="pid"):
        compact(store)


@pytest.mark.parametrize("store", [None], indirect=True)
def test_thousands_of_shards_are_looked_up_once(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading the list of shards for every shard made it quadratic."""
    calls = 0
    original = Store.shards

    def counted(self: Store) -> Any:
        nonlocal calls
        calls += 1
        return original(self)

    monkeypatch.setattr(Store, "shards", counted)
    compact(store)
    many = calls
    calls = 0
    compact(store)
    assert many <= calls + 6  # one for each group that is read


def test_traces_that_pages_keep_are_gone(tmp_path: Path) -> None:
    """SQLite overwrites what is deleted, but for what it has moved between pages; seed 1 left one path."""
    seed = 1
    rng = np.random.default_rng(seed)
    store = Store.create(tmp_path / "c", SPACE, source="s")
    alive: list[str] = []
    gone: list[str] = []
    with writing(store) as writer:
        for _ in range(20):
            names = [
                f"/m/{rng.integers(10**12):012d}-{'x' * int(rng.integers(300))}"
                for _ in range(int(rng.integers(1, 80)))
            ]
            keys = [ContentKey("image", hashlib.sha256(name.encode()).digest()) for name in names]
            items = [
                NewItem(path=name, modality="image", fingerprint="f", contents={"content": content})
                for name, content in zip(names, keys, strict=True)
            ]
            writer.commit(items, keys, np.tile(vector_of("1"), (len(names), 1)))
            alive += names
            leaving = [str(name) for name in rng.choice(alive, size=len(alive) // 4, replace=False)]
            writer.remove([item.id for name in leaving if (item := store.item_at(name)) is not None])
            alive = [name for name in alive if name not in leaving]
            gone += leaving
    compact(store)
    assert found_in(store.folder, {name: name.encode() for name in gone}) == [], f"seed {seed}"
