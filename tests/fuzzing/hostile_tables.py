"""Tables that somebody else has made: metadata, pairs, frames, vectors to be imported, sidecars, word vectors."""

import gzip
import io
import json
import os
import random
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from trivium.encoders.text.words import WordVectorsError, read_word_vectors
from trivium.pipeline.collection import Collection
from trivium.pipeline.fused.table import read_frame
from trivium.pipeline.space.relevance import Relevance
from trivium.pipeline.store.database import CollectionError
from trivium.pipeline.tables.metadata import MetadataError, read_sidecar
from trivium.pipeline.tables.metadata_table import read_table
from trivium.pipeline.tables.pairs import read_pairs
from trivium.pipeline.tables.reading import TableError

CASES: Any = sys.modules["__main__"]
MUTATIONS = CASES.load_beside("mutations")
VALUES = CASES.load_beside("values")
STUB = CASES.load_beside("../pipeline/conftest")
COLUMNS = [
    "path",
    "text",
    "image",
    "audio",
    "year",
    "split",
    "weight",
    "",
    "path",
    "Path",
    "\ufeffpath",
    "a b",
    "\x1b[31m",
]
CELLS = [
    "a.png", "b.wav", "../x", "/etc/passwd", "", " ", "x\ny", 'a "quoted" word', "1", "007", "1e5", "nan", "-",
    "9" * 400,
    "caf\u00e9", "\ud800", "\0", "=1+1", "x" * 20_000, "true", "null", "{}", "[1]", "\x1b[31m", "\u2028", "1,5", "0.5",
]  # fmt: skip
ODD_CELLS: list[Any] = [*CELLS, *MUTATIONS.ODD]
ENDINGS = [b"\n", b"\r\n", b"\r", b"\n\n", b"\0\n"]
MOST_ROWS = 12


def rows_of(rng: random.Random, cells: list[Any]) -> tuple[list[str], list[list[Any]]]:
    columns = [rng.choice(COLUMNS) for _ in range(rng.randrange(1, 6))]
    if rng.random() < 0.8:
        columns[0] = "path"
    width = len(columns)
    return columns, [[rng.choice(cells) for _ in range(width)] for _ in range(rng.randrange(MOST_ROWS))]


def csv_of(rng: random.Random) -> bytes:
    columns, rows = rows_of(rng, CELLS)
    comma, end = rng.choice((",", ",", ";", "\t")), rng.choice(ENDINGS)

    def line(cells: list[str]) -> bytes:
        written = [f'"{cell}"' if rng.random() < 0.2 else cell for cell in cells]
        if rng.random() < 0.1:
            written.append('"never closed')
        return comma.join(written).encode("utf-8", "surrogatepass")

    return end.join([line(columns), *map(line, rows)])


def lines_of(rng: random.Random) -> bytes:
    columns, rows = rows_of(rng, ODD_CELLS)
    written = []
    for row in rows:
        data, _ = MUTATIONS.json_changed(dict(zip(columns, row, strict=True)), rng, odd=ODD_CELLS)
        written.append(data if rng.random() < 0.8 else rng.choice(MUTATIONS.RAW))
    return rng.choice(ENDINGS).join(written)


def parquet_of(rng: random.Random) -> bytes:
    columns, rows = rows_of(rng, CELLS)
    values: list[Any] = []
    for place in range(len(columns)):
        column = [row[place].encode("utf-8", "replace").decode() for row in rows]
        kinds: list[Any] = [
            pa.array(column),
            pa.array([len(cell) for cell in column]),
            pa.array([cell.encode() for cell in column]),
            pa.array([[cell] for cell in column]),
            pa.array([None for _ in column]),
            pa.array([{"a": cell} for cell in column]),
            pa.array([float("nan") for _ in column], pa.float32()),
            pa.array(column).dictionary_encode(),
        ]
        values.append(rng.choice((kinds[0], rng.choice(kinds))))
    made = io.BytesIO()
    pq.write_table(pa.Table.from_arrays(values, names=columns), made)
    return made.getvalue()


class HostileTables:
    """Tables of metadata and of pairs."""

    documented = (TableError, MetadataError)

    def __init__(self, scratch: Path) -> None:
        self._folder, self._outside = scratch / "inside", scratch / "outside"
        self._outside.mkdir()
        self.watched = [self._outside]
        os.environ["HOME"] = str(self._outside)

    def restore(self) -> None:
        """See `cases.Target`."""

    def case(self, rng: random.Random, number: int) -> Any:
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir()
        kind = rng.choice(("csv", "csv", "jsonl", "jsonl", "parquet"))
        data = {"csv": csv_of, "jsonl": lines_of, "parquet": parquet_of}[kind](rng)
        recipe = [kind, repr(data[:200])]
        if rng.random() < 0.3:
            data, what = MUTATIONS.bytes_changed(data, rng)
            recipe.append(what)
        if kind != "parquet" and rng.random() < 0.2:
            data, kind = gzip.compress(data, mtime=0), f"{kind}.gz"
            if rng.random() < 0.5:
                data, what = MUTATIONS.bytes_changed(data, rng)
                recipe.append(f"gzip, {what}")
        path = self._folder / f"table.{kind}"
        path.write_bytes(data)
        operations: list[tuple[str, Callable[[], object]]] = [
            ("pairs", lambda: read_pairs(path)),
            ("pairs where", lambda: read_pairs(path, columns={"text": "year"}, where={"split": "1"})),
            ("frame", lambda: read_frame(path, columns={})),
        ]
        if "parquet" not in kind:
            operations.append(("metadata", lambda: read_table(path, positions=rng.random() < 0.5)))
        return CASES.Case(recipe, operations)


