"""Spaces, text models and tables that a stranger made, by the hundred; by the ten thousand with `make test-slow`.

Each is one that is valid, changed by a seed: types, sizes, names, links, bytes, headers. Whatever it is, opening and
using it ends well or in one of our own errors; nothing outside is touched, nothing is fetched, and memory stays small.
"""

import gzip
import os
import shutil
import socket
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from trivium.encoders.base import Backbone, Features, Modality, Prepared, Space, WeightsError
from trivium.encoders.text.own_models import (
    TextModelConfig,
    build_network,
    load_text_network,
    read_text_model,
    read_tokenizer,
    revision_of,
    save_text_model,
)
from trivium.encoders.text.shapes import LstmShape, Shape, TransformerShape
from trivium.encoders.text.words import word_tokenizer
from trivium.fusion.projections.head import Head, HeadInput
from trivium.pipeline.fused.table import read_frame
from trivium.pipeline.space.config import (
    EncoderConfig,
    ProjectionConfig,
    SpaceError,
    named_files,
    read_labels,
    read_space_config,
)
from trivium.pipeline.space.folder import write_space
from trivium.pipeline.space.joint import load_space
from trivium.pipeline.space.projections import ProjectedEncoder, build_projection
from trivium.pipeline.space.relevance import LogOdds, Relevance
from trivium.pipeline.tables.metadata import MetadataError
from trivium.pipeline.tables.metadata_table import read_table
from trivium.pipeline.tables.pairs import read_pairs
from trivium.pipeline.tables.reading import TableError
from trivium.pipeline.text_learning.classifying import ClassifierRecipe, load_text_classifier, new_classifier

SEED = int(os.environ.get("TRIVIUM_SEED", "0"))
HOSTILE = int(os.environ.get("TRIVIUM_HOSTILE", "10000"))  # of each, with `slow`
SHORT = 40
MOST_BYTES = 700 << 20  # that reading such a folder may add: the largest files that are read have 512 MiB
SHAPES: list[Shape] = [
    TransformerShape(
        vocabulary=6, width=8, heads=2, layers=2, inner=8, positions=9, embedding=4, dim=5, projected=True
    ),
    LstmShape(vocabulary=6, embedding=6, width=4, layers=2, both_ways=True, pooling="last", dim=8),
]


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, cache: Path) -> Path:
    """Every attempt to reach a network fails the test."""

    def reach(*_: object, **__: object) -> None:
        pytest.fail("something reached for the network")

    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, reach)
    monkeypatch.setattr(socket, "getaddrinfo", reach)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", reach)
    return cache


class FittingBackbone(Backbone):
    """Features that fit what the valid spaces say."""

    modality: Modality = "text"
    dim = 384

    def prepare(self, item: object, /) -> Prepared:
        raise NotImplementedError

    def features(self, batch: object, /) -> Features:
        random = np.random.default_rng(0)
        return Features(
            pooled=random.normal(size=(2, 384)).astype(np.float32),
            logits={"imagenet": random.normal(size=(2, 10)).astype(np.float32)},
        )


def make_text_model(folder: Path, shape: Shape = SHAPES[0]) -> None:
    torch.manual_seed(0)
    config = TextModelConfig(shape=shape, max_tokens=8)
    words = word_tokenizer(["red", "green", "blue", "sea"])
    recipe = ClassifierRecipe(head_tokens=4)
    new_classifier(build_network(config), config=config, tokenizer=words, labels=["a", "b", "c"], recipe=recipe).save(
        folder, more={"training.json": "{}"}
    )


def make_lstm(folder: Path) -> None:
    make_text_model(folder, SHAPES[1])


def make_space(folder: Path) -> None:
    """A space with heads, a linear map, labels and a text model."""
    random = np.random.default_rng(0)
    width, dim = 394, 5
    tensors = {
        "mean": np.zeros(width),
        "scale": np.ones(width),
        "centre": np.zeros(dim),
        "linear.weight": random.normal(size=(1, width, dim)),
        "linear.bias": np.zeros((1, dim)),
        "hidden.weight": random.normal(size=(1, width, 3)),
        "hidden.bias": np.zeros((1, 3)),
        "out.weight": random.normal(size=(1, 3, dim)),
        "member.weights": np.ones(1),
    }
    inputs = (HeadInput("pooled"), HeadInput("imagenet", 2.0))
    head = Head(inputs, {name: tensor.astype(np.float32) for name, tensor in tensors.items()})
    parts = folder.with_name("parts")
    parts.mkdir()
    config = TextModelConfig(shape=SHAPES[0], max_tokens=8)
    words = word_tokenizer(["red", "green", "blue", "sea"])
    save_text_model(parts / "student", config, build_network(config).state_dict(), words)
    save_file({"weight": random.normal(size=(384, dim)).astype(np.float32)}, parts / "linear.safetensors")
    linear = ProjectionConfig(kind="linear", file=parts / "linear.safetensors")
    student = f"text-model:{parts / 'student'}"
    write_space(
        folder,
        name="mine",
        description="a space",
        dim=dim,
        encoders={
            "text": EncoderConfig(
                backbone=student,
                projection=ProjectionConfig(kind="identity"),
                revision=revision_of(parts / "student"),
            ),
            "image": EncoderConfig(backbone="efficientnet-lite0", projection=linear),
            "audio": EncoderConfig(backbone="aisfx", projection=linear),
        },
        heads={"audio": head},
        relevance=Relevance({("text", "image"): LogOdds(offset=-1.0, slope=9.0, size=-0.3)}),
    )
    (folder / "labels.json").write_text('{"phrases": {"a": ["red", "blue"]}, "heads": {"imagenet": ["a", "a"]}}')


