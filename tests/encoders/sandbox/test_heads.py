"""Large files are refused by their first bytes, and by what of them is there, before they are read."""

import os
from pathlib import Path

import numpy as np
import pytest

from assets import ASSETS
from trivium.encoders.base import DecodeError, UnreadableError
from trivium.encoders.decoding.pictures import decode_image
from trivium.encoders.files.reading import open_file
from trivium.encoders.sandbox import heads as file_heads
from trivium.encoders.sandbox.heads import HEAD_BYTES, decodable, require_filled, require_known_head
from trivium.encoders.sandbox.kinds import MediaKind
from trivium.encoders.sandbox.pool import DecodeSandbox

KINDS: dict[str, MediaKind] = {
    **dict.fromkeys((".png", ".jpg", ".webp", ".svg"), "image"),
    **dict.fromkeys((".wav", ".mp3", ".ogg"), "audio"),
}


@pytest.mark.parametrize(
    "path", [path for path in sorted(ASSETS.iterdir()) if path.suffix in KINDS], ids=lambda p: p.name
)
def test_what_decoders_take_passes(path: Path) -> None:
    require_known_head(KINDS[path.suffix], path.read_bytes()[:HEAD_BYTES])


@pytest.mark.parametrize(
    ("kind", "head"),
    [
        ("image", b"II*\0\x08"),
        ("image", b"MM\0*\0"),
        ("image", b"II+\0\x08"),
        ("image", b"BM\0\0"),
        ("image", b"GIF89a"),
        ("image", b"\0\0\0\x20ftypheic"),
        ("image", b"\xef\xbb\xbf \n<?xml"),
        ("audio", b"RF64"),
        ("audio", b"fLaC"),
        ("audio", b"ID3\x04"),
        ("audio", b"\xff\xfb\x90"),
        ("video", b"\0\0\0\x20ftypisom"),
        ("video", b"\0\0\0\x08wide"),
        ("video", b"\x1a\x45\xdf\xa3"),
        ("text", bytes(64)),  # anything may be a text
    ],
)
def test_more_that_decoders_take(kind: MediaKind, head: bytes) -> None:
    require_known_head(kind, head)


@pytest.mark.parametrize(
    ("kind", "words"),
    [("image", "not a picture"), ("audio", "not a sound"), ("video", "neither MP4 nor QuickTime")],
)
@pytest.mark.parametrize("head", [bytes(64), b"", b"%PDF-1.7", b"hello world, this is a text"])
def test_what_no_decoder_takes_is_refused(kind: MediaKind, head: bytes, words: str) -> None:
    with pytest.raises(DecodeError, match=words):
        require_known_head(kind, head)


def sparse(path: Path, *, size: int, there: int) -> Path:
    with path.open("wb") as file:
        file.write(os.urandom(there))
        file.truncate(size)
    return path


def test_a_file_of_holes_is_refused_unread(tmp_path: Path) -> None:
    path = sparse(tmp_path / "film.mp4", size=20 << 30, there=1 << 16)
    with open_file(path, max_bytes=1 << 40) as file:
        if file.status.st_blocks * 512 > 1 << 20:
            pytest.skip("this file system has no holes")
        with pytest.raises(UnreadableError, match=r"only 65,536 of its 21,474,836,480 bytes are on the disk"):
            require_filled(file.descriptor, file.status)


@pytest.mark.parametrize(("size", "there"), [(1 << 20, 1 << 20), (64 << 20, 1 << 20)])
def test_a_file_that_is_there_passes_and_is_read_from_its_start(tmp_path: Path, size: int, there: int) -> None:
    path = sparse(tmp_path / "film.mp4", size=size, there=there)
    with open_file(path) as file:
        head = file.head(HEAD_BYTES)
        require_filled(file.descriptor, file.status)
        whole = file.read()
    assert len(head) == HEAD_BYTES
    assert whole == path.read_bytes()
    assert whole.startswith(head)


def test_a_file_system_that_counts_no_blocks_is_asked_for_holes(tmp_path: Path) -> None:
    """Some report 0 blocks for everything: their files are there all the same."""
    path = sparse(tmp_path / "film.mp4", size=1 << 20, there=1 << 20)

    class Status:
        st_size = 1 << 20
        st_blocks = 0

    with open_file(path) as file:
        require_filled(file.descriptor, Status())  # type: ignore[arg-type]


def test_the_decoder_reads_large_files_itself(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    picture = ASSETS / "airliner.png"
    with decodable("image", picture) as source:
        assert source == picture.read_bytes()
    with decodable("image", b"bytes") as source:
        assert source == b"bytes"
    monkeypatch.setattr(file_heads, "MAX_HELD_BYTES", 10)
    (tmp_path / "link.png").symlink_to(picture)
    for path in (picture, str(tmp_path / "link.png")):
        with decodable("image", path) as source, DecodeSandbox(1) as sandbox:
            assert isinstance(source, int)
            np.testing.assert_array_equal(
                sandbox.decode("image", source), np.asarray(decode_image(picture.read_bytes()))
            )
    with pytest.raises(DecodeError, match="not a picture"), decodable("image", ASSETS / "beep.wav"):
        pass


def test_a_file_that_changes_meanwhile_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(file_heads, "MAX_HELD_BYTES", 10)
    path = tmp_path / "photo.png"
    path.write_bytes((ASSETS / "airliner.png").read_bytes())
    with pytest.raises(UnreadableError, match="changed while it was being read"), decodable("image", path):
        path.write_bytes(b"something else")
