"""Picture files of every format, mode and state of damage: the right pixels, or a DecodeError, and nothing else."""

import base64
import io
import struct
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import resvg_py
from numpy.testing import assert_allclose
from numpy.typing import NDArray
from PIL import Image, ImageOps

from trivium.encoders import DecodeError
from trivium.encoders.decoding import pictures as image_decoding
from trivium.encoders.decoding.pictures import decode_image, to_rgb

FORMATS = ("BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP")
RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def noise(width: int = 60, height: int = 40) -> Image.Image:
    """A picture that no codec can make small."""
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


def pixels(image: Image.Image) -> NDArray[np.uint8]:
    return np.asarray(image)


def row(data: bytes) -> list[tuple[int, ...]]:
    """The first row of a decoded picture."""
    image = decode_image(data)
    assert image.mode == "RGB"
    return [tuple(pixel) for pixel in pixels(image)[0].tolist()]


def grey(*values: int) -> list[tuple[int, ...]]:
    return [(value, value, value) for value in values]


def png(width: int, height: int, rows: bytes = b"", *, bits: int = 8, colour: int = 2) -> bytes:
    """A PNG by hand; ``rows`` begin with their filter byte. Colour 0 is grey, 2 is RGB."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


# Modes


@pytest.mark.parametrize("kind", ["BMP", "PNG", "TIFF"])
def test_rgb_is_exact(kind: str) -> None:
    assert_allclose(pixels(decode_image(encoded(noise(), kind))), pixels(noise()))


def test_rgb_of_lossy_formats() -> None:
    flat = Image.new("RGB", (32, 32), (200, 100, 50))
    for kind in ("JPEG", "WEBP", "GIF"):
        assert_allclose(pixels(decode_image(encoded(flat, kind))), pixels(flat), atol=4)
    assert_allclose(pixels(decode_image(encoded(noise(), "WEBP", lossless=True))), pixels(noise()))


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
def test_rgba_over_white(kind: str) -> None:
    image = Image.new("RGBA", (3, 1))
    image.putdata([(200, 100, 50, 0), (200, 100, 50, 128), (200, 100, 50, 255)])
    data = encoded(image, kind, **({"lossless": True, "exact": True} if kind == "WEBP" else {}))
    # c a / 255 + 255 (1 - a / 255) with a = 128: 227.4, 177.2, 152.1
    assert row(data) == [WHITE, (227, 177, 152), (200, 100, 50)]


def test_la_over_white() -> None:
    image = Image.new("LA", (3, 1))
    image.putdata([(100, 0), (100, 128), (100, 255)])
    assert row(encoded(image, "PNG")) == grey(255, 177, 100)


@pytest.mark.parametrize("kind", ["PNG", "GIF"])
def test_palette_with_transparency(kind: str) -> None:
    image = Image.new("P", (3, 1))
    image.putpalette([*RED, *GREEN, *BLUE])
    image.putdata([0, 1, 2])
    assert row(encoded(image, kind)) == [RED, GREEN, BLUE]
    assert row(encoded(image, kind, transparency=1)) == [RED, WHITE, BLUE]


def test_palette_with_several_transparencies() -> None:
    image = Image.new("P", (3, 1))
    image.putpalette([200, 100, 50] * 3)
    image.putdata([0, 1, 2])
    assert row(encoded(image, "PNG", transparency=bytes([0, 128, 255]))) == [WHITE, (227, 177, 152), (200, 100, 50)]


def test_colour_named_as_transparent() -> None:
    image = Image.new("RGB", (2, 1))
    image.putdata([RED, GREEN])
    assert row(encoded(image, "PNG", transparency=RED)) == [WHITE, GREEN]
    level = Image.new("L", (2, 1))
    level.putdata([7, 8])
    assert row(encoded(level, "PNG", transparency=7)) == grey(255, 8)


def test_one_bit() -> None:
    image = Image.new("1", (3, 1))
    image.putdata([0, 255, 0])
    for kind in ("PNG", "BMP", "TIFF"):
        assert row(encoded(image, kind)) == grey(0, 255, 0)


def test_level() -> None:
    image = Image.new("L", (3, 1))
    image.putdata([0, 99, 255])
    for kind in ("PNG", "BMP", "TIFF", "GIF"):
        assert row(encoded(image, kind)) == grey(0, 99, 255)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bits_are_scaled_not_clipped(kind: str) -> None:
    image = Image.fromarray(np.array([[0, 257, 100 * 257, 32896, 65535]], np.uint16))
    assert image.mode == "I;16"
    assert row(encoded(image, kind)) == grey(0, 1, 100, 128, 255)


def test_16_bits_of_the_other_byte_order() -> None:
    values = np.array([[0, 257, 65535]], ">u2")
    assert pixels(to_rgb(Image.frombytes("I;16B", (3, 1), values.tobytes())))[0].tolist() == [
        [0] * 3,
        [1] * 3,
        [255] * 3,
    ]


def test_16_bit_png() -> None:
    values = struct.pack(">6H", 0, 128 * 257, 65535, 257, 2 * 257, 3 * 257)
    assert row(png(2, 1, b"\0" + values, bits=16)) == [(0, 128, 255), (1, 2, 3)]
    assert row(png(3, 1, b"\0" + struct.pack(">3H", 0, 32896, 65535), bits=16, colour=0)) == grey(0, 128, 255)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0, 99, 255], (0, 99, 255)),  # as many as 8 bits hold: taken as they are
        ([0, 32896, 65535], (0, 128, 255)),  # 16 bits
        ([0, 500_000, 1_000_000], (0, 128, 255)),  # more: from the least to the most
        ([-100, 0, 200], (0, 85, 255)),
        ([7, 7, 7], (7, 7, 7)),
        ([-7, -7, -7], (0, 0, 0)),
    ],
)
def test_32_bits(values: list[int], expected: tuple[int, ...]) -> None:
    image = Image.fromarray(np.array([values], np.int32))
    assert image.mode == "I"
    assert row(encoded(image, "TIFF")) == grey(*expected)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.0, 0.5, 1.0], (0, 128, 255)),
        ([0.0, 99.0, 255.0], (0, 99, 255)),
        ([-2.0, 0.0, 2.0], (0, 128, 255)),
        ([-3e38, 0.0, 3e38], (0, 128, 255)),
    ],
)
def test_floats(values: list[float], expected: tuple[int, ...]) -> None:
    image = Image.fromarray(np.array([values], np.float32))
    assert image.mode == "F"
    assert row(encoded(image, "TIFF")) == grey(*expected)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_floats_that_are_not_finite(bad: float) -> None:
    image = Image.fromarray(np.array([[0, bad, 1]], np.float32))
    with pytest.raises(DecodeError, match="the picture holds NaN or infinity"):
        decode_image(encoded(image, "TIFF"))


def test_cmyk() -> None:
    image = Image.new("CMYK", (32, 32), (0, 255, 255, 0))
    for kind in ("JPEG", "TIFF"):
        assert_allclose(pixels(decode_image(encoded(image, kind))), np.full((32, 32, 3), RED), atol=6)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "HSV", "I", "F", "LA", "PA"])
def test_any_mode_becomes_rgb(mode: str) -> None:
    found = to_rgb(Image.new(mode, (3, 2)))
    assert (found.mode, found.size) == ("RGB", (3, 2))


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_first_frame_of_an_animation(kind: str) -> None:
    first, *others = [Image.new("RGB", (8, 8), colour) for colour in (RED, GREEN, BLUE)]
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encoded(first, kind, save_all=True, append_images=others, duration=50, **options)
    with Image.open(io.BytesIO(data)) as animation:
        assert getattr(animation, "n_frames", 1) == 3
    assert row(data) == [RED] * 8


# EXIF

# What the first row and column of the file show (Exif 2.32, tag 274), as the file's pixels from the upright ones.
STORED: dict[int, Callable[[NDArray[np.uint8]], NDArray[np.uint8]]] = {
    1: lambda upright: upright,  # top, left
    2: lambda upright: upright[:, ::-1],  # top, right
    3: lambda upright: upright[::-1, ::-1],  # bottom, right
    4: lambda upright: upright[::-1],  # bottom, left
    5: lambda upright: upright.swapaxes(0, 1),  # left, top
    6: lambda upright: upright[:, ::-1].swapaxes(0, 1),  # right, top
    7: lambda upright: upright[::-1, ::-1].swapaxes(0, 1),  # right, bottom
    8: lambda upright: upright[::-1].swapaxes(0, 1),  # left, bottom
}


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", STORED)
def test_every_orientation_is_made_upright(orientation: int, kind: str) -> None:
    corners = np.array([[RED, GREEN, BLUE], [WHITE, (0, 0, 0), (128, 128, 0)]], np.uint8)
    upright = corners.repeat(16, axis=0).repeat(16, axis=1)  # (32, 48, 3), in JPEG's own blocks
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if kind == "WEBP" else {"subsampling": 0, "quality": 95} if kind == "JPEG" else {}
    stored = Image.fromarray(np.ascontiguousarray(STORED[orientation](upright)))
    found = decode_image(encoded(stored, kind, exif=exif, **options))
    assert_allclose(pixels(found).astype(int), upright, atol=8 if kind == "JPEG" else 0)


@pytest.mark.parametrize(
    "exif",
    [b"Exif\0\0not TIFF at all", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + b"\xff" * 30, b"Exif\0\0II*\0\xff\xff\xff\x7f"],
    ids=["not TIFF", "nonsense entries", "offset beyond the end"],
)
def test_broken_exif_does_not_lose_the_picture(exif: bytes) -> None:
    image = Image.new("RGB", (32, 16), RED)
    assert_allclose(pixels(decode_image(encoded(image, "JPEG", exif=exif))), pixels(image), atol=4)


def test_failing_exif_does_not_lose_the_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(image: Image.Image) -> Image.Image:
        raise SyntaxError("not a TIFF file")

    monkeypatch.setattr(ImageOps, "exif_transpose", fail)
    assert row(encoded(Image.new("RGB", (2, 1), RED), "PNG")) == [RED, RED]


# Sizes


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (5000, 1), (7, 3)])
@pytest.mark.parametrize("kind", FORMATS)
def test_extreme_sizes(size: tuple[int, int], kind: str) -> None:
    found = decode_image(encoded(Image.new("RGB", size, WHITE), kind))
    assert (found.size, found.mode) == (size, "RGB")
    assert (pixels(found) >= 250).all()


@pytest.mark.parametrize(
    ("width", "height", "message"),
    [
        (50_000, 50_000, "too many pixels: 2,500,000,000, the limit is 100,000,000"),
        (20_000, 5_001, "too many pixels: 20000 x 5001, the limit is 100,000,000"),
        (2**31 - 1, 2**31 - 1, "too many pixels"),
    ],
)
def test_too_many_pixels_take_no_memory(width: int, height: int, message: str) -> None:
    data = png(width, height, bytes(100))
    assert len(data) < 200
    tracemalloc.start()
    try:
        with pytest.raises(DecodeError, match=message):
            decode_image(data)
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()


def test_limit_is_inclusive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_decoding, "MAX_PIXELS", 6)
    assert decode_image(encoded(Image.new("RGB", (3, 2)), "PNG")).size == (3, 2)
    with pytest.raises(DecodeError, match="too many pixels: 7 x 1, the limit is 6"):
        decode_image(encoded(Image.new("RGB", (7, 1)), "PNG"))


def test_webp_has_a_limit_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_decoding, "MAX_WEBP_PIXELS", 6)
    assert decode_image(encoded(Image.new("RGB", (3, 2)), "WEBP")).size == (3, 2)
    assert decode_image(encoded(Image.new("RGB", (7, 1)), "PNG")).size == (7, 1)
    with pytest.raises(DecodeError, match="too many pixels: 7 x 1, the limit is 6"):
        decode_image(encoded(Image.new("RGB", (7, 1)), "WEBP"))


# Damage


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.97])
@pytest.mark.parametrize("kind", [*FORMATS, "TIFF tiff_lzw", "TIFF jpeg", "PNG grey"])
def test_truncated(kind: str, share: float) -> None:
    name, _, option = kind.partition(" ")
    image = noise().convert("L") if option == "grey" else noise()
    data = encoded(image, name, **({"compression": option} if name == "TIFF" and option else {}))
    decode_image(data)
    with pytest.raises(DecodeError, match=r"damaged picture: .*(truncated|header|decoder|Truncated)"):
        decode_image(data[: int(len(data) * share)])


@pytest.mark.parametrize("kind", FORMATS)
def test_only_the_first_bytes(kind: str) -> None:
    data = encoded(noise(), kind)
    for length in (1, 4, 12, 20, 30):
        with pytest.raises(DecodeError, match=r"damaged picture|not a picture"):
            decode_image(data[:length])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not a picture"),
        (b"A text that somebody named photo.jpg.\n" * 5, "not a picture: the content is in no known image format"),
        (b"%PDF-1.7\n" + b"x" * 100, "not a picture"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n", "not a picture"),
        (bytes(1000), "not a picture"),
        (b"RIFF\x24\0\0\0WAVEfmt " + bytes(40), "RIFF|WebP|picture"),
        (png(0, 10), "damaged picture: it begins as PNG"),
        (b"\xff\xd8\xff" + bytes(50), "damaged picture: it begins as JPEG"),
    ],
)
def test_no_picture(data: bytes, message: str) -> None:
    with pytest.raises(DecodeError, match=message):
        decode_image(data)


def test_other_formats_of_pillow_are_not_tried() -> None:
    for kind in ("PCX", "PPM", "TGA", "ICO"):
        with pytest.raises(DecodeError, match="not a picture"):
            decode_image(encoded(noise(16, 16), kind))


@pytest.mark.parametrize("kind", [*FORMATS, "TIFF tiff_deflate", "SVG"])
def test_mutants_are_decoded_or_refused(
    kind: str, reference: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_decoding, "MAX_PIXELS", 1_000_000)  # a mutant may claim any size
    name, _, compression = kind.partition(" ")
    if kind == "SVG":
        data = drawing(RECT + '<circle cx="9" cy="9" r="4" fill="url(#a)"/>')
    else:
        data = encoded(noise(24, 16), name, **({"compression": compression} if compression else {}))
    outcomes = set()
    for mutant in reference("mutants").mutants(data, seed=len(kind)):
        try:
            outcomes.add(decode_image(mutant).mode)
        except DecodeError:
            outcomes.add("refused")
    assert "refused" in outcomes  # else the mutants were harmless
    assert outcomes <= {"RGB", "refused"}


# Drawings

RECT = '<rect width="100%" height="100%" fill="red"/>'
SIZE = 'width="40" height="20"'


def drawing(body: str, attributes: str = SIZE, before: str = "") -> bytes:
    names = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    return f"{before}<svg {names} {attributes}>{body}</svg>".encode()


def has_red(data: bytes) -> bool:
    values = pixels(decode_image(data)).astype(int)
    return bool(((values[..., 0] > 200) & (values[..., 1] < 80)).any())


@pytest.fixture
def secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A red picture on the disk, in the working directory too, that no drawing may show."""
    path = tmp_path / "secret.png"
    Image.new("RGB", (20, 20), RED).save(path)
    monkeypatch.chdir(tmp_path)
    return path


