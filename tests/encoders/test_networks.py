"""The fast ways to run a network against the slow plain one: torch, float32, one item at a time."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from trivium.encoders import WeightsError, build_backbone, unit_rows
from trivium.encoders.graphs import Architecture, exported, graph_file
from trivium.encoders.networks import PLAIN, OnnxNetwork, load_network

ASSETS = Path(__file__).parents[1] / "assets"
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


@pytest.mark.parametrize("damage", [b"", b"not a graph" * 100])
def test_a_damaged_graph_is_exported_again(cache: Path, damage: bytes) -> None:
    tiny = architecture("tiny", Scaled(), [np.ones((2, 4), np.float32)])
    exported(tiny).write_bytes(damage)
    assert load_network(tiny)(np.ones((1, 1), np.float32))[0].tolist() == [[3.0]]
    OnnxNetwork(exported(tiny))


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