class HostileVectors:
    """Vectors to be imported, as .npy with its lines and as .parquet."""

    documented = (CollectionError, MetadataError)

    def __init__(self, scratch: Path) -> None:
        self._folder, self._template = scratch / "inside", scratch / "template"
        self._outside = scratch / "outside"
        (self._outside / "media").mkdir(parents=True)
        for number in range(5):
            (self._outside / "media" / f"{number}.md").write_text(f"note {number}")
        self.watched = [self._outside, self._template]
        os.chdir(self._outside)
        self._template.mkdir()
        with Collection.open(scratch / "c", space=STUB.StubSpace()) as made:
            made.add(self._outside / "media")
            made.export(self._template / "v.npy")
            made.export(self._template / "v.parquet")

    def restore(self) -> None:
        """See `cases.Target`."""

    def case(self, rng: random.Random, number: int) -> Any:
        shutil.rmtree(self._folder, ignore_errors=True)
        shutil.copytree(self._template, self._folder)
        files = sorted(self._folder.iterdir())
        recipe = []
        for _ in range(rng.choice((1, 1, 2))):
            path = rng.choice(files)
            if path.suffix == ".jsonl" and rng.random() < 0.8:
                recipe.append(f"{path.name}: {_change_line(path, rng)}")
            elif path.suffix == ".npy" and rng.random() < 0.6:
                recipe.append(f"{path.name}: {_change_array(path, rng)}")
            else:
                recipe.append(MUTATIONS.change_file(path, rng))
        operations: list[tuple[str, Callable[[], object]]] = [
            (f"import {name}", lambda name=name: self._import(name, rng.random() < 0.3))  # type: ignore[misc]
            for name in ("v.npy", "v.parquet")
        ]
        return CASES.Case(recipe, operations)

    def _import(self, name: str, assume_space: bool) -> None:
        with Collection.open(self._folder / "made", space=STUB.StubSpace()) as made:
            made.import_vectors(self._folder / name, assume_space=assume_space)


def _change_line(path: Path, rng: random.Random) -> str:
    lines = path.read_bytes().splitlines(keepends=True)
    place = rng.randrange(len(lines)) if lines else 0
    if not lines:
        return "empty"
    try:
        data, what = MUTATIONS.json_changed(json.loads(lines[place]), rng)
    except (ValueError, RecursionError):
        data, what = MUTATIONS.bytes_changed(lines[place], rng)
    lines[place] = data + b"\n" if rng.random() < 0.9 else data
    path.write_bytes(b"".join(lines))
    return str(what)


def _change_array(path: Path, rng: random.Random) -> str:
    """Another array of numbers, or of none, under a header that says so or lies."""
    kinds = ("<f4", "<f2", ">f4", "<f8", "<i4", "|b1", "<U4", "|S3", "<c8", "<M8[s]", "|V7", "<f4,<i2")
    kind = rng.choice(kinds)
    shape = rng.choice(((5, 16), (5, 16), (0, 16), (5,), (), (5, 0), (5, 17), (1, 5, 16), (16, 5)))
    array = np.zeros(shape, kind)
    if array.dtype.kind == "f":
        array[...] = rng.choice((0.0, 1.0, float("nan"), float("inf"), 0.25))
    made = io.BytesIO()
    np.save(made, np.asfortranarray(array) if rng.random() < 0.2 else array, allow_pickle=False)
    data = made.getvalue()
    if rng.random() < 0.2:
        data = data.replace(b"(5, ", rng.choice((b"(-5,", b"(9, ", b"(5L,", b"(5: ")))
    path.write_bytes(data)
    return f"{kind} {shape}"


class HostileSidecars:
    """Metadata beside a file, calibrations, and word vectors in GloVe's form."""

    documented = (MetadataError, WordVectorsError, CASES.RefusedError)

    def __init__(self, scratch: Path) -> None:
        self.watched: list[Path] = []
        self._path = scratch / "glove.txt"

    def restore(self) -> None:
        """See `cases.Target`."""

    def case(self, rng: random.Random, number: int) -> Any:
        sidecar, what = MUTATIONS.json_changed({"a": 1, "b": {"c": [1, "x"], "lat": 5.0}, "tags": ["x"]}, rng)
        calibration: Any = {"format": 1, "log_odds": {"text->image": {"offset": -3.0, "slope": 9.0, "size": 0.5}}}
        written, how = MUTATIONS.json_changed(calibration, rng)
        words = "".join(f"word{n} {n}.5 -1 0.25\n" for n in range(5)).encode()
        self._path.write_bytes(MUTATIONS.bytes_changed(words, rng)[0])
        operations: list[tuple[str, Callable[[], object]]] = [
            ("sidecar", lambda: read_sidecar(sidecar, positions=rng.random() < 0.5)),
            ("word vectors", lambda: read_word_vectors(self._path, ["word1", "word4", "x"])),
        ]
        if _is_json(written):
            operations.append(("calibration", lambda: _calibration(json.loads(written))))
        return CASES.Case([f"sidecar: {what}", f"calibration: {how}"], operations)


def _is_json(data: bytes) -> bool:
    try:
        json.loads(data)
    except (ValueError, RecursionError):
        return False
    return True


def _calibration(raw: Any) -> None:
    try:
        made = Relevance.from_json(raw)
    except ValueError as error:  # as documented; but not one that something else raised
        if CASES.place_of(error).endswith("relevance.py:from_json"):
            raise CASES.RefusedError from error
        raise
    made.probabilities("text", "image", np.linspace(-1, 1, 5), 100)


TARGETS = {"tables": HostileTables, "vectors": HostileVectors, "sidecars": HostileSidecars}
