"""The main job with the real networks on real media: every direction, in one space.

The pictures and sounds are in the public domain (tests/assets/README.md).
"""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

import trivium
from assets import ASSETS
from trivium.pipeline.collection import Collection

pytestmark = pytest.mark.weights


@pytest.fixture(scope="module")
def collection(tmp_path_factory: pytest.TempPathFactory, weights) -> Collection:
    """The assets, indexed without their captions, so that only what the networks see and hear counts."""
    folder = tmp_path_factory.mktemp("end-to-end")
    shutil.copytree(ASSETS, folder / "media", ignore=shutil.ignore_patterns("README.md"))
    made = trivium.Collection.open(folder / "collection")
    summary = made.add([folder / "media"], captions=False)
    assert summary.skipped == []
    assert made.info().items == {"audio": 3, "image": 5, "text": 2}
    return made


def first(collection: Collection, **query) -> str:
    return os.path.basename(collection.search(k=1, **query)[0].path)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("a penguin", "penguin.svg"),
        ("fruit", "strawberry.jpg"),
        ("an airplane", "airliner.png"),
        ("a cup of tea", "teacup.webp"),
        ("watching television", "television.png"),
    ],
)
def test_pictures_by_text(collection: Collection, text: str, found: str) -> None:
    assert first(collection, text=text, only="image") == found


@pytest.mark.parametrize(
    ("text", "found"), [("a bird", "crow.ogg"), ("a bell ringing", "bell.mp3"), ("an electronic beep", "beep.wav")]
)
def test_sounds_by_text(collection: Collection, text: str, found: str) -> None:
    assert first(collection, text=text, only="audio") == found


def test_sounds_by_picture(collection: Collection) -> None:
    assert first(collection, image=ASSETS / "penguin.svg", only="audio") == "crow.ogg"


def test_texts_by_picture(collection: Collection) -> None:
    assert first(collection, image=ASSETS / "strawberry.jpg", only="text") == "recipe.md"


def test_pictures_by_sound_rank_the_bird_above_what_makes_no_sound(collection: Collection) -> None:
    names = [os.path.basename(hit.path) for hit in collection.search(audio=ASSETS / "crow.ogg", only="image", k=5)]
    assert names.index("penguin.svg") < names.index("strawberry.jpg")
    assert names.index("penguin.svg") < names.index("airliner.png")


def test_texts_by_text(collection: Collection) -> None:
    assert first(collection, text="how to make marmalade", only="text") == "recipe.md"
    assert first(collection, text="a journey by plane", only="text") == "diary.txt"


def test_less_of_something(collection: Collection) -> None:
    assert first(collection, text=["animal or airplane", (-1, "bird")], only="image") == "airliner.png"
    assert first(collection, text=["animal or airplane", (-1, "flying machine")], only="image") == "penguin.svg"


def test_an_item_finds_itself(collection: Collection) -> None:
    (picture,) = collection.search(image=ASSETS / "teacup.webp", k=1)
    (sound,) = collection.search(audio=ASSETS / "bell.mp3", k=1)
    for hit, name in [(picture, "teacup.webp"), (sound, "bell.mp3")]:
        assert os.path.basename(hit.path) == name
        assert hit.score == pytest.approx(1, abs=1e-5)


def test_captions_are_searched_by_default(tmp_path: Path, collection: Collection) -> None:
    made = trivium.Collection.open(tmp_path / "c", space=collection.space)
    made.add(ASSETS)
    (hit,) = made.search(text="a passenger jet", k=1)
    assert (os.path.basename(hit.path), hit.matched) == ("airliner.png", "caption")
    assert hit.caption == "A passenger jet in the air."


def test_encode_gives_unit_rows_and_takes_many_forms(collection: Collection) -> None:
    space = collection.space
    path = ASSETS / "strawberry.jpg"
    forms = [path, str(path), path.read_bytes()]
    vectors = space.encode("image", forms, batch_size=2)
    assert vectors.dtype == np.float32
    assert vectors.shape == (3, space.space.dim)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(vectors, vectors[:1].repeat(3, axis=0), atol=1e-6)
