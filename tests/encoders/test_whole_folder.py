"""Folders that are wholly there or not there."""

from pathlib import Path

import pytest

from trivium.encoders.whole_folder import is_other, written_whole


def test_a_folder_takes_the_place_of_one_that_was_there(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    for content in ("old", "new"):
        with written_whole(folder) as draft:
            (draft / "model.json").write_text(content)
    assert (folder / "model.json").read_text() == "new"
    assert [path.name for path in folder.parent.iterdir()] == ["b"]
    assert folder.stat().st_mode & 0o777 == 0o755


def test_after_an_error_nothing_has_changed(tmp_path: Path) -> None:
    folder = tmp_path / "b"
    with written_whole(folder) as draft:
        (draft / "model.json").write_text("old")

    def fail() -> None:
        with written_whole(folder) as draft:
            (draft / "model.json").write_text("half")
            raise RuntimeError("the disk is full")

    with pytest.raises(RuntimeError, match="full"):
        fail()
    assert (folder / "model.json").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_what_must_not_be_replaced(tmp_path: Path) -> None:
    photos, empty, model, file = (tmp_path / name for name in ("photos", "empty", "model", "file"))
    for folder in (photos, empty, model):
        folder.mkdir()
    (photos / "a.jpg").touch()
    (model / "model.json").touch()
    file.touch()
    asked = (photos, file, empty, model, tmp_path / "new")
    assert [is_other(path, marker="model.json") for path in asked] == [True, True, False, False, False]
