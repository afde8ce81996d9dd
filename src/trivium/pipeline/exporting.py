"""A collection's vectors, with what is known of their items, in files that other programs read.

One row for each vector of an item (its role: the content's, or the caption's): ``id`` and ``modality`` (the item's),
``path``, ``path_bytes`` (only where the path is not UTF-8: ``path`` then has backslashes for the odd bytes), ``role``,
``caption``, ``metadata``, ``sha256`` (of what was encoded, in hex) and ``vector``. Vectors are kept in half precision,
so the float32 numbers have 11 significant bits.

    NAME.parquet    all of it in one file, each page with a checksum; metadata are JSON
    NAME.npy        the vectors, float32 (n, d), and beside it:
    NAME.jsonl      one line for each row with all else; path_bytes in hex
    NAME.json       the space, and the SHA-256 of the two others
"""

import contextlib
import hashlib
import importlib
import json
import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from trivium.encoders.base import Vectors
from trivium.pipeline.database import CollectionError
from trivium.pipeline.durable import sync_folder
from trivium.pipeline.filters import Filter
from trivium.pipeline.shards import Locations, ShardSource
from trivium.pipeline.store import Store

EXPORT_FORMAT = "1"
FORMAT_KEY, SPACE_KEY = "trivium.format", "trivium.space"
EXPORT_SUFFIXES = (".parquet", ".npy")
CHUNK_BYTES = 32 << 20  # of vectors in memory at a time; in Parquet, a row group
CHUNK_ROWS = 65_536  # at most

RowProgress = Callable[[int, int], None]  # (rows done, rows to do)


class _Row(NamedTuple):
    id: int
    path: bytes
    modality: str
    role: str
    caption: str | None
    metadata: str | None  # JSON
    sha256: bytes


