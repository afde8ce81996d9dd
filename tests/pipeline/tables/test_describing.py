"""Metadata on their way from sidecars and tables into items, and out again through filters."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from trivium.pipeline.collection import Collection
from trivium.pipeline.ingest import scanning
from trivium.pipeline.store.store import Store
from trivium.pipeline.tables.metadata import Metadata, MetadataError, decode


@pytest.fixture
def old_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unchanged files are told from their times at once."""
    monkeypatch.setattr(scanning, "FRESH_NS", 0)


FACTS = {"width", "height", "seconds"}  # that every picture and sound tells


def metadata_of(collection: Collection) -> dict[str, Metadata]:
    """What is known of items beside facts, where there is anything."""
    told: dict[str, Metadata] = {}
    for item in Store(collection.folder).items():
        metadata = decode(item.metadata) if item.metadata is not None else {}
        if rest := {key: value for key, value in metadata.items() if key not in FACTS}:
            told[os.path.basename(item.path)] = rest
    return told


def write(path: Path, **entries: object) -> None:
    path.write_text(json.dumps(entries))


def test_sidecars_beside_every_modality(tmp_path: Path, media: Path, space) -> None:
    write(media / "red.json", year=2020)
    write(media / "blue.jpg.json", year=2021, photo={"lens": 35})
    write(media / "blue.json", year=1)  # the longer name comes first
    write(media / "note.json", author="me")
    write(media / "deep" / "high.json", year=2022)
    write(media / "nothing.json", year=2023)
    collection = Collection.open(tmp_path / "c", space=space)
    summary = collection.add(media)
    assert summary.skipped == []
    assert summary.ignored == 3  # the XMP file, nothing.json, blue.json
    assert metadata_of(collection) == {
        "red.png": {"year": 2020},
        "blue.jpg": {"year": 2021, "photo.lens": 35},
        "note.md": {"author": "me"},
        "high.ogg": {"year": 2022},
    }
    hits = collection.search(text="x", where="year >= 2021")
    assert {os.path.basename(hit.path): hit.metadata for hit in hits} == {
        "blue.jpg": {"year": 2021, "photo.lens": 35, "width": 32, "height": 24},
        "high.ogg": {"year": 2022, "seconds": 0.2},
    }


def test_positions_are_stored_only_when_asked_for(tmp_path: Path, media: Path, space) -> None:
    write(media / "red.json", year=2020, gps={"latitude": 48.1374, "longitude": 11.5755})
    private = Collection.open(tmp_path / "private", space=space)
    private.add(media)
    assert metadata_of(private) == {"red.png": {"year": 2020}}
    assert all(b"48.1374" not in file.read_bytes() for file in private.folder.rglob("*") if file.is_file())
    kept = Collection.open(tmp_path / "kept", space=space)
    kept.add(media, positions=True)
    assert metadata_of(kept)["red.png"]["gps.latitude"] == 48.1374


def test_a_changed_sidecar_is_read_and_nothing_encoded(
    collection: Collection, media: Path, space, old_files: None
) -> None:
    write(media / "red.json", year=2020)
    assert collection.add(media).changed == 1
    assert metadata_of(collection) == {"red.png": {"year": 2020}}
    write(media / "red.json", year=2021, place="here")
    assert collection.add(media).changed == 1
    assert metadata_of(collection) == {"red.png": {"year": 2021, "place": "here"}}
    (media / "red.json").unlink()
    assert collection.add(media).changed == 1
    assert metadata_of(collection) == {}
    assert collection.add(media).unchanged == 7
    assert space.calls == []


def test_bad_sidecars_are_told_and_the_item_stays(tmp_path: Path, media: Path, space) -> None:
    (media / "red.json").write_text("{")
    (media / "note.json").mkdir()
    (media / "blue.json").symlink_to(media / "red.json")
    collection = Collection.open(tmp_path / "c", space=space)
    summary = collection.add(media)
    told = {os.path.basename(problem.path): problem.reason for problem in summary.skipped}
    assert summary.added == 7
    assert told["red.json"].startswith("metadata left out: not JSON")
    assert told["note.json"] == "metadata left out: not a regular file"
    assert "metadata left out: a symbolic link, not followed" in told["blue.json"]
    assert metadata_of(collection) == {}


def test_table(tmp_path: Path, media: Path, space, old_files: None) -> None:
    table = media / "table.csv"
    table.write_text("path,year,place\nred.png,2020,here\ndeep/high.ogg,2021,there\ngone.jpg,1,\nblue.jpg,7\n")
    write(media / "red.json", place="home")
    collection = Collection.open(tmp_path / "c", space=space)
    summary = collection.add(media, metadata=table)
    assert {problem.reason for problem in summary.skipped} == {
        "line 5 left out: has 2 cells, the first row has 3",
        f"1 lines name files that are not in the collection, the first {media / 'gone.jpg'}",
    }
    both = {"red.png": {"year": 2020, "place": "home"}, "high.ogg": {"year": 2021, "place": "there"}}
    assert metadata_of(collection) == both
    space.calls.clear()

    summary = collection.add(media)  # without the table: what it said stays
    assert (summary.changed, summary.unchanged) == (0, 7)
    assert metadata_of(collection) == both

    table.write_text("path,year\nred.png,2030\nblue.jpg,2031\n")
    summary = collection.add(media, metadata=table)
    assert (summary.changed, summary.unchanged) == (2, 5)
    expected = {**both, "red.png": {"year": 2030, "place": "home"}, "blue.jpg": {"year": 2031}}
    assert metadata_of(collection) == expected  # what it does not name keeps what a table said before

    (media / "red.json").unlink()
    collection.add(media)
    assert metadata_of(collection) == {**expected, "red.png": {"year": 2030}}
    generation = collection.info().generation
    assert collection.add(media, metadata=table).unchanged == 7
    assert collection.info().generation == generation
    assert space.calls == []


