"""Tensors in safetensors files that a stranger may have made: looked at in the header before anything is allocated.

A file is eight bytes that give the header's length, the header (JSON: each tensor's type, shape and place), and the
numbers. Here the header is bounded, every place is checked against the file's own size, and what a caller expects of
names and shapes can be compared before a single number is read.

Source of the format: github.com/huggingface/safetensors.
"""

import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trivium.encoders.files.foreign import ForeignFileError, foreign_json, open_foreign, shown

MAX_HEADER_BYTES = 8 * 1024 * 1024  # some 80,000 tensors
MAX_DIMENSIONS = 8
MAX_NUMBERS = 1 << 48
_LENGTH = 8  # bytes of the header's length
BFLOAT16 = "BF16"  # NumPy has it not: its numbers are the upper halves of float32's
# Name in the file -> how NumPy reads it. Those of 8 bits and less that are no whole numbers are not among them.
DTYPES: Mapping[str, np.dtype[Any]] = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    BFLOAT16: np.dtype("<u2"),
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
    "I16": np.dtype("<i2"),
    "I8": np.dtype("i1"),
    "U8": np.dtype("u1"),
    "BOOL": np.dtype("u1"),
}


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """What the header says of a tensor; it is checked against the file."""

    dtype: str  # one of `DTYPES`
    shape: tuple[int, ...]
    start: int  # bytes, from the file's beginning
    size: int  # bytes


@dataclass(frozen=True, slots=True)
class TensorFile:
    """An open file, its header read and checked."""

    path: Path
    entries: Mapping[str, TensorEntry]
    _file: BufferedReader

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Of all tensors, by name."""
        return {name: entry.shape for name, entry in self.entries.items()}

    def read(self) -> dict[str, NDArray[Any]]:
        """Return all tensors; half floats of the kind BF16 as float32, all others as they are.

        Raises:
            ForeignFileError: If the file cannot be read, or changes meanwhile.
        """
        return {name: self._tensor(entry) for name, entry in self.entries.items()}

    def _tensor(self, entry: TensorEntry) -> NDArray[Any]:
        found = np.empty(entry.size, np.uint8)
        try:
            self._file.seek(entry.start)
            count = self._file.readinto(found.data)
        except OSError as error:
            raise ForeignFileError(f"{self.path} cannot be read: {error.strerror}") from error
        if count != entry.size:
            raise ForeignFileError(f"{self.path} changed while it was being read")
        numbers: NDArray[Any] = found.view(DTYPES[entry.dtype]).reshape(entry.shape)
        if entry.dtype == BFLOAT16:
            return (numbers.astype(np.uint32) << np.uint32(16)).view(np.float32)
        return numbers != 0 if entry.dtype == "BOOL" else numbers


@contextmanager
def open_tensors(path: Path, *, max_bytes: int) -> Iterator[TensorFile]:
    """Open a safetensors file, and check its header.

    Args:
        path: The file, directly in the folder that it belongs to.
        max_bytes: Larger files are refused: what reading all of it may cost.

    Raises:
        ForeignFileError: If it is no such file, or its header is not true.
    """
    with open_foreign(path, max_bytes=max_bytes) as file:
        yield TensorFile(path, _header(file, path), file)


def read_tensors(path: Path, *, max_bytes: int) -> dict[str, NDArray[Any]]:
    """Read all tensors of a file; see `open_tensors`."""
    with open_tensors(path, max_bytes=max_bytes) as file:
        return file.read()


def _header(file: BufferedReader, path: Path) -> dict[str, TensorEntry]:
    size = os.fstat(file.fileno()).st_size
    length = int.from_bytes(file.read(_LENGTH), "little")
    begin = _LENGTH + length
    if size < _LENGTH or begin > size or length > MAX_HEADER_BYTES:
        raise ForeignFileError(f"{path} is no safetensors file: a header of {length:,} bytes in a file of {size:,}")
    raw = foreign_json(file.read(length), path)
    raw.pop("__metadata__", None)
    entries = {name: _entry(name, told, begin, size, path) for name, told in raw.items()}
    place = begin
    for name, entry in sorted(entries.items(), key=lambda item: (item[1].start, item[1].size)):
        # Else a small file could name the same numbers many times, and each would be read.
        if entry.start != place:
            raise ForeignFileError(f"{path}: the numbers of tensor {shown(name)} do not follow those before them")
        place += entry.size
    if place != size:
        raise ForeignFileError(f"{path} has {size:,} bytes, its tensors take {place:,}: it is damaged or cut off")
    return entries


def _entry(name: str, told: Any, begin: int, size: int, path: Path) -> TensorEntry:
    def refused(why: str) -> ForeignFileError:
        return ForeignFileError(f"{path}: tensor {shown(name)} {why}")

    if not isinstance(told, dict) or told.keys() != {"dtype", "shape", "data_offsets"}:
        raise refused("must have dtype, shape and data_offsets")
    dtype, shape, offsets = told["dtype"], told["shape"], told["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise refused(f"is of type {shown(dtype)}, which is not read here; known are {', '.join(DTYPES)}")
    # No array has so many numbers, also where another of its sizes is 0.
    if not _are_sizes(shape) or len(shape) > MAX_DIMENSIONS or math.prod(max(1, n) for n in shape) >= MAX_NUMBERS:
        raise refused("has a shape that is none")
    if not _are_sizes(offsets) or len(offsets) != 2 or not offsets[0] <= offsets[1] <= size - begin:
        raise refused("lies outside of the file")
    wanted = math.prod(shape) * DTYPES[dtype].itemsize
    if wanted != offsets[1] - offsets[0]:
        raise refused(f"has {offsets[1] - offsets[0]:,} bytes, its shape {tuple(shape)} needs {wanted:,}")
    return TensorEntry(dtype, tuple(shape), begin + offsets[0], wanted)


def _are_sizes(numbers: Any) -> bool:
    return isinstance(numbers, list) and all(type(number) is int and number >= 0 for number in numbers)
