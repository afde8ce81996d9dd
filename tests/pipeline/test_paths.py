"""How files are named: one name each, however they are reached, and the same at every door."""

import os
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest

from trivium.pipeline.collection import Collection
from trivium.pipeline.paths import Naming, named, names_of
from trivium.pipeline.store.filters import Filter, FilterError


@pytest.fixture
def linked(tmp_path: Path, picture: Callable[..., Path]) -> Path:
    """real/deep/red.png and real/blue.png; link -> real, in -> real/deep, loop -> loop."""
    picture(tmp_path / "real" / "deep" / "red.png", "red")
    picture(tmp_path / "real" / "blue.png", "blue")
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "in").symlink_to("real/deep")
    (tmp_path / "loop").symlink_to("loop")
    return tmp_path


WAYS = ["real", "real/", "./real", "link", "link/", "link/.", "in/..", "real/deep/..", "real/none/..", "link/deep/.."]


@pytest.mark.parametrize("way", WAYS)
def test_every_way_to_a_folder_has_one_name(linked: Path, monkeypatch, way: str) -> None:
    monkeypatch.chdir(linked)
    assert named(way) == str(linked / "real")
    assert named(linked / way) == str(linked / "real")


def test_names_of_what_is_not_there(linked: Path) -> None:
    assert names_of(linked / "link" / "gone.png") == (str(linked / "real" / "gone.png"), str(linked / "link/gone.png"))
    assert names_of(linked / "real" / "blue.png") == (str(linked / "real" / "blue.png"),)
    assert named(linked / "loop" / "x").endswith("/loop/x")
    with pytest.raises(ValueError, match="path is an empty path"):
        named("")
    with pytest.raises(ValueError, match="null"):
        named("a\0b")


def test_many_names_at_once(linked: Path) -> None:
    naming = Naming()
    for way in ("real/blue.png", "link/blue.png", "in/../blue.png", "link/deep/../blue.png", "in", "link", "in/.."):
        assert naming.of(str(linked / way)) == named(linked / way)
    (linked / "real" / "again.png").symlink_to("blue.png")
    assert naming.of(str(linked / "link" / "again.png")) == str(linked / "real" / "blue.png")
    assert naming.in_folder(str(linked / "link" / "again.png")) == str(linked / "real" / "again.png")


def paths_in(collection: Collection) -> list[str]:
    return sorted(hit.path for hit in collection.search(text="x", k=100, fold="none"))


@pytest.mark.parametrize("way", WAYS)
def test_the_same_folder_is_never_indexed_twice(linked: Path, space, monkeypatch, way: str) -> None:
    monkeypatch.chdir(linked)
    collection = Collection.open(linked / "c", space=space)
    collection.add("real")
    space.calls.clear()
    summary = collection.add([way, "in", "real"])
    assert (summary.added, summary.unchanged, summary.removed, space.calls) == (0, 2, 0, [])
    wanted = [str(linked / "real" / "blue.png"), str(linked / "real" / "deep" / "red.png")]
    assert paths_in(collection) == wanted
    for pattern in (way, f"{way}/", f"./{way}", str(linked / way), f"{linked / way}/*.PNG"):
        found = sorted(hit.path for hit in collection.search(text="x", paths=pattern))
        assert found == wanted, pattern
    for value in (f"{way}/blue.png", str(linked / way / "blue.png"), str(linked / "real" / "BLUE.png")):
        assert [hit.path for hit in collection.search(text="x", where=f"path = '{value}'")] == wanted[:1], value
    assert collection.remove(f"{way}/blue.png") == 1
    assert collection.remove([way]) == 1


def test_links_that_lead_in_circles(linked: Path, space) -> None:
    (linked / "real" / "up").symlink_to("..")
    (linked / "real" / "self").symlink_to(".")
    collection = Collection.open(linked / "c", space=space)
    summary = collection.add([linked / "real", linked / "real" / "up" / "real", linked / "loop"])
    assert summary.added == 2
    assert {(Path(p.path).name, p.reason) for p in summary.skipped} == {
        ("up", "a symbolic link, not followed"),
        ("self", "a symbolic link, not followed"),
        ("loop", "Too many levels of symbolic links"),
    }


def test_a_collection_of_an_earlier_version_is_named_anew(linked: Path, space) -> None:
    """Its items have names through links: found and removed by them, renamed by the next run, encoded no more."""
    collection = Collection.open(linked / "c", space=space)
    collection.add(linked / "real")
    _rename(collection, linked / "real" / "blue.png", linked / "link" / "blue.png")
    for pattern in (str(linked / "link"), f"{linked / 'link'}/*"):
        assert str(linked / "link" / "blue.png") in [hit.path for hit in collection.search(text="x", paths=pattern)]
    space.calls.clear()
    summary = collection.add(linked / "link")
    assert (summary.renamed, summary.unchanged, summary.removed, space.calls) == (1, 1, 0, [])
    assert paths_in(collection) == [str(linked / "real" / "blue.png"), str(linked / "real" / "deep" / "red.png")]


def test_items_that_an_earlier_version_indexed_twice_become_one(linked: Path, space) -> None:
    copy = linked / "real" / "copy.png"
    copy.write_bytes((linked / "real" / "blue.png").read_bytes())
    collection = Collection.open(linked / "c", space=space)
    collection.add(linked / "real")
    _rename(collection, copy, linked / "link" / "blue.png")
    copy.unlink()
    assert len(paths_in(collection)) == 3
    summary = collection.add(linked / "real")
    assert (summary.renamed, summary.unchanged, summary.removed) == (0, 2, 1)
    assert paths_in(collection) == [str(linked / "real" / "blue.png"), str(linked / "real" / "deep" / "red.png")]


