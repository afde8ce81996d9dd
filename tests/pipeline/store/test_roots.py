"""What a collection was made of is kept, and read back whatever it holds."""

from pathlib import Path

import pytest

from trivium.encoders.base import Space
from trivium.pipeline.store.database import CollectionError
from trivium.pipeline.store.roots import Root, RootSettings, nearest
from trivium.pipeline.store.store import Store
from trivium.pipeline.store.writer import writing

SPACE = Space(name="stub", dim=16, revision="1")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.create(tmp_path / "c", SPACE, source="stub")


@pytest.mark.parametrize(
    ("path", "root"),
    [("/a/b/c.png", "/a/b"), ("/a/b", "/a/b"), ("/a/bc/d.png", None), ("/a", None), ("/", None), ("/x/y/z", "/x/y")],
)
def test_the_nearest_root(path: str, root: str | None) -> None:
    assert nearest(path, {"/a/b", "/x", "/x/y"}) == root
    assert nearest(path, {"/"}) == "/"


def test_roots_are_kept(store: Store) -> None:
    settings = RootSettings(captions=False, positions=True, metadata=("/m/t.csv", "/m/\udcff.csv"))
    roots = {
        "/m/a": Root(path="/m/a", device=7, settings=settings, passed={".pdf": 3}),
        "/m/\udcff": Root(path="/m/\udcff"),
    }
    with writing(store) as writer:
        writer.set_roots(roots)
    assert Store(store.folder).roots() == roots
    with writing(store) as writer:
        writer.set_roots({})
    assert store.roots() == {}


def test_what_was_skipped_is_kept_for_each_root(store: Store) -> None:
    with writing(store) as writer:
        writer.set_skipped(["/m"], {"/m/a.png": "no \udcff", "/m/b.png": "damaged"})
        writer.set_skipped(["/n"], {"/n/c.png": "damaged"})
        writer.set_skipped(["/m"], {"/m/b.png": "empty"})
    assert store.skipped() == {"/m/b.png": "empty", "/n/c.png": "damaged"}


@pytest.mark.parametrize(
    "settings", ["[]", '{"captions": 1}', '{"metadata": "/m/t.csv"}', '{"metadata": [1]}', '{"positions": null}', "{"]
)
def test_settings_without_sense_are_told(store: Store, settings: str) -> None:
    store.db.execute("INSERT INTO root VALUES (CAST('/m' AS BLOB), 1, ?, '{}')", (settings,))
    with pytest.raises(CollectionError, match="damaged"):
        store.roots()


def test_counts_without_sense_are_told(store: Store) -> None:
    store.db.execute("INSERT INTO root VALUES (CAST('/m' AS BLOB), 1, '{}', '{\".pdf\": \"many\"}')")
    with pytest.raises(CollectionError, match="what was passed over is not counted"):
        store.roots()


def test_settings_of_a_later_trivium_are_passed_over(store: Store) -> None:
    store.db.execute("INSERT INTO root VALUES (CAST('/m' AS BLOB), 1, '{\"captions\": false, \"new\": 1}', '{}')")
    assert store.roots()["/m"].settings == RootSettings(captions=False)
