"""Media of the encoding benchmark, made once from TRIVIUM_DATA into the benchmark cache: nothing of it is shipped."""

import csv
import gzip
import json
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image
from vectors import CACHE

DATA = Path(os.environ.get("TRIVIUM_DATA", Path(__file__).parents[2] / "shared" / "data"))
FOLDER = CACHE / "encoding"
SOUND_KINDS = {"wav": "WAV", "flac": "FLAC", "ogg": "OGG", "mp3": "MP3"}


def photos(width: int, height: int, count: int) -> Path:
    """Flickr8k's photos, upscaled to a camera's size, JPEG of quality 90."""
    folder = FOLDER / f"photos{width}x{height}"
    folder.mkdir(parents=True, exist_ok=True)
    sources = sorted((DATA / "flickr8k").rglob("*.jpg"))[:count]
    for number, source in enumerate(sources):
        target = folder / f"{number:05}.jpg"
        if not target.exists():
            with Image.open(source) as image:
                image.convert("RGB").resize((width, height), Image.Resampling.BICUBIC).save(target, quality=90)
    return folder


def texts(kind: str, count: int) -> Path:
    """Captions (``short``, about 12 tokens), film reviews (``long``, 128 tokens and more), or ``mixed`` of both."""
    path = FOLDER / f"texts-{kind}-{count}.json"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        sentences, reviews = captions(), _reviews()
        if kind == "short":
            chosen = [next(sentences) for _ in range(count)]
        elif kind == "long":
            chosen = [" ".join(next(reviews).split()[:100]) for _ in range(count)]
        else:
            random = np.random.default_rng(0)
            # From 10 to 500 words, most of them short, as notes are.
            lengths = np.exp(random.uniform(np.log(8), np.log(350), count)).astype(int)
            chosen = [" ".join(next(reviews).split()[:length]) for length in lengths]
        path.write_text(json.dumps(chosen))
    return path


def sounds(kind: str, count: int, seconds: float) -> Path:
    """UrbanSound clips joined to one length, in one format."""
    import soundfile

    folder = FOLDER / f"sounds-{kind}-{seconds:.0f}s"
    folder.mkdir(parents=True, exist_ok=True)
    rate_hz = 44_100
    clips = sorted((DATA / "urbansound").rglob("*.ogg"))
    for number in range(count):
        target = folder / f"{number:03}.{kind}"
        if target.exists():
            continue
        with soundfile.SoundFile(target, "w", rate_hz, 1, format=SOUND_KINDS[kind]) as file:
            left = int(seconds * rate_hz)
            at = number * 7
            while left > 0:
                clip, rate = soundfile.read(clips[at % len(clips)], dtype="float32", always_2d=True)
                mono = np.repeat(clip.mean(axis=1), max(1, round(rate_hz / rate)))[:left]
                file.write(mono)
                left -= len(mono)
                at += 1
    return folder


def captions() -> Iterator[str]:
    with (DATA / "flickr8k" / "captions.csv").open(newline="") as file:
        yield from (row["caption"] for row in csv.DictReader(file))


def _reviews() -> Iterator[str]:
    while True:
        with gzip.open(DATA / "text" / "imdb_train.csv.gz", "rt", newline="") as file:
            yield from (row["text"] for row in csv.DictReader(file))
