"""Sounds with pictures of what makes them, brought together by their captions: `things.json` tells what to look for."""

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from base.table import Row

THINGS = Path(__file__).parent / "things.json"
# Pictures for one sound.
MAX_PICTURES = 3
# What a picture's label may say besides the thing.
QUALITIES = set(
    "black blue brown cartoon cute gray green grey little old orange pink red simple white yellow young".split()
)


def pairs(rows: Iterable[Row], *, things: Path = THINGS) -> list[Row]:
    """Return a row for each of up to `MAX_PICTURES` pictures of what a sound comes from, chosen by a hash.

    Rows for tests take no part, and pictures and sounds that are in one row already keep each other only.
    """
    wanted: dict[str, list[str]] = json.loads(things.read_text(encoding="utf-8"))
    pictures: dict[str, set[str]] = defaultdict(set)
    sounds: dict[str, Row] = {}
    for row in rows:
        if row.split == "train" and row.image:
            pictures[_thing(row.label)].add(row.image)
        elif row.split == "train" and row.label in wanted:
            sounds[row.audio] = row
    paired = []
    for audio, row in sorted(sounds.items()):
        fitting = {image for thing in wanted[row.label] for image in pictures[thing]}
        chosen = sorted(fitting, key=lambda image: hashlib.sha256(f"{audio}\n{image}".encode()).digest())[:MAX_PICTURES]
        paired += [Row(text=row.text, image=image, audio=audio, label=row.label, source="pairs") for image in chosen]
    return paired


def _thing(label: str) -> str:
    """Return what a picture's label names, without colour and size."""
    return " ".join(word for word in label.split() if word not in QUALITIES)
