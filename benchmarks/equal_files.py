"""Many files of one content: the processor's time of indexing, renaming, searching and removing them, and how it grows.

    python benchmarks/equal_files.py [LARGEST]   # 20000: with an eighth, a quarter, a half and all of them

Links to one small text, a stub encoder: what is looked at is bookkeeping. The exponent is 1 where n files take n times
what one takes.
"""

import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from machine import describe
from stub_space import StubSpace

from trivium.pipeline.collection import Collection

SHARES = (8, 4, 2, 1)
SEARCHES = 5


def cpu_seconds(work: Callable[[], object]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


def measure(root: Path, count: int) -> dict[str, float]:
    media = root / "media"
    media.mkdir()
    (root / "one.md").write_text("one content")
    for number in range(count):
        os.link(root / "one.md", media / f"{number:07}.md")
    found = {}
    with Collection.open(root / "c", space=StubSpace()) as collection:
        found["index"] = cpu_seconds(lambda: collection.add(media))
        assert len(collection) == count
        assert len(collection.search(text="x", k=count + 1)) == count
        found["search"] = cpu_seconds(lambda: [collection.search(text="x", k=10) for _ in range(SEARCHES)]) / SEARCHES
        media.rename(root / "renamed")
        found["rename"] = cpu_seconds(lambda: collection.add([root / "renamed"]))
        assert len(collection) == count
        (root / "copies").mkdir()
        for number in range(count):
            os.link(root / "one.md", root / "copies" / f"{number:07}.md")
        found["copies beside"] = cpu_seconds(lambda: collection.add([root / "copies"]))
        assert len(collection) == 2 * count
        found["remove"] = cpu_seconds(lambda: collection.remove([root / "copies"]))
        for path in (root / "renamed").iterdir():
            path.unlink()
        found["gone"] = cpu_seconds(lambda: collection.add([root / "renamed"]))
        assert len(collection) == 0
    return found


def main(largest: int) -> None:
    print(describe())
    counts = [largest // share for share in SHARES]
    times = []
    for count in counts:
        with tempfile.TemporaryDirectory() as root:
            times.append(measure(Path(root), count))
        print(f"{count:,}: " + ", ".join(f"{name} {seconds:.2f} s" for name, seconds in times[-1].items()), flush=True)
    for name in times[0]:
        exponent, _ = np.polyfit(np.log(counts), np.log([of_count[name] for of_count in times]), 1)
        print(f"{name}: exponent {exponent:.2f}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 20_000)