def picture_of(attributes: str) -> str:
    return f'<image width="40" height="20" {attributes}/>'


@pytest.mark.parametrize("before", ["", "\ufeff", '\n <?xml version="1.0" encoding="UTF-8"?>\n<!-- by hand -->\n'])
def test_plain_drawing(before: str) -> None:
    found = decode_image(drawing(RECT, before=before.lstrip() if before.strip().startswith("<?") else before))
    assert (found.mode, found.size) == ("RGB", (448, 224))
    assert (pixels(found) == RED).all()


def test_drawing_over_white() -> None:
    found = decode_image(drawing('<rect x="0" y="0" width="20" height="20" fill="red"/>'))
    assert pixels(found)[10, 10].tolist() == list(RED)
    assert pixels(found)[10, 400].tolist() == list(WHITE)


@pytest.mark.parametrize(
    ("attributes", "size"),
    [
        ('width="50mm" height="20mm"', (448, 179)),
        ('width="20mm" height="50mm"', (179, 448)),
        ('viewBox="0 0 10 10"', (448, 448)),
        ('width="1" height="1000000"', (1, 448)),
        ('width="1e9" height="1e-6"', (448, 1)),
        ('width="1000000" height="1000000"', (448, 448)),
    ],
)
def test_size_of_a_drawing(attributes: str, size: tuple[int, int]) -> None:
    found = decode_image(drawing(RECT, attributes))
    assert_allclose(found.size, size, atol=3)
    assert max(found.size) == 448


