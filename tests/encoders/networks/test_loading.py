"""The fast ways to run a network against the slow plain one: torch, float32, one item at a time."""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from assets import ASSETS
from trivium.encoders import WeightsError, build_backbone, unit_rows
from trivium.encoders.devices import PLAIN
from trivium.encoders.files.user_cache import cache_folder
from trivium.encoders.networks import loading
from trivium.encoders.networks.contract import Architecture
from trivium.encoders.networks.graph_seal import Seal, checksum_of, is_intact, read_seal, seal_graph
from trivium.encoders.networks.loading import load_network
from trivium.encoders.networks.onnx_runtime import Graph, exported, graph_file, sound_graph
from trivium.encoders.networks.weights import WEIGHTS, weights_folder

TEXTS = [
    "A bird singing in the early morning.",
    "dog",
    "The recipe needs two eggs, a cup of flour, sugar, and a little patience; then it goes into the oven. " * 4,
    "Ein Haus am See",
]


def cosines(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray((unit_rows(a) * unit_rows(b)).sum(axis=1))


def items_of(modality: str) -> Sequence[Any]:
    if modality == "text":
        return TEXTS
    suffixes = (".jpg", ".png", ".webp", ".svg") if modality == "image" else (".wav", ".ogg", ".mp3")
    return sorted(path for path in ASSETS.iterdir() if path.suffix in suffixes)


@pytest.mark.weights
@pytest.mark.parametrize("name", ["minilm-l6", "efficientnet-lite0", "aisfx"])
def test_onnx_in_batches_is_torch_one_by_one(weights: dict[str, Path], name: str) -> None:
    fast, plain = build_backbone(name), build_backbone(name, device=PLAIN)
    prepared = [fast.prepare(item) for item in items_of(fast.modality)]
    assert len(prepared) >= 3
    together = fast.features(prepared)
    alone = [plain.features([item]) for item in prepared]
    assert cosines(together.pooled, np.concatenate([one.pooled for one in alone])).min() > 0.99999
    for head, logits in together.logits.items():
        expected = np.concatenate([one.logits[head] for one in alone])
        np.testing.assert_allclose(logits, expected, rtol=1e-3, atol=1e-3)  # float32 in another order; logits up to 20
    for layer, rows in together.layers.items():
        assert cosines(rows, np.concatenate([one.layers[layer] for one in alone])).min() > 0.99999


@pytest.mark.weights
def test_int8_is_near(weights: dict[str, Path]) -> None:
    exact, quick = build_backbone("minilm-l6"), build_backbone("minilm-l6", precision="int8")
    prepared = [exact.prepare(text) for text in TEXTS]
    a, b = exact.features(prepared).pooled, quick.features(prepared).pooled
    assert cosines(a, b).min() > 0.97
    assert not np.array_equal(a, b)  # else it would be the other graph


@pytest.mark.weights
def test_a_picture_decoded_scaled_is_the_picture(weights: dict[str, Path], tmp_path: Path) -> None:
    """A large JPEG is decoded at a part of its size; the vector stays."""
    backbone = build_backbone("efficientnet-lite0")
    with Image.open(ASSETS / "strawberry.jpg") as small:
        large = small.convert("RGB").resize((2400, 1800), Image.Resampling.BICUBIC)
    large.save(tmp_path / "large.jpg", quality=95)
    scaled = backbone.features([backbone.prepare(tmp_path / "large.jpg")]).pooled
    with Image.open(tmp_path / "large.jpg") as whole:
        full = backbone.features([backbone.prepare(whole.convert("RGB"))]).pooled
    assert 0.999 < cosines(scaled, full)[0]
    assert not np.array_equal(scaled, full)  # it was decoded in another way


@pytest.mark.weights
def test_a_text_needs_no_torch(weights: dict[str, Path]) -> None:
    build_backbone("minilm-l6")  # exported, if it was not
    script = (
        "import sys; from trivium.encoders import build_backbone; b = build_backbone('minilm-l6'); "
        "assert b.features([b.prepare('a bird')]).pooled.shape == (1, 384); "
        "assert not {'torch', 'torchaudio', 'torchvision', 'timm', 'transformers', 'onnx'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def architecture(name: str, module: torch.nn.Module, examples: list[NDArray[Any]]) -> Architecture:
    return Architecture(
        name=name, build=lambda: module, inputs={"x": {0: "n", 1: "t"}}, outputs=["y"], examples=lambda: examples
    )


class Scaled(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor(3.0))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor]:
        return (x * self.weight,)


def test_a_graph_is_exported_once(cache: Path) -> None:
    told: list[str] = []
    tiny = architecture("tiny", Scaled(), [np.ones((2, 4), np.float32)])
    for _ in range(2):
        network = load_network(tiny, announce=told.append)
        np.testing.assert_array_equal(network(np.full((5, 7), 2.0, np.float32))[0], np.full((5, 7), 6.0))
    assert told == ["preparing tiny for this machine's processor (float32, once)"]
    assert [path.name for path in graph_file(tiny, precision="float32").parent.iterdir()] == ["float32.onnx"]


class Wide(torch.nn.Module):
    """A graph of some hundred kB: a matrix of ones, and a sum."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(400, 400))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor]:
        return (x @ self.weight,)


def wide(**changed: Any) -> Architecture:
    return replace(architecture("wide", Wide(), [np.ones((2, 400), np.float32)]), inputs={"x": {0: "n"}}, **changed)


def assert_wide(network: Any) -> None:
    np.testing.assert_allclose(network(np.ones((3, 400), np.float32))[0], np.full((3, 400), 400.0), rtol=1e-6)


@pytest.mark.parametrize("precision", ["float32", "int8"])
@pytest.mark.parametrize(
    "damage", ["empty", "other", "cut", "longer", "zeroed", "one bit", "seal", "length", "swapped", "no seal"]
)
def test_a_damaged_graph_is_exported_again(cache: Path, damage: str, precision: Any) -> None:
    file = exported(wide(), precision=precision).file
    sound = file.read_bytes()
    data = bytearray(sound)
    match damage:
        case "empty":
            data.clear()
        case "other":
            data[:] = b"not a graph" * 100
        case "cut":
            del data[len(data) // 2 :]
        case "longer":
            data += b"x"
        case "zeroed":
            data[20_000:24_096] = bytes(4096)
        case "one bit":
            data[20_000] ^= 4
        case "seal":
            data[-500] ^= 1
        case "length":
            data[-1] ^= 1
        case "swapped":
            data[20:24], data[28:32] = data[28:32], data[20:24]
        case _:
            data[:] = sound[: read_seal(file).size]  # type: ignore[union-attr]
    file.write_bytes(bytes(data))
    told: list[str] = []
    assert_wide(load_network(wide(), precision=precision, announce=told.append))
    assert told == [
        f"the prepared wide ({precision}) in the cache is damaged or of an older Trivium",
        f"preparing wide for this machine's processor ({precision}, once)",
    ]
    assert sound_graph(file) is not None
    assert sorted(path.name for path in file.parent.iterdir()) == sorted({"float32.onnx", f"{precision}.onnx"})


def test_int8_is_made_of_a_sound_graph(cache: Path) -> None:
    file = exported(wide()).file
    data = bytearray(file.read_bytes())
    data[20_000:24_096] = bytes(4096)
    file.write_bytes(bytes(data))
    assert_wide(load_network(wide(), precision="int8"))
    assert sound_graph(file) is not None


def test_a_network_that_computes_otherwise_is_not_used(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bytes are right, and yet the numbers are not: another processor, another ONNX Runtime."""
    graph = exported(wide())
    monkeypatch.setattr(loading, "exported", lambda *_, **__: Graph(file=graph.file, seal=off(graph.seal)))
    told: list[str] = []
    assert_wide(load_network(wide(), announce=told.append))
    assert told[0].startswith("the prepared wide (float32) cannot be used (it computes other numbers here than when")
    monkeypatch.setattr(loading, "export", lambda *_, **__: Graph(file=graph.file, seal=off(graph.seal)))
    with pytest.raises(WeightsError, match=r"exported wide cannot be loaded: it computes other numbers .*cpu-torch"):
        load_network(wide())


def off(seal: Seal, by: float = 0.1) -> Seal:
    return replace(seal, outputs=[each + np.float32(by) for each in seal.outputs])


def test_how_far_a_canary_may_be_off() -> None:
    seal = Seal(size=0, checksum="", sha256="", inputs=[], outputs=[np.array([[400.0, 2.0]], np.float32)])
    near, far = np.array([[400.0, 2.03]], np.float32), np.array([[400.0, 2.05]], np.float32)
    assert not seal.differs([near], tolerance=1e-4)
    assert seal.differs([far], tolerance=1e-4)
    assert seal.differs([np.array([[400.0, np.nan]], np.float32)], tolerance=1e-4)
    assert seal.differs([near[0]], tolerance=1e-4)
    assert seal.differs([near, near], tolerance=1e-4)


def test_damaged_weights_are_not_exported(cache: Path) -> None:
    """A graph that is damaged is not made again of weights that are damaged too; it is not deleted either."""

    def build() -> torch.nn.Module:
        raise WeightsError("the cached weights are damaged: run `trivium pull`")

    file = exported(wide()).file
    data = bytearray(file.read_bytes())
    data[20_000] ^= 1
    file.write_bytes(bytes(data))
    with pytest.raises(WeightsError, match="are damaged: run `trivium pull`"):
        load_network(wide(build=build))
    assert file.read_bytes() == bytes(data)


def test_another_process_may_export_at_the_same_time(cache: Path) -> None:
    """It is done when we are halfway: a graph and its seal are one file, so there is never one without the other."""
    within: list[Path] = []

    def build() -> torch.nn.Module:
        if not within:
            within.append(exported(wide(), precision="int8").file)
        return Wide()

    assert_wide(load_network(wide(build=build)))
    assert sorted(path.name for path in within[0].parent.iterdir()) == ["float32.onnx", "int8.onnx"]
    assert all(sound_graph(path) is not None for path in within[0].parent.iterdir())


@pytest.mark.parametrize("is_public", [False, True])
def test_a_graph_of_ones_own_weights_is_for_their_owner(cache: Path, is_public: bool) -> None:
    before = os.umask(0o022)
    try:
        file = exported(wide(is_public=is_public)).file
    finally:
        os.umask(before)
    modes = [path.stat().st_mode & 0o777 for path in (file.parent, file)]
    assert modes == ([0o755, 0o644] if is_public else [0o700, 0o600])


@given(
    places=st.lists(st.integers(0, 2 * 4096 * 300), min_size=1, max_size=3),
    lengths=st.lists(st.sampled_from([1, 2, 4096, 65_536]), min_size=3, max_size=3),
    with_=st.sampled_from(["zero", "flip", "noise"]),
)
@settings(max_examples=60)
def test_no_damage_stays_hidden(places: list[int], lengths: list[int], with_: str) -> None:
    random = np.random.default_rng(len(places))
    data = random.integers(1, 256, 2 * 4096 * 300 + 5, np.uint8)  # more than two chunks, and no whole number of words
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "x"
        file.write_bytes(data.tobytes())
        before = checksum_of(file, len(data))
        for place, length in zip(places, lengths, strict=False):
            part = data[place : place + length]
            part[:] = {"zero": part & 0, "flip": part ^ 8, "noise": ~part}[with_]
        file.write_bytes(data.tobytes())
        changed = data.tobytes() != random_before(len(places))
        assert (checksum_of(file, len(data)) != before) == changed


def random_before(seed: int) -> bytes:
    return np.random.default_rng(seed).integers(1, 256, 2 * 4096 * 300 + 5, np.uint8).tobytes()


def test_what_is_moved_within_a_page_or_a_word_changes_the_checksum(tmp_path: Path) -> None:
    sound = np.arange(1 << 16, dtype=np.uint64)
    found = set()
    for change in ((), (3, 4), (3, 515), (3, 40_000)):
        words = sound.copy()
        words[list(change)] = words[list(reversed(change))]
        (tmp_path / "x").write_bytes(words.tobytes())
        found.add(checksum_of(tmp_path / "x", words.nbytes))
    opposite = sound.copy()
    opposite[[8, 16]] ^= 1 << 60  # one bit on in a word, and off in another of the page
    opposite[[8, 24]] ^= 1 << 59
    (tmp_path / "x").write_bytes(opposite.tobytes())
    assert len(found | {checksum_of(tmp_path / "x", opposite.nbytes)}) == 5


def test_a_seal_is_an_entry_of_the_models_metadata(cache: Path) -> None:
    import onnxruntime

    graph = exported(wide())
    told = onnxruntime.InferenceSession(str(graph.file)).get_modelmeta().custom_metadata_map
    assert list(told) == ["trivium"]
    assert graph.seal.sha256 in told["trivium"]
    seal = read_seal(graph.file)
    assert seal is not None
    assert (seal.size, seal.checksum, seal.sha256) == (graph.seal.size, graph.seal.checksum, graph.seal.sha256)
    np.testing.assert_array_equal(seal.inputs, graph.seal.inputs)
    np.testing.assert_array_equal(seal.outputs, graph.seal.outputs)


def test_a_file_that_is_shorter_than_its_seal_says(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(bytes(100))
    with pytest.raises(OSError, match="x is shorter than it was"):
        checksum_of(tmp_path / "x", 101)
    assert not is_intact(tmp_path / "x", Seal(size=101, checksum="", sha256="", inputs=[], outputs=[]))


@pytest.mark.parametrize("told", [b"{}", b"[]", b"no JSON", b'{"size": 3, "checksum": "", "sha256": "", "inputs": 1}'])
def test_a_seal_that_says_nothing(tmp_path: Path, told: bytes) -> None:
    end = hashlib.sha256(told).hexdigest() + str(len(told) + 74).rjust(10)
    (tmp_path / "x").write_bytes(bytes(100) + told + end.encode())
    assert read_seal(tmp_path / "x") is None
    assert read_seal(tmp_path / "none") is None


def test_arrays_of_other_kinds_are_not_read(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"...")
    seal_graph(tmp_path / "x", [np.array(["a"])], [])
    assert read_seal(tmp_path / "x") is None


@pytest.fixture
def own_weights(weights: dict[str, Path], cache: Path) -> dict[str, Path]:
    """Copies of real weights in an empty cache of this test's own: texts' and pictures'."""
    own = {name: weights_folder(WEIGHTS[name]) for name in ("minilm-l6", "efficientnet-lite0")}
    for name, folder in own.items():
        shutil.copytree(weights[name], folder)
    return own


def zero(path: Path, start: int, length: int) -> None:
    with path.open("r+b") as file:
        file.seek(start)
        file.write(bytes(length))


@pytest.mark.weights
@pytest.mark.parametrize("device", ["cpu", PLAIN])
def test_zeroed_weights_make_no_vectors(own_weights: dict[str, Path], device: str) -> None:
    zero(own_weights["minilm-l6"] / "model.safetensors", 50_000_000, 1 << 20)
    with pytest.raises(WeightsError, match=r"minilm-l6-.* are damaged \(model.safetensors\): run `trivium pull`"):
        build_backbone("minilm-l6", device=device)
    assert [*(cache_folder() / "graphs").rglob("*.onnx")] == []


@pytest.mark.weights
def test_a_zeroed_graph_makes_the_same_vectors(own_weights: dict[str, Path]) -> None:
    before = build_backbone("efficientnet-lite0")
    asked = [before.prepare(ASSETS / "strawberry.jpg")]
    (file,) = (cache_folder() / "graphs").rglob("*.onnx")
    for start in (4096, 8_000_000, 17_000_000):
        zero(file, start, 65_536)
    told: list[str] = []
    after = build_backbone("efficientnet-lite0", announce=told.append)
    assert len(told) == 2
    np.testing.assert_array_equal(after.features(asked).pooled, before.features(asked).pooled)
    zero(file, 8_000_000, 65_536)
    zero(own_weights["efficientnet-lite0"] / "model.safetensors", 8_000_000, 65_536)
    with pytest.raises(WeightsError, match="run `trivium pull`"):
        build_backbone("efficientnet-lite0")


@pytest.mark.weights
def test_a_tokenizer_with_another_bit_is_refused(own_weights: dict[str, Path]) -> None:
    """No network would tell: it gets other tokens."""
    tokenizer = own_weights["minilm-l6"] / "tokenizer.json"
    data = bytearray(tokenizer.read_bytes())
    data[data.index(b'"bird"') + 1] ^= 4
    tokenizer.write_bytes(bytes(data))
    with pytest.raises(WeightsError, match=r"are damaged \(tokenizer.json\)"):
        build_backbone("minilm-l6")


class Fixed(torch.nn.Module):
    """Takes the length of its example for a constant, as traced Python numbers are."""

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor]:
        return (x.sum(dim=1) / int(x.shape[1]),)


def test_an_export_of_one_shape_only_is_refused(cache: Path) -> None:
    fixed = architecture("fixed", Fixed(), [np.ones((2, 4), np.float32)])
    with pytest.raises(WeightsError, match=r"exported fixed does not compute what torch does: y differs by"):
        exported(fixed)
    assert not graph_file(fixed, precision="float32").exists()


def test_a_full_disk_is_told(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(WeightsError, match=r"cannot keep float32.onnx of tiny .*No space left"):
        exported(architecture("tiny", Scaled(), [np.ones((2, 4), np.float32)]))
