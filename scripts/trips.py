"""How far one has to read: which of our files a main flow visits, and how many calls of ours.

    python scripts/trips.py [--list]

Counted from the public call on, by `sys.setprofile` in this thread and those that it starts, once the same call has
been made before on other items (networks loaded, modules imported). A file is visited when a function, method or lambda
of it is called; module bodies and comprehensions do not count, nor what decoding processes do.
"""

import argparse
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
from PIL import Image

import trivium

SOURCE = str(Path(trivium.__file__).parent)
NOT_COUNTED = ("<module>", "<listcomp>", "<setcomp>", "<dictcomp>", "<genexpr>")


class Trip:
    """Files of ours in the order of their first visit, and calls."""

    def __init__(self) -> None:
        self.files: dict[str, int] = {}

    def _seen(self, frame: FrameType, event: str, _: Any) -> None:
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(SOURCE) and code.co_name not in NOT_COUNTED:
            name = code.co_filename.removeprefix(SOURCE + "/")
            self.files[name] = self.files.get(name, 0) + 1

    def take(self, call: Callable[[], object]) -> None:
        """Make a call and count."""
        threading.setprofile(self._seen)
        sys.setprofile(self._seen)
        try:
            call()
        finally:
            sys.setprofile(None)
            threading.setprofile(None)


def flows(folder: Path) -> dict[str, tuple[Callable[[], object], Callable[[], object]]]:
    """Return each flow as what warms it up, and what is counted."""
    import pandas

    from trivium.fusion import FusedClassifier

    random = np.random.default_rng(0)

    def photo(name: str) -> Path:
        Image.fromarray(random.integers(0, 255, (64, 64, 3), np.uint8)).save(folder / name)
        return folder / name

    def frame(start: int) -> pandas.DataFrame:
        places = range(start, start + 12)
        return pandas.DataFrame(
            {"text": [f"thing {n}" for n in places], "image": [str(photo(f"{n}.png")) for n in places]}
        )

    def table(start: int) -> Path:
        rows = [f"{photo(f'{n}.png')},a thing with number {n}" for n in range(start, start + 12)]
        path = folder / f"{start}.csv"
        path.write_text("\n".join(["image,text", *rows]))
        return path

    def align(start: int) -> int:
        options = ["--out", str(folder / f"space-{start}"), "--method", "closed-form", "--device", "cpu", "--json"]
        return trivium.main(["align", str(table(start)), *options])

    collection = trivium.Collection.open(folder / "collection", device="cpu")
    labels = [0, 1] * 6
    fused: Any = FusedClassifier(device="cpu")
    return {
        "one photo": (lambda: collection.add(photo("a.png")), lambda: collection.add(photo("b.png"))),
        "one query": (lambda: collection.search(text="a dog"), lambda: collection.search(text="a cat")),
        "a frame": (lambda: fused.fit(frame(100), labels), lambda: fused.fit(frame(200), labels)),
        "align": (lambda: align(300), lambda: align(400)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Files of ours that a main flow visits, and calls of ours.")
    parser.add_argument("--list", action="store_true", help="name the files, with their calls")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for name, (warm, counted) in flows(Path(folder)).items():
            warm()
            trip = Trip()
            trip.take(counted)
            print(f"{name:12} {len(trip.files):4} files {sum(trip.files.values()):7,} calls", file=sys.stderr)
            if options.list:
                print(*(f"    {file} {calls:,}" for file, calls in trip.files.items()), sep="\n", file=sys.stderr)


if __name__ == "__main__":
    main()
