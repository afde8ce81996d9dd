"""Spaces as folders: what is read, what is refused, and that one can add one's own."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from trivium.pipeline.ingest.contents import batch_files
from trivium.pipeline.space.config import SpaceError, read_labels, read_space_config
from trivium.pipeline.space.joint import load_space, space_folders

TEXT = {"backbone": "minilm-l6", "projection": {"kind": "identity"}}


def write(folder: Path, **changes: object) -> Path:
    config = {"format": 1, "name": "mine", "dim": 384, "encoders": {"text": TEXT}} | changes
    folder.mkdir(exist_ok=True)
    (folder / "space.json").write_text(json.dumps(config))
    return folder


def test_default_space_ships() -> None:
    config = read_space_config(space_folders()["trivium-labels"])
    assert config.space.name == "trivium-labels"
    assert set(config.encoders) == {"text", "image", "audio"}


def test_label_files_fit_the_heads() -> None:
    folder = space_folders()["trivium-labels"]
    imagenet, ucs = read_labels(folder / "imagenet.json"), read_labels(folder / "ucs.json")
    assert {head: len(classes) for head, classes in imagenet.heads.items()} == {"imagenet": 1000}
    assert {head: len(classes) for head, classes in ucs.heads.items()} == {"prosfx": 78, "soundly": 79, "ucs_mixed": 69}
    ranks = ucs.heads["soundly"]  # what listening settled: docs/models.md
    assert [ranks[n] for n in (4, 14, 30, 55)] == ["ANIMALS", "CLOCKS", "FIRE", "RAIN"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": 2}, r"format 2, this Trivium reads format 1"),
        ({"name": ""}, "name must be a word"),
        ({"dim": 0}, "dim must be 1 to 65536, got 0"),
        ({"dim": "384"}, "dim must be 1 to 65536, got '384'"),
        ({"colour": "red"}, "unknown keys: colour"),
        ({"encoders": {}}, "at least one modality"),
        ({"encoders": {"smell": TEXT}}, "unknown modality 'smell'"),
        ({"encoders": {"image": TEXT}}, "backbone 'minilm-l6' is for text"),
        ({"encoders": {"text": TEXT | {"backbone": "bert"}}}, "unknown backbone 'bert', known are aisfx"),
        ({"encoders": {"text": TEXT | {"projection": {"kind": "magic"}}}}, "kind must be one of .*got 'magic'"),
        ({"encoders": {"text": TEXT | {"projection": {"kind": "identity", "top": 3}}}}, "unknown keys: top"),
        (
            {"encoders": {"text": TEXT | {"projection": {"kind": "linear", "weights": "../x"}}}},
            "no file '../x' in the space's folder",
        ),
        (
            {"encoders": {"text": TEXT | {"projection": {"kind": "labels", "labels": "l.json", "temperature": -1}}}},
            "temperature must be above 0, got -1.*no file 'l.json'",
        ),
    ],
)
def test_faulty_configs_are_refused(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    with pytest.raises(SpaceError, match=message):
        read_space_config(write(tmp_path / "s", **changes))


def test_no_json(tmp_path: Path) -> None:
    (tmp_path / "space.json").write_text("{")
    with pytest.raises(SpaceError, match="is not JSON"):
        read_space_config(tmp_path)


def test_unknown_space_lists_the_known() -> None:
    with pytest.raises(SpaceError, match="no space 'trivium-lables': known are trivium-base, trivium-labels"):
        load_space("trivium-lables")


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({}, "must hold 'phrases' and 'heads'"),
        ({"phrases": {"a": []}, "heads": {"h": ["a"]}}, "class 'a' needs a list of words"),
        ({"phrases": {"a": ["x"]}, "heads": {"h": ["a", "b"]}}, "'h' names classes without words: b"),
    ],
)
def test_faulty_labels(tmp_path: Path, labels: object, message: str) -> None:
    (tmp_path / "l.json").write_text(json.dumps(labels))
    with pytest.raises(SpaceError, match=message):
        read_labels(tmp_path / "l.json")


def test_revision_follows_all_that_decides_a_vector(tmp_path: Path) -> None:
    encoder = {"backbone": "aisfx", "projection": {"kind": "linear", "weights": "w.safetensors"}}
    folder = write(tmp_path / "s")
    save_file({"weight": np.zeros((512, 384), np.float32)}, folder / "w.safetensors")
    plain = read_space_config(folder).space.revision
    with_audio = read_space_config(write(folder, encoders={"text": TEXT, "audio": encoder})).space.revision
    save_file({"weight": np.ones((512, 384), np.float32)}, folder / "w.safetensors")
    other_weights = read_space_config(folder).space.revision
    assert len({plain, with_audio, other_weights}) == 3
    renamed = read_space_config(write(folder, name="other", encoders={"text": TEXT, "audio": encoder})).space
    assert renamed.revision == other_weights


@pytest.mark.weights
def test_a_space_of_ones_own(tmp_path: Path, weights) -> None:
    """A folder with a linear projection: text of 64 dimensions."""
    folder = write(
        tmp_path / "s",
        dim=64,
        encoders={
            "text": {"backbone": "minilm-l6", "projection": {"kind": "linear", "weights": "w.safetensors"}},
        },
    )
    matrix = np.random.default_rng(0).normal(size=(384, 64)).astype(np.float32)
    save_file({"weight": matrix}, folder / "w.safetensors")
    space = load_space(folder)
    vectors = space.encode("text", ["a dog", "a puppy", "the stock market"])
    assert vectors.shape == (3, 64)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2]
    assert space.encode("text", []).shape == (0, 64)
    with pytest.raises(SpaceError, match="no encoder for image"):
        space.encode("image", [])
    save_file({"weight": matrix[:, :32]}, folder / "w.safetensors")
    with pytest.raises(SpaceError, match="width 32, the space has 64"):
        load_space(folder).encode("text", ["a"])


@pytest.mark.parametrize(
    ("devices", "kind", "lanes"),
    [
        (["cpu"], "cpu", [0]),
        (["mps"], "gpu", [0]),
        (["cuda:0"], "gpu", [0, 0]),
        (["cuda:0", "cuda:1"], "gpu", [0, 1] * 2),
    ],
)
def test_two_threads_encode_on_each_gpu(
    monkeypatch: pytest.MonkeyPatch, devices: list[str], kind: str, lanes: list[int]
) -> None:
    monkeypatch.setattr("trivium.pipeline.space.joint.resolve", lambda _: devices)
    space = load_space(device="any")
    assert (space.device_kind, space.lanes, space.replicas) == (kind, lanes, len(devices))
    assert batch_files(space, "image") == (64 if kind == "cpu" else 256)
    asked: list[tuple[list[int], int]] = []
    monkeypatch.setattr(space, "encoder", lambda _, replica: replica)
    monkeypatch.setattr(
        "trivium.pipeline.space.joint.encode",
        lambda encoders, _, *, batch_size, **__: asked.append((encoders, batch_size)),
    )
    space.encode("text", ["a"])
    space.encode("text", ["a"], batch_size=5)
    assert asked == [(lanes, 1024 if kind == "cpu" else 8192), (lanes, 5)]
