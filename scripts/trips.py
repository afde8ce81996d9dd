"""Count how far the main flows go: files of our own that one call visits, and calls of functions of our own.

python scripts/trips.py [--list] [--json]
PYTHONPATH=/another/checkout/src python scripts/trips.py    # the same flows in another state of the sources

What is counted, from the public call until it returns, in its thread and all threads that it starts:

- calls: each call of a named function of ours, a generator once however often it is resumed. Bodies of modules and
  classes, lambdas and comprehensions are none, nor is what `dataclass` writes, as it lies in no file.
- files: files under `src/trivium` with at least one such call.

Worker processes, such as those that decode pictures, are not counted. Each flow runs twice, on new media, and the
second run counts: all is imported by then. A collection was just opened, and its space's networks are loaded; `fit` and
`align` take a space by name, and read its networks from the cache. So counted, commit 881d97a has 34 files for one
photo, 23 for one query, 31 for a frame and 44 for align. What `align` encodes stays in the user's cache (kilobytes).
"""

import argparse
import contextlib
import importlib
import inspect
import io
import json
import secrets
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

import trivium
from trivium.fusion import FusedClassifier

SOURCES = Path(trivium.__file__).parent
ROWS = 8  # of the frame and of align's table
Call = Callable[[], object]


def trip_of(call: Call, sources: Path = SOURCES) -> list[str]:
    """Make a call and return, for each call below a folder of sources that it leads to, the file's path in there."""
    visits: list[str] = []
    root = f"{sources}/"

    def note(frame: FrameType, event: str, _: Any) -> None:
        code = frame.f_code
        is_call = event == "call" and code.co_filename.startswith(root)
        is_function = code.co_flags & inspect.CO_OPTIMIZED and not code.co_name.startswith("<")
        # The instruction is RESUME, whose argument is 0 at a function's start, else what it waited for (module dis).
        if is_call and is_function and code.co_code[frame.f_lasti + 1] == 0:
            visits.append(code.co_filename.removeprefix(root))

    threading.setprofile(note)
    sys.setprofile(note)
    try:
        call()
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    return visits


def photo(folder: Path, space: Any) -> Call:
    collection = trivium.Collection.open(folder / "collection", space=space)
    (path,) = pictures(folder, 1)
    return lambda: collection.add(path)


def query(folder: Path, space: Any) -> Call:
    trivium.Collection.open(folder / "collection", space=space).add(pictures(folder, 3))
    collection = trivium.Collection.open(folder / "collection", space=space)
    return lambda: collection.search(text="a red sign")


def frame(folder: Path, _: Any) -> Call:
    rows, labels = texts_and_pictures(folder), ["red", "blue"] * (ROWS // 2)
    return lambda: FusedClassifier(cache=folder / "cache").fit(rows, labels)


def align(folder: Path, _: Any) -> Call:
    table, space, run = folder / "pairs.csv", folder / "space", command_line()
    texts_and_pictures(folder).to_csv(table, index=False)

    def call() -> None:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as told:
            status = run(["align", str(table), "--out", str(space), "--device", "cpu"])
        if status:
            raise RuntimeError(f"trivium align ended with {status}: {told.getvalue()}")

    return call


FLOWS: dict[str, Callable[[Path, Any], Call]] = {"photo": photo, "query": query, "frame": frame, "align": align}


def command_line() -> Any:
    """Return the program's `main(arguments)`, wherever this state of the sources has it."""
    try:
        module = importlib.import_module("trivium.pipeline.cli.main")
    except ModuleNotFoundError:
        module = importlib.import_module("trivium.pipeline.cli")
    return module.main


def pictures(folder: Path, count: int) -> list[Path]:
    """Write pictures that no run had before."""
    paths = [folder / f"{number}.jpg" for number in range(count)]
    for path in paths:
        Image.fromarray(np.random.default_rng().integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(path)
    return paths


def texts_and_pictures(folder: Path) -> Any:
    """Make a frame of texts and pictures that no run had before."""
    texts = [f"a thing {number} of {secrets.token_hex(4)}" for number in range(ROWS)]
    return pd.DataFrame({"text": texts, "image": [str(path) for path in pictures(folder, ROWS)]})


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--list", action="store_true", help="name the files, in the order of their first visit")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    space = trivium.load_space()
    trips: dict[str, list[str]] = {}
    for name, flow in FLOWS.items():
        for _ in ("warm up", "count"):
            with tempfile.TemporaryDirectory() as folder:
                trips[name] = trip_of(flow(Path(folder), space))
    if options.json:
        print(json.dumps({name: {"calls": len(t), "files": list(dict.fromkeys(t))} for name, t in trips.items()}))
        return 0
    print(f"{'flow':8}{'files':>8}{'calls':>8}")
    for name, trip in trips.items():
        files = dict.fromkeys(trip)
        print(f"{name:8}{len(files):>8,}{len(trip):>8,}")
        if options.list:
            print(*(f"    {file}" for file in files), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