def test_an_unreadable_row_takes_nothing_away(tmp_path: Path, media: Path, space, old_files: None) -> None:
    table = media / "table.csv"
    table.write_text("path,year,place\nred.png,2020,here\nblue.jpg,2021,there\n")
    collection = Collection.open(tmp_path / "c", space=space)
    collection.add(media, metadata=table)
    before = metadata_of(collection)
    table.write_text(f"path,year,place\nred.png,2020\nblue.jpg,2022,{'v' * 10_001}\n")
    summary = collection.add(media, metadata=table)
    assert [problem.reason for problem in summary.skipped] == ["line 2 left out: has 2 cells, the first row has 3"]
    assert [note.reason for note in summary.notes] == [
        "line 3: of the metadata was left out: 'place' has 10,001 characters, at most 10,000 are read"
    ]
    assert metadata_of(collection) == {**before, "blue.jpg": {"year": 2022}}
    table.write_text("path,year,place\nred.png,,\n")  # a row that names a file and says nothing does
    collection.add(media, metadata=table)
    assert "red.png" not in metadata_of(collection)


def test_several_tables(tmp_path: Path, media: Path, space, old_files: None) -> None:
    tables = [media / "1.csv", media / "2.csv"]
    tables[0].write_text("path,year,place\nred.png,2020,here\nblue.jpg,2021,there\n")
    tables[1].write_text("path,year\nred.png,2030\n")
    collection = Collection.open(tmp_path / "c", space=space)
    collection.add(media)
    expected = {"red.png": {"year": 2030, "place": "here"}, "blue.jpg": {"year": 2021, "place": "there"}}
    assert collection.add(media, metadata=tables).changed == 2
    assert metadata_of(collection) == expected
    assert collection.add(media, metadata=tables).changed == 0
    again = Collection.open(tmp_path / "again", space=space)
    again.add(media, metadata=tables)
    assert metadata_of(again) == expected


def test_google_takeout(tmp_path: Path, media: Path, space) -> None:
    (media / "red.json").write_text(
        '{"title": "red.png", "people": [{"name": "Ann"}, {"name": "Bo"}], "description": "at the sea", "views": NaN, '
        '"photoTakenTime": {"timestamp": "1579564800"}, "geoData": {"latitude": 48.1, "longitude": 11.5}}'
    )
    collection = Collection.open(tmp_path / "c", space=space)
    summary = collection.add(media)
    assert summary.skipped == []
    assert [(os.path.basename(note.path), note.reason) for note in summary.notes] == [
        ("red.json", "of the metadata was left out: 'views' is nan, which is not a number that JSON has")
    ]
    (hit,) = collection.search(text="x", where="people.name contains bo and description contains sea")
    assert hit.metadata["people.name"] == ["Ann", "Bo"]
    assert not any("geoData" in key for key in hit.metadata)


def test_a_renamed_file_keeps_what_a_table_said(tmp_path: Path, media: Path, space) -> None:
    (tmp_path / "t.jsonl").write_text(json.dumps({"path": str(media / "red.png"), "year": 2020}))
    collection = Collection.open(tmp_path / "c", space=space)
    collection.add(media, metadata=tmp_path / "t.jsonl")
    (media / "red.png").rename(media / "rouge.png")
    assert collection.add(media).renamed == 1
    assert metadata_of(collection) == {"rouge.png": {"year": 2020}}


def test_too_much_together(tmp_path: Path, media: Path, space) -> None:
    (tmp_path / "t.jsonl").write_text(json.dumps({"path": str(media / "red.png"), **{f"a{n}": n for n in range(150)}}))
    write(media / "red.json", **{f"b{n}": n for n in range(150)})
    collection = Collection.open(tmp_path / "c", space=space)
    summary = collection.add(media, metadata=tmp_path / "t.jsonl")
    (note,) = summary.notes
    assert note.reason == "of the metadata was left out: 302 keys, at most 200 are read"
    kept = metadata_of(collection)["red.png"]
    assert len(kept) == 200
    assert {f"b{n}" for n in range(150)} < kept.keys()


def test_a_table_that_cannot_be_read(collection: Collection, media: Path, tmp_path: Path) -> None:
    with pytest.raises(MetadataError, match=r"gone\.csv cannot be read: No such file"):
        collection.add(media, metadata=tmp_path / "gone.csv")


def test_a_named_file_has_its_sidecar(tmp_path: Path, picture: Callable[..., Path], space) -> None:
    path = picture(tmp_path / "m" / "a.png")
    write(tmp_path / "m" / "a.png.json", year=1)
    collection = Collection.open(tmp_path / "c", space=space)
    collection.add(path)
    assert metadata_of(collection) == {"a.png": {"year": 1}}
