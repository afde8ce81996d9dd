"""The examples, run as they stand on small slices that are made here."""

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from trivium.encoders.files.user_cache import cache_folder

EXAMPLES = Path(__file__).parents[2] / "examples"


def example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"trivium_example_{name}", EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def own_cache(weights: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give what is encoded here a place of its own; the weights and graphs are the real ones."""
    del weights
    own = tmp_path / "cache"
    own.mkdir()
    (cache_folder() / "graphs").mkdir(exist_ok=True)
    for name in ("weights", "graphs"):
        (own / name).symlink_to(cache_folder() / name)
    monkeypatch.setenv("TRIVIUM_CACHE", str(own))


@pytest.mark.weights
def test_text_classifier(weights: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    random = np.random.default_rng(0)
    words = {"1": ["wonderful", "great", "superb", "loved"], "0": ["awful", "boring", "terrible", "hated"]}
    for name, count in (("train", 48), ("test", 24)):
        lines = ["text,label"]
        for number in range(count):
            label = str(number % 2)
            lines.append(f"the film was {' and '.join(random.choice(words[label], 2))} to watch,{label}")
        (tmp_path / f"{name}.csv").write_text("\n".join(lines) + "\n")
    options = [str(tmp_path / "train.csv"), str(tmp_path / "test.csv"), "--epochs", "2", "--tuned-epochs", "2"]
    found = example("text_classifier").main(options)
    assert list(found) == ["LSTM, random word vectors", "LSTM, MiniLM's token embeddings", "MiniLM, fine-tuned"]
    assert found["MiniLM, fine-tuned"] > 0.8
    assert capsys.readouterr().out.count("test loss") == 3


@pytest.mark.weights
def test_vision_to_text(own_cache: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    colours = {"red": (220, 20, 20), "green": (20, 160, 30), "blue": (20, 40, 220), "yellow": (240, 220, 30)}
    random = np.random.default_rng(0)
    lines = ["path,title,kind"]
    for number in range(64):
        name, colour = list(colours.items())[number % 4]
        pixels = np.clip(random.normal(colour, 15, (64, 64, 3)), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
        lines.append(f"{number}.png,a {name} picture,{name}")
    (tmp_path / "table.csv").write_text("\n".join(lines) + "\n")
    found = example("vision_to_text").main([str(tmp_path / "table.csv"), "--label", "kind"])
    assert found["learnt from photos, no label of a title"] > 0.7  # chance is 0.25
    assert "48 products to learn from, 16 titles asked, 4 labels" in capsys.readouterr().out
