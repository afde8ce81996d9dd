"""A run over media that have not changed: files a second, beside a bare walk that only looks at each file.

    python benchmarks/unchanged.py [FILES]

Small texts in folders of 1,000, a stub encoder. Five pairs of runs in one process, after the first has indexed them.
"""

import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

from machine import describe, peak_rss_mib
from stub_space import StubSpace

from trivium.pipeline.collection import Collection

PAIRS = 5


def make_files(folder: Path, count: int) -> None:
    for number in range(count):
        if number % 1000 == 0:
            (folder / f"{number // 1000:04}").mkdir()
        (folder / f"{number // 1000:04}" / f"{number:07}.md").write_text(f"note {number}")


def bare_walk(folder: Path) -> int:
    """List every folder and look at every file: the floor."""
    seen = 0
    for path, _, names in os.walk(folder):
        for name in names:
            os.lstat(os.path.join(path, name))
            seen += 1
    return seen


def main(count: int) -> None:
    print(describe())
    with tempfile.TemporaryDirectory() as root:
        media = Path(root) / "media"
        media.mkdir()
        make_files(media, count)
        time.sleep(2.5)  # files younger than two seconds are read again next time
        with Collection.open(Path(root) / "c", space=StubSpace()) as collection:
            started = time.perf_counter()
            collection.add(media)
            print(f"first run: {count / (time.perf_counter() - started):,.0f} files/s")
            ours, floor = [], []
            for _ in range(PAIRS):
                started = time.perf_counter()
                summary = collection.add(media)
                ours.append(time.perf_counter() - started)
                assert summary.unchanged == count, summary
                started = time.perf_counter()
                assert bare_walk(media) == count
                floor.append(time.perf_counter() - started)
        rate, bare = count / statistics.median(ours), count / statistics.median(floor)
        ratios = [a / b for a, b in zip(ours, floor, strict=True)]
        print(f"unchanged, {count:,} files: {rate:,.0f} files/s (bare walk {bare:,.0f}), {max(ours):.2f} s at most")
        print(f"times the bare walk: {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")
        print(f"peak memory {peak_rss_mib():,.0f} MiB; stages {summary.seconds}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000)
