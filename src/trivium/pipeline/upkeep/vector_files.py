"""Reading files of vectors: our own exports, and tables that other programs made.

Every row has a path, a modality and a vector, and may have a role, a caption, metadata and a SHA-256 (`exporting` says
what each means). What is read here is as the file has it; `importing` judges the rows. Nothing is unpickled, and a
damaged file is refused before its first row is used: exports by their hashes, Parquet by its pages' checksums.
"""

import contextlib
import importlib
import json
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from trivium.encoders.base import Space
from trivium.encoders.files.reading import file_sha256
from trivium.pipeline.store.database import CollectionError
from trivium.pipeline.upkeep.exporting import (
    CHUNK_BYTES,
    CHUNK_ROWS,
    DIGEST_KEY,
    EXPORT_FORMAT,
    FORMAT_KEY,
    PARQUET_COLUMNS,
    SPACE_KEY,
    VECTOR_SUFFIXES,
    RowsDigest,
    companions,
    load_pyarrow,
    parquet_fields,
)

MAX_ABOUT_BYTES = 1 << 20
MAX_LINE_BYTES = 1 << 20  # metadata within the limits take less than half of it
READ_BYTES = 1 << 20  # of a column at a time: a row group of another program may hold everything

AnyVectors: TypeAlias = NDArray[np.floating[Any]]  # (n, d), as the file has them: of any float type and length


class VectorRow(NamedTuple):
    """One row as the file has it; nothing of it is checked but that it could be read."""

    fields: Mapping[str, object]  # by column; a column that the file lacks is missing
    problem: str | None = None  # why it cannot be used; its vector is zeros then


class VectorFile(Protocol):
    """A file of vectors, opened."""

    @property
    def space(self) -> Space | None:
        """The space that the file names."""
        ...

    @property
    def count(self) -> int:
        """Number of rows."""
        ...

    @property
    def dim(self) -> int | None:
        """Numbers per vector; None if every row may have its own."""
        ...

    def verify(self) -> None:
        """Read everything once.

        Raises:
            CollectionError: If something is not as it was written.
        """
        ...

    def chunks(self, *, dim: int) -> Iterator[tuple[list[VectorRow], AnyVectors]]:
        """Yield rows and their vectors of that width, in the file's order.

        Raises:
            CollectionError: If the file cannot be read.
        """
        ...


@contextlib.contextmanager
def open_vectors(source: Path) -> Iterator[VectorFile]:
    """Open a file whose name ends in one of `exporting.VECTOR_SUFFIXES`.

    Raises:
        CollectionError: If there is no such file or format, or it lacks what is needed.
    """
    if source.suffix not in VECTOR_SUFFIXES:
        raise CollectionError(f"cannot import {source}: the name must end in {' or '.join(VECTOR_SUFFIXES)}")
    if source.suffix == ".parquet":
        load_pyarrow()
        _regular_size(source)
        with contextlib.closing(_ParquetVectors(source)) as parquet:
            yield parquet
    else:
        yield _NpyVectors(source)