HREFS = {
    "absolute": 'href="{path}"',
    "relative": 'href="secret.png"',
    "dot": 'href="./secret.png"',
    "single quotes": "href='{path}'",
    "xlink": 'xlink:href="{path}"',
    "xlink relative": "xlink:href='secret.png'",
    "spaces": 'href = \n "{path}"',
    "uri": 'href="file://{path}"',
    "escaped": 'href="&#115;ecret.png"',
    "quote inside": "href='{path}' title=\"it's\"",
}


@pytest.mark.parametrize("href", HREFS.values(), ids=HREFS)
def test_drawing_reads_no_file(href: str, secret: Path) -> None:
    assert not has_red(drawing(picture_of(href.format(path=secret))))


def test_resvg_itself_would_read_it(secret: Path) -> None:
    """What the tests above guard against; if this fails, they prove nothing."""
    for href in ("absolute", "relative", "single quotes", "xlink", "escaped"):
        body = picture_of(HREFS[href].format(path=secret))
        rendered = bytes(resvg_py.svg_to_bytes(svg_string=drawing(body).decode()))
        assert has_red(rendered), href


def test_drawing_reads_no_file_through_an_entity(secret: Path) -> None:
    before = f'<!DOCTYPE svg [<!ENTITY e "{secret}"><!ENTITY f \'<image width="40" height="20" href="{secret}"/>\'>]>'
    assert not has_red(drawing(picture_of('href="&e;"') + "&f;", before=before))


