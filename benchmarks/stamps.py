"""Tux Paint's stamps as a benchmark: pictures and sounds with the captions beside them."""

import os
from dataclasses import dataclass
from pathlib import Path

from trivium.encoders.decoding.texts import decode_text, first_line
from trivium.encoders.files.reading import read_file

ROOT = Path(__file__).parent.parent
STAMPS = ROOT / "demo-output" / "stamps"  # put there by `make demo`


@dataclass(frozen=True, slots=True)
class Stamp:
    """One captioned picture or sound."""

    path: Path
    caption: str


def stamps(*suffixes: str) -> list[Stamp]:
    """Return the captioned files with these suffixes, by path."""
    if not STAMPS.is_dir():
        raise SystemExit(f"{STAMPS} is missing: run `make demo` first")
    found = []
    for path in sorted(STAMPS.rglob("*")):
        beside = path.with_suffix(".txt")
        if path.suffix in suffixes and beside.is_file() and (caption := first_line(decode_text(read_file(beside)))):
            found.append(Stamp(path, caption))
    return found


def files(*suffixes: str) -> list[Path]:
    """Return all files with these suffixes, captioned or not."""
    if not STAMPS.is_dir():
        raise SystemExit(f"{STAMPS} is missing: run `make demo` first")
    return [Path(p) for p in sorted(map(os.fspath, STAMPS.rglob("*"))) if Path(p).suffix in suffixes]
