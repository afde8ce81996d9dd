"""Where the data come from and under which licence: a table for programs, and the same for people."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Licence:
    """One package that was used."""

    source: str
    package: str
    version: str
    licence: str
    files: int
    rows: int


COLUMNS = tuple(field.name for field in fields(Licence))


def write_licences(folder: Path, licences: Sequence[Licence]) -> None:
    """Write `licences.csv` and `licences.md`."""
    table = [[str(getattr(licence, column)) for column in COLUMNS] for licence in licences]
    with (folder / "licences.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([COLUMNS, *table])
    lines = [COLUMNS, ["---"] * len(COLUMNS), *table]
    text = "".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |\n" for line in lines)
    (folder / "licences.md").write_text(text, encoding="utf-8")
