"""Folders that somebody else has made: spaces with their heads, labels and text models, classifiers, checkpoints."""

import json
import os
import random
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import save_file

from trivium.encoders.base import DecodeError, Features, WeightsError
from trivium.encoders.text.own_models import (
    TextModelConfig,
    build_network,
    load_text_network,
    read_text_model,
    revision_of,
    save_text_model,
    text_backbone,
)
from trivium.encoders.text.shapes import LstmShape, TransformerShape
from trivium.encoders.text.words import word_tokenizer
from trivium.pipeline.space.config import SpaceError, read_labels
from trivium.pipeline.space.joint import load_space
from trivium.pipeline.text_learning.steps import CheckpointError, load_checkpoint, save_checkpoint

CASES: Any = sys.modules["__main__"]
MUTATIONS = CASES.load_beside("mutations")
DIM = 8
WORDS = ["a", "red", "green", "blue", "picture", "of", "the", "sea"]
SHAPES = [
    TransformerShape(vocabulary=10, width=8, heads=2, layers=2, inner=12, positions=9, embedding=8, dim=DIM),
    LstmShape(vocabulary=10, embedding=6, width=4, layers=1, both_ways=True, pooling="last", dim=DIM, projected=True),
]
LABELS = {"phrases": {"sea": ["sea", "the sea"], "red": ["red"]}, "heads": {"imagenet": ["sea", "red"]}}
CALIBRATION = {"format": 1, "log_odds": {"text->image": {"offset": -3.0, "slope": 9.0, "size": 0.5}}}
FULL_SHARE = 0.01  # of the cases: a network is exported and used, which takes a second


def head_tensors() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    shapes = {
        "mean": (DIM,), "centre": (DIM,), "linear.weight": (1, DIM, DIM), "linear.bias": (1, DIM),
        "hidden.weight": (1, DIM, 4), "hidden.bias": (1, 4), "out.weight": (1, 4, DIM),
    }  # fmt: skip
    tensors = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    return {**tensors, "scale": np.ones(DIM, np.float32)}


class StubNetwork:
    """What a text model has beside its tokenizer."""

    device = "cpu"


