"""Media made on the spot, and a space with real decoding but tiny made-up networks, so that the pipeline's own
logic is tested in milliseconds. The real networks are in test_end_to_end.py.

For fused estimators another made-up space: its features follow from the content.
"""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas
import pytest
import soundfile
from PIL import Image, ImageDraw

from trivium.encoders.base import (
    Backbone,
    DecodeError,
    Encoder,
    Features,
    Modality,
    Prepared,
    Space,
    Vectors,
    unit_rows,
)
from trivium.encoders.decoding.pictures import decode_image
from trivium.encoders.decoding.sounds import decode_audio
from trivium.encoders.files.reading import item_bytes
from trivium.fusion.projections.plain import LinearProjection, Projection
from trivium.pipeline.cli.main import main
from trivium.pipeline.collection import Collection
from trivium.pipeline.features import frames
from trivium.pipeline.space.config import SpaceConfig
from trivium.pipeline.space.joint import JointSpace

DIM = 16


class StubEncoder(Encoder):
    """Real decoding; the vector is drawn from a seed that the decoded content gives."""

    modality: Modality = "text"
    space = Space(name="", dim=0, revision="")

    def __init__(self, modality: Modality, space: Space, calls: list[str]) -> None:
        self.modality = modality
        self.space = space
        self._calls = calls

    def prepare(self, item: Any, /) -> Prepared:
        if self.modality == "image":
            picture = Image.fromarray(item) if isinstance(item, np.ndarray) else decode_image(item_bytes(item))
            return np.asarray(picture.resize((8, 8)))
        if self.modality == "audio":
            waveform, _ = item if isinstance(item, tuple) else decode_audio(item_bytes(item))
            return np.asarray(waveform[:1000])
        if not item.strip():
            raise DecodeError("the text is empty")
        return np.frombuffer(item.encode("utf-8", "surrogateescape"), np.uint8)

    def embed(self, batch: Sequence[Prepared], /) -> Vectors:
        self._calls += [self.modality] * len(batch)
        seeds = [int.from_bytes(hashlib.sha256(item.tobytes()).digest()[:8], "big") for item in batch]
        return unit_rows(np.stack([np.random.default_rng(seed).normal(size=DIM) for seed in seeds]))


class StubSpace(JointSpace):
    """A space named 'stub' that counts what it encodes."""

    def __init__(self, revision: str = "1", modalities: tuple[Modality, ...] = ("text", "image", "audio")) -> None:
        space = Space(name="stub", dim=DIM, revision=revision)
        super().__init__(SpaceConfig(space=space, description="", encoders={}), source="stub")
        self.calls: list[str] = []
        self._modalities = modalities

    @property
    def modalities(self) -> tuple[Modality, ...]:
        return self._modalities

    def example_texts(self, n: int) -> list[str]:
        return []  # that an index is tuned with: what is encoded is counted

    def encoder(self, modality: Modality, replica: int = 0) -> Encoder:
        return StubEncoder(modality, self.space, self.calls)


class SeeingEncoder(StubEncoder):
    """Pictures are near that look alike: the vector is what they look like from afar."""

    def prepare(self, item: Any, /) -> Prepared:
        if self.modality != "image":
            return super().prepare(item)
        picture = item if isinstance(item, np.ndarray) else np.asarray(decode_image(item_bytes(item)).convert("RGB"))
        return np.asarray(Image.fromarray(picture).convert("L").resize((4, 4), Image.Resampling.BOX))

    def embed(self, batch: Any, /) -> Vectors:
        if self.modality != "image":
            return super().embed(batch)
        rows = np.stack([item.astype(np.float32).ravel() for item in batch])
        return unit_rows(rows - rows.mean(axis=1, keepdims=True) + 1e-3)


class SeeingSpace(StubSpace):
    """A space that tells pictures by their looks, and not only whether they are the same."""

    def encoder(self, modality: Modality, replica: int = 0) -> Encoder:
        return SeeingEncoder(modality, self.space, self.calls)


def save_picture(path: Path, colour: str = "red", *, size: tuple[int, int] = (32, 24)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.new("RGB", size, colour)
    ImageDraw.Draw(picture).line((0, 0, size[0], size[1]), fill="white")
    picture.save(path)
    return path


def save_sound(path: Path, hz: float = 440.0, *, seconds: float = 0.2) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    times = np.arange(int(8000 * seconds)) / 8000
    soundfile.write(path, np.sin(2 * np.pi * hz * times).astype(np.float32), 8000)
    return path


@pytest.fixture
def space() -> StubSpace:
    return StubSpace()


@pytest.fixture
def make_space() -> Callable[..., StubSpace]:
    return StubSpace


@pytest.fixture
def seeing_space() -> StubSpace:
    return SeeingSpace()


@pytest.fixture
def picture() -> Callable[..., Path]:
    return save_picture


@pytest.fixture
def sound() -> Callable[..., Path]:
    return save_sound


@pytest.fixture
def media(tmp_path: Path) -> Path:
    """Three pictures (one with a caption), two sounds (one with a caption), two texts."""
    folder = tmp_path / "media"
    save_picture(folder / "red.png", "red")
    save_picture(folder / "blue.jpg", "blue")
    save_picture(folder / "deep" / "green.webp", "green")
    (folder / "red.txt").write_text("A red sign.\nde=Ein rotes Schild.\n")
    save_sound(folder / "low.wav", 220)
    save_sound(folder / "deep" / "high.ogg", 880)
    (folder / "deep" / "high.txt").write_text("A high tone.")
    (folder / "note.md").write_text("# Shopping\nmilk and bread\n")
    (folder / "poem.txt").write_text("Roses are red,\nviolets are blue.\n")
    (folder / "readme.xmp").write_bytes(b"<x:xmpmeta")
    return folder


@pytest.fixture
def collection(tmp_path: Path, media: Path, space: StubSpace) -> Collection:
    """The media, indexed."""
    made = Collection.open(tmp_path / "collection", space=space)
    made.add(media)
    space.calls.clear()
    return made


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run a command line in this process: its exit status, standard output and standard error."""

    def run(*arguments: str) -> tuple[int, str, str]:
        status = main([*arguments])
        printed = capsys.readouterr()
        return status, printed.out, printed.err

    return run


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
