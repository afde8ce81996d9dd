"""A space of open_clip's: collections made with it, searched and opened again."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from assets import ASSETS
from trivium.pipeline.cli.main import main
from trivium.pipeline.collection import Collection
from trivium.pipeline.space.config import SpaceError
from trivium.pipeline.space.joint import load_space

TinyClip = Callable[..., str]


def test_a_collection_of_pictures_and_captions(tiny_clip: TinyClip, tmp_path: Path, media: Path) -> None:
    reference = tiny_clip()
    made = Collection.open(tmp_path / "collection", space=reference)
    summary = made.add(media)
    assert {os.path.basename(problem.path) for problem in summary.skipped} >= {"low.wav", "high.ogg"}  # it has no ears
    by_caption, by_picture = made.search(text="A red sign.", k=2), made.search(image=media / "blue.jpg", k=1)
    assert os.path.basename(by_caption[0].path) == "red.png"
    assert os.path.basename(by_picture[0].path) == "blue.jpg"
    again = Collection.open(tmp_path / "collection")  # knows its space
    assert again.search(text="A red sign.", k=2) == by_caption
    assert again.space.source == reference
    assert not again.add(media).added


def test_another_checkpoint_is_another_space(tiny_clip: TinyClip, tmp_path: Path, media: Path) -> None:
    Collection.open(tmp_path / "collection", space=tiny_clip()).add(media)
    with pytest.raises(Exception, match=r"tiny-\d.*tiny-\d"):
        Collection.open(tmp_path / "collection", space=tiny_clip(seed=1)).search(text="a dog")


def test_the_space_encodes_and_says_what_it_is(tiny_clip: TinyClip) -> None:
    space = load_space(tiny_clip())
    assert (space.space.name, space.space.dim, space.modalities) == ("open-clip:tiny/tiny-0", 16, ("text", "image"))
    vectors = space.encode("image", sorted(ASSETS.glob("*.jpg")) + sorted(ASSETS.glob("*.png")))
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    with pytest.raises(SpaceError, match="has no encoder for audio, only for text, image"):
        space.encode("audio", [ASSETS / "beep.wav"])


def test_a_wrong_name_is_told_by_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "media").mkdir()
    arguments = ["index", str(tmp_path / "collection"), str(tmp_path / "media"), "--space", "open-clip:ViT-B32/openai"]
    assert main(arguments) == 1
    assert "open_clip has no model 'ViT-B32', nearest are: ViT-B-32" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "collection").exists()


@pytest.mark.weights
def test_sounds_are_brought_to_a_model_that_stays(
    weights: dict[str, Path], tiny_clip: TinyClip, tmp_path: Path, sound: Callable[..., Path], run
) -> None:
    """`trivium align --keep`: the own vectors of the model do not move, and sounds lie near their texts."""
    rows = ["audio,label"]
    for number in range(24):
        hz = (200.0, 3000.0)[number % 2] + 5 * number
        rows.append(
            f"{sound(tmp_path / f'{number}.wav', hz, seconds=1.0).name},{('low hum', 'high whistle')[number % 2]}"
        )
    (tmp_path / "sounds.csv").write_text("\n".join(rows) + "\n")
    reference = tiny_clip()
    target = tmp_path / "ears"
    options = ["--encoders", f"{reference},audio=aisfx", "--keep", "text,image", "--method", "closed-form"]
    status, _, err = run("align", str(tmp_path / "sounds.csv"), "--out", str(target), *options, "--validation", "0")
    assert status == 0, err
    with_ears, clip = load_space(target), load_space(reference)
    assert with_ears.modalities == ("text", "image", "audio")
    words = ["low hum", "high whistle"]
    texts = with_ears.encode("text", words)
    np.testing.assert_array_equal(texts, clip.encode("text", words))
    scores = with_ears.encode("audio", [tmp_path / f"{number}.wav" for number in range(24)]) @ texts.T
    assert (scores.argmax(axis=1) == np.arange(24) % 2).all()


def test_a_model_of_the_hub_stays_at_its_commit(hub_clip: Callable[..., Path], tmp_path: Path, media: Path) -> None:
    hub_clip()
    made = Collection.open(tmp_path / "collection", space="open-clip:hf-hub:org/tiny")
    made.add(media)
    hits = made.search(text="A red sign.", k=2)
    hub_clip(commit="1" * 40, seed=1)  # the branch moves on
    again = Collection.open(tmp_path / "collection")
    assert again.space.source == f"open-clip:hf-hub:org/tiny@{'0' * 40}"
    assert again.search(text="A red sign.", k=2) == hits
    with pytest.raises(Exception, match="hf-hub:org/tiny"):
        Collection.open(tmp_path / "collection", space="open-clip:hf-hub:org/tiny").search(text="a dog")


@pytest.mark.filterwarnings(r"ignore:torch.meshgrid.*:UserWarning")
def test_the_ears_of_clap(tiny_clap: Callable[..., str], tmp_path: Path, media: Path) -> None:
    """A CLAP as a space: texts and sounds, decoded in the sandbox, with windows."""
    reference = tiny_clap()
    made = Collection.open(tmp_path / "collection", space=reference)
    made.add(media, windows=1.0)
    assert made.space.modalities == ("text", "audio")
    (hit, *_) = made.search(audio=media / "low.wav", k=1)
    assert os.path.basename(hit.path) == "low.wav"
    assert made.search(text="a low hum", k=2)


@pytest.mark.filterwarnings(r"ignore:torch.meshgrid.*:UserWarning")
def test_clap_hears_for_a_model_of_the_hub(
    hub_clip: Callable[..., Path], tiny_clap: Callable[..., str], tmp_path: Path, sound: Callable[..., Path], run
) -> None:
    """`trivium align --keep` with both: the written space names the commit, and the texts do not move."""
    ears = tiny_clap()
    hub_clip()
    rows = ["audio,label"]
    for number in range(12):
        hz = (200.0, 3000.0)[number % 2] + 5 * number
        file = sound(tmp_path / f"{number}.wav", hz, seconds=1.0)
        rows.append(f"{file.name},{('low hum', 'high whistle')[number % 2]}")
    (tmp_path / "sounds.csv").write_text("\n".join(rows) + "\n")
    target = tmp_path / "both"
    options = ["--encoders", f"open-clip:hf-hub:org/tiny,audio={ears}", "--keep", "text,image", "--validation", "0"]
    status, _, err = run(
        "align", str(tmp_path / "sounds.csv"), "--out", str(target), *options, "--method", "closed-form"
    )
    assert status == 0, err
    written = json.loads((target / "space.json").read_text())["encoders"]
    assert written["text"]["backbone"] == f"open-clip:hf-hub:org/tiny@{'0' * 40}"
    assert written["audio"]["backbone"] == ears
    both = load_space(target)
    words = ["low hum", "high whistle"]
    texts = both.encode("text", words)
    np.testing.assert_array_equal(texts, load_space("open-clip:hf-hub:org/tiny").encode("text", words))
    scores = both.encode("audio", [tmp_path / f"{number}.wav" for number in range(12)]) @ texts.T
    assert (scores.argmax(axis=1) == np.arange(12) % 2).all()
