"""The rows of a table in a file, bounded and one at a time: CSV with commas, semicolons or tabs, or lines of JSON.

What the cells mean is for others to say: `metadata` (of items, by path) and `pairs`. Files may be gzipped.
"""

import csv
import gzip
import io
import itertools
import re
import stat
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, TextIO, TypeAlias

MAX_TABLE_BYTES = 1024**3  # also of what a gzipped one unpacks to, in characters
MAX_LINE = 1024**2  # characters; no row that long has cells within the limits
MAX_LINES = 20_000_000  # in a table as large as it may be, that is 53 bytes a line
MAX_BLANK_LINES = 1_000_000

Refuse: TypeAlias = Callable[[int, str], None]  # called with a row's line, from 1, and the reason

_DELIMITERS = ",;\t"
_LINES_SUFFIXES = (".jsonl", ".ndjson")
_HALF_CHARACTERS = re.compile("[\ud800-\udfff]")
# What a terminal obeys, half characters, and what turns the direction of writing.
_CONTROLS = re.compile("[\\x00-\\x1f\\x7f-\\x9f\\ud800-\\udfff\\u202a-\\u202e\\u2066-\\u2069]")
_FORMULA_SIGNS = "=+-@\t\r\n\uff1d\uff0b\uff0d\uff20"  # the last four are the wide ones of East Asia
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)


class TableError(ValueError):
    """A table that cannot be used at all; the message is a plain sentence for its owner."""


def table_kind(path: Path) -> Literal["csv", "lines", "parquet"]:
    """Tell by its name what a table is: anything that is not .jsonl, .ndjson or .parquet is CSV."""
    name = path.name.lower().removesuffix(".gz")
    if name.endswith(".parquet"):
        return "parquet"
    return "lines" if name.endswith(_LINES_SUFFIXES) else "csv"


def is_utf8(text: str) -> bool:
    """Whether a text was read from proper UTF-8: broken bytes come as surrogates, as names of files may have them."""
    return text.isascii() or _HALF_CHARACTERS.search(text) is None


def find_column(names: Sequence[str], wanted: Sequence[str]) -> str | None:
    """Find the first of some columns by its name, or else by one that differs in capitals only."""
    for name in wanted:
        if name in names:
            return name
        if (other := next((other for other in names if other.lower() == name.lower()), None)) is not None:
            return other
    return None


def spreadsheet_cell(cell: Any) -> Any:
    """Return a cell of a CSV file as a spreadsheet does not run it; what is no text, or a number, stays as it is.

    What begins like a formula gets an apostrophe before it, and control characters are written out, as Python does.
    """
    if not isinstance(cell, str):
        return cell
    text = _CONTROLS.sub(lambda sign: sign[0].encode("unicode_escape", "backslashreplace").decode(), cell)
    is_formula = cell[:1] in _FORMULA_SIGNS and cell != "" and _NUMBER.fullmatch(cell) is None
    return f"'{text}" if is_formula else text


def check_file(path: Path, *, max_bytes: float | None = None) -> None:
    """Refuse what is no file, or too large to be read.

    Raises:
        TableError: If so.
        OSError: If it cannot be looked at.
    """
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise TableError(f"{path} is not a file: a table is CSV, or JSON lines (.jsonl)")
    most = MAX_TABLE_BYTES if max_bytes is None else max_bytes
    if status.st_size > most:
        raise TableError(f"{path} has {status.st_size:,} bytes, tables of at most {most:,} are read")


class Lines:
    """The lines of a file, counted; one that is too long comes as an empty one, and is refused."""

    def __init__(self, text: TextIO, path: Path, refuse: Refuse) -> None:
        self.refuse = refuse
        self.count = 0
        self._blank = 0
        self._text = text
        self._path = path
        self._characters = 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._read()
        if not line:
            raise StopIteration
        self.count += 1
        if self.count > MAX_LINES:  # a small gzipped file may have a thousand million of them
            raise TableError(f"{self._path} has more than {MAX_LINES:,} lines: split it into several tables")
        if line.isspace():
            self._blank += 1
            if self._blank > MAX_BLANK_LINES:
                raise TableError(f"{self._path} has more than {MAX_BLANK_LINES:,} blank lines: it is no table")
        if len(line) < MAX_LINE:
            return line
        while line and not line.endswith(("\n", "\r")):
            line = self._read()
        self.refuse(self.count, f"has more than {MAX_LINE:,} characters")
        return "\n"

    def _read(self) -> str:
        line = self._text.readline(MAX_LINE)
        self._characters += len(line)
        if self._characters > MAX_TABLE_BYTES:  # only a gzipped file gets there
            raise TableError(f"{self._path} unpacks to more than the {MAX_TABLE_BYTES:,} bytes that are read")
        return line


@contextmanager
def open_lines(path: Path, refuse: Refuse) -> Iterator[Lines]:
    """Open a table to read its lines.

    Args:
        path: A file; gzipped if its name ends in .gz.
        refuse: Called for lines that are too long.

    Raises:
        TableError: If it cannot be read.
    """
    try:
        check_file(path)
        with gzip.open(path) if path.name.lower().endswith(".gz") else path.open("rb") as file:
            if file.read(2) in (b"\xff\xfe", b"\xfe\xff"):
                raise TableError(f"{path} is UTF-16: save the table as CSV in UTF-8")
            file.seek(0)
            with io.TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape", newline="") as text:
                yield Lines(text, path, refuse)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise TableError(f"{path} cannot be unpacked: {error}") from error
    except OSError as error:
        raise TableError(f"{path} cannot be read: {error.strerror or type(error).__name__}") from error


class CsvRows:
    """The rows of a CSV file, each with as many cells as there are columns; others are refused."""

    def __init__(self, lines: Lines, path: Path, *, known: Callable[[Sequence[str]], int]) -> None:
        """Read the first row, which names the columns.

        Args:
            lines: Of the file.
            path: For messages.
            known: Says how many names it knows among some. The sign between the columns is the one that makes most
                such names, and the most columns.

        Raises:
            TableError: If the first row is no CSV, no UTF-8, or names a column twice.
        """

        def score(delimiter: str) -> tuple[int, int]:
            names = [name.strip() for name in next(csv.reader([first], delimiter=delimiter), [])]
            return known(names), len(names)

        first = next((line for line in lines if line.strip()), "")
        self._lines = lines
        try:
            delimiter = max(_DELIMITERS, key=score)
            self._reader = csv.reader(itertools.chain([first], lines), delimiter=delimiter, strict=True)
            self.columns = [name.strip() for name in next(self._reader, [])]
        except csv.Error as error:
            raise TableError(f"the first row of {path} is not CSV: {error}") from error
        if not all(map(is_utf8, self.columns)):
            raise TableError(f"{path} is not UTF-8: save the table as CSV in UTF-8")
        repeated = {name for name, count in Counter(self.columns).items() if name and count > 1}
        if repeated:
            raise TableError(f"{path} has several columns {', '.join(map(repr, sorted(repeated)))}")

    def __iter__(self) -> Iterator[tuple[int, list[str]]]:
        """Yield each row's first line and its cells, as they are written."""
        refuse = self._lines.refuse
        while True:
            line = self._lines.count + 1
            try:
                cells = next(self._reader)
            except StopIteration:
                return
            except csv.Error as error:
                refuse(line, f"not CSV: {error}; is a quote not closed?")
                continue
            if not cells:
                continue
            if len(cells) != len(self.columns):
                refuse(line, f"has {len(cells)} cells, the first row has {len(self.columns)}")
                continue
            yield line, cells
