"""The hash against the formula worked out term by term, and what it says of pictures encoded again, cut and others."""

import io
import math
import statistics

import numpy as np
import pytest
from PIL import Image

from assets import ASSETS
from trivium.encoders.base import PLAIN_LOOKS
from trivium.encoders.image.looks import (
    THUMBNAIL_SIDE,
    perceptual_hash,
    small_picture,
    thumbnail,
)

PHOTOS = ("strawberry.jpg", "teacup.webp", "airliner.png", "television.png")


def pixels(name: str) -> np.ndarray:
    with Image.open(ASSETS / name) as image:
        return np.asarray(image.convert("RGB"))


def hash_of(array: np.ndarray) -> int:
    return perceptual_hash(small_picture(array))


def bits_between(one: int, other: int) -> int:
    return ((one ^ other) & (2**64 - 1)).bit_count()


def encoded_again(array: np.ndarray, kind: str, **options: int) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(array).save(file, kind, **options)
    return np.asarray(Image.open(file).convert("RGB"))


@pytest.mark.parametrize("name", PHOTOS)
def test_the_hash_is_the_signs_of_the_lowest_frequencies(name: str) -> None:
    small = small_picture(pixels(name))
    grey = np.asarray(small.convert("L").resize((32, 32), Image.Resampling.LANCZOS), float)
    found = []
    for down in range(8):
        for across in range(8):
            found.append(
                sum(
                    grey[y, x]
                    * math.cos(math.pi * (2 * y + 1) * down / 64)
                    * math.cos(math.pi * (2 * x + 1) * across / 64)
                    for y in range(32)
                    for x in range(32)
                )
            )
    middle = statistics.median(found)
    written = "".join("1" if value > middle else "0" for value in found)
    assert perceptual_hash(small) & (2**64 - 1) == int(written, 2)


@pytest.mark.parametrize("name", PHOTOS)
def test_encoded_again_is_near_and_another_is_far(name: str) -> None:
    own, array = hash_of(pixels(name)), pixels(name)
    for kind, quality in (("JPEG", 30), ("JPEG", 90), ("WEBP", 50)):
        assert bits_between(own, hash_of(encoded_again(array, kind, quality=quality))) <= 6
    height, width = array.shape[:2]
    halved = np.asarray(Image.fromarray(array).resize((width // 2, height // 2)))
    assert bits_between(own, hash_of(halved)) <= 6
    others = [hash_of(pixels(other)) for other in PHOTOS if other != name]
    assert min(bits_between(own, other) for other in others) > 16


@pytest.mark.parametrize("colour", [0, 128, 255])
def test_plain_pictures_have_nothing_to_be_told_by(colour: int) -> None:
    assert hash_of(np.full((40, 60, 3), colour, np.uint8)) == PLAIN_LOOKS


@pytest.mark.parametrize(
    ("shape", "size"),
    [
        ((3000, 4000), (256, 192)),
        ((100, 50), (50, 100)),
        ((1, 9000), (256, 1)),
        ((9000, 1), (1, 256)),
        ((1, 1), (1, 1)),
    ],
)
def test_thumbnails_are_webp_of_the_whole_picture(shape: tuple[int, int], size: tuple[int, int]) -> None:
    data = thumbnail(small_picture(np.full((*shape, 3), (200, 30, 30), np.uint8)))
    with Image.open(io.BytesIO(data)) as image:
        assert image.format == "WEBP"
        assert image.size == size
        assert max(image.size) <= THUMBNAIL_SIDE
        red, green, _ = image.convert("RGB").getpixel((0, 0))  # type: ignore[misc]
        assert red > 170 > 80 > green
