"""A collection's vectors, with what is known of their items, in files that other programs read.

One row for each vector of an item (its role: the content's, or the caption's): ``id`` and ``modality`` (the item's),
``path``, ``path_bytes`` (only where the path is not UTF-8: ``path`` then has backslashes for the odd bytes), ``role``,
``caption``, ``metadata``, ``sha256`` (of what was encoded, in hex) and ``vector``. Vectors are kept in half precision,
so the float32 numbers have 11 significant bits.

    NAME.parquet    all of it in one file, each page with a checksum, all rows with a SHA-256; metadata are JSON
    NAME.npy        the vectors, float32 (n, d), and beside it:
    NAME.jsonl      one line for each row with all else; path_bytes in hex
    NAME.json       the space, and the SHA-256 of the two others
    NAME.csv        all but the vectors, for spreadsheets; path_bytes in hex, cells as `tables.csv_text` has them
"""

import contextlib
import hashlib
import importlib
import json
import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from trivium.encoders.base import Vectors
from trivium.encoders.files.writing import open_own, sync_folder
from trivium.pipeline.progress import Progress
from trivium.pipeline.store import rows as column
from trivium.pipeline.store.database import DAMAGED, CollectionError, damage, failure
from trivium.pipeline.store.filters import Filter
from trivium.pipeline.store.rows import Column, maybe, read_rows
from trivium.pipeline.store.shards import Locations, ShardSource, check_shard
from trivium.pipeline.store.store import Store
from trivium.pipeline.tables.csv_text import csv_of, path_cells

EXPORT_FORMAT = "1"
FORMAT_KEY, SPACE_KEY, DIGEST_KEY = "trivium.format", "trivium.space", "trivium.sha256"
VECTOR_SUFFIXES = (".parquet", ".npy")
EXPORT_SUFFIXES = (*VECTOR_SUFFIXES, ".csv")
PARQUET_COLUMNS = ("id", "path", "path_bytes", "modality", "role", "caption", "metadata", "sha256", "vector")
CHUNK_BYTES = 32 << 20  # of vectors in memory at a time; in Parquet, a row group
CHUNK_ROWS = 65_536  # at most


class _Row(NamedTuple):
    id: int
    path: bytes
    modality: str
    role: str
    caption: str | None
    metadata: str | None  # JSON
    sha256: bytes


