"""Pictures whose files are cut off: what is there of them is taken, and the share that is told is the true one."""

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import ExifTags, Image

from assets import ASSETS
from trivium.encoders.base import DecodeError
from trivium.encoders.decoding.pictures import decode_image

SIZE = (320, 400)
ALL_THERE = ["the file is cut off behind its last pixel; all of the picture is there"]
JPEGS: dict[str, dict[str, Any]] = {
    "usual": {"quality": 90},
    "no subsampling": {"quality": 95, "subsampling": 0},
    "restarts each row": {"quality": 90, "restart_marker_rows": 1},
    "restarts within rows": {"quality": 90, "restart_marker_blocks": 7},
    "grey": {"quality": 90},
}


def photo(size: tuple[int, int] = SIZE) -> Image.Image:
    with Image.open(ASSETS / "strawberry.jpg") as image:
        grain = np.random.default_rng(0).normal(0, 6, (size[1], size[0], 3))
        return Image.fromarray((np.asarray(image.convert("RGB").resize(size)) + grain).clip(0, 255).astype(np.uint8))


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def jpeg(name: str = "usual", **more: Any) -> bytes:
    return encoded(photo().convert("L") if name == "grey" else photo(), "JPEG", **JPEGS[name], **more)


def taken(data: bytes, **how: Any) -> tuple[NDArray[np.uint8], list[str]]:
    notes = list[str]()
    return np.asarray(decode_image(data, partial=True, note=notes.append, **how)), notes


@pytest.mark.parametrize("cut", [1, 2])
@pytest.mark.parametrize("name", JPEGS)
def test_a_jpeg_without_its_end_marker_is_whole(name: str, cut: int) -> None:
    data = jpeg(name)
    expected = np.asarray(decode_image(data))
    found, notes = taken(data[:-cut])
    np.testing.assert_array_equal(found, expected)
    assert notes == ALL_THERE
    np.testing.assert_array_equal(np.asarray(decode_image(data[:-2])), expected)  # strict: no pixel is missing


def test_a_progressive_jpeg_without_its_end_marker_is_whole() -> None:
    data = encoded(photo(), "JPEG", progressive=True)
    found, notes = taken(data[:-2])
    np.testing.assert_array_equal(found, np.asarray(decode_image(data)))
    assert notes == ALL_THERE


@pytest.mark.parametrize("side", [None, 32])
@pytest.mark.parametrize("share", [0.6, 0.75, 0.95])
@pytest.mark.parametrize("name", JPEGS)
def test_rows_that_are_there_of_a_jpeg(name: str, share: float, side: int | None) -> None:
    data = jpeg(name)
    expected = np.asarray(decode_image(data, side=side))
    found, notes = taken(data[: int(share * len(data))], side=side)
    rows = len(found)
    assert share - 0.1 <= rows / len(expected) <= share + 0.1
    np.testing.assert_array_equal(found[:-8], expected[: rows - 8])
    assert notes == [f"the file is cut off: {int(100 * rows / len(expected))} % of its rows are there"]
    with pytest.raises(DecodeError, match=r"^damaged picture: truncated, \d+ % of its rows are there$"):
        decode_image(data[: int(share * len(data))], side=side)


@pytest.mark.parametrize("name", JPEGS)
def test_less_than_half_is_refused(name: str) -> None:
    data = jpeg(name)
    with pytest.raises(
        DecodeError, match=r"truncated, only [23]\d % of its rows are there, and more than half must be"
    ):
        taken(data[: int(0.3 * len(data))])


@pytest.mark.parametrize("name", JPEGS)
def test_zeros_where_the_rest_should_be_are_no_pixels(name: str) -> None:
    """As a download leaves them that sets the file's size first."""
    data = jpeg(name)
    at = int(0.7 * len(data))
    found, _ = taken(data[:at] + bytes(len(data) - at))
    without, _ = taken(data[:at])
    np.testing.assert_array_equal(found, without)


@pytest.mark.parametrize("share", [0.4, 0.6, 0.9])
def test_a_progressive_jpeg_has_all_rows_early(share: float) -> None:
    data = encoded(photo(), "JPEG", progressive=True, quality=90)
    expected = np.asarray(decode_image(data)).astype(float)
    cut = data[: int(share * len(data))]
    assert 1 < cut.count(b"\xff\xda") <= data.count(b"\xff\xda")
    found, notes = taken(cut)
    assert found.shape == expected.shape
    assert np.abs(found - expected).mean() < 12
    assert notes == ["the file is cut off: all of its rows are there, but coarser"]
    with pytest.raises(DecodeError, match="damaged picture: truncated, all of its rows are there, but coarser"):
        decode_image(cut)


