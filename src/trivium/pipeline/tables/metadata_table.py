"""Metadata of many files from tables: CSV, or JSON lines."""

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from trivium.pipeline.paths import Naming
from trivium.pipeline.tables.metadata import (
    MAX_BYTES,
    Metadata,
    MetadataError,
    decode,
    encode,
    flatten,
    json_object,
    told,
    whole_number,
)
from trivium.pipeline.tables.reading import CsvRows, Lines, TableError, find_column, is_utf8, open_lines, table_kind

MAX_PROBLEMS = 1_000  # that are listed; the others are counted

_PATH_COLUMNS = ("path", "file", "filename", "name")  # the first that a table has


@dataclass(frozen=True, slots=True, kw_only=True)
class TableProblem:
    """A row that was left out, or of which something was, and why."""

    line: int  # the first of the row, from 1
    reason: str
    is_taken: bool = False  # all the rest of it


@dataclass(frozen=True, slots=True, kw_only=True)
class MetadataTable:
    """Metadata of many files, by path. All rows are in memory, about twice the size of the file."""

    path: str
    problems: Sequence[TableProblem]
    problem_count: int  # also of those that are not listed
    rows: Mapping[str, bytes] = field(repr=False)  # absolute path -> JSON in UTF-8: smaller than objects

    def __len__(self) -> int:
        return len(self.rows)

    def of(self, path: str) -> Metadata | None:
        """Return what the table has of a file; ``path`` as in `json_of`."""
        row = self.json_of(path)
        return None if row is None else decode(row)

    def json_of(self, path: str) -> str | None:
        """Return what the table has of a file, as it is stored; None if no row that can be read names it.

        Args:
            path: Absolute; bytes that are not UTF-8 as surrogates, as Python's os has them.
        """
        row = self.rows.get(path)
        return None if row is None else row.decode()

    def unused(self, paths: Iterable[str]) -> list[str]:
        """Return the paths of rows that are not among ``paths``, in order: files that were renamed, or misspelt."""
        return sorted(self.rows.keys() - set(paths))


def read_table(path: Path, *, positions: bool = False) -> MetadataTable:
    """Read metadata of many files.

    Args:
        path: JSON lines if the name ends in .jsonl or .ndjson, with "path" in every object; else CSV with commas,
            semicolons or tabs, whose first row names the columns, one of them path, file, filename or name; either may
            be gzipped (.gz). Paths are absolute, or relative to the table's folder. Cells become numbers only if
            nothing is lost: 007 and 1e5 remain text.
        positions: Keep where the items were made, as far as a key's name tells.

    Raises:
        MetadataError: If the file cannot be read at all. Rows that cannot are among the table's problems.
    """
    rows = _Rows(os.path.dirname(os.path.abspath(path)), positions=positions)
    try:
        with open_lines(path, rows.refuse) as lines:
            if table_kind(path) == "lines":
                _read_lines(lines, rows)
            else:
                _read_csv(lines, rows, path)
    except TableError as error:
        raise MetadataError(str(error)) from error
    return MetadataTable(path=str(path), problems=rows.problems, problem_count=rows.problem_count, rows=rows.taken)


def said_of(path: str, tables: Sequence[MetadataTable]) -> str | None:
    """Return what tables have of a file, as it is stored: of a key that several have, the last counts.

    Args:
        path: As of `MetadataTable.json_of`.
        tables: In the order in which they were given.
    """
    rows = [row for table in tables if (row := table.json_of(path)) is not None]
    if len(rows) < 2:
        return rows[0] if rows else None
    return encode({key: value for row in rows for key, value in decode(row).items()})


def json_rows(lines: Lines, refuse: Callable[[int, str], None]) -> Iterator[tuple[int, dict[str, object]]]:
    """Yield the number and the object of each line that holds one; ``refuse`` is told of the others, and why."""
    for line in lines:
        if not line.strip():
            continue
        try:
            if not is_utf8(line):
                raise MetadataError("not UTF-8")
            entries = json_object(line)
        except MetadataError as error:
            refuse(lines.count, str(error))
            continue
        yield lines.count, entries


_WHOLE = re.compile(r"0|-?[1-9]\d*", re.ASCII)
_DECIMAL = re.compile(r"-?\d+\.\d+", re.ASCII)


class _Rows:
    """Takes rows, or lists them as problems."""

    def __init__(self, folder: str, *, positions: bool) -> None:
        self._folder = folder
        self._positions = positions
        self._naming = Naming()
        self.taken: dict[str, bytes] = {}
        self.problems: list[TableProblem] = []
        self.problem_count = 0

    def add(self, line: int, path: object, entries: Mapping[str, object]) -> None:
        if not isinstance(path, str) or not path or "\0" in path:
            self.refuse(line, "names no file")
            return
        path = self._naming.of(os.path.join(self._folder, path))
        if path in self.taken:
            self.refuse(line, f"names a file for the second time, the first row counts: {path}")
            return
        left_out: list[str] = []
        row = encode(flatten(entries, positions=self._positions, left_out=left_out)).encode()
        if len(row) > MAX_BYTES:
            self.refuse(line, f"metadata of {len(row):,} bytes, at most {MAX_BYTES:,} are read")
            return
        self.taken[path] = row
        if left_out:
            self.refuse(line, told(left_out), is_taken=True)

    def refuse(self, line: int, reason: str, *, is_taken: bool = False) -> None:
        self.problem_count += 1
        if len(self.problems) < MAX_PROBLEMS:
            self.problems.append(TableProblem(line=line, reason=reason, is_taken=is_taken))


def _read_lines(lines: Lines, rows: _Rows) -> None:
    for line, entries in json_rows(lines, rows.refuse):
        rows.add(line, entries.pop("path", None), entries)


def _read_csv(lines: Lines, rows: _Rows, path: Path) -> None:
    table = CsvRows(lines, path, known=lambda names: find_column(names, _PATH_COLUMNS) is not None)
    path_column = find_column(table.columns, _PATH_COLUMNS)
    if path_column is None:
        found = ", ".join(repr(name[:40]) for name in table.columns[:20]) or "nothing"
        raise MetadataError(f"{path} needs a column {' or '.join(_PATH_COLUMNS)} in its first row, which has {found}")
    for line, cells in table:
        named = {name: cell for name, cell in zip(table.columns, cells, strict=True) if name}
        name = named.pop(path_column)
        broken = next((name for name, cell in named.items() if not is_utf8(cell)), None)
        if broken is not None:
            rows.refuse(line, f"'{broken}' is not UTF-8: save the table as UTF-8")
            continue
        rows.add(line, name, {name: _cell(cell) for name, written in named.items() if (cell := written.strip())})


def _cell(text: str) -> str | int | float:
    """Return a number if its usual form is what stands there: nothing is lost when it is written again."""
    if _WHOLE.fullmatch(text):
        return whole_number(text)
    if _DECIMAL.fullmatch(text) and repr(float(text)) == text:
        return float(text)
    return text
