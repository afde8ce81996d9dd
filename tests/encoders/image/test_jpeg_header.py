"""Which JPEGs are plain: what passes here is decoded outside the sandbox."""

import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import ExifTags, Image

from trivium.encoders.decoding.pictures import decode_image
from trivium.encoders.image import jpeg_header
from trivium.encoders.image.jpeg_header import plain_jpeg_size

ASSETS = Path(__file__).parents[2] / "assets"
STRAWBERRY = (ASSETS / "strawberry.jpg").read_bytes()
WIDTH, HEIGHT = 60, 40


def jpeg(mode: str = "RGB", **options: Any) -> bytes:
    noise = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).convert(mode).save(buffer, "JPEG", **options)
    return buffer.getvalue()


def exif(**tags: Any) -> Image.Exif:
    made = Image.Exif()
    for name, value in tags.items():
        made[ExifTags.Base[name]] = value
    return made


def segment(marker: int, body: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


def with_segment(data: bytes, marker: int, body: bytes) -> bytes:
    return data[:2] + segment(marker, body) + data[2:]


UPRIGHT = b"Exif\0\0II*\0" + struct.pack("<IHHHIHH", 8, 1, 0x0112, 3, 1, 1, 0)


def test_assets() -> None:
    found = {path.name: plain_jpeg_size(path.read_bytes()) for path in ASSETS.iterdir()}
    assert {name: size for name, size in found.items() if size is not None} == {"strawberry.jpg": (200, 200)}


@pytest.mark.parametrize(
    "options",
    [
        *[{}, {"mode": "L"}, {"progressive": True}, {"optimize": True}, {"quality": 100}, {"restart_marker_rows": 1}],
        *[{"subsampling": 0}, {"subsampling": 1}, {"icc_profile": b"x" * 200_000}, {"comment": b"hello"}],
        *[{"exif": exif(Orientation=1)}, {"exif": exif(Make="camera", ImageWidth=3)}, {"xmp": b"<x:xmpmeta/>"}],
    ],
    ids=lambda options: "-".join(options),
)
def test_plain(options: dict[str, Any]) -> None:
    assert plain_jpeg_size(jpeg(**options)) == (HEIGHT, WIDTH)


def test_one_exif_block_is_plain() -> None:
    assert plain_jpeg_size(with_segment(jpeg(), 0xE1, UPRIGHT)) == (HEIGHT, WIDTH)


@pytest.mark.parametrize("endian", ["<", ">"])
def test_exif_in_both_orders(endian: str) -> None:
    for value, expected in ((1, (HEIGHT, WIDTH)), (6, None), (0, None), (256, None)):
        tiff = {"<": b"II*\0", ">": b"MM\0*"}[endian] + struct.pack(f"{endian}IHHHIHH", 8, 1, 0x0112, 3, 1, value, 0)
        assert plain_jpeg_size(with_segment(jpeg(), 0xE1, b"Exif\0\0" + tiff)) == expected


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff\xd8",
        jpeg(mode="CMYK"),
        jpeg(exif=exif(Orientation=6)),
        jpeg(exif=exif(Orientation=3)),
        jpeg(keep_rgb=True),
        jpeg(xmp=b'<rdf:Description tiff:Orientation="6"/>'),
        with_segment(jpeg(), 0xE1, b"Exif\0\0"),
        with_segment(jpeg(), 0xE1, b"Exif\0\0MM\0*" + b"\xff" * 40),
        with_segment(jpeg(), 0xE1, UPRIGHT.replace(b"\1\0\x12", b"\2\0\x12")),  # two entries, of which one is there
        with_segment(with_segment(jpeg(), 0xE1, UPRIGHT), 0xE1, UPRIGHT),  # Pillow reads both as one
        with_segment(jpeg(), 0xEE, b"Adobe\0\x64\0\0\0\0\0"),  # it says: RGB
        with_segment(jpeg(), 0x01, b""),
        jpeg()[:-2],  # no end
        jpeg()[:300],
        jpeg(progressive=True).replace(b"\xff\xd9", b"\xff\xda\0\0" * 100 + b"\xff\xd9"),  # a scan after the other
        b"".join([b"\xff\xd8", segment(0xFE, b"") * 500, jpeg()[2:]]),
        jpeg() + b"\0" * (16 << 20),
        (ASSETS / "airliner.png").read_bytes(),
    ],
    ids=lambda data: f"{len(data)} bytes",
)
def test_not_plain(data: bytes) -> None:
    assert plain_jpeg_size(data) is None


@pytest.mark.parametrize(
    ("place", "byte"),
    [(0, 12), (6, 9), (9, 9), (7, 0x44), (10, 0x22)],
    ids=["12 bits", "identity of brightness", "identity of a colour", "rare sampling", "sampling of a colour"],
)
def test_frame_headers_that_are_not_usual(place: int, byte: int) -> None:
    data = bytearray(jpeg())
    start = data.index(b"\xff\xc0") + 4
    data[start + place] = byte
    assert plain_jpeg_size(bytes(data)) is None


@pytest.mark.parametrize("size", [(0, 60), (40, 0), (20_000, 20_000)])
def test_sizes_that_are_none(size: tuple[int, int]) -> None:
    data = jpeg()
    start = data.index(b"\xff\xc0") + 5
    assert plain_jpeg_size(data[:start] + struct.pack(">HH", *size) + data[start + 4 :]) is None


def test_the_limit_of_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jpeg_header, "MAX_PIXELS", HEIGHT * WIDTH - 1)
    assert plain_jpeg_size(jpeg()) is None


EXIF = jpeg(exif=exif(Orientation=1, Make="camera"))
FILES = st.sampled_from(
    [STRAWBERRY, EXIF, jpeg(progressive=True), jpeg(mode="L"), jpeg(mode="CMYK"), jpeg(keep_rgb=True)]
)


@given(FILES, st.lists(st.tuples(st.integers(0, 700), st.integers(0, 255)), max_size=3), st.integers(0, 3000))
def test_what_passes_is_what_pillow_sees(data: bytes, changes: list[tuple[int, int]], cut: int) -> None:
    """Whatever is changed: never an error, and no picture that another decoder would turn, colour or size otherwise."""
    mutant = bytearray(data)
    for place, byte in changes:
        mutant[place % len(mutant)] = byte
    found = plain_jpeg_size(bytes(mutant) if cut > 2000 else bytes(mutant[:cut]))
    if found is None:
        return
    try:
        with Image.open(io.BytesIO(mutant), formats=("JPEG",)) as image:
            assert (image.height, image.width) == found
            assert image.mode in ("RGB", "L")
            assert image.getexif().get(ExifTags.Base.Orientation, 1) == 1
    except OSError:
        return  # Pillow reads more of the header, and refuses


def test_the_assets_pixels() -> None:
    assert decode_image(STRAWBERRY).size == plain_jpeg_size(STRAWBERRY)
