"""Tables of pairs: rows whose text, picture and sound belong together, with a label or a score if they have one.

Read from CSV, lines of JSON (`reading`) or Parquet. A role's column is the one of its name, else a synonym's, else
the one that the caller names. Bad rows are refused with a reason, and cost nothing but themselves.
"""

import importlib
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, TypeAlias, get_args

from trivium.encoders.base import MODALITIES, Modality
from trivium.pipeline.suffixes import kind_of_name
from trivium.pipeline.tables.metadata_table import json_rows
from trivium.pipeline.tables.reading import (
    MAX_LINE,
    MAX_TABLE_BYTES,
    CsvRows,
    Refuse,
    TableError,
    check_file,
    find_column,
    is_utf8,
    open_lines,
    table_kind,
)

__all__ = ["ROLES", "PairTable", "RefusedRow", "Role", "Row", "TableError", "read_pairs"]

Role: TypeAlias = Literal["text", "image", "audio", "label", "score"]
ROLES: tuple[Role, ...] = get_args(Role)
SYNONYMS: Mapping[Role, tuple[str, ...]] = {"text": ("caption", "title")}
# Where neither pictures nor sounds have a column: each file's name tells which it is.
PATH_COLUMNS = ("path", "file", "filename")
PARQUET_ROWS = 1_024  # that are read at a time
_WORDS: tuple[Role, ...] = ("text", "label")  # must be proper UTF-8; names of files need not
_NOTHING: Mapping[Any, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What belongs together; at least one of text, image and audio is there."""

    line: int  # where its row begins, from 1; of Parquet, which row it is
    text: str | None = None
    image: str | None = None  # absolute paths
    audio: str | None = None
    label: str | None = None
    score: float | None = None

    def item(self, modality: Modality) -> str | None:
        """Return the row's item of a modality: a text, or a path."""
        if modality == "text":
            return self.text
        return self.image if modality == "image" else self.audio


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusedRow:
    """A row that was left out, and why."""

    line: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PairTable:
    """The rows of a table that can be used, and those that cannot."""

    path: Path
    columns: Mapping[Role, str]  # the column that each role was read from
    rows: Sequence[Row] = field(repr=False)
    refused: Sequence[RefusedRow] = field(repr=False)

    @property
    def modalities(self) -> tuple[Modality, ...]:
        """What some row has."""
        return tuple(m for m in MODALITIES if any(row.item(m) is not None for row in self.rows))


def read_pairs(
    path: str | os.PathLike[str],
    *,
    columns: Mapping[Role, str] = _NOTHING,
    where: Mapping[str, str] = _NOTHING,
) -> PairTable:
    """Read a table of pairs.

    Args:
        path: Lines of JSON if the name ends in .jsonl or .ndjson, Parquet if in .parquet, else CSV with commas,
            semicolons or tabs, whose first row names the columns; CSV and JSON may be gzipped (.gz).
        columns: The column of a role, where it is not the one of the role's name or a synonym's (text: caption, title;
            image and audio, where neither has a column: path, file or filename, by the files' suffixes). An empty name
            leaves the role out. Files are named relative to the table's folder, or absolutely.
        where: Column and what its cell must be ("": empty), of all columns named here; other rows are passed over.

    Raises:
        TableError: If the file cannot be used at all: it cannot be read, lacks a column that is named here, or no row
            is of use.
    """
    path = Path(path)
    if unknown := [role for role in columns if role not in ROLES]:
        raise TableError(f"no role '{unknown[0]}': columns may be given for {', '.join(ROLES)}")
    rows = _Rows(path, columns, where)
    for line, cells in table_rows(path, rows.refuse, known=rows.known, needed=rows.needed):
        rows.take(line, cells)
    return rows.table()


def find_roles(names: Sequence[str], asked: Mapping[Role, str]) -> tuple[dict[Role, str], str | None]:
    """Find the roles' columns, as `read_pairs` tells; and the column of files whose suffixes tell what they are."""
    of_role: dict[Role, str] = {}
    for role in ROLES:
        name = asked.get(role)
        wanted = (role, *SYNONYMS.get(role, ())) if name is None else (name,)
        if name != "" and (column := find_column(names, wanted)) is not None:
            of_role[role] = column
    has_files = {"image", "audio"} & (asked.keys() | of_role.keys())
    return of_role, None if has_files else find_column(names, PATH_COLUMNS)


def table_rows(
    path: Path,
    refuse: Refuse,
    *,
    known: Callable[[Sequence[str]], int],
    needed: Callable[[Sequence[str]], Sequence[str]] | None = None,
    max_parquet_bytes: float | None = None,
) -> Iterator[tuple[int, Mapping[str, object]]]:
    """Yield each row's line and its cells by column, of any kind of table.

    Args:
        path: The file, whose name says what it is, see `table_kind`.
        refuse: Told of rows that are none.
        known: See `CsvRows`.
        needed: Told the columns' names before the first row, unless they are lines of JSON; returns those of Parquet
            that are read; all are that are no index of pandas' if not given.
        max_parquet_bytes: Of the file, and of what it unpacks to; as for other tables if not given.

    Raises:
        TableError: If it cannot be read.
    """
    kind = table_kind(path)
    if kind == "parquet":
        yield from _parquet_rows(path, needed, max_parquet_bytes)
        return
    with open_lines(path, refuse) as lines:
        if kind == "lines":
            yield from json_rows(lines, refuse)
            return
        table = CsvRows(lines, path, known=known)
        if needed is not None:
            needed([name for name in table.columns if name])
        for line, cells in table:
            yield line, {name: cell for name, cell in zip(table.columns, cells, strict=True) if name}


class _RefusedError(Exception):
    """Why a row cannot be used."""


@dataclass(frozen=True, slots=True)
class _Columns:
    """Where the roles are found among some columns."""

    of_role: Mapping[Role, str]
    path: str | None  # each file's suffix tells its role
    where: Mapping[str, str]  # column -> what must stand there


class _Rows:
    """Takes the rows of one table, or refuses them."""

    def __init__(self, path: Path, columns: Mapping[Role, str], where: Mapping[str, str]) -> None:
        self._path = path
        # Links are resolved once, so that ".." means what it does to the system.
        self._folder = os.path.realpath(os.path.dirname(os.path.abspath(path)))
        self._asked = columns
        self._where = where
        self._seen: dict[str, None] = {}  # columns, in order
        self._known_columns: dict[tuple[str, ...], _Columns] = {}
        self._used: dict[Role, str] = {}
        self._files: dict[str, tuple[str, str | None]] = {}  # as written -> path, and what is wrong with it
        self._rows: list[Row] = []
        self._refused: list[RefusedRow] = []

    def refuse(self, line: int, reason: str) -> None:
        self._refused.append(RefusedRow(line=line, reason=reason))

    def known(self, names: Sequence[str]) -> int:
        """Count the names that mean something here."""
        of = self._columns(tuple(names))
        return len(of.of_role) + len(of.where) + (of.path is not None)

    def needed(self, names: Sequence[str]) -> list[str]:
        """Return the names of the columns that are read, of all that there are."""
        self._seen.update(dict.fromkeys(names))
        of = self._columns(tuple(names))
        return sorted({*of.of_role.values(), *of.where, *([of.path] if of.path is not None else [])})

    def take(self, line: int, cells: Mapping[str, object]) -> None:
        """Take a row, unless another one is asked for."""
        of = self._columns(tuple(cells))
        self._seen.update(dict.fromkeys(cells))
        try:
            if len(of.where) < len(self._where):
                return
            if any((_written(column, cells[column]) or "") != wanted for column, wanted in of.where.items()):
                return
            row = self._row(line, cells, of)
        except _RefusedError as error:
            self.refuse(line, str(error))
        else:
            self._rows.append(row)

    def table(self) -> PairTable:
        """Return all that was taken.

        Raises:
            TableError: If that is nothing, or a column is missing.
        """
        seen = list(self._seen)
        found = ", ".join(repr(name[:40]) for name in seen[:20]) or "none"
        for use, names in (("--column", self._asked.values()), ("--where", self._where)):
            for name in names:
                if name and find_column(seen, (name,)) is None:
                    raise TableError(f"{self._path} has no column '{name}' ({use}); its columns: {found}")
        if not self._rows:
            why = ""
            if self._refused:
                first = self._refused[0]
                why = f"; {len(self._refused):,} refused, the first in line {first.line}: {first.reason}"
            elif self._where:
                why = f"; none has {', '.join(f'{name}={wanted}' for name, wanted in self._where.items())}"
            raise TableError(
                f"{self._path} has no row that can be used: a row needs text, image or audio; its columns: {found}{why}"
            )
        used: dict[Role, str] = {role: self._used[role] for role in ROLES if role in self._used}
        return PairTable(path=self._path, columns=used, rows=self._rows, refused=self._refused)

    def _columns(self, names: tuple[str, ...]) -> _Columns:
        known = self._known_columns.get(names)
        if known is None:
            known = self._known_columns[names] = self._found(names)
        return known

    def _found(self, names: Sequence[str]) -> _Columns:
        of_role, path = find_roles(names, self._asked)
        where = {
            column: wanted
            for name, wanted in self._where.items()
            if (column := find_column(names, (name,))) is not None
        }
        return _Columns(of_role, path, where)

    def _row(self, line: int, cells: Mapping[str, object], of: _Columns) -> Row:
        found: dict[Role, str] = {}
        for role, column in of.of_role.items():
            if (cell := _written(column, cells[column])) is not None:
                found[role] = cell
                self._used[role] = column
        if of.path is not None and (cell := _written(of.path, cells[of.path])) is not None:
            kind = kind_of_name(cell)
            if kind not in ("image", "audio"):
                raise _RefusedError(f"'{of.path}' names no picture and no sound, by its suffix: {cell}")
            of_file: Role = "image" if kind == "image" else "audio"
            found[of_file] = cell
            self._used[of_file] = of.path
        for role in _WORDS:
            if not is_utf8(found.get(role, "")):
                raise _RefusedError(f"'{self._used[role]}' is not UTF-8: save the table as UTF-8")
        row = Row(
            line=line,
            text=found.get("text"),
            image=self._file(found.get("image")),
            audio=self._file(found.get("audio")),
            label=found.get("label"),
            score=_number(self._used.get("score", ""), found.get("score")),
        )
        if row.text is row.image is row.audio is None:
            raise _RefusedError("has no text, no picture and no sound")
        return row

    def _file(self, written: str | None) -> str | None:
        if written is None:
            return None
        if written not in self._files:  # several rows may name it
            path = os.path.normpath(os.path.join(self._folder, written))
            problem = None if os.path.isfile(path) else "is not a file" if os.path.exists(path) else "does not exist"
            self._files[written] = path, problem
        path, problem = self._files[written]
        if problem is not None:
            raise _RefusedError(f"{path} {problem}")
        return path


def _written(column: str, value: object) -> str | None:
    """Return a cell as it is written, without blanks around it; None if nothing is."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return None if isinstance(value, float) and math.isnan(value) else str(value)
    if value is None:
        return None
    if not isinstance(value, str):
        raise _RefusedError(f"'{column}' is a {type(value).__name__}, not a text or a number")
    if len(value) > MAX_LINE:
        raise _RefusedError(f"'{column}' has {len(value):,} characters, at most {MAX_LINE:,} are read")
    return value.strip() or None


def _number(column: str, cell: str | None) -> float | None:
    if cell is None:
        return None
    try:
        number = float(cell)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise _RefusedError(f"'{column}' is '{cell[:40]}', which is no number")
    return number


def _parquet_rows(
    path: Path, needed: Callable[[Sequence[str]], Sequence[str]] | None, max_bytes: float | None
) -> Iterator[tuple[int, Mapping[str, object]]]:
    try:
        check_file(path, max_bytes=max_bytes)
    except OSError as error:
        raise TableError(f"{path} cannot be read: {error.strerror or type(error).__name__}") from error
    try:
        parquet = importlib.import_module("pyarrow.parquet")
    except ImportError as error:
        raise TableError(
            f"{path}: Parquet files need pyarrow ({error}): run pip install 'trivium[parquet]', or use CSV"
        ) from error
    line, size, most = 0, 0, MAX_TABLE_BYTES if max_bytes is None else max_bytes
    try:
        with parquet.ParquetFile(path, pre_buffer=False, memory_map=False) as file:
            schema = file.schema_arrow
            index = (schema.pandas_metadata or {}).get("index_columns", ()) if needed is None else ()
            names = [name for name in schema.names if name not in index] if needed is None else needed(schema.names)
            for batch in file.iter_batches(batch_size=PARQUET_ROWS, columns=names):
                batch.validate(full=True)  # else broken UTF-8 is met later
                size += batch.nbytes
                if size > most:
                    raise TableError(f"{path} unpacks to more than the {most:,} bytes that are read")
                cells = [batch.column(name).to_pylist() for name in names]
                for row in range(batch.num_rows):
                    line += 1
                    yield line, {name: column[row] for name, column in zip(names, cells, strict=True)}
    except (TableError, GeneratorExit):
        raise
    except Exception as error:  # a damaged file fails in many ways
        raise TableError(f"{path} cannot be read as Parquet: {error}") from error
