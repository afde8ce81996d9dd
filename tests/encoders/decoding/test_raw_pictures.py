"""Camera raw files by their preview, in the sandbox: turned as the camera was, and told from other TIFF files."""

import io
import sys
from collections.abc import Callable, Iterator
from types import ModuleType

import pytest
from PIL import Image

from trivium.encoders.base import DecodeError
from trivium.encoders.decoding.pictures import decode_image
from trivium.encoders.decoding.raw_pictures import is_raw
from trivium.encoders.sandbox.heads import HEAD_BYTES, require_known_head
from trivium.encoders.sandbox.pool import DecodeSandbox


@pytest.fixture(scope="module")
def sandbox() -> Iterator[DecodeSandbox]:
    with DecodeSandbox(1) as pool:
        yield pool


@pytest.fixture
def dng(reference: Callable[[str], ModuleType]) -> Callable[..., bytes]:
    make: Callable[..., bytes] = reference("documents").dng
    return make


def preview(orientation: int | None = None) -> bytes:
    """Red above blue."""
    image = Image.new("RGB", (160, 120), (0, 0, 254))
    image.paste((254, 0, 0), (0, 0, 160, 60))
    file = io.BytesIO()
    exif = image.getexif()
    if orientation is not None:
        exif[274] = orientation
    image.save(file, "JPEG", quality=95, exif=exif)
    return file.getvalue()


@pytest.mark.parametrize(
    ("orientation", "shape", "red_at"),
    [
        (1, (120, 160, 3), (5, 80)),
        (3, (120, 160, 3), (115, 80)),
        (6, (160, 120, 3), (80, 115)),
        (8, (160, 120, 3), (80, 5)),
    ],
)
def test_the_preview_upright(
    orientation: int, shape: tuple[int, int, int], red_at: tuple[int, int], sandbox: DecodeSandbox, dng
) -> None:
    data = dng(preview(), orientation=orientation)
    assert is_raw(data)
    require_known_head("image", data[:HEAD_BYTES])
    pixels = sandbox.decode("image", data)
    assert pixels.shape == shape
    assert pixels[red_at].argmax() == 0
    assert pixels[-red_at[0], -red_at[1]].argmax() == 2


def test_what_the_preview_itself_says_counts(sandbox: DecodeSandbox, dng) -> None:
    jpeg = preview(orientation=6)
    jpeg = jpeg[:2] + jpeg[4 + int.from_bytes(jpeg[4:6]) :]  # as cameras write it: EXIF comes first
    assert jpeg[6:10] == b"Exif"
    assert sandbox.decode("image", dng(jpeg, orientation=3)).shape == (160, 120, 3)


def test_a_side_that_is_known_scales_the_preview(sandbox: DecodeSandbox, dng) -> None:
    assert sandbox.decode("image", dng(preview()), side=20).shape == (60, 80, 3)


def test_without_a_preview(sandbox: DecodeSandbox, dng) -> None:
    with pytest.raises(DecodeError, match="a raw file without a preview in it"):
        sandbox.decode("image", dng(None))


@pytest.mark.parametrize(
    "head",
    [
        *(b"IIRO\x08\0\0\0", b"IIRS\x08\0\0\0", b"MMOR\0\0\0\x08", b"IIU\0\x08\0\0\0", b"FUJIFILMCCD-RAW 0201"),
        *(b"\0\0\0\x18ftypcrx \0\0\0\1", b"II*\0\x10\0\0\0CR\x02\0"),
    ],
)
def test_marks_of_makers_are_known_and_damage_is_told(head: bytes, sandbox: DecodeSandbox) -> None:
    assert is_raw(head)
    require_known_head("image", head.ljust(HEAD_BYTES, b"\0"))
    with pytest.raises(DecodeError, match="not a raw file that can be read: "):
        sandbox.decode("image", head + bytes(1000))


@pytest.mark.parametrize("mode", ["RGB", "L", "I;16"])
def test_a_scan_is_none(mode: str, sandbox: DecodeSandbox) -> None:
    file = io.BytesIO()
    Image.new(mode, (20, 10)).save(file, "TIFF")
    assert not is_raw(file.getvalue())
    assert sandbox.decode("image", file.getvalue()).shape == (10, 20, 3)


@pytest.mark.parametrize("length", [0, 4, 8, 9, 10, 15])
def test_short_heads(length: int) -> None:
    assert not is_raw(b"II*\0\x08\0\0\0\xff\xff\xfe\0\4\0\1\0"[:length])


def test_without_the_extra(dng, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rawpy", None)
    with pytest.raises(DecodeError, match=r"needs trivium\[raw\] \(run pip install 'trivium\[raw\]'\)"):
        decode_image(dng(preview()))
