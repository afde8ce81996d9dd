"""Rows of words, pictures and sounds that belong together, and the CSV files they are written to."""

import csv
import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

# Every fifth.
HELD_OUT = 5
# Rows of one source that say the same; a hundred samples of one voice teach no more than these.
MAX_ALIKE = 24
ARTICLES = ("a ", "an ", "the ", "some ", "someone ", "somebody ")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One thing in up to three modalities; an empty string where it has none."""

    text: str = ""
    image: str = ""  # paths are relative to the table
    audio: str = ""
    label: str  # rows of the same label show the same thing, so they are no negatives of each other
    source: str  # the package
    split: str = "train"  # or test


COLUMNS = tuple(field.name for field in fields(Row))


def write_table(path: Path, rows: Iterable[Row]) -> None:
    """Write a table, beside which the files lie that its rows name."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        writer.writerows([getattr(row, column) for column in COLUMNS] for row in rows)


def read_table(path: Path) -> list[Row]:
    """Read a table that `write_table` wrote."""
    with path.open(encoding="utf-8", newline="") as file:
        return [Row(**row) for row in csv.DictReader(file)]


def label_of(caption: str) -> str:
    """Return what a caption is about, so that "A dog." and "dog" are one label."""
    label = " ".join(caption.lower().split()).rstrip(".!")
    for article in ARTICLES:
        label = label.removeprefix(article)
    return label


def split_of(name: str) -> str:
    """Return "test" for every fifth name, by its hash: the same on every machine, whatever else is there."""
    return "test" if _hash(name) % HELD_OUT == 0 else "train"


class Contents:
    """Remembers every file by its content, over all sources, and tells which rows repeat something."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._digests: dict[str, bytes] = {}
        self._first: dict[bytes, str] = {}
        self._rows: set[tuple[str, str, str]] = set()

    def without_repeats(self, rows: Iterable[Row]) -> Iterator[Row]:
        """Blank out pictures and sounds that another file had before, byte for byte; leave out rows that repeat.

        So nothing is in two sources, nor in two splits.
        """
        for row in rows:
            row = replace(row, image=self._if_first(row.image), audio=self._if_first(row.audio))
            whole = (row.text, row.image, row.audio)
            if (row.image or row.audio) and whole not in self._rows:
                self._rows.add(whole)
                yield row

    def _if_first(self, path: str) -> str:
        return path if path and self._first.setdefault(self._digest(path), path) == path else ""

    def _digest(self, path: str) -> bytes:
        if path not in self._digests:
            self._digests[path] = hashlib.sha256((self._folder / path).read_bytes()).digest()
        return self._digests[path]


def without_crowds(rows: Sequence[Row]) -> list[Row]:
    """Keep `MAX_ALIKE` of the sounds without a picture that have the same text, chosen by a hash of their paths."""
    alike: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        if not row.image:
            alike[row.text].append(row)
    kept = {
        row.audio for crowd in alike.values() for row in sorted(crowd, key=lambda row: _hash(row.audio))[:MAX_ALIKE]
    }
    return [row for row in rows if row.image or row.audio in kept]


def files_of(rows: Sequence[Row]) -> set[str]:
    """Return every file that rows name."""
    return {path for row in rows for path in (row.image, row.audio) if path}


def _hash(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8])
