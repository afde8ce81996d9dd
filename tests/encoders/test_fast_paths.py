"""Fast against plain on real photos: ONNX in batches against torch one by one, scaled decoding against full."""

import csv
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from trivium.encoders import build_backbone, unit_rows
from trivium.encoders.devices import PLAIN
from trivium.pipeline.space.joint import load_space

DATA = Path(os.environ.get("TRIVIUM_DATA", Path(__file__).parents[3] / "shared" / "data"))
PHOTOS, QUERIES = 400, 400


def dev_rows() -> list[dict[str, str]]:
    if not (DATA / "flickr8k").is_dir():
        pytest.skip(f"no photos: {DATA / 'flickr8k'} is missing (TRIVIUM_DATA names another place)")
    with (DATA / "flickr8k" / "captions.csv").open(newline="") as file:
        return [row for row in csv.DictReader(file) if row["split"] == "dev"]


def photos(rows: list[dict[str, str]], count: int) -> list[Path]:
    paths = list(dict.fromkeys(row["path"] for row in rows))[:count]
    return [DATA / "flickr8k" / path if (DATA / "flickr8k" / path).exists() else DATA / path for path in paths]


@pytest.mark.slow
@pytest.mark.weights
def test_the_ten_nearest_are_the_same(weights: dict[str, Path]) -> None:
    """At least 99 of 100 queries get the same ten photos in the same order."""
    rows = dev_rows()
    captions = [row["caption"] for row in rows[: QUERIES * 5 : 5]]
    files = photos(rows, PHOTOS)
    fast, plain = load_space(), load_space(device=PLAIN)
    vectors, queries = fast.encode("image", files), fast.encode("text", captions)
    pictures, texts = plain.encoder("image"), plain.encoder("text")
    expected = np.concatenate([pictures.embed([pictures.prepare(file)]) for file in files])
    asked = np.concatenate([texts.embed([texts.prepare(caption)]) for caption in captions])
    assert (vectors * expected).sum(axis=1).min() >= 0.9999
    assert (queries * asked).sum(axis=1).min() >= 0.9999
    top = np.argsort(-(queries @ vectors.T), axis=1, kind="stable")[:, :10]
    plain_top = np.argsort(-(asked @ expected.T), axis=1, kind="stable")[:, :10]
    same = (top == plain_top).all(axis=1).mean()
    print(f"the same ten in the same order: {same:.1%} of {len(captions)}")
    assert same >= 0.99


@pytest.mark.slow
@pytest.mark.weights
def test_scaled_decoding_of_large_photos(weights: dict[str, Path], tmp_path: Path) -> None:
    """Cosine at least 0.999 to full decoding; what that does to a ranking: docs/benchmarks.md, "Scaled decoding"."""
    backbone = build_backbone("efficientnet-lite0")
    scaled, full = [], []
    for number, photo in enumerate(photos(dev_rows(), 50)):
        large = tmp_path / f"{number}.jpg"
        with Image.open(photo) as image:
            image.convert("RGB").resize((4000, 3000), Image.Resampling.BICUBIC).save(large, quality=90)
        scaled.append(backbone.prepare(large))
        with Image.open(large) as image:
            full.append(backbone.prepare(image.convert("RGB")))
    a, b = (unit_rows(backbone.features(batch).pooled) for batch in (scaled, full))
    cosines = (a * b).sum(axis=1)
    print(f"cosine {cosines.mean():.5f}, least {cosines.min():.5f}")
    assert cosines.min() >= 0.999
