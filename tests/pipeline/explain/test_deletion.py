"""Real networks: deleting what an explanation marks costs more than deleting as much at random.

What is deleted is filled with something else than the explanation hid with: grey for blur, cutting for silence, another
word for leaving out. Figures on hundreds of hits: docs/benchmarks.md, "Explanations" (`benchmarks/explanations.py`).
"""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from assets import ASSETS
from trivium.encoders.base import Encoder
from trivium.encoders.decoding.sounds import decode_audio
from trivium.pipeline.explain.drops import hidden, picture_drops, sound_drops, text_drops
from trivium.pipeline.search.query import QueryPart, query_vectors
from trivium.pipeline.space.joint import JointSpace, load_space

pytestmark = pytest.mark.weights
RANDOM_PARTS = 8
GREY = np.array([124, 116, 104], np.uint8)


@pytest.fixture(scope="module")
def space(weights: dict[str, Path]) -> JointSpace:
    return load_space()


def asked(space: JointSpace, text: str) -> np.ndarray:
    vector: np.ndarray = query_vectors(space, [[QueryPart(modality="text", item=text)]])[0]
    return vector


def orders(drops: np.ndarray, *, share: float = 0.2) -> list[np.ndarray]:
    """The places of the largest drops, then as many random ones, several times."""
    rng = np.random.default_rng(0)
    size = max(1, round(share * drops.size))
    return [np.argsort(-drops, axis=None)[:size], *(rng.permutation(drops.size)[:size] for _ in range(RANDOM_PARTS))]


def test_regions(space: JointSpace) -> None:
    encoder: Encoder = space.encoder("image")
    lost = []
    for name, text in (("airliner.png", "an airplane"), ("strawberry.jpg", "a strawberry")):
        with Image.open(ASSETS / name) as image:
            shown = image.convert("RGBA").resize((150, 150))
        # In a corner of a larger picture, so that there is something beside it.
        whole = Image.new("RGB", (224, 224), (200, 210, 190))
        whole.paste(shown, (60, 10), shown)
        pixels, query = np.asarray(whole), asked(space, text)
        vector, drops = picture_drops(encoder, pixels, query)
        masks = [np.isin(np.arange(drops.size), order).reshape(drops.shape) for order in orders(drops)]
        marked, *others = encoder.embed([encoder.prepare(hidden(pixels, mask, GREY)) for mask in masks]) @ query
        lost.append((float(vector @ query) - marked, float(vector @ query) - np.mean(others)))
        assert marked < np.mean(others)
    assert np.mean(lost, axis=0)[0] > 1.5 * np.mean(lost, axis=0)[1]


def test_seconds(space: JointSpace) -> None:
    """A tone, a crow, a tone: found by the crow itself."""
    encoder = space.encoder("audio")
    crow, rate_hz = decode_audio((ASSETS / "crow.ogg").read_bytes())
    crow = np.tile(crow, 20)[: 2 * rate_hz]
    tone = (0.2 * np.sin(2 * np.pi * 440 * np.arange(int(1.5 * rate_hz)) / rate_hz)).astype(np.float32)
    waveform = np.concatenate([tone, crow, tone])
    query = encoder.embed([encoder.prepare((crow, rate_hz))])[0]
    vector, marks = sound_drops(encoder, (waveform, rate_hz), query)
    strongest = sorted(marks, key=lambda mark: -mark.drop)[:3]
    assert all(1.25 < mark.stop and mark.start < 3.75 for mark in strongest)
    stretch = np.arange(len(waveform)) * len(marks) // len(waveform)
    drops = np.array([mark.drop for mark in marks])
    left = [(waveform[~np.isin(stretch, order)], rate_hz) for order in orders(drops)]
    marked, *others = encoder.embed([encoder.prepare(sound) for sound in left]) @ query
    assert marked < np.mean(others)
    assert marked < vector @ query


def test_words(space: JointSpace) -> None:
    encoder = space.encoder("text")
    text = "The committee met on Monday and saw a blue whale from the window of the town hall before lunch."
    query = asked(space, "a large animal of the sea")
    _, marks = text_drops(encoder, text, query)
    assert max(marks, key=lambda mark: mark.drop).text == "whale"
    drops = np.array([mark.drop for mark in marks])
    variants = []
    for order in orders(drops, share=0.06):
        changed = text
        for place in sorted(order.tolist(), reverse=True):
            changed = changed[: int(marks[place].start)] + "something" + changed[int(marks[place].stop) :]
        variants.append(changed)
    marked, *others = space.encode("text", variants) @ query
    assert marked < np.mean(others) - 0.1