def test_a_link_that_is_gone_since(linked: Path, space) -> None:
    collection = Collection.open(linked / "c", space=space)
    collection.add(linked / "real")
    _rename(collection, linked / "real" / "deep" / "red.png", linked / "in" / "red.png")
    (linked / "in").unlink()
    assert collection.add(linked / "real").renamed == 1
    assert collection.remove(linked / "in" / "red.png") == 0
    assert paths_in(collection) == [str(linked / "real" / "blue.png"), str(linked / "real" / "deep" / "red.png")]


def _rename(collection: Collection, old: Path, new: Path) -> None:
    db = collection._existing().db
    db.execute("UPDATE item SET path = ? WHERE path = ?", (os.fsencode(new), os.fsencode(old)))


NFC, NFD = (unicodedata.normalize(form, "Müller é.png") for form in ("NFC", "NFD"))


@pytest.mark.parametrize(("kept", "asked"), [(NFC, NFD), (NFD, NFC)])
def test_composed_or_not_a_name_is_found(tmp_path: Path, space, picture, monkeypatch, kept: str, asked: str) -> None:
    picture(tmp_path / "m" / kept)
    picture(tmp_path / "m" / "other.png", "blue")
    collection = Collection.open(tmp_path / "c", space=space)
    collection.add(tmp_path / "m")
    monkeypatch.chdir(tmp_path / "m")
    stem = asked.removesuffix(".png")
    for pattern in (asked, f"./{asked}", str(tmp_path / "m" / asked), f"{stem}*", f"{tmp_path}/m/{stem}.*"):
        assert [Path(hit.path).name for hit in collection.search(text="x", paths=pattern)] == [kept], pattern
    assert [Path(hit.path).name for hit in collection.search(text="x", where=f"path = '{asked}'")] == [kept]
    assert collection.remove(asked) == 1
    assert collection.remove(asked) == 0
    assert len(collection) == 1


def test_of_two_names_that_look_the_same_the_exact_one_counts(tmp_path: Path, space, picture) -> None:
    for name, colour in ((NFC, "red"), (NFD, "blue"), ("a.png", "green"), ("A.png", "white")):
        picture(tmp_path / "m" / name, colour)
    collection = Collection.open(tmp_path / "c", space=space)
    collection.add(tmp_path / "m")
    for name in (NFC, NFD, "a.png", "A.png"):
        assert [Path(hit.path).name for hit in collection.search(text="x", paths=name)] == [name]
    assert len(collection.search(text="x", paths="A.PNG")) == 2
    assert collection.remove(tmp_path / "m" / "A.PNG") == 0  # what forgets takes no other capitals
    assert collection.remove(tmp_path / "m" / NFD) == 1
    assert NFC in [Path(hit.path).name for hit in collection.search(text="x")]


def test_patterns_fold_capitals(tmp_path: Path, space, picture) -> None:
    for name in ("IMG_1.JPG", "img_2.jpg", "Ärger.Jpg", "x.png"):
        picture(tmp_path / "DCIM" / name)
    collection = Collection.open(tmp_path / "c", space=space)
    collection.add(tmp_path)
    wanted = {"*.jpg": 3, "*.JPG": 3, "img_?.jpg": 2, "dcim/*.jpg": 3, f"{tmp_path}/dcim/*.jpg": 3, "äRGER*": 1}
    assert {pattern: len(collection.search(text="x", paths=pattern, fold="none")) for pattern in wanted} == wanted


def test_what_remove_takes(tmp_path: Path, space, picture, monkeypatch) -> None:
    for name in ("a.tmp.png", "sub/b.tmp.png", "c.png", "*.tmp.png", "[x].png", "x.png"):
        picture(tmp_path / "m" / name, size=(32, 24 + len(name)))
    collection = Collection.open(tmp_path / "c", space=space)
    collection.add(tmp_path / "m")
    monkeypatch.chdir(tmp_path / "m")
    missing: list[str] = []
    assert collection.remove("*.tmp.png") == 1  # the file that is named so
    assert collection.remove("[x].png") == 1
    assert collection.remove("[x].png") == 0  # such a file is there: it was meant, not x.png
    os.unlink("*.tmp.png")
    assert collection.remove(Path("*.tmp.png")) == 0  # a Path is a name
    assert collection.remove(["*.tmp.png", "none.png", "c.p?g"], on_missing=missing.append) == 3
    assert missing == ["none.png"]
    assert [Path(hit.path).name for hit in collection.search(text="x")] == ["x.png"]
    with pytest.raises(FilterError, match="characters"):
        collection.remove("*" * 5_000)


def test_a_path_object_is_a_name_and_no_pattern(tmp_path: Path, space, picture, monkeypatch) -> None:
    picture(tmp_path / "m" / "[x].png")
    picture(tmp_path / "m" / "x.png", "blue")
    collection = Collection.open(tmp_path / "c", space=space)
    collection.add(tmp_path / "m")
    monkeypatch.chdir(tmp_path / "m")
    assert [Path(hit.path).name for hit in collection.search(text="x", paths=Path("[x].png"))] == ["[x].png"]
    assert [Path(hit.path).name for hit in collection.search(text="x", paths="[x].png")] == ["x.png"]
    with pytest.raises(FilterError, match="got the bytes"):
        Filter(paths=(b"x",))  # type: ignore[arg-type]


def test_a_table_of_metadata_names_files_as_the_collection_does(linked: Path, space) -> None:
    (linked / "real" / "t.csv").write_text("path,year\nblue.png,1999\ndeep/../deep/red.png,2000\n")
    collection = Collection.open(linked / "c", space=space)
    summary = collection.add(linked / "in" / "..", metadata=linked / "link" / "t.csv")
    assert not summary.skipped
    assert sorted(hit.metadata["year"] for hit in collection.search(text="x")) == [1999, 2000]
