"""Files that are wholly there or not there, and that no planted link leads elsewhere."""

import os
import sys
from pathlib import Path
from typing import IO

import pytest

from trivium.encoders.files.writing import SHARED, TargetError, make_folder, write_file


@pytest.mark.parametrize("content", ["a page \ud800", b"a page \\ud800", lambda file: file.write(b"a page \\ud800")])
def test_a_file_is_written_for_its_owner_alone(tmp_path: Path, content: str) -> None:
    before = os.umask(0)
    try:
        write_file(tmp_path / "page.html", content)
        write_file(tmp_path / "vectors.txt", content, mode=SHARED)
    finally:
        os.umask(before)
    assert (tmp_path / "page.html").read_bytes() == b"a page \\ud800"
    assert (tmp_path / "page.html").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "vectors.txt").stat().st_mode & 0o777 == 0o666
    write_file(tmp_path / "page.html", "another")
    assert (tmp_path / "page.html").read_text() == "another"
    assert sorted(os.listdir(tmp_path)) == ["page.html", "vectors.txt"]


def test_after_an_error_the_old_file_is_there(tmp_path: Path) -> None:
    write_file(tmp_path / "page.html", "old")

    def fail(file: IO[bytes]) -> None:
        file.write(b"half")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        write_file(tmp_path / "page.html", fail)
    assert (tmp_path / "page.html").read_text() == "old"
    assert os.listdir(tmp_path) == ["page.html"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no full disk")
def test_a_full_disk_leaves_no_empty_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is written there always fails; nothing takes the page's place."""
    write_file(tmp_path / "page.html", "old")
    own_open = os.open

    def full(path: object, flags: int, *rest: object, **more: object) -> int:
        is_draft = str(path).endswith(".new")
        descriptor = own_open(path, flags, *rest, **more)  # type: ignore[arg-type]
        if is_draft:
            os.close(descriptor)
            return own_open("/dev/full", os.O_WRONLY)
        return descriptor

    full_open = full
    monkeypatch.setattr(os, "open", full_open)
    monkeypatch.setattr(os, "supports_dir_fd", {*os.supports_dir_fd, full_open})
    with pytest.raises(OSError, match="No space left"):
        write_file(tmp_path / "page.html", "new" * 10_000)
    assert (tmp_path / "page.html").read_text() == "old"
    assert os.listdir(tmp_path) == ["page.html"]


def test_a_link_is_not_written_through(tmp_path: Path) -> None:
    """Neither one to a file, nor one that leads nowhere yet; and a link planted for the draft is in nobody's way."""
    victim = tmp_path / "bashrc"
    victim.write_text("mine")
    for name, to in (("page.html", victim), ("dangling.html", tmp_path / "new")):
        (tmp_path / name).symlink_to(to)
        with pytest.raises(TargetError, match=f"{name} is a link, which is not written through: remove it, or name"):
            write_file(tmp_path / name, "page")
    assert victim.read_text() == "mine"
    assert not (tmp_path / "new").exists()


def test_folders_and_pipes_are_refused(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for name in ("folder", "pipe"):
        with pytest.raises(TargetError, match=f"{name} is not a regular file: name another one"):
            write_file(tmp_path / name, "page")
    with pytest.raises(FileNotFoundError, match="nothing"):
        write_file(tmp_path / "nothing" / "page.html", "page")
    write_file(tmp_path / "file", "x")
    with pytest.raises(TargetError, match="file is not a folder: name another one"):
        write_file(tmp_path / "file" / "page.html", "page")


def test_a_folder_that_we_fill_is_no_link(tmp_path: Path) -> None:
    """`explanations -> Documents` in a folder from elsewhere."""
    documents = tmp_path / "Documents"
    documents.mkdir()
    (tmp_path / "explanations").symlink_to(documents)
    for act in (make_folder, lambda folder: write_file(folder / "01.png", b"x", own_folder=True)):
        with pytest.raises(TargetError, match="explanations is a link: name the folder itself, or another one"):
            act(tmp_path / "explanations")
    assert os.listdir(documents) == []
    write_file(tmp_path / "explanations" / "page.html", "a user may name a file through it")
    make_folder(tmp_path / "a" / "b")
    make_folder(tmp_path / "a" / "b")
    (tmp_path / "file").touch()
    with pytest.raises(TargetError, match="file is not a folder: name another one"):
        make_folder(tmp_path / "file")


@pytest.mark.skipif(sys.platform == "win32", reason="names of 255 bytes are POSIX's")
def test_the_longest_names_can_be_written(tmp_path: Path) -> None:
    for name in ("x" * 250, "ß" * 120, os.fsdecode(b"\xff" * 250)):
        write_file(tmp_path / name, "page")
        assert (tmp_path / name).read_text() == "page"
