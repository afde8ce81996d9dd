"""Tags through the sandbox: they come with the content in one visit, and cost it nothing where they cannot be read."""

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from assets import ASSETS
from tagged_media import CAMERA, PACKET, SOUND_TAGS, exif, iptc, picture, sound
from trivium.encoders.base import DecodeError
from trivium.encoders.sandbox.pool import DecodeSandbox
from trivium.encoders.sandbox.process import WorkerFailed, tags_of
from trivium.encoders.tags.reading import FileTags, read_tags
from trivium.encoders.tags.words import Tags

PHOTO = picture(exif=exif(ImageDescription="A dog").tobytes())
PICTURE: Tags = {"width": 32, "height": 24, "description": "A dog"}


def test_a_picture_and_its_tags_come_together() -> None:
    told: list[FileTags] = []
    with DecodeSandbox(1) as sandbox:
        pixels = sandbox.decode("image", PHOTO, on_tags=told.append)
        assert np.array_equal(pixels, sandbox.decode("image", PHOTO))
        assert told == [FileTags(PICTURE, [])]
        assert sandbox.tags("image", PHOTO) == told[0]
        assert len(sandbox.pids) == 1


def test_of_a_file_that_is_not_held(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(PHOTO)
    told: list[FileTags] = []
    with DecodeSandbox(1) as sandbox, (tmp_path / "a.jpg").open("rb", buffering=0) as file:
        sandbox.decode("image", file.fileno(), on_tags=told.append)
        assert sandbox.tags("image", file.fileno()) == told[0] == FileTags(PICTURE, [])


def test_videos_and_sounds(reference: Callable[[str], ModuleType]) -> None:
    pytest.importorskip("av")
    told: list[FileTags] = []
    film = reference("videos").video("mp4", scenes=(("red", 1.0),), tags={"title": "The sea"}, sound="aac")
    with DecodeSandbox(1) as sandbox:
        decoded = sandbox.video(film, lambda pixels: pixels.shape, on_tags=told.append)
        assert len(decoded.frames) > 0
        sandbox.sound((ASSETS / "bell.mp3").read_bytes(), on_tags=told.append)
    assert [tags.tags for tags in told] == [
        {"width": 64, "height": 48, "seconds": 1, "title": "The sea"},
        {"seconds": 2.5},
    ]


def test_a_locked_worker_reads_what_is_read_in_process(reference: Callable[[str], ModuleType]) -> None:
    """All that reading takes is there before it is locked: it can import nothing then."""
    pytest.importorskip("pillow_heif").register_heif_opener()
    pytest.importorskip("av")
    both: dict[str, Any] = {"exif": CAMERA.tobytes(), "xmp": PACKET}
    old = CAMERA.tobytes().replace(b"A dog in the river", "Zürich am Flus é".encode("latin-1"))
    files: list[tuple[Any, bytes]] = [
        *(("image", picture(kind, **both)) for kind in ("JPEG", "WEBP", "AVIF", "HEIF")),
        *(("image", picture(kind, exif=CAMERA.tobytes())) for kind in ("PNG", "TIFF")),
        ("image", picture(exif=old)),
        ("image", iptc(title="Market", keywords=["fish", "Früchte"])),
        ("image", b'<svg xmlns="http://www.w3.org/2000/svg"/>'),
        *(("audio", sound(kind, SOUND_TAGS)) for kind in ("WAV", "FLAC", "OGG", "MP3")),
        *(("video", reference("videos").video(kind, tags={"title": "The sea"})) for kind in ("mp4", "mov", "mkv")),
    ]
    for kind, data in files:
        with DecodeSandbox(1) as sandbox:  # a fresh worker for each
            told = sandbox.tags(kind, data)
        assert told == read_tags(kind, data), data[:12]
        assert not told.problems
    assert sum("title" in read_tags(kind, data).tags for kind, data in files) == 12


def test_what_no_tags_can_be_read_of_says_so_and_the_worker_goes_on() -> None:
    with DecodeSandbox(1) as sandbox:
        (problem,) = sandbox.tags("image", b"no picture").problems
        assert problem.startswith("tags cannot be read: ")
        told: list[FileTags] = []
        with pytest.raises(DecodeError, match="not a picture"):
            sandbox.decode("image", b"no picture", on_tags=told.append)
        assert told == []
        assert sandbox.tags("image", PHOTO).tags == PICTURE


WORKER = """
import json, os, socket, struct, sys
link = socket.socket(fileno=0)
def send(**header):
    text = json.dumps(header).encode()
    link.sendall(struct.pack("<I", len(text)) + text)
def take(size):
    data = b""
    while len(data) < size:
        data += link.recv(size - len(data))
    return data
send(ready=True)
while True:
    request = json.loads(take(struct.unpack("<I", take(4))[0]))
    take(request["size"])
    if request["asks"]:
        os._exit(11)
    send(shape=[1, 1, 3])
    link.sendall(b"abc")
"""


def test_a_decoder_that_dies_of_the_tags_decodes_without_them() -> None:
    told: list[FileTags] = []
    with DecodeSandbox(1, command=[sys.executable, "-P", "-c", WORKER]) as sandbox:
        assert sandbox.decode("image", b"x", on_tags=told.append).tolist() == [[[97, 98, 99]]]
        assert told == [FileTags({}, ["tags cannot be read: the decoder failed on them"])]
        (problem,) = sandbox.tags("image", b"x").problems
        assert problem.startswith("tags cannot be read: the decoder crashed on it")


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"tags": {}},
        {"tags": [], "problems": []},
        {"tags": {"a": {"b": 1}}, "problems": []},
        {"tags": {"a": [1]}, "problems": []},
        {"tags": {"a": float("nan")}, "problems": []},
        {"tags": {"a": None}, "problems": []},
        {"tags": {}, "problems": [1]},
    ],
)
def test_tags_that_no_sane_worker_tells(answer: dict[str, Any]) -> None:
    with pytest.raises(WorkerFailed, match="makes no sense"):
        tags_of(answer)
