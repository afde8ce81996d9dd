"""Text models in folders: saved, read, refused, exported, and used as a space's text encoder."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from trivium.encoders.base import DecodeError
from trivium.encoders.text.own_models import (
    TextModelConfig,
    TextModelError,
    build_network,
    check_model_target,
    load_text_model,
    load_text_network,
    read_text_model,
    revision_of,
    save_text_model,
)
from trivium.encoders.text.shapes import LstmShape, Shape, TransformerShape
from trivium.encoders.text.words import word_tokenizer

WORDS = ["a", "red", "green", "blue", "picture", "of", "the", "sea"]
SHAPES: list[Shape] = [
    TransformerShape(vocabulary=10, width=8, heads=2, layers=2, inner=12, positions=9, embedding=8, dim=8),
    LstmShape(vocabulary=10, embedding=6, width=4, layers=1, both_ways=True, pooling="last", dim=3, projected=True),
]
TEXTS = ["a red picture", "the sea", "blue", "the picture of a green sea of unknown words"]


def saved(folder: Path, shape: Shape, *, seed: int = 0) -> Path:
    config = TextModelConfig(shape=shape, max_tokens=8)
    torch.manual_seed(seed)
    save_text_model(folder, config, build_network(config).state_dict(), word_tokenizer(WORDS))
    return folder


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_the_exported_network_says_what_torch_does(cache: Path, tmp_path: Path, shape: Shape, precision: str) -> None:
    folder = saved(tmp_path / "model", shape)
    assert read_text_model(folder) == TextModelConfig(shape=shape, max_tokens=8)
    backbone = load_text_model(folder, precision=precision)  # type: ignore[arg-type]
    found = backbone.features(backbone.prepare_all(TEXTS)).pooled
    network = load_text_network(folder)
    with torch.inference_mode():
        for text, row in zip(TEXTS, found, strict=True):
            ids = torch.from_numpy(backbone.prepare(text)[np.newaxis])
            (expected,) = network(ids, torch.ones_like(ids))
            # int8 keeps 7 bits of each weight: a percent or two of vectors of tiny networks
            np.testing.assert_allclose(row, expected[0], atol=1e-5 if precision == "float32" else 0.15)
    assert backbone.dim == shape.dim
    assert len(backbone.prepare(TEXTS[-1])) == 8


def test_items_that_are_no_texts(cache: Path, tmp_path: Path) -> None:
    backbone = load_text_model(saved(tmp_path / "model", SHAPES[0]))
    with pytest.raises(DecodeError, match="empty"):
        backbone.prepare(" \n")
    with pytest.raises(TypeError, match="must be a str, got int"):
        backbone.prepare(3)
    assert list(backbone.prepare("\x07")) == [1]  # the tokenizer drops control characters
    assert backbone.features([]).pooled.shape == (0, 8)


def test_long_texts_have_passages(cache: Path, tmp_path: Path) -> None:
    backbone = load_text_model(saved(tmp_path / "model", SHAPES[0]))
    text = "a red picture of the sea the sea the sea"
    assert backbone.passages("a red picture") == []
    found = backbone.passages(text)
    assert found[0].start == 0
    assert found[-1].stop == len(text)
    assert all(len(passage.prepared) <= 4 for passage in found)
    assert all(after.start < before.stop for before, after in itertools.pairwise(found))


def test_the_revision_is_of_all_files(tmp_path: Path) -> None:
    first = revision_of(saved(tmp_path / "a", SHAPES[0]))
    assert first == revision_of(saved(tmp_path / "b", SHAPES[0]))
    assert first != revision_of(saved(tmp_path / "c", SHAPES[0], seed=1))
    tokenizer = tmp_path / "a" / "tokenizer.json"
    tokenizer.write_text(tokenizer.read_text().replace("sea", "see"))
    assert first != revision_of(tmp_path / "a")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 2}, "has format 2, this Trivium reads format 1"),
        ({"kind": "rnn"}, "kind must be one of transformer, lstm with its shape, got 'rnn'"),
        ({"max_tokens": 10}, "max_tokens is 10, there are 9 positions"),
        ({"max_tokens": 0}, "max_tokens must be a whole number of at least 1, got 0"),
        ({"shape": {"width": 8}}, "what differs: 'dim', 'embedding', 'heads'"),
    ],
)
def test_bad_cards_are_told(tmp_path: Path, change: dict[str, object], message: str) -> None:
    folder = saved(tmp_path / "model", SHAPES[0])
    card = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps(card | change))
    with pytest.raises(TextModelError, match=message):
        read_text_model(folder)


def test_bad_shapes_are_told(tmp_path: Path) -> None:
    folder = saved(tmp_path / "model", SHAPES[1])
    card = json.loads((folder / "model.json").read_text())
    for key, value, message in (
        ("pooling", "max", "pooling must be mean or last, got 'max'"),
        ("both_ways", 1, "both_ways must be true or false, got 1"),
        ("width", True, "width must be a whole number of at least 1, got True"),
        ("width", 5, "does not fit its model.json"),
    ):
        (folder / "model.json").write_text(json.dumps(card | {"shape": card["shape"] | {key: value}}))
        with pytest.raises(TextModelError, match=message):
            load_text_network(folder)


def test_folders_that_are_no_models(tmp_path: Path) -> None:
    with pytest.raises(TextModelError, match=r"holds no text model: .*model.json cannot be read"):
        read_text_model(tmp_path)
    with pytest.raises(TextModelError, match="holds no text model"):
        revision_of(tmp_path)
    (tmp_path / "photo.jpg").write_text("")
    with pytest.raises(TextModelError, match="exists and is no text model"):
        check_model_target(tmp_path)
    folder = saved(tmp_path / "model", SHAPES[0])
    saved(folder, SHAPES[1])  # replaced
    assert read_text_model(folder).kind == "lstm"
    (folder / "model.json").write_text("{")
    with pytest.raises(TextModelError, match="is not JSON"):
        read_text_model(folder)


def test_an_odd_number_of_passes_gives_the_same(cache: Path, tmp_path: Path) -> None:
    backbone = load_text_model(saved(tmp_path / "model", SHAPES[0]))
    many = backbone.prepare_all(TEXTS * 100)
    rows = backbone.features(many).pooled
    np.testing.assert_allclose(rows[:4], rows[-4:], rtol=1e-4, atol=1e-5)
