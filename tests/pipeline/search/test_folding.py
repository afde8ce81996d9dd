"""Copies become one hit: equal files, and pictures and videos that look the same; what only resembles does not."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from assets import ASSETS
from trivium.pipeline.collection import Collection
from trivium.pipeline.search.folding import Likeness, Whole
from trivium.pipeline.search.query import QueryError


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Three photos; of the first also three equal files, one encoded again and one cut at the edges."""
    folder = tmp_path / "photos"
    (folder / "backup").mkdir(parents=True)
    for name in ("teacup.webp", "airliner.png"):
        shutil.copy(ASSETS / name, folder)
    original = folder / "strawberry.jpg"
    shutil.copy(ASSETS / "strawberry.jpg", original)
    for number in range(3):
        shutil.copy(original, folder / "backup" / f"{number}.jpg")
    with Image.open(original) as opened:
        image = opened.convert("RGB")
        width, height = image.size
        image.save(folder / "again.webp", quality=50)
        image.crop((2, 2, width - width // 40, height - height // 40)).save(folder / "cut.jpg", quality=90)
    return folder


@pytest.fixture
def seeing(tmp_path: Path, photos: Path, seeing_space: Any) -> Collection:
    made = Collection.open(tmp_path / "c", space=seeing_space)
    assert made.add(photos).added == 8
    return made


def names(collection: Collection, **asked: Any) -> dict[str, list[str]]:
    hits = collection.search(image=str(ASSETS / "strawberry.jpg"), **asked)
    return {Path(hit.path).name: sorted(Path(copy).name for copy in hit.copies) for hit in hits}


def test_equal_files_are_one_hit(seeing: Collection) -> None:
    found = names(seeing)
    assert len(found) == 5
    assert found["0.jpg"] == ["1.jpg", "2.jpg", "strawberry.jpg"]
    assert not any(copies for name, copies in found.items() if name != "0.jpg")


def test_near_equal_pictures_are_one_hit(seeing: Collection) -> None:
    found = names(seeing, fold="near")
    assert found == {
        "0.jpg": ["1.jpg", "2.jpg", "again.webp", "cut.jpg", "strawberry.jpg"],
        "teacup.webp": [],
        "airliner.png": [],
    }


def test_nothing_is_folded_if_that_is_asked(seeing: Collection) -> None:
    assert len(names(seeing, fold="none")) == 8
    with pytest.raises(QueryError, match="fold must be one of same, near, none, got 'all'"):
        names(seeing, fold="all")


@pytest.mark.parametrize(("fold", "k", "count"), [("same", 3, 3), ("same", 5, 5), ("near", 3, 3), ("near", 9, 3)])
def test_there_are_k_hits_beside_the_copies(seeing: Collection, fold: str, k: int, count: int) -> None:
    assert len(names(seeing, k=k, fold=fold)) == count


def test_copies_meet_the_filter_too(seeing: Collection, photos: Path) -> None:
    assert names(seeing, paths=[str(photos / "backup")]) == {"0.jpg": ["1.jpg", "2.jpg"]}
    assert "0.jpg" not in names(seeing, where="name = strawberry.jpg")


def test_a_thousand_copies_hide_nothing(tmp_path: Path, picture: Any, space: Any) -> None:
    for number in range(300):
        picture(tmp_path / "m" / f"{number:03}.png", "red")
    for colour in ("blue", "green", "white"):
        picture(tmp_path / "m" / f"{colour}.png", colour)
    collection = Collection.open(tmp_path / "c", space=space)
    collection.add(tmp_path / "m")
    hits = collection.search(image=str(tmp_path / "m" / "000.png"), k=4)
    assert [len(hit.copies) for hit in hits] == [299, 0, 0, 0]


def test_texts_are_folded_if_equal_only(tmp_path: Path, space: Any) -> None:
    folder = tmp_path / "m"
    folder.mkdir()
    for name, text in (("a.md", "milk and bread"), ("b.md", "milk and bread"), ("c.md", "milk and bread.")):
        (folder / name).write_text(text)
    collection = Collection.open(tmp_path / "c", space=space)
    collection.add(folder)
    hits = collection.search(text="milk and bread", fold="near")
    assert [len(hit.copies) for hit in hits] == [1, 0]


def test_the_command_says_how_many_copies(seeing: Collection, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trivium.pipeline.collection.load_space", lambda *_, **__: seeing.space)
    folder, image = str(seeing.folder), str(ASSETS / "strawberry.jpg")
    status, shown, _ = run("search", folder, "--image", image, "-k", "1")
    assert status == 0
    assert "(and 3 copies)" in shown
    _, printed, _ = run("search", folder, "--image", image, "--fold", "near", "--json")
    first = json.loads(printed)["hits"][0]
    assert len(first["copies"]) == 5
    assert first["path"] not in first["copies"]


def test_pictures_without_a_hash_are_told(seeing: Collection, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in collections of before: folded if equal; `duplicates` makes the hashes of the files."""
    monkeypatch.setattr("trivium.pipeline.collection.load_space", lambda *_, **__: seeing.space)
    seeing._existing().db.execute("UPDATE content SET looks = NULL")
    _, _, told = run("search", str(seeing.folder), "--image", str(ASSETS / "strawberry.jpg"), "--fold", "near")
    assert "8 pictures and videos have no hash" in told
    assert len(names(seeing, fold="near")) == 5
    (group,) = seeing.duplicates(near=True).groups
    assert len(group.files) == 6
    assert seeing.unseen_pictures() == 0
    assert len(names(seeing, fold="near")) == 3


# Videos


@pytest.fixture
def videos(tmp_path: Path, reference: Any) -> Path:
    pytest.importorskip("av", reason="PyAV comes with the extra 'video'")
    folder = tmp_path / "videos"
    folder.mkdir()
    make = reference("videos").video
    photo, cup, plane = (scene(name) for name in ("strawberry.jpg", "teacup.webp", "airliner.png"))
    for name, scenes, options in (
        ("own", [(photo, 3.0), (cup, 3.0)], {}),
        ("again", [(photo, 3.0), (cup, 3.0)], {"codec": "mpeg4"}),
        ("longer", [(photo, 3.0), (cup, 9.0)], {}),
        ("other end", [(photo, 3.0), (plane, 3.0)], {}),
    ):
        (folder / f"{name}.mp4").write_bytes(make(scenes=scenes, size=(160, 120), every_scene=True, **options))
    return folder


def scene(name: str) -> Image.Image:
    with Image.open(ASSETS / name) as image:
        return image.convert("RGB").resize((160, 120))


def test_videos_are_near_if_all_of_them_is(tmp_path: Path, videos: Path, seeing_space: Any) -> None:
    """Not those that only begin alike, nor those of another length."""
    collection = Collection.open(tmp_path / "c", space=seeing_space)
    collection.add(videos)
    store = collection._existing()
    content = {
        Path(path).stem: content for content, items in store.items_of(store.videos()).items() for _, path, _ in items
    }
    likeness = Likeness(store)
    whole = {name: Whole(id_, "video", None) for name, id_ in content.items()}
    assert likeness.is_near(whole["own"], whole["again"])
    assert not likeness.is_near(whole["own"], whole["longer"])
    assert not likeness.is_near(whole["own"], whole["other end"])
    (group,) = collection.duplicates(near=True).groups
    assert {Path(file.path).stem for file in group.files} == {"own", "again"}


def test_asked_with_a_video(tmp_path: Path, videos: Path, seeing_space: Any) -> None:
    """It is what indexing makes of it: the same vector, of a file and of its bytes, alone and beside others."""
    collection = Collection.open(tmp_path / "c", space=seeing_space)
    collection.add(videos)
    file = videos / "own.mp4"
    (hit,) = [hit for hit in collection.search(video=str(file)) if hit.path == str(file)]
    assert hit.matched == "content"
    assert hit.score == pytest.approx(1.0, abs=2e-3)
    assert hit in collection.search(video=file.read_bytes())
    first, (second,) = collection.search_many(video=[str(file), str(videos / "other end.mp4")], k=1)
    assert first == collection.search(video=str(file), k=1)
    assert Path(second.path).stem == "other end"
    away = collection.search(video=(-1.0, str(file)), k=9)
    assert away[-1].score < 0


def test_a_bad_video_of_a_query(tmp_path: Path, seeing: Collection) -> None:
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    with pytest.raises(QueryError, match="the video of the query cannot be used"):
        seeing.search(video=str(tmp_path / "bad.mp4"))
    with pytest.raises(QueryError, match="a video to look for is a path"):
        seeing.search(video=np.zeros((2, 2, 3), np.uint8))