def _rows_at_once(dim: int) -> int:
    return max(1, min(CHUNK_ROWS, CHUNK_BYTES // (4 * dim)))


def _regular_size(path: Path) -> int:
    try:
        status = os.stat(path)
    except OSError as error:
        raise _unreadable(path, error) from error
    if not stat.S_ISREG(status.st_mode):
        raise CollectionError(f"cannot import {path}: it is not a regular file")
    return status.st_size


def _unreadable(path: Path, error: Exception) -> CollectionError:
    reason = getattr(error, "strerror", None) or str(error).strip().split("\n")[0]
    return CollectionError(f"cannot import {path}: it is damaged or cannot be read ({reason})")


def _named_space(path: Path, form: object, about: object) -> Space:
    if form != EXPORT_FORMAT:
        raise CollectionError(
            f"cannot import {path}: it has format {form!r}, this Trivium reads format '{EXPORT_FORMAT}'; install a "
            "newer Trivium, or export again"
        )
    facts = about if isinstance(about, dict) else {}
    match facts.get("name"), facts.get("dim"), facts.get("revision"):
        case str(name), int(dim), str(revision):
            return Space(name=name, dim=dim, revision=revision)
    raise CollectionError(f"cannot import {path}: it is damaged, what it says of its space is {about!r}")


def _loaded_json(path: Path, text: bytes | str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CollectionError(f"cannot import {path}: it is damaged, {error}") from error


class _NpyVectors:
    """A ``.npy`` with its ``.jsonl``; with a ``.json`` too, if we wrote it."""

    def __init__(self, source: Path) -> None:
        self._source = source
        self._lines, self._about = companions(source)
        _regular_size(source)
        if not os.path.lexists(self._lines):
            raise CollectionError(f"cannot import {source}: {self._lines}, which has a line for each row, is missing")
        _regular_size(self._lines)
        try:
            # Pickles are refused; mapped, so that only what is looked at is in memory.
            matrix = np.load(source, mmap_mode="r", allow_pickle=False)
        except Exception as error:  # a damaged header fails in Python's tokenizer, with whatever that raises
            raise _unreadable(source, error) from error
        if not isinstance(matrix, np.ndarray):  # an .npz by another name
            raise CollectionError(f"cannot import {source}: it is an archive of several arrays, not a .npy")
        if matrix.ndim != 2 or matrix.dtype.kind != "f" or matrix.dtype.itemsize > 8:
            raise CollectionError(
                f"cannot import {source}: it must have shape (n, d) and float numbers of 16, 32 or 64 bits, it has "
                f"shape {matrix.shape} and {matrix.dtype}"
            )
        self._matrix: AnyVectors = matrix
        self.space: Space | None = None
        self._hashes: Mapping[str, object] = {}
        self._read_about()

    @property
    def count(self) -> int:
        return len(self._matrix)

    @property
    def dim(self) -> int | None:
        return int(self._matrix.shape[1])

    def verify(self) -> None:
        for name, path in (("npy", self._source), ("jsonl", self._lines)):
            try:
                is_sound = self.space is None or file_sha256(path.resolve()) == self._hashes.get(name)
            except OSError as error:
                raise _unreadable(path, error) from error
            if not is_sound:
                raise CollectionError(
                    f"cannot import {self._source}: {path.name} is not what was exported, by the SHA-256 in "
                    f"{self._about.name}; it is damaged or was changed, export again"
                )
        lines = sum(1 for _ in self._line_bytes())
        if lines != self.count:
            raise CollectionError(
                f"cannot import {self._source}: it has {self.count:,} rows, {self._lines.name} has {lines:,} lines; "
                "each row needs its line"
            )

    def chunks(self, *, dim: int) -> Iterator[tuple[list[VectorRow], AnyVectors]]:
        lines = self._line_bytes()
        at_once = _rows_at_once(dim)
        for start in range(0, self.count, at_once):
            vectors = np.array(self._matrix[start : start + at_once])
            rows = [_row_of_line(line) for line in islice(lines, len(vectors))]
            if len(rows) < len(vectors):
                raise CollectionError(f"cannot import {self._lines}: it was cut off while it was being read")
            yield rows, vectors

    def _read_about(self) -> None:
        try:
            with open(self._about, "rb") as file:
                text = file.read(MAX_ABOUT_BYTES + 1)
        except FileNotFoundError:
            return
        except OSError as error:
            raise _unreadable(self._about, error) from error
        if len(text) > MAX_ABOUT_BYTES:
            raise CollectionError(f"cannot import {self._about}: it has more than {MAX_ABOUT_BYTES:,} bytes")
        about = _loaded_json(self._about, text)
        if isinstance(about, dict) and FORMAT_KEY in about:  # else another program's
            self.space = _named_space(self._about, about[FORMAT_KEY], about.get(SPACE_KEY))
            hashes = about.get("sha256")
            self._hashes = hashes if isinstance(hashes, dict) else {}

    def _line_bytes(self) -> Iterator[bytes]:
        """All lines but blank ones; of one that is too long, its beginning."""
        try:
            with open(self._lines, "rb") as file:
                while line := file.readline(MAX_LINE_BYTES):
                    whole = line
                    while whole and not whole.endswith(b"\n"):
                        whole = file.readline(MAX_LINE_BYTES)
                    if line.strip():
                        yield line
        except OSError as error:
            raise _unreadable(self._lines, error) from error


def _row_of_line(line: bytes) -> VectorRow:
    if len(line) == MAX_LINE_BYTES and not line.endswith(b"\n"):
        return VectorRow({}, f"has a line of more than {MAX_LINE_BYTES:,} bytes")
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError) as error:
        return VectorRow({}, f"its line is not JSON: {error}")
    return VectorRow(fields) if isinstance(fields, dict) else VectorRow({}, "its line is not a JSON object")


class _ParquetVectors:
    """A Parquet file, read a part of a row group at a time."""

    _TEXTS = ("path", "modality", "role", "caption", "metadata", "sha256")

    def __init__(self, source: Path) -> None:
        self._source = source
        self._pa, pq = load_pyarrow()
        self._compute = importlib.import_module("pyarrow.compute")
        try:
            self._file = pq.ParquetFile(
                source, page_checksum_verification=True, pre_buffer=False, buffer_size=READ_BYTES, memory_map=False
            )
        except Exception as error:  # a damaged footer has no checksum, and fails in many ways
            raise _unreadable(source, error) from error
        try:
            schema = self._file.schema_arrow
            self.count: int = self._file.metadata.num_rows
            self.space = self._space_of(schema.metadata or {})
            self._columns, self.dim = self._checked_columns(schema)
        except CollectionError:
            self._file.close()
            raise
        except Exception as error:
            self._file.close()
            raise _unreadable(source, error) from error

    def close(self) -> None:
        self._file.close()

    def verify(self) -> None:
        rows = CHUNK_ROWS if self.dim is None else _rows_at_once(self.dim)
        if self.space is None:
            for _ in self._batches(rows, self._columns):
                pass
            return
        digest = RowsDigest()
        for batch in self._batches(rows, PARQUET_COLUMNS):
            told = zip(*(batch.column(name).to_pylist() for name in PARQUET_COLUMNS[:-1]), strict=True)
            vectors, _ = self._vectors(batch.column("vector"), self.space.dim)
            digest.update(told, vectors)
        if digest.hexdigest().encode() != (self._file.metadata.metadata or {}).get(DIGEST_KEY.encode()):
            raise CollectionError(
                f"cannot import {self._source}: its rows are not what was exported, by the SHA-256 in it; it is "
                "damaged or was changed, export again"
            )

    def chunks(self, *, dim: int) -> Iterator[tuple[list[VectorRow], AnyVectors]]:
        names = [name for name in self._columns if name != "vector"]
        for batch in self._batches(_rows_at_once(dim), self._columns):
            columns = [batch.column(name).to_pylist() for name in names]
            vectors, problems = self._vectors(batch.column("vector"), dim)
            rows = [
                VectorRow(dict(zip(names, values, strict=True)), problem)
                for *values, problem in zip(*columns, problems, strict=True)
            ]
            yield rows, vectors

    def _batches(self, rows: int, columns: Sequence[str]) -> Iterator[Any]:
        seen = 0
        try:
            for batch in self._file.iter_batches(batch_size=rows, columns=list(columns)):
                seen += batch.num_rows
                batch.validate(full=True)  # else broken UTF-8 is met when rows are in already
                yield batch
        except Exception as error:  # as above
            raise _unreadable(self._source, error) from error
        if seen != self.count:
            raise CollectionError(
                f"cannot import {self._source}: it is damaged, it has {seen:,} rows where {self.count:,} are named"
            )

    def _space_of(self, told: Mapping[bytes, bytes]) -> Space | None:
        form = told.get(FORMAT_KEY.encode())
        if form is None:
            return None
        about = _loaded_json(self._source, told.get(SPACE_KEY.encode(), b""))
        return _named_space(self._source, form.decode(errors="replace"), about)

    def _checked_columns(self, schema: Any) -> tuple[tuple[str, ...], int | None]:
        """Return the columns that are read, and the vectors' width if it is one for all."""
        types = self._pa.types
        found = {field.name: field.type for field in schema}
        needed = ("path", "modality", "vector") if self.space is None else PARQUET_COLUMNS
        missing = [name for name in needed if name not in found]
        if missing or len(found) < len(schema):
            raise CollectionError(
                f"cannot import {self._source}: it needs the columns {', '.join(needed)}, each once; it has "
                f"{', '.join(schema.names)}"
            )
        if self.space is not None:
            # The vectors' field may be named otherwise by another version of pyarrow.
            expected = {field.name: field.type for field in parquet_fields(dim=self.space.dim)[:-1]}
            if any(found[name] != kind for name, kind in expected.items()):
                raise CollectionError(
                    f"cannot import {self._source}: its columns are not of the types that were exported; it is damaged "
                    "or was changed, export again"
                )
        for name in set(self._TEXTS) & found.keys():
            kind = found[name]
            if types.is_dictionary(kind):
                kind = kind.value_type
            is_hash = name == "sha256" and (types.is_binary(kind) or types.is_fixed_size_binary(kind))
            if not (types.is_string(kind) or types.is_large_string(kind) or types.is_null(kind) or is_hash):
                hint = ", as JSON text" if name == "metadata" else ""
                raise CollectionError(f"cannot import {self._source}: column {name} must be text{hint}, it is {kind}")
        kind = found["vector"]
        is_fixed = types.is_fixed_size_list(kind)
        is_list = is_fixed or types.is_list(kind) or types.is_large_list(kind)
        if not is_list or not types.is_floating(kind.value_type):
            raise CollectionError(
                f"cannot import {self._source}: column vector must be a list of float16, float32 or float64, it is "
                f"{kind}"
            )
        extra = ("path_bytes",) if "path_bytes" in found and types.is_binary(found["path_bytes"]) else ()
        read = (*(name for name in self._TEXTS if name in found), *extra, "vector")
        return read, kind.list_size if is_fixed else None

    def _vectors(self, column: Any, dim: int) -> tuple[AnyVectors, list[str | None]]:
        """Return a batch's vectors, shape (n, dim), and what is wrong with each by its form."""
        count = len(column)
        problems: list[str | None] = [None] * count
        widths = np.asarray(self._compute.list_value_length(column).fill_null(-1).to_numpy(zero_copy_only=False))
        for row in np.flatnonzero(widths != dim).tolist():
            has = f"a vector of {widths[row]:,} numbers, {dim:,} are needed"
            problems[row] = "has no vector" if widths[row] < 0 else f"has {has}"
        # Numbers that are null come as NaN, and are found as such.
        good = column.filter(self._pa.array(widths == dim)).flatten().to_numpy(zero_copy_only=False)
        vectors = np.zeros((count, dim), good.dtype)
        vectors[widths == dim] = good.reshape(-1, dim)
        return vectors, problems
