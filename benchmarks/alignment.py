"""Aligning on Flickr8k's training split, judged on its development split, by the commands as a user runs them.

    python benchmarks/alignment.py [OPTION ...]        options of `trivium align`, instead of none

Encoding is done once and kept in the cache: its seconds are told apart. Needs TRIVIUM_DATA (default ../shared/data).
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from machine import describe

DATA = Path(os.environ.get("TRIVIUM_DATA", Path(__file__).parents[2] / "shared" / "data"))
TABLE = DATA / "flickr8k" / "captions.csv"
TRIVIUM = [sys.executable, "-P", "-m", "trivium"]


def main() -> None:
    if not TABLE.is_file():
        raise SystemExit(f"{TABLE} is missing: set TRIVIUM_DATA")
    print(describe(), "\n")
    print("| heads | s: encoding, closed form, training | held out, R@1 / R@10 | dev, text to image | image to text |")
    print("|---|---|---|---|---|")
    for name, options in (("closed form", ["--method", "closed-form"]), ("trained", sys.argv[1:])):
        with tempfile.TemporaryDirectory() as scratch:
            space = str(Path(scratch) / "space")
            started = time.perf_counter()
            made = told("align", str(TABLE), "--where", "split=train", "--out", space, *options)
            seconds = made["seconds"]
            encoding = time.perf_counter() - started - sum(seconds.values())
            held_out = made["recall"]["text->image"]
            found = told("evaluate", space, str(TABLE), "--where", "split=dev")["recall"]
        cells = [
            name,
            f"{encoding:.0f} / {seconds['closed form']:.0f} / {seconds.get('training', 0):.0f}",
            f"{held_out['R@1']:.1%} / {held_out['R@10']:.1%}",
            *(shown(found[direction]) for direction in ("text->image", "image->text")),
        ]
        print(f"| {' | '.join(cells)} |", flush=True)


def told(*arguments: str) -> dict[str, Any]:
    finished = subprocess.run([*TRIVIUM, *arguments, "--json"], check=True, capture_output=True, text=True)
    found: dict[str, Any] = json.loads(finished.stdout)
    return found


def shown(recall: dict[str, float]) -> str:
    return " / ".join(f"{recall[f'R@{k}']:.1%}" for k in (1, 5, 10))


if __name__ == "__main__":
    main()