def test_a_preview_in_the_metadata_is_none_of_its_scans() -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.ImageDescription] = "\xff\xda" * 50
    data = encoded(photo(), "JPEG", exif=b"Exif\0\0" + b"\xff\xda" * 50)
    found, notes = taken(data[: int(0.7 * len(data))])
    assert len(found) < SIZE[1]
    assert "% of its rows" in notes[0]


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_what_is_there_is_brought_upright(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    data = encoded(photo(), kind, exif=exif)
    expected = np.asarray(decode_image(data))
    found, _ = taken(data[: int(0.7 * len(data))])
    stored, _ = taken(encoded(photo(), kind)[: int(0.7 * len(data))])
    back = {3: 2, 6: 1, 8: 3}[orientation]  # quarters, counterclockwise
    rows = np.rot90(found, back)
    assert rows.shape[1] == SIZE[0]
    np.testing.assert_array_equal(rows[:-8], np.rot90(expected, back)[: len(rows) - 8])
    assert abs(len(rows) - len(stored)) < 20


OTHERS: dict[str, Callable[[], bytes]] = {
    "png": lambda: encoded(photo(), "PNG"),
    "png alpha": lambda: encoded(photo().convert("RGBA"), "PNG"),
    "png palette": lambda: encoded(photo().quantize(200), "PNG"),
    "png 16 bits": lambda: encoded(photo().convert("L").convert("I;16"), "PNG"),
    "png 1 bit": lambda: encoded(photo().convert("1"), "PNG"),
    "tiff": lambda: encoded(photo(), "TIFF"),
    "gif": lambda: encoded(photo(), "GIF", interlace=0),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_rows_that_are_there_of_other_formats(kind: str) -> None:
    data = OTHERS[kind]()
    expected = np.asarray(decode_image(data))
    cut = data[: int(0.7 * len(data))]
    found, notes = taken(cut)
    assert 0.6 < len(found) / len(expected) < 0.8
    np.testing.assert_array_equal(found[:-1], expected[: len(found) - 1])
    assert notes == [f"the file is cut off: {int(100 * len(found) / len(expected))} % of its rows are there"]
    with pytest.raises(DecodeError, match="damaged picture: truncated"):
        decode_image(cut)
    with pytest.raises(DecodeError, match="and more than half must be"):
        taken(data[: int(0.3 * len(data))])


@pytest.mark.parametrize("padding", [1, 31, 32, 5000])
def test_padding_behind_the_end_is_nothing(padding: int) -> None:
    found, notes = taken(jpeg() + bytes(padding))
    np.testing.assert_array_equal(found, np.asarray(decode_image(jpeg())))
    assert notes == []


def test_rows_that_are_there_of_an_interlaced_gif() -> None:
    data = encoded(photo(), "GIF", interlace=1)
    expected = np.asarray(decode_image(data))
    found, notes = taken(data[: int(0.7 * len(data))])
    assert 0.6 < len(found) / len(expected) < 0.8
    places = iter(expected)
    assert sum(any(np.array_equal(row, place) for place in places) for row in found) >= len(found) - 1  # in order
    assert "% of its rows" in notes[0]


def test_a_bitmap_begins_with_its_last_row() -> None:
    data = encoded(photo(), "BMP")
    found, _ = taken(data[: int(0.7 * len(data))])
    np.testing.assert_array_equal(found, np.asarray(photo())[-len(found) :])


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("WEBP", {}, r"truncated, the header says [\d,]+ bytes, [\d,]+ are there"),
        ("TIFF", {"compression": "tiff_lzw"}, "truncated, the index of the picture is not there"),
    ],
)
def test_where_nothing_can_be_decoded_the_reason_is_told(kind: str, options: dict[str, Any], message: str) -> None:
    data = encoded(photo(), kind, **options)
    with pytest.raises(DecodeError, match=message):
        taken(data[: int(0.9 * len(data))])


@pytest.mark.parametrize("shade", [0, 128, 255])
def test_what_a_decoder_leaves_where_it_has_no_data_may_be_the_picture(shade: int) -> None:
    data = encoded(Image.new("RGB", SIZE, (shade,) * 3), "JPEG")
    found, notes = taken(data[:-2])
    np.testing.assert_array_equal(found, np.asarray(decode_image(data)))
    assert notes == ALL_THERE


def test_a_picture_of_one_row_or_column() -> None:
    for size in ((1, 40), (40, 1), (1, 1)):
        data = encoded(photo(size), "JPEG")
        found, notes = taken(data[:-2])
        assert found.shape == (size[1], size[0], 3)
        assert notes == ALL_THERE
