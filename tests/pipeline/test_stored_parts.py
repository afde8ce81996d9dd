"""Passages, windows and frames as they are stored: found, filtered, verified, exported, imported, compacted."""

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from trivium.encoders.base import Space, unit_rows
from trivium.pipeline.records import ContentKey, ItemKind, NewItem, Part, content_key, modality_of, part_key
from trivium.pipeline.search.retrieval import Hit, Retrieval
from trivium.pipeline.store.database import CollectionError
from trivium.pipeline.store.database_file import DATABASE
from trivium.pipeline.store.filters import Filter
from trivium.pipeline.store.store import Store
from trivium.pipeline.store.writer import Writer, writing
from trivium.pipeline.upkeep.compaction import compact
from trivium.pipeline.upkeep.exporting import export
from trivium.pipeline.upkeep.importing import import_vectors
from trivium.pipeline.upkeep.verification import verify

SPACE = Space(name="stub", dim=16, revision="1")
GOLDEN = Path(__file__).parents[1] / "golden" / "collection_v2"
FRAMES = [Part("frame", 0.0), Part("frame", 2.5), Part("frame", 83.04)]
WINDOWS = [Part("window", 0.0, 5.0), Part("window", 5.0, 7.25)]
ITEMS: dict[str, tuple[ItemKind, list[Part], str | None]] = {
    "/m/a.txt": ("text", [Part("passage", 0, 1200), Part("passage", 1200, 2400)], "the first line"),
    "/m/b.png": ("image", [], "a shared caption"),
    "/m/c.wav": ("audio", WINDOWS, None),
    "/m/d.mp4": ("video", FRAMES + WINDOWS, "a shared caption"),
    "/m/e.mkv": ("video", FRAMES[:1], None),
}


def contents_of(path: str) -> dict[str, ContentKey]:
    kind, parts, caption = ITEMS[path]
    sha256 = content_key("text", path.encode()).sha256
    contents = {"content": ContentKey(modality_of(kind, Part("content")), sha256)}
    contents |= {part.role: part_key(modality_of(kind, part), part.role, sha256) for part in parts}
    if kind != "text" and caption is not None:
        contents["caption"] = content_key("text", caption.encode())
    return contents


def vector_of(key: ContentKey) -> np.ndarray:
    seed = int.from_bytes(key.sha256[:8], "big")
    vector: np.ndarray = unit_rows(np.random.default_rng(seed).normal(size=(1, SPACE.dim)))[0]
    return vector


def take_in(writer: Writer, paths: list[str]) -> None:
    for path in paths:
        contents = contents_of(path)
        new = [key for key in contents.values() if not is_known(writer.store, key)]
        item = NewItem(
            path=path, modality=ITEMS[path][0], fingerprint=f"of {path}", contents=contents, caption=ITEMS[path][2]
        )
        writer.commit([item], new, np.stack([vector_of(key) for key in new]))


def is_known(store: Store, key: ContentKey) -> bool:
    with closing(store.lookup()) as lookup:
        return key in lookup


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store.create(tmp_path / "c", SPACE, source="stub")
    with writing(store) as writer:
        take_in(writer, list(ITEMS))
    yield store
    store.close()


def search(store: Store, query: ContentKey, **restricted: str) -> list[Hit]:
    filter = Filter(**restricted) if restricted else None  # type: ignore[arg-type]
    (hits,) = Retrieval(store).search(vector_of(query)[None], k=100, filter=filter)
    return hits


def places(hits: list[Hit]) -> list[tuple[str, str, float | None, float | None]]:
    return [(hit.path, hit.matched, hit.start, hit.stop) for hit in hits]


ROLES = [(path, role) for path in ITEMS for role in contents_of(path) if role != "caption"]


@pytest.mark.parametrize(("path", "role"), ROLES)
def test_a_hit_names_the_part_that_matched(store: Store, path: str, role: str) -> None:
    part = Part.parse(role)
    hits = search(store, contents_of(path)[role])
    assert places(hits)[0] == (path, part.kind, part.start, part.stop)
    assert hits[0].score == pytest.approx(1, abs=1e-3)
    assert sorted(hit.path for hit in hits) == sorted(ITEMS)  # each once


@pytest.mark.parametrize("only", ["text", "image", "audio", "video"])
def test_a_kind_has_its_own_items_and_none_of_the_others(store: Store, only: ItemKind) -> None:
    """Searched for a video's sound, --only audio gives sounds; and captions that two share are told of the one."""
    expected = sorted(path for path, (kind, _, _) in ITEMS.items() if kind == only)
    for path in ITEMS:
        for key in contents_of(path).values():
            hits = search(store, key, only=only)
            assert sorted(hit.path for hit in hits) == expected
            best = {p: max(float(vector_of(key) @ vector_of(own)) for own in contents_of(p).values()) for p in expected}
            assert {hit.path: hit.score for hit in hits} == pytest.approx(best, abs=2e-3)


