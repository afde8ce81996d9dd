"""HEIC and AVIF, as phones write them: colours, orientation, transparency, limits, damage, and the missing extra."""

import builtins
import io
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, features

from trivium.encoders import DecodeError
from trivium.encoders.decoding import pictures as image_decoding
from trivium.encoders.decoding.pictures import decode_image

pillow_heif = pytest.importorskip("pillow_heif", reason="pillow-heif comes with the extra 'heif'")
RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)
KINDS = [
    pytest.param("HEIF", id="heic"),
    pytest.param("AVIF", marks=pytest.mark.skipif(not features.check("avif"), reason="this Pillow has no AVIF")),
]


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    if kind == "HEIF":
        pillow_heif.register_heif_opener()
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def corners(*, side: int = 32) -> NDArray[np.uint8]:
    colours = np.array([[RED, GREEN, BLUE], [WHITE, (0, 0, 0), (128, 128, 0)]], np.uint8)
    return colours.repeat(side, axis=0).repeat(side, axis=1)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_colours(kind: str, mode: str) -> None:
    image = Image.fromarray(corners()).convert(mode)
    found = decode_image(encoded(image, kind, quality=95))
    assert (found.size, found.mode) == ((96, 64), "RGB")
    difference = np.abs(np.asarray(found, np.int16) - np.asarray(image.convert("RGB"), np.int16))
    assert difference.mean() < 6


@pytest.mark.parametrize("kind", KINDS)
def test_transparency_over_white(kind: str) -> None:
    image = Image.new("RGBA", (64, 64), (255, 0, 0, 255))
    image.paste((0, 0, 0, 0), (0, 0, 32, 64))
    found = np.asarray(decode_image(encoded(image, kind, quality=95)))
    assert found[20:44, 4:28].min() > 235
    np.testing.assert_allclose(found[20:44, 40:60].mean((0, 1)), RED, atol=12)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_made_upright(kind: str, orientation: int) -> None:
    """Both encoders write a transformation of the container; a note in the EXIF block alone does not count in HEIC."""
    turns: dict[int, list[int | None]] = {
        2: [1],
        3: [1, 0],
        4: [0],
        5: [None],
        6: [1, None],
        7: [1, 0, None],
        8: [0, None],
    }
    stored = corners()
    for axis in turns.get(orientation, []):  # what the first row and column show (Exif 2.32, tag 274)
        stored = stored.swapaxes(0, 1) if axis is None else np.flip(stored, axis)
    exif = Image.Exif()
    exif[0x0112] = orientation
    found = decode_image(encoded(Image.fromarray(np.ascontiguousarray(stored)), kind, quality=95, exif=exif.tobytes()))
    assert found.size == (96, 64)
    assert np.abs(np.asarray(found, np.int16) - corners()).mean() < 8


def test_first_picture_of_several() -> None:
    first, *others = [Image.new("RGB", (64, 64), colour) for colour in (RED, GREEN)]
    for kind in ["HEIF", *(["AVIF"] if features.check("avif") else [])]:
        data = encoded(first, kind, save_all=True, append_images=others)
        np.testing.assert_allclose(np.asarray(decode_image(data)).mean((0, 1)), RED, atol=12)


@pytest.mark.parametrize("kind", KINDS)
def test_too_many_pixels(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = encoded(Image.fromarray(corners()), kind)
    monkeypatch.setattr(image_decoding, "MAX_PIXELS", 96 * 64 - 1)
    with pytest.raises(DecodeError, match="too many pixels: 96 x 64, the limit is 6,143"):
        decode_image(data)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("share", [0.05, 0.3, 0.7, 0.97])
def test_truncated(kind: str, share: float) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8))
    data = encoded(noise, kind)
    with pytest.raises(DecodeError, match="damaged picture"):
        decode_image(data[: int(len(data) * share)])


@pytest.mark.parametrize("kind", KINDS)
def test_mutants_are_decoded_or_refused(
    kind: str, reference: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_decoding, "MAX_PIXELS", 1_000_000)
    outcomes = set()
    for mutant in reference("mutants").mutants(encoded(Image.fromarray(corners()), kind), seed=3):
        try:
            outcomes.add(decode_image(mutant).mode)
        except DecodeError:
            outcomes.add("refused")
    assert "refused" in outcomes
    assert outcomes <= {"RGB", "refused"}


def test_a_video_is_no_picture() -> None:
    with pytest.raises(DecodeError, match="not a picture"):
        decode_image(b"\0\0\0\x18ftypisom\0\0\2\0isomiso2" + bytes(200))


@pytest.mark.parametrize("brands", [b"heic\0\0\0\0mif1heic", b"mif1\0\0\0\0mif1heic", b"mif1\0\0\0\0mif1miaf"])
def test_without_the_extra(brands: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name == "pillow_heif":
            raise ImportError
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    data = (8 + len(brands)).to_bytes(4) + b"ftyp" + brands + bytes(100)
    with pytest.raises(DecodeError, match=r"pillow-heif is needed \(pip install 'trivium\[heif\]'\)"):
        decode_image(data)
