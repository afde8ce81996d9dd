"""A space whose frozen networks are made up and quick: real decoding, features that follow from the content."""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas
import pytest
from PIL import Image

from trivium.encoders.base import Backbone, DecodeError, Features, Modality, Prepared, Space
from trivium.fusion.projections.plain import LinearProjection, Projection
from trivium.pipeline.features import frames

COLOURS = {"red": (220, 30, 30), "blue": (30, 30, 220), "green": (30, 200, 30)}
WORDS = {"shirt": 0, "shoe": 1, "watch": 2}
WIDTHS: dict[Modality, int] = {"text": 6, "image": 5}


class MadeUpBackbone(Backbone):
    """Texts: which words are in it; pictures: their mean colour. And some noise that the content decides."""

    modality: Modality
    side = 16

    def __init__(self, modality: Modality, counted: list[str]) -> None:
        self.modality = modality
        self.dim = WIDTHS[modality]
        self._counted = counted

    def prepare(self, item: Any, /) -> Prepared:
        if self.modality == "text":
            if "�" in item:
                raise DecodeError("the text is not proper")
            return np.frombuffer(item.encode(), np.uint8)
        return np.asarray(item if isinstance(item, Image.Image) else Image.fromarray(item))

    def features(self, batch: Sequence[Prepared], /) -> Features:
        self._counted += [self.modality] * len(batch)
        return Features(
            pooled=np.stack([self._row(item) for item in batch]),
            logits={} if self.modality == "text" else {"made-up": np.zeros((len(batch), 2), np.float32)},
        )

    def _row(self, item: Prepared) -> np.ndarray:
        seed = int.from_bytes(hashlib.sha256(item.tobytes()).digest()[:8], "big")
        row = np.random.default_rng(seed).normal(size=self.dim).astype(np.float32) * 0.3
        if self.modality == "text":
            words = item.tobytes().decode().split()
            for word, place in WORDS.items():
                row[place] += 2.0 * (word in words)
        else:
            row[:3] += item.reshape(-1, item.shape[-1])[:, :3].mean(axis=0) / 100
        return row


class MadeUpSpace:
    """What the estimators ask of a space."""

    modalities: tuple[Modality, ...] = ("text", "image")
    space = Space(name="made-up", dim=4, revision="1")

    def __init__(self) -> None:
        self.counted: list[str] = []  # what was encoded
        self.revision = "1"

    def backbone(self, modality: Modality) -> MadeUpBackbone:
        return MadeUpBackbone(modality, self.counted)

    def config_of(self, modality: Modality) -> SimpleNamespace:
        return SimpleNamespace(backbone_revision=self.features_revision(modality))

    def features_revision(self, modality: Modality) -> str:
        return f"made-up-{modality}-{self.revision}"

    def projection(self, modality: Modality, width: int) -> Projection:
        return LinearProjection(np.random.default_rng(width).normal(size=(width, 4)).astype(np.float32))


@pytest.fixture
def made_up(cache: Path, monkeypatch: pytest.MonkeyPatch) -> MadeUpSpace:
    """The space, whatever is named, with an empty cache."""
    space = MadeUpSpace()
    monkeypatch.setattr(frames, "space_named", lambda source, device="cpu", precision="float32", is_named=True: space)
    return space


@pytest.fixture(scope="session")
def products(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], pandas.DataFrame]:
    """Make a frame of n products: the label is the thing in the text and the colour of the photo together."""
    folder = tmp_path_factory.mktemp("products")

    def make(n: int, *, seed: int = 0) -> pandas.DataFrame:
        random = np.random.default_rng(seed)
        rows = []
        for place in range(n):
            thing, colour = random.choice(list(WORDS)), random.choice(list(COLOURS)[:2])
            path = folder / f"{seed}-{place}.png"
            pixels = np.clip(np.array(COLOURS[colour]) + random.integers(-20, 20, (8, 8, 3)), 0, 255)
            if not path.exists():
                Image.fromarray(pixels.astype(np.uint8)).save(path)
            label = f"{colour} {thing}"
            rows.append({"text": f"a nice {thing} number {place}", "image": str(path), "label": label})
        return pandas.DataFrame(rows)

    return make