def test_a_kind_is_searched_beside_what_was_removed(store: Store) -> None:
    with writing(store) as writer:
        gone = store.item_at("/m/e.mkv")
        assert gone is not None
        writer.remove([gone.id])
    key = contents_of("/m/e.mkv")["frame 0.000"]
    assert len(store.orphans()) == 2
    assert [hit.path for hit in search(store, key, only="image")] == ["/m/b.png"]
    assert [hit.path for hit in search(store, key, only="video")] == ["/m/d.mp4"]
    assert [hit.path for hit in search(store, contents_of("/m/c.wav")["content"], only="audio")] == ["/m/c.wav"]


def test_filters_hold_for_videos_as_for_others(store: Store) -> None:
    key = contents_of("/m/d.mp4")["window 5.000 7.250"]
    assert places(search(store, key, where="modality = video"))[0] == ("/m/d.mp4", "window", 5.0, 7.25)
    assert [hit.path for hit in search(store, key, paths=("*.mkv",))] == ["/m/e.mkv"]  # type: ignore[arg-type]


def test_it_is_sound(store: Store) -> None:
    assert verify(store.folder, read_data=True).findings == []


@pytest.mark.parametrize(
    ("statement", "what"),
    [
        (
            "UPDATE embedding SET role = 'window 0.000' WHERE role = 'frame 0.000'",
            "2 vectors are said to be of parts that",
        ),
        (
            "UPDATE embedding SET role = 'passage 1.0 2' WHERE role = 'passage 0 1200'",
            "1 vectors are said to be of parts",
        ),
        ("UPDATE embedding SET role = 'window a b' WHERE role = 'passage 0 1200'", "1 vectors are said to be of parts"),
        ("UPDATE embedding SET role = 7 WHERE role = 'passage 0 1200'", "1 vectors are said to be of parts"),
        (
            "UPDATE item SET modality = 'image' WHERE path = CAST('/m/c.wav' AS BLOB)",
            "3 vectors are of another modality",
        ),
        (
            "UPDATE item SET modality = 'audio' WHERE path = CAST('/m/e.mkv' AS BLOB)",
            "2 vectors are of another modality",
        ),
    ],
)
def test_parts_that_make_no_sense_are_damage(store: Store, statement: str, what: str) -> None:
    store.close()
    with closing(sqlite3.connect(store.folder / DATABASE)) as db:
        db.execute(statement)
        db.commit()
    damage = [finding.what for finding in verify(store.folder).findings if finding.is_damage]
    assert any(what in found for found in damage), damage


def test_a_search_that_meets_such_a_part_says_so(store: Store) -> None:
    store.db.execute("UPDATE embedding SET role = 'window 0.000' WHERE role = 'frame 0.000'")
    with pytest.raises(CollectionError, match=r"in its column 'role', 'window 0\.000' is no part of an item"):
        search(store, contents_of("/m/e.mkv")["frame 0.000"])


@pytest.mark.parametrize("name", ["x.npy", "x.parquet"])
def test_an_export_makes_an_equal_collection(store: Store, tmp_path: Path, name: str) -> None:
    export(store, tmp_path / name)
    copy = Store.create(tmp_path / "copy", SPACE, source="stub")
    summary = import_vectors(copy, tmp_path / name)
    assert summary.problem_count == 0
    same = [
        {item.path: (item.modality, dict(item.contents), item.caption) for item in s.items()} for s in (store, copy)
    ]
    assert same[0] == same[1]
    for path, role in ROLES:
        key = contents_of(path)[role]
        assert places(search(copy, key)) == places(search(store, key))
    assert {hit.path for hit in search(copy, contents_of("/m/d.mp4")["content"], only="video")} == {
        "/m/d.mp4",
        "/m/e.mkv",
    }
    assert verify(copy.folder, read_data=True).findings == []
    copy.close()


def test_compaction_keeps_the_parts_of_what_is_kept(store: Store) -> None:
    before = {path: places(search(store, contents_of(path)["content"])) for path in ITEMS}
    gone = store.item_at("/m/c.wav")
    assert gone is not None
    with writing(store) as writer:
        writer.remove([gone.id])
    assert compact(store).vectors_removed == 3
    for path in ITEMS:
        hits = search(store, contents_of(path)["content"])
        assert places(hits) == [place for place in before[path] if place[0] != "/m/c.wav"]
    assert verify(store.folder, read_data=True).findings == []


def test_a_collection_of_before_there_were_parts_takes_them(tmp_path: Path) -> None:
    shutil.copytree(GOLDEN, tmp_path / "old")
    for path in [tmp_path / "old", *(tmp_path / "old").rglob("*")]:
        path.chmod(0o700 if path.is_dir() else 0o600)
    store = Store(tmp_path / "old")
    assert store.windows is None
    with writing(store) as writer:
        take_in(writer, list(ITEMS))
        writer.set_windows(5.0)
    reopened = Store(store.folder)
    assert (reopened.windows, reopened.counts()["video"]) == (5.0, 2)
    key = contents_of("/m/d.mp4")["window 0.000 5.000"]
    assert places(search(reopened, key))[0] == ("/m/d.mp4", "window", 0.0, 5.0)
    assert not any(hit.path in ("/m/d.mp4", "/m/e.mkv") for hit in search(reopened, key, only="audio"))
    assert verify(store.folder, read_data=True).is_sound
    with writing(store) as writer:
        writer.set_windows(None)
    assert reopened.windows is None
