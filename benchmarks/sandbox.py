"""What the sandbox costs: the start of a worker, its replacement, and decoding 1,000 photos, beside another checkout.

`python benchmarks/sandbox.py [--against FOLDER]`, where FOLDER has another ``src``. In turns, each measurement in a
process of its own, so that what else the machine does falls on both alike; medians, and of photos also the processor's
time of all processes. The last table is the price of how many files a worker serves, in this checkout alone.
"""

import argparse
import io
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from machine import describe
from PIL import Image

HERE = Path(__file__).resolve()
OWN = HERE.parents[1]
STARTS, ROUNDS, PHOTOS = 20, 5, 1_000
LIVES = (1, 8, 32, 128, 1000)  # files of one worker
SIDE = 224


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", type=Path, metavar="FOLDER", help="another checkout")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        name, *numbers = options.measure.split(":")
        print(json.dumps(MEASURES[name](*map(int, numbers))))
        return
    print(describe())
    checkouts = {"here": OWN, **({"there": options.against.resolve()} if options.against else {})}
    for name, told, rounds in (
        ("first", "ms from nothing to the first picture", STARTS),
        ("next", "ms for a picture whose worker was killed", STARTS),
        ("photos", f"s for {PHOTOS:,} photos, one thread a core", ROUNDS),
    ):
        spent: dict[str, list[dict[str, float]]] = {checkout: [] for checkout in checkouts}
        for _ in range(rounds):
            for checkout, folder in checkouts.items():
                spent[checkout].append(measured(name, folder))
        for checkout, found in spent.items():
            figures = {key: [each[key] for each in found] for key in found[0]}
            tell(f"{told}, {checkout}", figures)
    for files in LIVES:
        found = [measured(f"photos:{files}", OWN) for _ in range(ROUNDS)]
        tell(f"{files:5,} files a worker", {key: [each[key] for each in found] for key in found[0]})


def tell(what: str, figures: dict[str, list[float]]) -> None:
    parts = [
        f"{key} {statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"
        for key, values in figures.items()
    ]
    print(f"{what}: {', '.join(parts)}", flush=True)


def measured(name: str, checkout: Path) -> dict[str, float]:
    """Measure one thing once, in a process that uses a checkout's sources."""
    environment = {**os.environ, "PYTHONPATH": str(checkout / "src")}
    command = [sys.executable, str(HERE), "--measure", name]
    found: dict[str, float] = json.loads(
        subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE).stdout
    )
    return found


def first() -> dict[str, float]:
    from trivium.encoders.sandbox.pool import DecodeSandbox

    data = photo(0)
    started = time.perf_counter()
    with DecodeSandbox(1) as box:
        box.decode("image", data)
        return {"ms": 1000 * (time.perf_counter() - started)}


def next_() -> dict[str, float]:
    from trivium.encoders.sandbox.pool import DecodeSandbox

    data = photo(0)
    with DecodeSandbox(1) as box:
        box.decode("image", data)
        os.kill(box.pids[0], 9)
        time.sleep(0.2)
        started = time.perf_counter()
        box.decode("image", data)
        return {"ms": 1000 * (time.perf_counter() - started)}


def photos(files: int | None = None) -> dict[str, float]:
    from trivium.encoders.sandbox import pool as sandbox

    if files is not None:
        sandbox.MAX_FILES = files
    data = [photo(number) for number in range(20)]
    before = used()
    started = time.perf_counter()
    with sandbox.DecodeSandbox() as box, ThreadPoolExecutor(os.cpu_count()) as pool:
        for _ in pool.map(lambda number: box.decode("image", data[number % 20], side=SIDE), range(PHOTOS)):
            pass
    return {"s": time.perf_counter() - started, "cpu s": used() - before}


def used() -> float:
    """Return the processor's time of this process and of all that it has waited for."""
    both = (resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN))
    return sum(each.ru_utime + each.ru_stime for each in both)


def photo(number: int) -> bytes:
    """Return a JPEG of 500 x 375 with both smooth parts and noise."""
    random = np.random.default_rng(number)
    small = Image.fromarray(random.integers(0, 256, (12, 16, 3), dtype=np.uint8)).resize((500, 375))
    pixels = np.asarray(small).astype(np.int16) + random.integers(-20, 20, (375, 500, 3))
    buffer = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=88)
    return buffer.getvalue()


MEASURES: dict[str, Callable[..., Any]] = {"first": first, "next": next_, "photos": photos}


if __name__ == "__main__":
    main()
