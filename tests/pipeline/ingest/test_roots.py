"""A collection knows its folders: it is brought up to date by itself, and keeps what a disk that is away had."""

import json
import os
import shutil
from pathlib import Path

import pytest

from trivium.pipeline.collection import Collection
from trivium.pipeline.ingest.roots import plan
from trivium.pipeline.store.database import CollectionError
from trivium.pipeline.store.roots import Root, RootSettings
from trivium.pipeline.store.store import Store


def names(collection: Collection) -> set[str]:
    return {os.path.basename(path) for path in Store(collection.folder).states()}


def known(**settings: RootSettings) -> dict[str, Root]:
    paths = {f"/{name.replace('_', '/')}": of for name, of in settings.items()}
    return {path: Root(path=path, settings=of) for path, of in paths.items()}


USUAL, NO_CAPTIONS = RootSettings(), RootSettings(captions=False)


def test_a_folder_within_a_root_is_none() -> None:
    found = plan(known(a=NO_CAPTIONS), ["/a/b"], {})
    assert (found.walked, set(found.roots)) == ({"/a/b": NO_CAPTIONS}, {"/a"})


def test_one_with_settings_of_its_own_is_one_and_walked_with_them() -> None:
    found = plan(known(a=USUAL), ["/a/b"], {"captions": False})
    assert (found.walked, set(found.roots)) == ({"/a/b": NO_CAPTIONS}, {"/a", "/a/b"})
    found = plan(known(a=USUAL, a_b=NO_CAPTIONS), ["/a"], {})
    assert found.walked == {"/a": USUAL, "/a/b": NO_CAPTIONS}
    assert found.settings_of("/a/b/c.png") == NO_CAPTIONS
    assert found.settings_of("/a/bc.png") == USUAL


def test_a_root_above_takes_in_those_that_are_as_it_is() -> None:
    found = plan(known(a_b=USUAL, a_c=NO_CAPTIONS), ["/a"], {})
    assert (found.walked, set(found.roots)) == ({"/a": USUAL, "/a/c": NO_CAPTIONS}, {"/a", "/a/c"})


def test_all_roots_can_be_given_a_setting() -> None:
    found = plan(known(a=USUAL, a_b=NO_CAPTIONS, c=USUAL), None, {"captions": False})
    assert (found.walked, set(found.roots)) == ({"/a": NO_CAPTIONS, "/c": NO_CAPTIONS}, {"/a", "/c"})


def test_it_is_brought_up_to_date_by_itself(tmp_path: Path, media: Path, space, picture, sound) -> None:
    collection = Collection.open(tmp_path / "c", space=space)
    collection.add([media, sound(tmp_path / "alone.wav")])
    picture(media / "later.png", "pink")
    (media / "blue.jpg").unlink()
    summary = collection.add()
    assert (summary.added, summary.removed, summary.unchanged) == (1, 1, 7)
    assert set(collection.info().roots) == {str(media), str(tmp_path / "alone.wav")}


def test_a_collection_that_knows_nothing_says_so(tmp_path: Path, space) -> None:
    with pytest.raises(CollectionError, match="no collection at"):
        Collection.open(tmp_path / "c", space=space).add()


def test_settings_are_kept(tmp_path: Path, media: Path, space, picture) -> None:
    table = tmp_path / "table.csv"
    table.write_text(f"path,year\n{media / 'blue.jpg'},2019\n")
    collection = Collection.open(tmp_path / "c", space=space)
    collection.add(media, captions=False, metadata=table)
    picture(media / "new.png", "pink")
    (media / "new.txt").write_text("Something pink.")
    table.write_text(f"path,year\n{media / 'blue.jpg'},2020\n{media / 'new.png'},2021\n")
    summary = collection.add()
    assert summary.encoded == {"image": 1}  # and no caption
    assert [os.path.basename(hit.path) for hit in collection.search(text="a", where="year = 2021")] == ["new.png"]
    assert [os.path.basename(hit.path) for hit in collection.search(text="a", where="year = 2020")] == ["blue.jpg"]
    assert collection.add(captions=True).encoded == {"text": 3}


def test_a_table_that_is_gone_leaves_what_it_said(tmp_path: Path, media: Path, space) -> None:
    table = tmp_path / "table.csv"
    table.write_text(f"path,year\n{media / 'blue.jpg'},2019\n")
    collection = Collection.open(tmp_path / "c", space=space)
    collection.add(media, metadata=table)
    table.unlink()
    summary = collection.add()
    assert [(problem.path, problem.reason[:25]) for problem in summary.skipped] == [
        (str(table), "metadata are as they were")
    ]
    assert len(collection.search(text="a", where="year = 2019")) == 1