@dataclass(frozen=True, slots=True)
class _Export:
    """One generation's rows; used inside `Store.reading`."""

    store: Store
    condition: str
    parameters: Sequence[object]

    def count(self) -> int:
        (count,) = self.store.db.execute(
            f"SELECT count(*) FROM item i CROSS JOIN embedding e ON e.item = i.id WHERE {self.condition}",
            self.parameters,
        ).fetchone()
        return int(count)

    def chunks(self) -> Iterator[tuple[list[_Row], Vectors]]:
        """Yield rows and their vectors by the items' ids, the content's before the caption's."""
        store, dim = self.store, self.store.space.dim
        shards = store.shards()
        # CROSS JOIN keeps the tables in this order: rows come as they are found, and nothing is sorted.
        rows = store.db.execute(
            "SELECT i.id, i.path, i.modality, e.role, i.caption, i.metadata, c.sha256, c.id, v.shard, v.row "
            "FROM item i CROSS JOIN embedding e ON e.item = i.id CROSS JOIN content c ON c.id = e.content "
            "LEFT JOIN vector v ON v.space = (SELECT space FROM collection) AND v.modality = c.modality "
            f"AND v.content = c.id WHERE {self.condition} ORDER BY i.id, e.role DESC",
            self.parameters,
        )
        while chunk := rows.fetchmany(max(1, min(CHUNK_ROWS, CHUNK_BYTES // (4 * dim)))):
            lost = next((row for row in chunk if row[8] is None), None)
            if lost is not None:
                raise CollectionError(
                    f"{store.folder} is damaged: the {lost[3]} of {os.fsdecode(lost[1])} has no vector; restore the "
                    "collection from a backup, or index again"
                )
            places = np.array([row[7:] for row in chunk], np.int64)  # (n, 3): content, shard, row
            order = np.lexsort((places[:, 2], places[:, 1]))  # neighbours in a shard are read at once
            locations = Locations(*np.ascontiguousarray(places[order].T))
            vectors = np.empty((len(chunk), dim), np.float32)
            vectors[order] = ShardSource(store.folder, shards, locations, dim=dim).all()[1]
            yield [_Row(*row[:7]) for row in chunk], vectors


def export(
    store: Store,
    target: Path,
    *,
    filter: Filter | None = None,
    overwrite: bool = False,
    progress: RowProgress | None = None,
) -> int:
    """Write the vectors of a collection's items, as they are in one generation, to files for their owner alone.

    As long as it lasts, commits to the collection wait, and fail after `database.BUSY_SECONDS`.

    Args:
        store: The collection.
        target: A name that ends in one of `EXPORT_SUFFIXES`. Files of the export appear when they are complete.
        filter: Which items; all if not given.
        overwrite: Replace files of these names.
        progress: Told after each chunk.

    Returns:
        How many rows were written.

    Raises:
        CollectionError: If there is no such format, a file exists, the library for Parquet is missing, the collection
            is damaged, or the disk is full or fails.
    """
    if target.suffix not in EXPORT_SUFFIXES:
        raise CollectionError(f"cannot export to {target}: the name must end in {' or '.join(EXPORT_SUFFIXES)}")
    if target.suffix == ".parquet":
        load_pyarrow()
    names = [target] if target.suffix == ".parquet" else [target, *companions(target)]
    existing = [str(name) for name in names if os.path.lexists(name)]
    if existing and not overwrite:
        raise CollectionError(f"{', '.join(existing)} exists already: name another file, or ask to overwrite it")
    condition, parameters = ("1", []) if filter is None else filter.sql()
    rows = _Export(store, condition, parameters)
    try:
        with store.reading(), _written_aside(names) as drafts:
            total = rows.count()
            chunks = _told(rows.chunks(), total, progress)
            if target.suffix == ".parquet":
                _write_parquet(drafts[0], store, chunks)
            else:
                _write_npy(drafts, store, chunks, total=total)
    except (OSError, sqlite3.OperationalError) as error:
        raise CollectionError(f"cannot export to {target}: {getattr(error, 'strerror', None) or error}") from error
    return total


def companions(vectors: Path) -> tuple[Path, Path]:
    """Return the files beside a ``.npy``: the rows', and the one that names the space."""
    return vectors.with_suffix(".jsonl"), vectors.with_suffix(".json")


def load_pyarrow() -> tuple[Any, Any]:
    """Return the modules pyarrow and pyarrow.parquet, which are optional.

    Raises:
        CollectionError: If they are not installed.
    """
    try:
        return importlib.import_module("pyarrow"), importlib.import_module("pyarrow.parquet")
    except ImportError as error:
        raise CollectionError(
            f"Parquet files need pyarrow ({error}): run pip install 'trivium[parquet]', or use .npy"
        ) from error


@contextlib.contextmanager
def _written_aside(names: Sequence[Path]) -> Iterator[list[Any]]:
    """Open a draft of each file; they get their names when all are complete, or none is left."""
    drafts = [name.with_name(f".{name.name}.new") for name in names]
    try:
        with contextlib.ExitStack() as opened:
            files = [
                opened.enter_context(open(draft, "wb", opener=lambda name, flags: os.open(name, flags, 0o600)))
                for draft in drafts
            ]
            for file in files:
                os.fchmod(file.fileno(), 0o600)  # a draft that was left may have had another mode
            yield files
            for file in files:
                file.flush()
                os.fsync(file.fileno())
        # Killed here, it leaves files without their companions, never files that belong to other ones.
        for name in names[1:]:
            name.unlink(missing_ok=True)
        for draft, name in zip(drafts, names, strict=True):
            draft.rename(name)
    except BaseException:
        for draft in drafts:
            draft.unlink(missing_ok=True)
        raise
    sync_folder(names[0].absolute().parent)


def _told(
    chunks: Iterator[tuple[list[_Row], Vectors]], total: int, progress: RowProgress | None
) -> Iterator[tuple[list[_Row], Vectors]]:
    done = 0
    for rows, vectors in chunks:
        yield rows, vectors
        done += len(rows)
        if progress is not None:
            progress(done, total)


def _space_json(store: Store) -> dict[str, object]:
    space = store.space
    return {"name": space.name, "dim": space.dim, "revision": space.revision, "source": store.space_source}


def _write_parquet(file: Any, store: Store, chunks: Iterator[tuple[list[_Row], Vectors]]) -> None:
    pa, pq = load_pyarrow()
    dim = store.space.dim
    text = pa.string()
    schema = pa.schema(
        [
            pa.field("id", pa.int64(), nullable=False),
            pa.field("path", text, nullable=False),
            pa.field("path_bytes", pa.binary()),
            pa.field("modality", text, nullable=False),
            pa.field("role", text, nullable=False),
            pa.field("caption", text),
            pa.field("metadata", text),
            pa.field("sha256", text, nullable=False),
            pa.field("vector", pa.list_(pa.float32(), dim), nullable=False),
        ],
        metadata={FORMAT_KEY: EXPORT_FORMAT, SPACE_KEY: json.dumps(_space_json(store))},
    )
    with pq.ParquetWriter(
        file, schema, compression="zstd", use_dictionary=["modality", "role"], write_page_checksum=True
    ) as writer:
        for rows, vectors in chunks:
            paths = [_shown_path(row.path) for row in rows]
            columns = [
                pa.array([row.id for row in rows], pa.int64()),
                pa.array([path for path, _ in paths], text),
                pa.array([odd for _, odd in paths], pa.binary()),
                pa.array([row.modality for row in rows], text),
                pa.array([row.role for row in rows], text),
                pa.array([row.caption for row in rows], text),
                pa.array([row.metadata for row in rows], text),
                pa.array([row.sha256.hex() for row in rows], text),
                pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), dim),
            ]
            writer.write_table(pa.Table.from_arrays(columns, schema=schema))


def _write_npy(files: Sequence[Any], store: Store, chunks: Iterator[tuple[list[_Row], Vectors]], *, total: int) -> None:
    matrix, lines, about = (_Hashing(file) for file in files)
    header = {"descr": "<f4", "fortran_order": False, "shape": (total, store.space.dim)}
    np.lib.format.write_array_header_1_0(matrix, header)
    for rows, vectors in chunks:
        matrix.write(vectors.astype("<f4", copy=False).data)
        lines.write("".join(map(_line, rows)).encode())
    facts = {
        FORMAT_KEY: EXPORT_FORMAT,
        SPACE_KEY: _space_json(store),
        "sha256": {"npy": matrix.digest.hexdigest(), "jsonl": lines.digest.hexdigest()},
    }
    about.write((json.dumps(facts, indent=2) + "\n").encode())


class _Hashing:
    """A file that is written, and the hash of what was meant."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self.digest = hashlib.sha256()

    def write(self, data: bytes | memoryview) -> None:
        self.digest.update(data)
        self._file.write(data)


def _line(row: _Row) -> str:
    path, odd = _shown_path(row.path)
    fields = {
        "id": row.id,
        "path": path,
        "path_bytes": None if odd is None else odd.hex(),
        "modality": row.modality,
        "role": row.role,
        "caption": row.caption,
        "metadata": None if row.metadata is None else json.loads(row.metadata),
        "sha256": row.sha256.hex(),
    }
    return json.dumps(fields, ensure_ascii=False, allow_nan=False) + "\n"


def _shown_path(path: bytes) -> tuple[str, bytes | None]:
    """Return a path as text, and its bytes if the text does not tell them."""
    try:
        return path.decode(), None
    except UnicodeDecodeError:
        return path.decode(errors="backslashreplace"), path
