"""What is parsed of media in this process: headers, containers, texts, and the answers of the process that decodes."""

import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from trivium.encoders.base import DecodeError
from trivium.encoders.decoding.containers import layout_of
from trivium.encoders.decoding.pictures import MAX_PIXELS
from trivium.encoders.decoding.texts import decode_text, first_line
from trivium.encoders.image.on_gpu import plain_jpeg_size
from trivium.encoders.sandbox.process import WorkerFailed, frame_seconds, picture_shape, sound_shape, stream_shape

CASES: Any = sys.modules["__main__"]
MUTATIONS = CASES.load_beside("mutations")
ASSETS = Path(__file__).parents[1] / "assets"
LENGTHS = (0, 1, 2, 7, 8, 16, 255, 0x7FFF, 0xFFFF)
EXIF = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x01\0\0\0\0\0\0\0"
TEXTS = ["a note\nof two lines\n", "# caf\u00e9\n", "\u65e5\u672c\n" * 9, "x" * 5_000, "\x1b[31m\u202e", " \n\t", ""]
ENCODINGS = ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32", "cp1252", "latin-1"]


def jpeg_of(rng: random.Random) -> bytes:
    """Segments in any order, some of which lie about their lengths."""
    data = b"\xff\xd8"
    for _ in range(rng.choice((1, 3, 5, 300, 301))):
        marker = rng.choice((0xC0, 0xC1, 0xC2, 0xC4, 0xDB, 0xE0, 0xE1, 0xEE, 0xFE, 0xDA, rng.randrange(256)))
        body = rng.choice((rng.randbytes(rng.randrange(30)), EXIF, b"Adobe" + rng.randbytes(7), b"Orientation", b""))
        if marker in (0xC0, 0xC1, 0xC2):
            count = rng.choice((1, 3, 3, 3, 4, 255))
            body = bytes([8]) + rng.randbytes(4) + bytes([count])
            body += b"".join(bytes([n + 1, rng.choice((0x11, 0x22, 0)), 0]) for n in range(rng.choice((count, 3))))
        length = len(body) + 2 if rng.random() < 0.9 else rng.choice(LENGTHS)
        data += bytes([0xFF, marker]) + length.to_bytes(2) + body
    return data + rng.choice((b"", b"\xff\xd9", rng.randbytes(20), b"\xff\xda" * 70 + b"\xff\xd9"))


def boxes_of(rng: random.Random) -> bytes:
    data = b""
    for _ in range(rng.choice((1, 2, 5, 2_000))):
        name = rng.choice((b"ftyp", b"moov", b"mdat", b"free", b"wide", b"skip", rng.randbytes(4)))
        body = rng.choice((b"isom", b"avif", b"", rng.randbytes(20)))
        size = len(body) + 8 if rng.random() < 0.9 else rng.choice((0, 1, 7, 8, 1 << 31, (1 << 32) - 1))
        data += size.to_bytes(4) + name + (rng.choice((0, 16, 1 << 63)).to_bytes(8) if size == 1 else b"") + body
    return data


def matroska_of(rng: random.Random) -> bytes:
    size = rng.choice((b"\x80", b"\xff", b"\x01" + b"\xff" * 7, b"\x00", b"\x40", rng.randbytes(rng.randrange(9))))
    return (
        b"\x1a\x45\xdf\xa3" + size + rng.choice((b"\x18\x53\x80\x67", b"", rng.randbytes(4))) + size + rng.randbytes(9)
    )


def answer_of(rng: random.Random) -> dict[str, Any]:
    odd = [*MUTATIONS.ODD, [5, 5, 3], [5], [True, 5, 3], [True], [1 << 40, 1 << 40, 3], [5.0], 44_100, 8_000, 0.5]
    keys = ("shape", "rate_hz", "peak", "seconds", "error", "reason", "frames")
    return {key: rng.choice(odd) for key in rng.sample(keys, rng.randrange(len(keys) + 1))}


class HostileHeaders:
    """Files of media, as far as they are looked into before they are decoded elsewhere."""

    documented = (DecodeError, WorkerFailed)

    def __init__(self, scratch: Path) -> None:
        self.watched: list[Path] = []
        self._jpeg = (ASSETS / "strawberry.jpg").read_bytes()

    def restore(self) -> None:
        """See `cases.Target`."""

    def case(self, rng: random.Random, number: int) -> Any:
        jpeg = jpeg_of(rng) if rng.random() < 0.5 else MUTATIONS.bytes_changed(self._jpeg[:4096], rng)[0]
        box, matroska, answer = boxes_of(rng), matroska_of(rng), answer_of(rng)
        text = rng.choice(TEXTS).encode(rng.choice(ENCODINGS), "replace")
        if rng.random() < 0.5:
            text = MUTATIONS.bytes_changed(text, rng)[0]
        shapes = (shape_of_picture, sound_shape, stream_shape, frame_seconds)
        operations: list[tuple[str, Callable[[], object]]] = [
            ("jpeg", lambda: _sane_size(plain_jpeg_size(jpeg))),
            ("boxes", lambda: layout_of(box)),
            ("matroska", lambda: layout_of(matroska)),
            ("text", lambda: first_line(decode_text(text))),
            *((shape.__name__, lambda shape=shape: shape(answer)) for shape in shapes),
        ]  # fmt: skip
        return CASES.Case(
            [repr(answer)[:99], jpeg[:99].hex(), box[:99].hex(), matroska.hex(), text[:99].hex()], operations
        )


def shape_of_picture(answer: dict[str, Any]) -> tuple[int, int, int]:
    return picture_shape(answer, MAX_PIXELS)


def _sane_size(size: tuple[int, int] | None) -> None:
    if size is not None and not (0 < size[0] <= 65_535 and 0 < size[1] <= 65_535):
        raise CASES.LeakError(f"a picture of {size}")


TARGETS = {"headers": HostileHeaders}
