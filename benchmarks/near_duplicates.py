"""Near-equal pictures: which seeded copies of real photos are found, and what else is; and what looking at them costs.

    TRIVIUM_DATA=../shared/data python benchmarks/near_duplicates.py [PHOTOS] [FOLDER]

PHOTOS (default 300) of FOLDER below TRIVIUM_DATA (default flickr8k/images), drawn by seed, are copied: as JPEG of
quality 30 to 90, as WebP, cut by 5 % of the area and of each side, and scaled by 0.5, 0.75 and 1.5. All are indexed in
the default space, and `Collection.duplicates(near=True)` groups them. Recall is the share of copies in their photo's
group, precision that of all pairs in groups which are of one photo. Then the same photos, each once, are indexed with
and without thumbnails and hashes, in turns: the share of the time that these take.
"""

import os
import random
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any
from unittest.mock import patch

from machine import describe
from PIL import Image

from trivium.pipeline.collection import Collection
from trivium.pipeline.ingest import ingestion
from trivium.pipeline.records import Traits

SEED = 18
ROUNDS, TIMED = 3, 100  # of the share of the time: runs, and photos


def copies_of(image: Image.Image, draw: random.Random) -> Iterator[tuple[str, Image.Image, str, dict[str, Any]]]:
    """Yield a name, a picture, and how it is saved."""
    width, height = image.size
    for quality in (30, 60, 90):
        yield f"jpeg {quality}", image, "JPEG", {"quality": quality}
    yield "webp", image, "WEBP", {"quality": draw.choice([40, 60, 80])}
    for name, share in (("cut 5 % of area", 1 - 0.95**0.5), ("cut 5 % of sides", 0.05)):
        wide, high = int(width * (1 - share)), int(height * (1 - share))
        left, top = draw.randint(0, width - wide), draw.randint(0, height - high)
        yield name, image.crop((left, top, left + wide, top + high)), "JPEG", {"quality": 90}
    for factor in (0.5, 0.75, 1.5):
        size = round(width * factor), round(height * factor)
        yield f"scaled {factor}", image.resize(size, Image.Resampling.LANCZOS), "JPEG", {"quality": 90}


def found_copies(photos: list[Path], folder: Path) -> None:
    draw = random.Random(SEED)
    for number, photo in enumerate(photos):
        (folder / "media" / f"{number}").mkdir(parents=True)
        (folder / "media" / f"{number}" / f"own{photo.suffix}").write_bytes(photo.read_bytes())
        with Image.open(photo) as opened:
            image = opened.convert("RGB")
        for name, changed, kind, options in copies_of(image, draw):
            changed.save(folder / "media" / f"{number}" / f"{name}.{kind.lower()}", kind, **options)
    with Collection.open(folder / "c") as collection:
        summary = collection.add(folder / "media")
        assert not summary.skipped, summary.skipped
        started = time.perf_counter()
        groups = [[Path(file.path) for file in g.files] for g in collection.duplicates(near=True).groups]
        seconds = time.perf_counter() - started
    found: Counter[str] = Counter()
    pairs = right = 0
    for group in groups:
        owners = {path.parent.name for path in group if path.stem == "own"}
        found.update(path.stem for path in group if path.stem != "own" and path.parent.name in owners)
        for one, other in combinations(group, 2):
            pairs += 1
            right += one.parent == other.parent
    kinds = sorted({path.stem for path in (folder / "media").rglob("*.*") if path.stem != "own"})
    for kind in kinds:
        print(f"  {kind:18}{found[kind] / len(photos):8.2%}")
    total = len(photos) * len(kinds)
    print(
        f"recall {sum(found.values()) / total:.2%} of {total:,} copies, precision {right / max(pairs, 1):.3%} of "
        f"{pairs:,} pairs in {len(groups):,} groups; {seconds:.2f} s to group {total + len(photos):,} pictures"
    )


def shares(photos: list[Path], folder: Path) -> None:
    look_at = ingestion.look_at
    own: dict[str, Any] = {
        "neither": lambda *_, **__: Traits(),
        "hashes": lambda pixels, **_: look_at(pixels, keeps_thumbnail=False),
        "hashes and thumbnails": look_at,
    }
    spent: dict[str, list[float]] = {name: [] for name in own}
    for turn in range(ROUNDS + 1):
        for name, look in own.items():
            with (
                Collection.open(folder / f"{turn}-{name}") as collection,
                patch.object(ingestion, "look_at", look),
            ):
                collection.space.encoder("image")
                started = time.perf_counter()
                collection.add(photos)
                if turn:  # the first warms up
                    spent[name].append(time.perf_counter() - started)
    least = statistics.median(spent["neither"])
    for name, seconds in spent.items():
        middle = statistics.median(seconds)
        print(f"indexing {len(photos):,} photos with {name}: {middle:.2f} s ({middle / least - 1:+.1%})")


def main(count: int, where: str) -> None:
    print(describe())
    photos = sorted(path for path in (Path(os.environ.get("TRIVIUM_DATA", "../shared/data")) / where).glob("*.jpg"))
    if not photos:
        sys.exit(f"no photos in {where} below TRIVIUM_DATA")
    chosen = sorted(random.Random(SEED).sample(photos, min(count, len(photos))))
    print(f"{len(chosen):,} photos of {where}, seed {SEED}")
    with tempfile.TemporaryDirectory() as root:
        found_copies(chosen, Path(root))
        shares(chosen[:TIMED], Path(root))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 300, sys.argv[2] if len(sys.argv) > 2 else "flickr8k/images")
