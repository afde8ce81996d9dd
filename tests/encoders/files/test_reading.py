"""Reading files that may be anything: never hangs, never follows a link by surprise, always a plain reason."""

import os
import socket
from pathlib import Path

import pytest

from trivium.encoders import DecodeError
from trivium.encoders.files.reading import item_bytes, read_file

posix = pytest.mark.skipif(os.name != "posix", reason="POSIX file types")


@pytest.fixture
def note(tmp_path: Path) -> Path:
    path = tmp_path / "note.txt"
    path.write_bytes(b"content")
    return path


def test_regular_file(note: Path) -> None:
    assert read_file(note) == b"content"
    assert read_file(str(note)) == b"content"
    assert read_file(os.fsencode(note)) == b"content"


def test_limit(note: Path) -> None:
    assert read_file(note, max_bytes=7) == b"content"
    with pytest.raises(DecodeError, match="too large: 7 bytes, the limit is 6"):
        read_file(note, max_bytes=6)


def test_large_sparse_file_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        file.truncate(5 * 1024**3)
    with pytest.raises(DecodeError, match="too large: 5,368,709,120 bytes, the limit is 1,073,741,824"):
        read_file(path)


def test_empty(tmp_path: Path) -> None:
    path = tmp_path / "empty"
    path.touch()
    with pytest.raises(DecodeError, match="the file is empty"):
        read_file(path)


def test_missing(tmp_path: Path) -> None:
    with pytest.raises(DecodeError, match="the file is gone"):
        read_file(tmp_path / "missing")


def test_file_in_place_of_a_folder(note: Path) -> None:
    with pytest.raises(DecodeError, match=r"gone|cannot be opened"):
        read_file(note / "below")


def test_name_too_long(tmp_path: Path) -> None:
    with pytest.raises(DecodeError, match="cannot be opened: File name too long"):
        read_file(tmp_path / ("x" * 5000))


def test_folder(tmp_path: Path) -> None:
    with pytest.raises(DecodeError, match=r"not a regular file|Is a directory"):
        read_file(tmp_path)


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="counts descriptors through /proc")
@pytest.mark.parametrize(
    "kind",
    ["folder", "fifo", "empty", "large"],
)
def test_descriptors_are_closed(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "item"
    if kind == "folder":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        path.write_bytes(b"" if kind == "empty" else b"large")
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        with pytest.raises(DecodeError):
            read_file(path, max_bytes=3)
    assert len(os.listdir("/proc/self/fd")) == before


@posix
@pytest.mark.parametrize("reader", [read_file, item_bytes])
def test_fifo_does_not_hang(tmp_path: Path, reader: type[bytes]) -> None:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    with pytest.raises(DecodeError, match="not a regular file"):
        reader(path)


@posix
def test_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # a socket's path may have about 100 characters
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")
        with pytest.raises(DecodeError, match="cannot be opened"):
            read_file("socket")


@pytest.mark.skipif(not os.path.exists("/dev/zero"), reason="needs /dev/zero")
def test_device() -> None:
    with pytest.raises(DecodeError, match="not a regular file"):
        read_file("/dev/zero")


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="needs /proc")
def test_file_whose_size_lies() -> None:
    # Files in /proc say 0 bytes and give more, as a growing file does.
    with pytest.raises(DecodeError, match="changed while it was being read"):
        read_file("/proc/self/status")


@posix
def test_link(tmp_path: Path, note: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(note)
    with pytest.raises(DecodeError, match="a symbolic link, not followed"):
        read_file(link)
    # Named by the caller as an item, it is followed.
    assert item_bytes(link) == b"content"
    assert item_bytes(str(link)) == b"content"


@posix
def test_dangling_link(tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "missing")
    with pytest.raises(DecodeError, match="a symbolic link, not followed"):
        read_file(link)
    with pytest.raises(DecodeError, match="the file is gone"):
        item_bytes(link)


@posix
def test_link_to_itself(tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(link)
    with pytest.raises(DecodeError, match=r"symbolic link|cannot be opened"):
        item_bytes(link)


@posix
@pytest.mark.skipif(hasattr(os, "geteuid") and os.geteuid() == 0, reason="root may read everything")
def test_unreadable(note: Path) -> None:
    note.chmod(0)
    with pytest.raises(DecodeError, match="permission denied"):
        read_file(note)


def test_name_with_nul() -> None:
    with pytest.raises(DecodeError, match=r"cannot be opened|null"):
        read_file("a\0b")


def test_bytes_are_the_item(note: Path) -> None:
    assert item_bytes(b"abc") == b"abc"
    assert item_bytes(note) == b"content"
    with pytest.raises(DecodeError, match="no bytes"):
        item_bytes(b"")
