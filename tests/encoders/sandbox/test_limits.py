"""Pictures that are larger than usual: cheap as JPEG, on request as anything; and what is said when memory runs out."""

import io
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from PIL import Image

from trivium.encoders.base import DecodeError, SandboxError
from trivium.encoders.sandbox import limits as limits_module
from trivium.encoders.sandbox.limits import Limits, limits_of
from trivium.encoders.sandbox.mode import asked_for
from trivium.encoders.sandbox.pool import DecodeSandbox

RAISES = r"\(--max-megapixels or TRIVIUM_MAX_MEGAPIXELS raises it\)"


@pytest.fixture(scope="module")
def box() -> Iterator[DecodeSandbox]:
    with DecodeSandbox(1) as box:
        yield box


def halves(width: int, height: int, kind: str, **options: Any) -> bytes:
    """Red above, blue below."""
    image = Image.new("RGB", (width, height), "red")
    image.paste("blue", (0, height // 2, width, height))
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def blank_png(width: int, height: int) -> bytes:
    """Grey of 8 bits, compressed as it is made."""
    squeeze = zlib.compressobj(1)
    row = bytes(width + 1)
    data = b"".join(squeeze.compress(row) for _ in range(height)) + squeeze.flush()
    header = width.to_bytes(4) + height.to_bytes(4) + bytes([8, 0, 0, 0, 0])

    def chunk(name: bytes, content: bytes) -> bytes:
        return len(content).to_bytes(4) + name + content + zlib.crc32(name + content).to_bytes(4)

    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def as_if(width: int, height: int) -> bytes:
    """A small JPEG whose header says another size."""
    data = bytearray(halves(64, 64, "JPEG"))
    size = data.index(b"\xff\xc0") + 5
    data[size : size + 4] = height.to_bytes(2) + width.to_bytes(2)
    return bytes(data)


@pytest.mark.parametrize(
    ("width", "height", "options"),
    [
        (12_000, 9_000, {}),
        pytest.param(11_608, 8_708, {"progressive": True, "subsampling": 0}, marks=pytest.mark.slow),
    ],
    ids=["a phone of 108", "a camera of 101, progressive"],
)
def test_jpegs_of_more_than_100_megapixels(box: DecodeSandbox, width: int, height: int, options: Any) -> None:
    found = box.decode("image", halves(width, height, "JPEG", **options), side=224)
    assert found.shape == (-(-height // 8), -(-width // 8), 3)
    assert np.abs(found[:500].astype(int) - (254, 0, 0)).max() <= 2
    assert np.abs(found[-500:].astype(int) - (0, 0, 254)).max() <= 2


@pytest.mark.parametrize(
    ("width", "height", "side", "limit"),
    [
        (12_000, 9_000, None, "100,000,000"),
        (60_000, 1_700, 850, "100,000,000"),  # too narrow to be scaled
        (20_000, 20_001, 224, "400,000,000"),
    ],
)
def test_jpegs_have_limits(box: DecodeSandbox, width: int, height: int, side: int | None, limit: str) -> None:
    with pytest.raises(DecodeError, match=f"^too many pixels: {width} x {height}, the limit is {limit} {RAISES}$"):
        box.decode("image", as_if(width, height), side=side)


def test_others_on_request(box: DecodeSandbox) -> None:
    data = blank_png(12_000, 9_000)
    with pytest.raises(DecodeError, match=f"^too many pixels: 12000 x 9000, the limit is 100,000,000 {RAISES}$"):
        box.decode("image", data)
    with DecodeSandbox(1, limits=limits_of(108)) as larger:
        assert larger.decode("image", data).shape == (9_000, 12_000, 3)
    with asked_for(None, max_megapixels=108), DecodeSandbox(1) as larger:
        assert larger.limits.max_pixels == 108_000_000


def test_time_and_memory_grow_with_the_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits_module, "memory_bytes", lambda: 64 << 30)
    usual, larger, smaller = Limits(), limits_of(250), limits_of(1)
    assert limits_of() == usual
    assert (larger.max_pixels, larger.memory_bytes) == (250_000_000, 5 << 30)
    assert larger.cpu_seconds("image", 0) == 25
    assert larger.cpu_seconds("audio", 0) == usual.cpu_seconds("audio", 0)
    assert (smaller.max_pixels, smaller.memory_bytes) == (1_000_000, 2 << 30)
    monkeypatch.setattr(limits_module, "memory_bytes", lambda: 8 << 30)
    assert limits_of(1000).memory_bytes == 4 << 30
    monkeypatch.setattr(limits_module, "memory_bytes", lambda: 1 << 30)
    assert limits_of(1000).memory_bytes == 2 << 30


@pytest.mark.parametrize("wrong", [0, -1, 4296, float("nan"), float("inf")])
def test_limits_out_of_range(wrong: float, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="max_megapixels must be above 0 and at most 4295, got"):
        limits_of(wrong)
    monkeypatch.setenv("TRIVIUM_MAX_MEGAPIXELS", str(wrong))
    with pytest.raises(SandboxError, match="TRIVIUM_MAX_MEGAPIXELS: max_megapixels must be above 0"):
        DecodeSandbox(1)


def test_a_limit_that_is_no_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIVIUM_MAX_MEGAPIXELS", "many")
    with pytest.raises(SandboxError, match="TRIVIUM_MAX_MEGAPIXELS must be a number, got 'many'"):
        DecodeSandbox(1)


HUNGRY: dict[str, tuple[int, dict[str, Any]]] = {
    "PNG": (6_000, {"compress_level": 1}),
    "JPEG": (6_000, {}),
    "JPEG progressive": (5_500, {"progressive": True, "subsampling": 0}),
    "TIFF": (6_000, {"compression": "tiff_lzw"}),
    "WEBP": (4_200, {"method": 0}),
    "WEBP lossless": (4_200, {"method": 0, "lossless": True}),
}


@pytest.mark.parametrize("kind", HUNGRY)
def test_what_takes_too_much_memory_is_not_called_damaged(kind: str) -> None:
    """Some decoders say no more than that they failed."""
    side, options = HUNGRY[kind]
    name = kind.split()[0]
    with DecodeSandbox(1, limits=Limits(memory_bytes=200 << 20)) as box:
        with pytest.raises(DecodeError, match=r"^needs more than 0\.195 GiB of memory to decode \(--max-megapixels "):
            box.decode("image", halves(side, side, name, **options))
        small = halves(200, 200, name, **options)
        with pytest.raises(DecodeError, match="damaged picture"):  # and what is damaged is
            box.decode("image", small[: len(small) // 3])


@pytest.mark.slow  # encoding them takes half a minute
@pytest.mark.parametrize("kind", ["HEIF", "AVIF"])
def test_the_same_of_pictures_of_phones(kind: str) -> None:
    pytest.importorskip("pillow_heif").register_heif_opener()
    data = halves(3_000, 2_500, kind, quality=10)
    with DecodeSandbox(1, limits=Limits(memory_bytes=150 << 20)) as box:
        with pytest.raises(DecodeError, match=r"^needs more than 0\.146 GiB of memory to decode"):
            box.decode("image", data)
