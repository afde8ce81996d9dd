"""How time and memory of `trivium index` grow: 300, 3,000 and 30,000 photos, each a collection of its own.

Flickr8k's photos and their mirror images and rotations, so that no two are the same content.
"""

import itertools
import json
import math
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

from encoding_media import DATA, FOLDER
from machine import describe
from PIL import Image

SIZES = (300, 3_000, 30_000)
TURNS = (None, *Image.Transpose)


def photos(count: int) -> list[Path]:
    folder = FOLDER / "growth"
    folder.mkdir(parents=True, exist_ok=True)
    sources = sorted((DATA / "flickr8k").rglob("*.jpg"))
    found = []
    for number in range(count):
        target = folder / f"{number:05}.jpg"
        found.append(target)
        if not target.exists():
            turn = TURNS[number // len(sources)]
            with Image.open(sources[number % len(sources)]) as image:
                (image if turn is None else image.transpose(turn)).save(target, quality=90)
    return found


def main() -> None:
    sizes = [int(size) for size in sys.argv[1:]] or list(SIZES)
    print(describe(), "\n")
    print("| photos | seconds | photos/s | seconds in the picture stage | peak MiB |")
    print("|---|---|---|---|---|")
    points = []
    for size in sizes:
        with tempfile.TemporaryDirectory(dir=FOLDER) as scratch:
            media = Path(scratch) / "media"
            media.mkdir()
            for photo in photos(size):
                (media / photo.name).hardlink_to(photo)
            command = [
                sys.executable,
                "-P",
                "-m",
                "trivium",
                "index",
                f"{scratch}/c",
                str(media),
                "--json",
            ]
            told = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        assert told["added"] == size, told
        stage = told["stage_seconds"]["image"]
        points.append((size, stage))
        # The largest child so far: sizes rise, so it is this one's if memory grows at all.
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
        print(
            f"| {size:,} | {told['seconds']:.1f} | {size / told['seconds']:.1f} | {stage:.1f} | {peak:,.0f} |",
            flush=True,
        )
    for (a, first), (b, second) in itertools.pairwise(points):
        print(f"exponent from {a:,} to {b:,}: {math.log(second / first) / math.log(b / a):.3f}")


if __name__ == "__main__":
    main()