@dataclass(frozen=True, slots=True)
class _Listed:
    """The rows of one generation, listed in a temporary table: an export of minutes must not hold up every commit.

    The vectors are looked up as they are written: that of a content never changes, wherever a compaction puts it.
    """

    store: Store
    space: int
    generation: int
    about: Mapping[str, object]  # the space, for the reader of the files
    dim: int
    count: int

    def chunks(self) -> Iterator[tuple[list[_Row], Vectors]]:
        """Yield rows and their vectors by the items' ids, the content's before the caption's."""
        store, dim = self.store, self.dim
        limit = max(1, min(CHUNK_ROWS, CHUNK_BYTES // (4 * dim)))
        checked: set[str] = set()
        for last in range(0, self.count, limit):
            with store.reading():
                chunk = list(
                    read_rows(
                        store.db,
                        "SELECT x.*, v.shard, v.row FROM temp.exported x LEFT JOIN vector v ON v.space = ? "
                        "AND v.modality = x.kind AND v.content = x.content WHERE x.number > ? AND x.number <= ? "
                        "ORDER BY x.number",
                        (self.space, last, last + limit),
                        columns=_EXPORTED_TYPES,
                    )
                )
                rows = [_Row(*row[1:8]) for row in chunk]
                lost = next((row for row, place in zip(rows, chunk, strict=True) if None in place[-2:]), None)
                if lost is not None:
                    raise CollectionError(self._why_lost(lost))
                places = np.array([(row[8], *row[-2:]) for row in chunk], np.int64)  # (n, 3): content, shard, row
                order = np.lexsort((places[:, 2], places[:, 1]))  # neighbours in a shard are read at once
                locations = Locations(*np.ascontiguousarray(places[order].T))
                shards = store.shards()
                for number in np.unique(locations.shards).tolist():
                    if shards[number].name not in checked:
                        check_shard(store.folder, shards[number])
                        checked.add(shards[number].name)
                vectors = np.empty((len(chunk), dim), np.float32)
                vectors[order] = ShardSource(store.folder, shards, locations, dim=dim).all()[1]
            yield rows, vectors

    def _why_lost(self, row: _Row) -> str:
        path = os.fsdecode(row.path)
        if self.store.generation != self.generation:
            return (
                f"the vector of {path} was deleted while {self.store.folder} was being exported; export again when "
                "nobody compacts or migrates it"
            )
        return (
            f"{self.store.folder} is damaged: the {row.role} of {path} has no vector; restore the collection from a "
            "backup, or index again"
        )


_EXPORTED_TYPES: tuple[Column, ...] = (
    *(column.whole, column.whole, column.blob, column.kind, column.role, maybe(column.text), maybe(column.text)),
    *(column.blob, column.whole, column.modality, maybe(column.whole), maybe(column.whole)),
)


@contextlib.contextmanager
def _listed(store: Store, filter: Filter | None) -> Iterator[_Listed]:
    condition, parameters = ("1", []) if filter is None else filter.sql()
    store.db.execute("DROP TABLE IF EXISTS temp.exported")
    store.db.execute(
        "CREATE TEMP TABLE exported (number INTEGER PRIMARY KEY, id, path, modality, role, caption, metadata, sha256, "
        "content, kind)"
    )
    try:
        store.db.execute("BEGIN")  # not `reading`, which takes back what it did
        try:
            space, about, generation = store.space, _about_space(store), store.generation
            # CROSS JOIN keeps the tables in this order, so that nothing is sorted.
            count = store.db.execute(
                "INSERT INTO temp.exported (id, path, modality, role, caption, metadata, sha256, content, kind) "
                "SELECT i.id, i.path, i.modality, e.role, i.caption, i.metadata, c.sha256, c.id, c.modality "
                "FROM item i CROSS JOIN embedding e ON e.item = i.id CROSS JOIN content c ON c.id = e.content "
                f"WHERE {condition} ORDER BY i.id, e.role <> 'content', e.role",
                parameters,
            ).rowcount
            rows = _Listed(store, store.space_id, generation, about, space.dim, count)
            store.db.execute("COMMIT")
        except BaseException as error:
            if store.db.in_transaction:  # SQLite itself rolls back on a full disk
                store.db.execute("ROLLBACK")
            if isinstance(error, DAMAGED):
                raise failure(store.db.database, error) from error
            raise
        yield rows
    finally:
        store.db.execute("DROP TABLE temp.exported")


def export(
    store: Store,
    target: Path,
    *,
    filter: Filter | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> int:
    """Write the vectors of a collection's items, as they are in one generation, to files for their owner alone.

    Others may add and remove items meanwhile. What is removed and compacted away before its vector was written, or a
    migration that ends, stops the export.

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
            is damaged or loses vectors meanwhile, or the disk is full or fails.
    """
    if target.suffix not in EXPORT_SUFFIXES:
        raise CollectionError(f"cannot export to {target}: the name must end in {' or '.join(EXPORT_SUFFIXES)}")
    if target.suffix == ".parquet":
        load_pyarrow()
    if Path(os.path.realpath(target)).is_relative_to(os.path.realpath(store.folder)):
        raise CollectionError(f"cannot export to {target}: it lies in the collection's own folder; name another one")
    names = [target, *companions(target)] if target.suffix == ".npy" else [target]
    existing = [str(name) for name in names if os.path.lexists(name)]
    if existing and not overwrite:
        raise CollectionError(f"{', '.join(existing)} exists already: name another file, or ask to overwrite it")
    try:
        with _listed(store, filter) as rows, _written_aside(names) as drafts:
            chunks = _told(rows.chunks(), rows.count, progress)
            if target.suffix == ".parquet":
                _write_parquet(drafts[0], rows, chunks)
            elif target.suffix == ".csv":
                _write_csv(drafts[0], chunks)
            else:
                _write_npy(drafts, rows, chunks)
    except (OSError, sqlite3.OperationalError) as error:
        raise CollectionError(f"cannot export to {target}: {getattr(error, 'strerror', None) or error}") from error
    except (ValueError, RecursionError) as error:  # a caption or metadata that are no text, or no JSON
        raise damage(store.db.database, f"what it says of an item cannot be written: {error}") from error
    return rows.count


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
    files: list[Any] = []
    opened_as: list[os.stat_result] = []
    try:
        with contextlib.ExitStack() as opened:
            for draft in drafts:
                draft.unlink(missing_ok=True)  # by an export that was killed; never written through, it may be a link
                files.append(opened.enter_context(open(draft, "xb", opener=open_own)))
                opened_as.append(os.fstat(files[-1].fileno()))
            yield files
            for file in files:
                file.flush()
                os.fsync(file.fileno())
            for draft, status in zip(drafts, opened_as, strict=True):
                if not _is_still(draft, status):
                    raise CollectionError(f"cannot export to {names[0]}: another export to this name has begun")
            # Killed here, it leaves files without their companions, never files that belong to other ones.
            for name in names[1:]:
                name.unlink(missing_ok=True)
            for draft, name in zip(drafts, names, strict=True):
                draft.rename(name)
    except BaseException:
        for draft, status in zip(drafts, opened_as, strict=False):
            if _is_still(draft, status):
                draft.unlink()
        raise
    sync_folder(names[0].absolute().parent)


def _is_still(path: Path, status: os.stat_result) -> bool:
    """Whether a file is the one that had this status, not one that another process put in its place."""
    try:
        return os.path.samestat(os.lstat(path), status)
    except FileNotFoundError:
        return False


def _told(
    chunks: Iterator[tuple[list[_Row], Vectors]], total: int, progress: Progress | None
) -> Iterator[tuple[list[_Row], Vectors]]:
    done = 0
    for rows, vectors in chunks:
        yield rows, vectors
        done += len(rows)
        if progress is not None:
            progress(done, total)


def _about_space(store: Store) -> dict[str, object]:
    space = store.space
    return {"name": space.name, "dim": space.dim, "revision": space.revision, "source": store.space_source}


def parquet_fields(*, dim: int) -> list[Any]:
    """Return the columns of a Parquet export, in order, as fields of pyarrow."""
    pa, _ = load_pyarrow()
    text = pa.string()
    types = (pa.int64(), text, pa.binary(), text, text, text, text, text, pa.list_(pa.float32(), dim))
    optional = ("path_bytes", "caption", "metadata")
    return [pa.field(name, kind, nullable=name in optional) for name, kind in zip(PARQUET_COLUMNS, types, strict=True)]


def _write_parquet(file: Any, listed: _Listed, chunks: Iterator[tuple[list[_Row], Vectors]]) -> None:
    pa, pq = load_pyarrow()
    dim = listed.dim
    schema = pa.schema(
        parquet_fields(dim=dim), metadata={FORMAT_KEY: EXPORT_FORMAT, SPACE_KEY: json.dumps(listed.about)}
    )
    with pq.ParquetWriter(
        file, schema, compression="zstd", use_dictionary=["modality", "role"], write_page_checksum=True
    ) as writer:
        digest = RowsDigest()
        for rows, vectors in chunks:
            told = [
                (row.id, *_shown_path(row.path), row.modality, row.role, row.caption, row.metadata, row.sha256.hex())
                for row in rows
            ]
            digest.update(told, vectors)
            columns = [
                pa.array(values, field.type) for values, field in zip(zip(*told, strict=True), schema, strict=False)
            ]
            columns.append(pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), dim))
            writer.write_table(pa.Table.from_arrays(columns, schema=schema))
        writer.add_key_value_metadata({DIGEST_KEY: digest.hexdigest()})


def _write_npy(files: Sequence[Any], listed: _Listed, chunks: Iterator[tuple[list[_Row], Vectors]]) -> None:
    matrix, lines, about = (_Hashing(file) for file in files)
    header = {"descr": "<f4", "fortran_order": False, "shape": (listed.count, listed.dim)}
    np.lib.format.write_array_header_1_0(matrix, header)
    for rows, vectors in chunks:
        matrix.write(vectors.astype("<f4", copy=False).data)
        lines.write("".join(map(_line, rows)).encode())
    facts = {
        FORMAT_KEY: EXPORT_FORMAT,
        SPACE_KEY: listed.about,
        "sha256": {"npy": matrix.digest.hexdigest(), "jsonl": lines.digest.hexdigest()},
    }
    about.write((json.dumps(facts, indent=2) + "\n").encode())


def _write_csv(file: Any, chunks: Iterator[tuple[list[_Row], Vectors]]) -> None:
    file.write(csv_of([PARQUET_COLUMNS[:-1]]))
    for rows, _ in chunks:
        file.write(
            csv_of(
                (row.id, *path_cells(row.path), row.modality, row.role, row.caption, row.metadata, row.sha256.hex())
                for row in rows
            )
        )


class RowsDigest:
    """SHA-256 of the rows of a Parquet export: checksums of pages leave out their headers, and the footer has none."""

    def __init__(self) -> None:
        self._rows, self._vectors = hashlib.sha256(), hashlib.sha256()

    def update(self, rows: Iterable[Sequence[object]], vectors: Vectors) -> None:
        """Take in rows, each as `PARQUET_COLUMNS` has it but for the vector, and their vectors (n, d)."""
        for row in rows:
            self._rows.update(json.dumps(row, default=bytes.hex).encode() + b"\n")
        self._vectors.update(np.ascontiguousarray(vectors, "<f4").data)

    def hexdigest(self) -> str:
        """Return the digest of all that was taken in, however many rows came at a time."""
        return hashlib.sha256(self._rows.digest() + self._vectors.digest()).hexdigest()


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
