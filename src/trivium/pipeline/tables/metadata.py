"""Metadata of items: from a JSON file beside each, or from one table (CSV, or JSON lines) for many.

An item's metadata are flat: keys with a text, a number, true or false, or a list of texts. Nested objects become keys
with dots (``exif.model``). Where a picture was taken is private: positions are not stored unless asked for.
"""

import functools
import json
import math
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NoReturn, TypeAlias

from trivium.pipeline.paths import Naming
from trivium.pipeline.tables.reading import CsvRows, Lines, TableError, find_column, is_utf8, open_lines, table_kind

Metadata: TypeAlias = dict[str, str | int | float | bool | list[str]]

MAX_BYTES = 64 * 1024  # of one item's metadata
MAX_KEYS = 200
MAX_KEY_LENGTH = 200  # characters
MAX_VALUE_LENGTH = 10_000  # characters; of a list, all entries together
MAX_PROBLEMS = 1_000  # that are listed; the others are counted

_PATH_COLUMNS = ("path", "file", "filename", "name")  # the first that a table has


class MetadataError(ValueError):
    """Metadata that cannot be used; the message is a plain sentence for their owner."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TableProblem:
    """A row that was left out, and why."""

    line: int  # the first of the row, from 1
    reason: str


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
        """Return what the table has of a file, as it is stored.

        Args:
            path: Absolute; bytes that are not UTF-8 as surrogates, as Python's os has them.
        """
        row = self.rows.get(path)
        return None if row is None else row.decode()

    def unused(self, paths: Iterable[str]) -> list[str]:
        """Return the paths of rows that are not among ``paths``, in order: files that were renamed, or misspelt."""
        return sorted(self.rows.keys() - set(paths))


def read_sidecar(data: bytes, *, positions: bool = False) -> Metadata:
    """Read the content of a JSON file that lies beside an item.

    Args:
        data: JSON with one object, in UTF-8.
        positions: Keep where the item was made, as far as a key's name tells.

    Raises:
        MetadataError: If it is too large, no JSON, or not of the form that metadata have.
    """
    if len(data) > MAX_BYTES:
        raise MetadataError(f"metadata of {len(data):,} bytes, at most {MAX_BYTES:,} are read")
    try:
        return flatten(json_object(data.decode("utf-8-sig")), positions=positions)
    except UnicodeDecodeError as error:
        raise MetadataError(f"not UTF-8 (byte {error.start:,}): save the metadata as UTF-8") from error


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


def combined(tables: Sequence[MetadataTable]) -> MetadataTable | None:
    """Make one table of several: of a file that several name, the last says all; None if there is none."""
    if len(tables) < 2:
        return tables[0] if tables else None
    return MetadataTable(
        path=", ".join(table.path for table in tables),
        problems=[problem for table in tables for problem in table.problems],
        problem_count=sum(table.problem_count for table in tables),
        rows={path: row for table in tables for path, row in table.rows.items()},
    )


def flatten(entries: Mapping[str, object], *, positions: bool = False) -> Metadata:
    """Make metadata of anything like a JSON object: null is dropped, of equal keys the last counts.

    Raises:
        MetadataError: If it is nested in lists, has values of other kinds, or goes beyond a limit.
    """
    metadata: Metadata = {}
    for key, value in _leaves("", entries):
        if not positions and _is_position(key, value):
            continue
        kept = _kept(key, value)
        if kept is not None:
            metadata[key] = kept
    if len(metadata) > MAX_KEYS:
        raise MetadataError(f"{len(metadata):,} keys, at most {MAX_KEYS} are read")
    return metadata


def merged(tabled: str | None, sidecar: Metadata) -> str | None:
    """Put together what a table says (JSON) and what a sidecar says, which comes first; None if neither says anything.

    Raises:
        MetadataError: If both together go beyond a limit.
    """
    if not sidecar:
        return tabled
    return encode(flatten({**(decode(tabled) if tabled else {}), **sidecar}, positions=True))


def encode(metadata: Metadata) -> str:
    """Return the JSON that is stored: the same for equal metadata.

    Raises:
        MetadataError: If a number is NaN or infinite.
    """
    try:
        return _ENCODER.encode(metadata)
    except ValueError as error:
        raise MetadataError(f"metadata cannot be stored: {error}") from error


def decode(text: str) -> Metadata:
    """Read what `encode` wrote.

    Raises:
        MetadataError: If it did not.
    """
    return flatten(json_object(text), positions=True)


# One object.


def json_object(text: str) -> dict[str, object]:
    """Read one object, with numbers that can be stored.

    Raises:
        MetadataError: If it is none.
    """
    try:
        read = _DECODER.decode(text)
    except json.JSONDecodeError as error:
        line = f"line {error.lineno}, " if "\n" in text.strip() else ""
        raise MetadataError(f"not JSON: {error.msg} ({line}column {error.colno})") from error
    except RecursionError as error:
        raise MetadataError("nested too deeply") from error
    if not isinstance(read, dict):
        raise MetadataError('not a JSON object: write {"key": value}')
    return read


def _refuse_constant(name: str) -> NoReturn:
    raise MetadataError(f"{name} is not a number that JSON has")


def _whole_number(digits: str) -> int | str:
    """Numbers of more than 64 bits remain text: they are names, and SQLite would round them."""
    if len(digits) > 20:
        return digits
    number = int(digits)
    return number if -(2**63) <= number < 2**63 else digits


def _finite_number(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise MetadataError(f"the number {digits[:40]} is too large")
    return number


_ENCODER = json.JSONEncoder(sort_keys=True, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
_DECODER = json.JSONDecoder(parse_constant=_refuse_constant, parse_int=_whole_number, parse_float=_finite_number)


def _leaves(prefix: str, entries: Mapping[str, object]) -> Iterator[tuple[str, object]]:
    for name, value in entries.items():
        if not isinstance(name, str):
            raise MetadataError(f"the key {name!r} is not a text")
        key = prefix + _text(name)
        if key == prefix:
            raise MetadataError(f"a key is empty{f', within {prefix!r}' if prefix else ''}")
        if len(key) > MAX_KEY_LENGTH:  # this also bounds how deep objects are nested
            raise MetadataError(f"the key '{key[:40]}…' has {len(key):,} characters, at most {MAX_KEY_LENGTH} are read")
        if not isinstance(value, str | int | float) and isinstance(value, Mapping):  # the first is much faster
            yield from _leaves(f"{key}.", value)
        else:
            yield key, value


def _kept(key: str, value: object) -> str | int | float | bool | list[str] | None:
    if isinstance(value, str):
        text = _text(value)
        _check_length(key, len(text))
        return text
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        if value.bit_length() > 1_000:
            raise MetadataError(f"'{key}' is a number of more than 1,000 bits")
        return _whole_number(str(value))
    if isinstance(value, float):
        if not math.isfinite(value):
            raise MetadataError(f"'{key}' is {value}, which is not a number that JSON has")
        return value
    if isinstance(value, list | tuple):
        texts = [_entry(key, entry) for entry in value if entry is not None]
        _check_length(key, sum(map(len, texts)))
        return texts
    raise MetadataError(f"'{key}' is a {type(value).__name__}, not a text, a number, true, false or a list of these")


def _entry(key: str, entry: object) -> str:
    if isinstance(entry, list | tuple | Mapping):
        raise MetadataError(f"'{key}' is a list of lists or objects: only texts, numbers, true and false may be listed")
    kept = _kept(key, entry)
    return kept if isinstance(kept, str) else json.dumps(kept)


def _check_length(key: str, length: int) -> None:
    if length > MAX_VALUE_LENGTH:
        raise MetadataError(f"'{key}' has {length:,} characters, at most {MAX_VALUE_LENGTH:,} are read")


_NO_TEXT = re.compile("[\ud800-\udfff]")


def _text(text: str) -> str:
    """Leave what SQLite can hold and compare as a whole: no NUL, with which cameras fill up, no half characters."""
    text = text.replace("\0", "")
    return text if text.isascii() else _NO_TEXT.sub("\ufffd", text)


# Positions.

_POSITION = re.compile(r"gps|latitude|longitude|(?<![a-z])location\.")
_POSITION_WORDS = {"lat", "lon", "lng", "latlon", "latlng", "latlong", "geolocation", "coordinates"}
_COORDINATES = re.compile(r"[nsew\W\d]*\d[nsew\W]+\d[nsew\W\d]*", re.ASCII | re.IGNORECASE)


def _is_position(key: str, value: object) -> bool:
    """Whether a key tells of a place on Earth: "exif.GPSLatitude", "EXIF:GPSPosition", "photo_lat", "location.city".

    "location" alone may be a town's name; it is a position if it holds numbers and no words.
    """
    kind = _kind(key)
    if kind != "location":
        return kind == "position"
    written = " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    return len(written) < 100 and _COORDINATES.fullmatch(written) is not None


@functools.lru_cache(maxsize=4_096)  # the rows of a table have the same keys
def _kind(key: str) -> Literal["position", "location", "other"]:
    words = re.split(r"[\W_]+", key.lower())
    if _POSITION.search(key.lower()) or not _POSITION_WORDS.isdisjoint(words):
        return "position"
    return "location" if words[-1] == "location" else "other"


# Tables.

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
        try:
            row = encode(flatten(entries, positions=self._positions)).encode()
            if len(row) > MAX_BYTES:
                raise MetadataError(f"metadata of {len(row):,} bytes, at most {MAX_BYTES:,} are read")
            self.taken[path] = row
        except MetadataError as error:
            self.refuse(line, str(error))

    def refuse(self, line: int, reason: str) -> None:
        self.problem_count += 1
        if len(self.problems) < MAX_PROBLEMS:
            self.problems.append(TableProblem(line=line, reason=reason))


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
        return _whole_number(text)
    if _DECIMAL.fullmatch(text) and repr(float(text)) == text:
        return float(text)
    return text
