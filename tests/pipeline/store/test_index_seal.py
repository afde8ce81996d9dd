"""FAISS reads only index files that this user's Trivium has written on this machine."""

import contextlib
import logging
import shutil
import sqlite3
from pathlib import Path

import numpy as np
import pytest

from trivium.encoders.base import Space, unit_rows
from trivium.encoders.files.reading import file_state
from trivium.pipeline.records import ContentKey, NewItem
from trivium.pipeline.search.indexing import build_index_file
from trivium.pipeline.search.retrieval import Retrieval
from trivium.pipeline.search.vectors import usable_index
from trivium.pipeline.store import index_seal
from trivium.pipeline.store.store import Store
from trivium.pipeline.store.writer import writing
from trivium.pipeline.upkeep.verification import verify

SPACE = Space(name="stub", dim=16, revision="1")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    store = Store.create(tmp_path / "c", SPACE, source="stub")
    keys = [ContentKey("image", f"{number:032}".encode()) for number in range(20)]
    items = [
        NewItem(path=f"/m/{number}", modality="image", fingerprint="f", contents={"content": key})
        for number, key in enumerate(keys)
    ]
    with writing(store) as writer:
        writer.commit(items, keys, unit_rows(np.random.default_rng(0).normal(size=(20, SPACE.dim))))
        build_index_file(writer, "image", kind="flat")
    store.close()
    return tmp_path / "c"


def usable(folder: Path) -> bool:
    store = Store(folder)
    with contextlib.closing(store):
        return usable_index(store, store.index_files()["image"]) is not None


def test_an_untouched_file_is_read(folder: Path) -> None:
    assert usable(folder)


def test_a_copy_of_ones_own_is_read(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "copy")
    assert usable(tmp_path / "copy")
    (note,) = verify(tmp_path / "copy", read_data=False).findings
    assert "each opening hashes it first" in note.what


def test_a_strangers_file_is_not_read_and_searches_are_right(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(folder, tmp_path / "copy")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "another"))  # as on another machine
    with caplog.at_level(logging.WARNING):
        assert not usable(tmp_path / "copy")
    assert "was not made here by this Trivium and is not used" in caplog.text
    (note,) = verify(tmp_path / "copy").findings
    assert "it was not made here by this Trivium" in note.what
    assert not note.is_damage
    (note,) = verify(tmp_path / "copy", read_data=True).findings
    assert "it was not made here by this Trivium" in note.what
    query = unit_rows(np.ones((1, SPACE.dim)))
    found = [Retrieval(Store(place)).search(query, k=5)[0] for place in (folder, tmp_path / "copy")]
    assert [hit.path for hit in found[0]] == [hit.path for hit in found[1]]
    store = Store(tmp_path / "copy")
    with writing(store) as writer:
        build_index_file(writer, "image", kind="flat")
    assert usable(tmp_path / "copy")


def test_a_forged_seal_is_none(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "copy")
    with contextlib.closing(sqlite3.connect(tmp_path / "copy" / "collection.db")) as db:
        db.execute("UPDATE index_file SET state = '0-0-0-0-0 ' || hex(zeroblob(32))")
        db.commit()
    assert not usable(tmp_path / "copy")


def test_a_changed_copy_is_damaged(folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    shutil.copytree(folder, tmp_path / "copy")
    (file,) = (tmp_path / "copy" / "index").iterdir()
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    with caplog.at_level(logging.WARNING):
        assert not usable(tmp_path / "copy")
    assert "is damaged and is not used" in caplog.text


def test_the_key_is_the_users_alone(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    assert index_seal._key(make=True)
    (key,) = (tmp_path / "data" / "trivium").iterdir()
    assert key.stat().st_mode & 0o777 == 0o600


def test_where_no_key_can_be_kept_moved_files_are_not_read(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "file" / "data"))
    assert index_seal._key(make=True) == b""
    shutil.copytree(folder, tmp_path / "copy")
    assert usable(folder)
    assert not usable(tmp_path / "copy")


def test_a_file_with_the_times_that_the_database_says_is_not_read_for_that(folder: Path) -> None:
    """A stranger's disk may give a file any inode and times, and its database say the same."""
    (file,) = (folder / "index").iterdir()
    with contextlib.closing(sqlite3.connect(folder / "collection.db")) as db:
        db.execute("UPDATE index_file SET state = ?", (file_state(file),))
        db.commit()
    assert not usable(folder)


def test_without_a_key_times_are_what_there_is(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container whose home is new each time."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "another"))
    assert usable(folder)
    assert not (tmp_path / "another").exists()