def test_a_disk_that_is_away_loses_nothing(tmp_path: Path, media: Path, space) -> None:
    table = tmp_path / "table.csv"
    table.write_text(f"path,year\n{media / 'blue.jpg'},2019\n")
    collection = Collection.open(tmp_path / "c", space=space)
    collection.add(media, metadata=table)
    table.unlink()
    media.rename(tmp_path / "elsewhere")
    media.mkdir()  # an empty mount point
    for again in range(2):
        summary = collection.add()
        assert (summary.removed, summary.missing) == (0, 7)
        assert [(problem.path, problem.reason) for problem in summary.vanished] == [
            (str(media), "all of its files are gone")
        ]
        assert (len(collection), collection.info().missing) == (7, 7), again
    assert all(hit.is_missing for hit in collection.search(text="a", k=7))
    media.rmdir()
    assert [problem.reason for problem in collection.add().vanished] == ["no such file or folder"]
    (tmp_path / "elsewhere").rename(media)
    summary = collection.add()
    assert (summary.unchanged, summary.missing, summary.vanished) == (7, 0, [])
    assert not any(hit.is_missing for hit in collection.search(text="a", k=7))
    assert len(collection.search(text="a", where="year = 2019")) == 1
    assert space.calls.count("image") == 3  # at first


def test_its_items_are_dropped_when_that_is_asked_for(tmp_path: Path, collection: Collection, media: Path) -> None:
    media.rename(tmp_path / "elsewhere")
    assert collection.add(media).missing == 7
    summary = collection.add(drop_missing=True)
    assert (summary.removed, summary.missing, len(collection)) == (7, 0, 0)


def test_another_disk_at_the_same_place_drops_nothing(
    collection: Collection, media: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    collection.add(media)
    (media / "blue.jpg").unlink()
    device = media.stat().st_dev
    real = os.stat

    def of_another_disk(path, *args, **kwargs):
        status = real(path, *args, **kwargs)
        return os.stat_result([*status[:2], device + 1, *status[3:10]]) if path == str(media) else status

    monkeypatch.setattr(os, "stat", of_another_disk)
    summary = collection.add()
    assert [(problem.reason, summary.missing) for problem in summary.vanished] == [
        ("another disk lies there than before", 1)
    ]
    monkeypatch.undo()
    assert (collection.add().missing, len(collection)) == (1, 7)  # it stays until it is back, or dropped by name
    assert collection.add(drop_missing=True).removed == 1


@pytest.mark.parametrize(("deleted", "kept"), [(9, 0), (10, 0), (11, 11), (20, 20)])
def test_most_of_it_gone_at_once(tmp_path: Path, space, picture, deleted: int, kept: int) -> None:
    paths = [picture(tmp_path / "media" / f"{place}.png", (place, 0, 0)) for place in range(20)]
    collection = Collection.open(tmp_path / "c", space=space)
    collection.add(tmp_path / "media")
    for path in paths[:deleted]:
        path.unlink()
    summary = collection.add()
    assert (summary.missing, summary.removed) == (kept, deleted - kept)


def test_what_moved_to_another_disk_is_renamed(tmp_path: Path, collection: Collection, media: Path, space) -> None:
    shutil.move(media, tmp_path / "moved")
    summary = collection.add(tmp_path / "moved")
    assert (summary.renamed, summary.removed, summary.missing, space.calls) == (7, 0, 0, [])
    assert collection.add().missing == 0


def test_a_root_is_forgotten(tmp_path: Path, collection: Collection, media: Path, picture) -> None:
    other = picture(tmp_path / "other" / "x.png", "pink").parent
    collection.add(other)
    assert collection.forget(other) == 1
    assert set(collection.info().roots) == {str(media)}
    assert len(collection) == 7
    with pytest.raises(CollectionError, match=f"is not what .* was made of, which is: {media}"):
        collection.forget(other)


def test_one_within_another_is_indexed_as_that_is_from_then_on(collection: Collection, media: Path) -> None:
    collection.add(media / "deep", captions=False)
    assert set(collection.info().roots) == {str(media), str(media / "deep")}
    assert (collection.forget(media / "deep"), len(collection)) == (0, 7)
    collection.forget(media)
    assert len(collection) == 0


def test_info_tells_what_was_skipped(tmp_path: Path, collection: Collection, media: Path) -> None:
    (media / "bad.png").write_bytes(b"no picture")
    (media / "red.png.json").write_text(json.dumps({"year": 2019, "place": "Rome"}))
    collection.add()
    info = collection.info()
    assert list(info.skipped) == [str(media / "bad.png")]
    assert (info.metadata["place"], info.metadata["year"]) == (["Rome"], ["2019"])
    (media / "bad.png").unlink()
    collection.add()
    assert collection.info().skipped == {}


def test_a_slip_of_the_pen_is_no_root(collection: Collection, tmp_path: Path, media: Path) -> None:
    collection.add([media, tmp_path / "mdia"])
    assert set(collection.info().roots) == {str(media)}
