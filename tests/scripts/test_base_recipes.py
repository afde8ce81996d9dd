import json
import shutil
from pathlib import Path

import pytest

from assets import ASSETS
from base.names import words_of
from base.pairs import THINGS, pairs
from base.recipes import Recipe, media_of, read_recipes
from base.soundfont import INSTRUMENTS
from base.table import Row, label_of


@pytest.mark.parametrize(
    ("stem", "words"),
    [
        ("dog_bark-03", "dog bark"),
        ("dogBark2", "dog bark"),
        ("TVNews", "tv news"),
        ("x_12", ""),
        ("SeaLion", "sea lion"),
    ],
)
def test_words_of_a_name(stem: str, words: str):
    assert words_of(stem) == words


def recipe(*, has_pictures: bool = False, **captions: str) -> Recipe:
    patterns = {pattern.replace("_", "*"): caption for pattern, caption in captions.items()}
    return Recipe(source="s", package="p", licence="CC0", root="r", captions=patterns, has_pictures=has_pictures)


@pytest.fixture
def unpacked(tmp_path: Path) -> Path:
    (tmp_path / "p/r/birds").mkdir(parents=True)
    shutil.copy(ASSETS / "crow.ogg", tmp_path / "p/r/birds/Crow.ogg")
    shutil.copy(ASSETS / "teacup.webp", tmp_path / "p/r/birds/Crow.webp")
    shutil.copy(ASSETS / "bell.mp3", tmp_path / "p/r/bell.mp3")
    (tmp_path / "p/r/broken.wav").write_bytes(b"RIFF")
    return tmp_path / "p"


def test_the_first_pattern_wins_and_what_has_none_is_left_out(unpacked: Path, tmp_path: Path):
    rows = media_of(recipe(birds_="a {}", _crow_="never"), unpacked, tmp_path)
    assert rows == [Row(text="a crow", audio="media/s/birds/Crow.ogg", label="crow", source="s")]
    assert (tmp_path / rows[0].audio).read_bytes() == (ASSETS / "crow.ogg").read_bytes()


def test_a_picture_and_a_sound_of_one_name_are_one_row(unpacked: Path, tmp_path: Path):
    rows = media_of(recipe(has_pictures=True, birds_="a crow", bell_=""), unpacked, tmp_path)
    assert [(r.image, r.audio) for r in rows] == [("media/s/birds/Crow.webp", "media/s/birds/Crow.ogg")]


def test_sounds_that_cannot_be_read_are_left_out(unpacked: Path, tmp_path: Path):
    assert [r.text for r in media_of(recipe(b_="something"), unpacked, tmp_path) if "broken" in r.audio] == []


def test_says_when_a_package_is_laid_out_otherwise(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="layout has changed"):
        media_of(recipe(_="x"), tmp_path, tmp_path)


def test_a_recipe_that_lacks_something_is_named(tmp_path: Path):
    (tmp_path / "media.toml").write_text('[game]\nfrom = "x"\n')
    with pytest.raises(ValueError, match=r"\[game\] has no 'licence'"):
        read_recipes(tmp_path / "media.toml")


def test_the_recipes_that_ship():
    recipes = read_recipes()
    assert len({r.source for r in recipes}) == len(recipes)
    for taken in recipes:
        licence = taken.licence.upper()
        assert "NC" not in licence.split("-")
        assert "ND" not in licence.split("-")
        for caption in taken.captions.values():
            assert caption == caption.strip()
            assert not caption.endswith(".")


def test_every_sound_that_is_paired_is_some_source_s():
    captions = {label_of(caption) for taken in read_recipes() for caption in taken.captions.values()}
    captions |= {label_of(caption) for caption in INSTRUMENTS.values()}
    assert [sound for sound in json.loads(THINGS.read_text(encoding="utf-8")) if sound not in captions] == []


def test_pairs_take_pictures_of_the_thing_but_none_that_is_held_out(tmp_path: Path):
    (tmp_path / "things.json").write_text(json.dumps({"dog barking": ["dog"]}))
    sound = Row(text="a dog barking", audio="bark.ogg", label="dog barking", source="s")
    dogs = [Row(text="", image=f"{n}.png", label=label, source="s") for n, label in enumerate(["brown dog", "hot dog"])]
    held_out = Row(text="", image="test.png", label="dog", source="s", split="test")
    (pair,) = pairs([sound, *dogs, held_out], things=tmp_path / "things.json")
    assert (pair.image, pair.audio, pair.text) == ("0.png", "bark.ogg", "a dog barking")