class HostileSpaces:
    """Spaces with a text model of their own and projections of every kind."""

    documented = (SpaceError, WeightsError, DecodeError)

    def __init__(self, scratch: Path) -> None:
        self._scratch = scratch
        self._folder = scratch / "inside" / "space"
        self._templates = [scratch / "templates" / str(number) for number in range(len(SHAPES))]
        self._outside = scratch / "outside"
        self._cache = scratch / "cache"
        self._cache.mkdir()
        os.environ["HOME"] = os.environ["TRIVIUM_CACHE"] = str(self._cache)  # of graphs: it may change
        self.watched = [self._outside, scratch / "templates"]
        self.restore()
        for folder, shape in zip(self._templates, SHAPES, strict=True):
            self._make(folder, shape)

    def restore(self) -> None:
        """See `cases.Target`."""
        shutil.rmtree(self._outside, ignore_errors=True)
        self._outside.mkdir()
        (self._outside / "mine.json").write_text("{}")
        os.chdir(self._outside)

    def _make(self, folder: Path, shape: Any) -> None:
        config = TextModelConfig(shape=shape, max_tokens=8)
        torch.manual_seed(0)
        save_text_model(folder / "text", config, build_network(config).state_dict(), word_tokenizer(WORDS))
        save_file(head_tensors(), folder / "head.safetensors")
        save_file({"weight": np.eye(DIM, dtype=np.float32)}, folder / "linear.safetensors")
        (folder / "labels.json").write_text(json.dumps(LABELS))
        (folder / "calibration.json").write_text(json.dumps(CALIBRATION))
        revision = revision_of(folder / "text")
        projections: dict[str, Any] = {
            "text": {"kind": "head", "weights": "head.safetensors", "inputs": ["pooled"]},
            "image": {"kind": "labels", "labels": "labels.json", "temperature": 2},
            "audio": {"kind": "linear", "weights": "linear.safetensors"},
        }
        backbones = {"text": "text-model:text", "image": "efficientnet-lite0", "audio": "aisfx"}
        encoders = {
            modality: {"backbone": backbones[modality], "projection": projection}
            for modality, projection in projections.items()
        }
        encoders["text"]["revision"] = revision
        space = {"format": 1, "name": "mine", "description": "x", "dim": DIM, "encoders": encoders}
        (folder / "space.json").write_text(json.dumps(space))

    def case(self, rng: random.Random, number: int) -> Any:
        shutil.rmtree(self._folder, ignore_errors=True)
        shutil.copytree(rng.choice(self._templates), self._folder)
        recipe = [self._change(rng) for _ in range(rng.choice((1, 1, 2)))]
        return CASES.Case(recipe, self._operations(rng))

    def _change(self, rng: random.Random) -> str:
        files = sorted(path for path in self._folder.rglob("*") if path.is_file())
        path = rng.choice(files)
        how = rng.random()
        if how < 0.9:
            return str(MUTATIONS.change_file(path, rng))
        path.unlink()
        name = path.relative_to(self._folder)
        if how < 0.93:
            return f"{name} is missing"
        if how < 0.96:
            path.mkdir()
            return f"{name} is a folder"
        path.symlink_to(self._outside / "mine.json")
        return f"{name} is a link"

    def _operations(self, rng: random.Random) -> list[tuple[str, Callable[[], object]]]:
        space, text = self._folder, self._folder / "text"
        features = Features(pooled=np.ones((2, DIM), np.float32), logits={"imagenet": np.ones((2, 2), np.float32)})

        def projected(modality: Any) -> Callable[[], object]:
            return lambda: load_space(space).projection(modality, DIM)(features)

        def tokens() -> None:
            model = text_backbone(text, read_text_model(text), StubNetwork())  # type: ignore[arg-type]
            model.prepare_all(["a red picture of the sea", "\x07 \ud7ff x", "a" * 5_000])
            model.passages("a red picture of the sea " * 9)

        operations: list[tuple[str, Callable[[], object]]] = [
            ("load", lambda: (load_space(space), load_space(space).modalities, str(load_space(space).space))),
            ("text projection", projected("text")),
            ("sound projection", projected("audio")),
            ("labels", lambda: read_labels(space / "labels.json")),
            ("relevance", lambda: load_space(space).relevance),
            ("text model", lambda: read_text_model(text)),
            ("revision", lambda: revision_of(text)),
            ("network", lambda: _run(load_text_network(text))),
            ("tokenizer", tokens),
        ]
        if rng.random() < FULL_SHARE:
            operations.append(("encode", lambda: load_space(space).encode("text", ["a red picture", "x" * 999])))
        return operations


def _run(network: Any) -> None:
    ids = torch.ones((1, 4), dtype=torch.int64)
    with torch.inference_mode():
        network(ids, torch.ones_like(ids))


class HostileCheckpoints:
    """Checkpoints of a training that was stopped."""

    documented = (CheckpointError,)

    def __init__(self, scratch: Path) -> None:
        self._template, self._folder = scratch / "template", scratch / "inside"
        save_checkpoint(self._template, {"weight": torch.zeros(8), "bias": torch.ones(2, 3)}, {"done": 1, "seen": [1]})
        self.watched = [self._template]

    def restore(self) -> None:
        """See `cases.Target`."""

    def case(self, rng: random.Random, number: int) -> Any:
        shutil.rmtree(self._folder, ignore_errors=True)
        shutil.copytree(self._template, self._folder)
        recipe = [MUTATIONS.change_file(rng.choice(sorted(self._folder.iterdir())), rng)]
        return CASES.Case(recipe, [("load", lambda: load_checkpoint(self._folder))])


TARGETS = {"spaces": HostileSpaces, "checkpoints": HostileCheckpoints}
