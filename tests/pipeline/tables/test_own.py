"""What files say of themselves on its way into items, captions, filters and hits."""

import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from PIL import Image

from trivium.encoders.tags.reading import FileTags
from trivium.pipeline.collection import Collection
from trivium.pipeline.ingest import scanning
from trivium.pipeline.records import StoredItem
from trivium.pipeline.store.store import Store
from trivium.pipeline.tables.metadata import decode
from trivium.pipeline.tables.own import own_caption, own_metadata


@pytest.fixture(autouse=True)
def old_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unchanged files are told from their times at once."""
    monkeypatch.setattr(scanning, "FRESH_NS", 0)


def photo(path: Path, *, description: str | None = "A dog in the river", colour: str = "red") -> Path:
    exif = Image.Exif()
    exif[0x010F], exif[0x0110] = "Canon", "EOS 5D"
    if description is not None:
        exif[0x010E] = description
    exif.get_ifd(0x8769)[0x9003] = "2024:05:01 10:11:12"
    gps = exif.get_ifd(0x8825)
    gps[1], gps[2], gps[3], gps[4] = "N", (48.0, 30.0, 0.0), "E", (11.0, 15.0, 36.0)
    path.parent.mkdir(exist_ok=True)
    Image.new("RGB", (32, 24), colour).save(path, exif=exif.tobytes())
    return path


def item(collection: Collection, name: str) -> StoredItem:
    return next(found for found in Store(collection.folder).items() if os.path.basename(found.path) == name)


def names(collection: Collection, where: str) -> set[str]:
    return {os.path.basename(hit.path) for hit in collection.search(text="x", where=where)}


OWN = {
    "camera": "Canon EOS 5D",
    "taken": "2024-05-01T10:11:12",
    "year": 2024,
    "description": "A dog in the river",
    "width": 32,
    "height": 24,
}


def test_a_photo_is_found_by_what_it_says(tmp_path: Path, space) -> None:
    photo(tmp_path / "m" / "a.jpg")
    photo(tmp_path / "m" / "b.jpg", description=None, colour="blue")
    collection = Collection.open(tmp_path / "c", space=space)
    summary = collection.add(tmp_path / "m")
    assert (summary.skipped, summary.notes) == ([], [])
    found = item(collection, "a.jpg")
    assert found.own is not None
    assert decode(found.own) == OWN
    assert found.metadata == found.own
    assert names(collection, "taken >= 2024-05-01 and taken < 2024-05-02 and camera contains canon") == {
        "a.jpg",
        "b.jpg",
    }
    assert names(collection, "description contains dog and width = 32") == {"a.jpg"}
    (hit, _) = collection.search(text="A dog in the river")
    assert (hit.matched, hit.caption, hit.metadata) == ("caption", "A dog in the river", OWN)


def test_where_it_was_made_is_kept_only_if_asked_for(tmp_path: Path, space) -> None:
    photo(tmp_path / "m" / "a.jpg")
    private = Collection.open(tmp_path / "private", space=space)
    private.add(tmp_path / "m")
    assert all(b"48.5" not in file.read_bytes() for file in private.folder.rglob("*") if file.is_file())
    kept = Collection.open(tmp_path / "kept", space=space)
    kept.add(tmp_path / "m", positions=True)
    assert decode(str(item(kept, "a.jpg").own)) == {**OWN, "latitude": 48.5, "longitude": 11.26}


def test_positions_come_and_go_without_encoding(tmp_path: Path, space) -> None:
    photo(tmp_path / "m" / "a.jpg")
    (tmp_path / "m" / "a.jpg.json").write_text('{"geoData": {"latitude": 7.5}}')
    (tmp_path / "m" / "n.md").write_text("note")
    collection = Collection.open(tmp_path / "c", space=space)
    collection.add(tmp_path / "m")
    space.calls.clear()
    both = {**OWN, "latitude": 48.5, "longitude": 11.26, "geoData.latitude": 7.5}
    for positions, expected in ((True, both), (None, both), (False, OWN), (True, both)):
        collection.add(tmp_path / "m", positions=positions)
        assert decode(str(item(collection, "a.jpg").metadata)) == expected
        assert collection.add(tmp_path / "m").unchanged == 2
    assert space.calls == []


def test_a_sidecar_comes_first_then_a_table_then_the_file(tmp_path: Path, space) -> None:
    photo(tmp_path / "m" / "a.jpg")
    table = tmp_path / "m" / "t.csv"
    table.write_text("path,year,camera\na.jpg,1,mine\n")
    collection = Collection.open(tmp_path / "c", space=space)
    collection.add(tmp_path / "m")
    assert collection.add(tmp_path / "m", metadata=table).changed == 1
    assert decode(str(item(collection, "a.jpg").metadata)) == {**OWN, "year": 1, "camera": "mine"}
    (tmp_path / "m" / "a.jpg.json").write_text('{"year": 2}')
    assert collection.add(tmp_path / "m").changed == 1
    found = item(collection, "a.jpg")
    assert decode(str(found.metadata)) == {**OWN, "year": 2, "camera": "mine"}
    assert (decode(str(found.own)), found.tabled) == (OWN, '{"camera":"mine","year":1}')
    assert len(space.calls) == 2  # the picture and its caption, once


def test_a_caption_file_comes_before_the_description(tmp_path: Path, space) -> None:
    photo(tmp_path / "m" / "a.jpg")
    (tmp_path / "m" / "a.jpg.txt").write_text("Rex")
    collection = Collection.open(tmp_path / "c", space=space)
    collection.add(tmp_path / "m")
    assert item(collection, "a.jpg").caption == "Rex"
    (tmp_path / "m" / "a.jpg.txt").unlink()
    collection.add(tmp_path / "m")
    assert item(collection, "a.jpg").caption == "A dog in the river"
    assert collection.add(tmp_path / "m").unchanged == 1


def test_without_captions_it_is_shown_and_not_searched(tmp_path: Path, space) -> None:
    photo(tmp_path / "m" / "a.jpg")
    collection = Collection.open(tmp_path / "c", space=space)
    collection.add(tmp_path / "m", captions=False)
    found = item(collection, "a.jpg")
    assert (found.caption, set(found.contents)) == ("A dog in the river", {"content"})
    assert space.calls == ["image"]


@pytest.mark.parametrize(
    ("own", "caption"),
    [
        ({"description": "A dog\nand a cat", "title": "x"}, "A dog"),
        ({"title": "Dog"}, "Dog"),
        ({"title": "img_7"}, None),
        ({"title": "IMG_7.JPG", "description": "img_7"}, None),
        ({"keywords": ["dog"]}, None),
        ({"title": 7}, None),
        ({}, None),
    ],
)
def test_which_words_are_a_caption(own: Any, caption: str | None) -> None:
    assert own_caption(own, "/m/IMG_7.jpg") == caption


def test_copies_say_the_same_and_are_encoded_once(tmp_path: Path, space) -> None:
    photo(tmp_path / "m" / "a.jpg")
    for name in "bcd":
        (tmp_path / "m" / f"{name}.jpg").write_bytes((tmp_path / "m" / "a.jpg").read_bytes())
    collection = Collection.open(tmp_path / "c", space=space)
    collection.add(tmp_path / "m")
    (tmp_path / "m" / "e.jpg").write_bytes((tmp_path / "m" / "a.jpg").read_bytes())
    collection.add(tmp_path / "m")
    assert {decode(str(found.own))["camera"] for found in Store(collection.folder).items()} == {"Canon EOS 5D"}
    assert len(Collection.open(collection.folder, space=space)) == 5
    assert sorted(space.calls) == ["image", "text"]


def test_a_collection_of_before_learns_it_without_encoding(
    tmp_path: Path, media: Path, space, reference: Callable[[str], ModuleType]
) -> None:
    """As an upgraded one: what files say is NULL; the next run reads their tags alone, of videos too."""
    pytest.importorskip("av")
    photo(media / "a.jpg", description=None)
    photo(media / "b.jpg")
    film = reference("videos").video(scenes=[("red", 1.0), ("green", 1.0)], tags={"title": "The sea"})
    (media / "film.mp4").write_bytes(film)
    collection = Collection.open(tmp_path / "c", space=space)
    collection.add(media)
    expected = told(collection)
    collection.close()
    with sqlite3.connect(tmp_path / "c" / "collection.db") as db:
        db.execute("UPDATE item SET own = NULL, metadata = NULL")
        db.execute("UPDATE item SET caption = NULL WHERE path LIKE '%/b.jpg'")
        db.execute(
            "DELETE FROM embedding WHERE role = 'caption' AND item = (SELECT id FROM item WHERE path LIKE '%/b.jpg')"
        )
    db.close()
    space.calls.clear()
    collection = Collection.open(tmp_path / "c", space=space)
    summary = collection.add(media)
    assert (summary.skipped, summary.changed, summary.unchanged) == ([], 8, 2)  # texts say nothing
    assert told(collection) == expected
    assert space.calls == []
    assert collection.add(media).unchanged == 10


def told(collection: Collection) -> dict[str, Any]:
    items = Store(collection.folder).items()
    return {found.path: (found.own, found.metadata, found.caption, found.contents) for found in items}


def test_a_file_with_broken_tags_is_indexed_and_says_so(tmp_path: Path, space) -> None:
    photo(tmp_path / "m" / "a.jpg")
    picture = Image.new("RGB", (32, 24), "green")
    picture.save(tmp_path / "m" / "b.jpg", xmp=b"<x:xmpmeta")
    collection = Collection.open(tmp_path / "c", space=space)
    summary = collection.add(tmp_path / "m")
    assert (summary.added, summary.skipped) == (2, [])
    (note,) = summary.notes
    assert os.path.basename(note.path) == "b.jpg"
    assert note.reason.startswith("XMP cannot be read: not XML")
    assert decode(str(item(collection, "b.jpg").own)) == {"width": 32, "height": 24}


def test_a_decoder_that_was_taken_over_says_no_more_than_a_sidecar_may() -> None:
    tags = FileTags({"a": "x" * 10_001, "b": 1 << 2000, "k" * 300: 1, "lat": 1.5, "d": "fine\0", "e": ["x", "\ud800"]})
    own, left_out = own_metadata(tags, positions=False)
    assert own == {"d": "fine", "e": ["x", "\ufffd"]}
    assert len(left_out) == 3