def use_text_model(folder: Path) -> None:
    config = read_text_model(folder)
    load_text_network(folder)
    read_tokenizer(folder, vocabulary=config.shape.vocabulary, max_tokens=config.max_tokens)
    classifier = load_text_classifier(folder)
    assert classifier.predict_proba(["the red sea", "\x07"]).shape == (2, len(classifier.labels))


def use_space(folder: Path) -> None:
    config = read_space_config(folder)
    space = load_space(folder, device="cpu-torch")  # nothing is exported
    if space.relevance is not None:
        space.relevance.probabilities("text", "image", np.zeros(2), 10)
    for modality, own in config.encoders.items():
        if own.revision is not None:
            space.backbone(modality)  # a text model, or one of open_clip's that nobody here named
            continue
        projection = build_projection(config, own, 384)
        encoder = ProjectedEncoder(Space(name="x", dim=5, revision=""), FittingBackbone(), projection)
        assert np.isfinite(encoder.embed([])).all()
    read_labels(folder / "labels.json")
    assert named_files(folder) is not None


def make_tables(folder: Path) -> None:
    folder.mkdir()
    rows = ["path,text,label,year", *(f"{n}.jpg,a red thing,red,{1900 + n}" for n in range(20))]
    (folder / "a.csv").write_text("\n".join(rows))
    (folder / "a.jsonl").write_text("\n".join(f'{{"path": "{n}.jpg", "text": "x", "tags": ["a"]}}' for n in range(20)))
    (folder / "a.csv.gz").write_bytes(gzip.compress("\n".join(rows).encode()))


def use_tables(folder: Path) -> None:
    for name in ("a.csv", "a.jsonl", "a.csv.gz"):
        if not (folder / name).is_fifo():
            for read in (read_table, read_pairs, lambda path: read_frame(path, columns={})):
                try:
                    read(folder / name)
                except (TableError, MetadataError):
                    continue


def peak_bytes() -> int:
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) << 10


def listing(root: Path) -> dict[str, object]:
    """All that lies outside of the folder, with sizes, times and modes."""
    found: dict[str, object] = {}
    for place, _, names in os.walk(root):
        for name in [".", *names]:
            status = os.lstat(os.path.join(place, name))
            found[os.path.join(place, name)] = status.st_size, status.st_mtime_ns, status.st_mode, status.st_ino
    return found


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """What NumPy and torch say of such numbers does not matter; what is raised does."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


CASES: dict[str, tuple[Callable[[Path], None], Callable[[Path], None]]] = {
    "space": (make_space, use_space),
    "transformer": (make_text_model, use_text_model),
    "lstm": (make_lstm, use_text_model),
    "tables": (make_tables, use_tables),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("count", [SHORT, pytest.param(HOSTILE, marks=pytest.mark.slow)])
def test_whatever_a_stranger_made_is_used_or_refused(
    tmp_path: Path, offline: Path, reference: Callable[[str], ModuleType], case: str, count: int
) -> None:
    hostile = reference("hostile")
    make, use = CASES[case]
    valid, folder, outside = tmp_path / "valid" / "folder", tmp_path / "hostile" / "folder", tmp_path / "outside"
    valid.parent.mkdir()
    make(valid)
    use(valid)
    outside.mkdir()
    secret = outside / "secret.json"
    secret.write_text('{"format": 1, "kind": "lstm"}')
    if sys.platform.startswith("linux"):
        Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
        before_bytes = peak_bytes()
    before = listing(outside) | listing(valid.parent)
    told = {"used": 0, "refused": 0}
    for seed in range(SEED, SEED + count):
        shutil.rmtree(folder.parent, ignore_errors=True)
        shutil.copytree(valid.parent, folder.parent, symlinks=True)
        done = hostile.change(folder, secret, seed)
        message = "used without a word"
        try:
            use(folder)
            told["used"] += 1
        except (SpaceError, WeightsError, TableError, MetadataError) as error:  # a TextModelError is a WeightsError
            told["refused"] += 1
            message = str(error)
        except BaseException as error:
            raise AssertionError(f"seed {seed}: {done}: {type(error).__name__}: {error}") from error
        assert 10 < len(message) < 5_000, (seed, done)
        assert "weights_only" not in message
        assert listing(outside) | listing(valid.parent) == before, (seed, done)
    assert told["used"] + told["refused"] == count
    assert told["refused"] > count / 10 or case == "tables", told
    if sys.platform.startswith("linux"):
        assert peak_bytes() - before_bytes < MOST_BYTES