def test_drawing_reads_no_file_through_a_filter(secret: Path) -> None:
    body = f'<filter id="f"><feImage href="{secret}"/></filter><rect width="40" height="20" filter="url(#f)"/>'
    assert not has_red(drawing(body))


def test_drawing_reads_no_file_through_a_drawing(secret: Path) -> None:
    inner = base64.b64encode(drawing(picture_of(f'href="{secret}"'))).decode()
    assert not has_red(drawing(picture_of(f'href="data:image/svg+xml;base64,{inner}"')))


def test_drawing_reads_no_file_through_a_folder_named_like_a_fragment(secret: Path) -> None:
    (secret.parent / "#").mkdir()
    assert not has_red(drawing(picture_of('href="#/../secret.png"')))


def test_inside_references_stay() -> None:
    inline = base64.b64encode(encoded(Image.new("RGB", (2, 2), RED), "PNG")).decode()
    assert has_red(drawing(picture_of(f'href="data:image/png;base64,{inline}"')))
    assert has_red(drawing('<defs><rect id="r" width="40" height="20" fill="red"/></defs><use xlink:href="#r"/>'))


@pytest.mark.parametrize(
    "data",
    [
        drawing(RECT)[:-10],
        drawing('<rect width="10"'),
        drawing(RECT, 'width="0" height="0"'),
        drawing("<!-- \xe9 -->").decode().encode("latin-1"),
        b"<html><p>about <svg></p></html>",
    ],
    ids=["truncated", "open tag", "no size", "not UTF-8", "web page"],
)
def test_broken_drawing(data: bytes) -> None:
    with pytest.raises(DecodeError, match="damaged drawing: "):
        decode_image(data)


def test_drawing_with_references_without_end() -> None:
    body = "".join(f'<g id="a{n}">' + f'<use href="#a{n - 1}"/>' * 10 + "</g>" for n in range(1, 9))
    with pytest.raises(DecodeError, match=r"damaged drawing: .*nodes limit"):
        decode_image(drawing('<g id="a0"><rect width="1" height="1"/></g>' + body))


def test_large_drawing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_decoding, "MAX_SVG_BYTES", 100)
    with pytest.raises(DecodeError, match=r"too large for a drawing: \d+ bytes, the limit is 100"):
        decode_image(drawing(RECT))
