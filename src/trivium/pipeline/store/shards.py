"""Shards: write-once `.npy` files of float16 vectors, and reading rows out of many of them."""

import hashlib
import io
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from trivium.encoders.base import Vectors
from trivium.encoders.files.reading import file_sha256
from trivium.encoders.files.writing import WrittenFile, write_durably
from trivium.indexes import Ids
from trivium.pipeline.store.database import CollectionError

FOLDER = "vectors"
CHUNK_ROWS = 65_536
OPEN_SHARDS = 64
# A unit vector's cosines move by less than 3e-4 in half precision, and most by a tenth of that.
StoredVectors: TypeAlias = NDArray[np.float16]
_REMEDY = "restore a backup with `trivium restore`, or delete the collection and index again; your media are untouched"


@dataclass(frozen=True, slots=True)
class Shard:
    """A shard as the manifest has it."""

    name: str
    rows: int
    size: int
    sha256: str


class Shards(dict[int, Shard]):
    """The shards of a collection by id."""

    def __init__(self, folder: Path, shards: Iterable[tuple[int, Shard]]) -> None:
        super().__init__(shards)
        self._folder = folder

    def __missing__(self, number: int) -> Shard:
        """Raise a CollectionError."""
        raise CollectionError(
            f"{self._folder} is damaged: vectors lie in shard {number}, which is not recorded. Restore the collection "
            "from a backup, or index again"
        )


@dataclass(frozen=True, slots=True)
class Locations:
    """Where the vectors of n contents lie, in ascending order of the contents' ids."""

    contents: Ids  # (n,)
    shards: NDArray[np.int64]  # (n,)
    rows: NDArray[np.int64]  # (n,)

    def __len__(self) -> int:
        return len(self.contents)

    def take(self, positions: NDArray[np.integer] | slice) -> "Locations":
        """Return some of them; ``positions`` ascend."""
        return Locations(self.contents[positions], self.shards[positions], self.rows[positions])


def write_shard(folder: Path, number: int, vectors: Vectors | StoredVectors) -> tuple[str, WrittenFile]:
    """Write vectors (n, d) to a new shard in a collection's folder; return its name and what is recorded of it.

    Raises:
        OSError: If the disk is full or fails.
    """
    buffer = io.BytesIO()
    np.save(buffer, np.ascontiguousarray(vectors, np.float16), allow_pickle=False)
    data = buffer.getbuffer()
    # The digits are a label, and make equal names impossible for unequal shards; the manifest has the whole hash.
    name = f"{number:08d}-{hashlib.sha256(data).hexdigest()[:16]}.npy"
    return name, write_durably(folder / FOLDER / name, lambda write: write(data))


def open_shard(folder: Path, shard: Shard, *, dim: int) -> StoredVectors:
    """Map a shard into memory, (rows, d). Its size is checked; its hash is `verify`'s matter.

    Raises:
        CollectionError: If it is missing or has another size than the one recorded.
    """
    path = folder / FOLDER / shard.name
    try:
        size = path.stat().st_size
        # The numbers are the end of the file; its header is for other programs.
        offset = shard.size - shard.rows * dim * 2
        if size != shard.size or offset < 0:
            raise CollectionError(
                f"{path} is damaged: it has {size:,} bytes, {shard.size:,} were written. {_REMEDY.capitalize()}"
            )
        if not shard.rows:
            return np.empty((0, dim), np.float16)
        return np.memmap(path, np.float16, mode="r", offset=offset, shape=(shard.rows, dim))
    except (OSError, ValueError) as error:
        raise CollectionError(f"{path} is missing or cannot be read ({error}): {_REMEDY}") from error


def check_shard(folder: Path, shard: Shard) -> None:
    """Read a shard and compare its hash, before its vectors go where the manifest's hash no longer vouches for them.

    Raises:
        CollectionError: If it is missing or not what was written.
    """
    path = folder / FOLDER / shard.name
    try:
        is_sound = file_sha256(path) == shard.sha256
    except OSError as error:
        raise CollectionError(f"{path} is missing or cannot be read ({error}): {_REMEDY}") from error
    if not is_sound:
        raise CollectionError(f"{path} is damaged: its bytes are not those that were written. {_REMEDY.capitalize()}")


class ShardSource:
    """The vectors at some locations, as the indexes take them: chunk by chunk, never all in memory."""

    def __init__(self, folder: Path, shards: Mapping[int, Shard], locations: Locations, *, dim: int) -> None:
        self.dim = dim
        self._folder = folder
        self._shards = shards
        self._locations = locations

    @property
    def count(self) -> int:
        """Number of vectors."""
        return len(self._locations)

    @property
    def newest(self) -> int:
        """Return the largest id, 0 if there is none."""
        return int(self._locations.contents[-1]) if self.count else 0

    def chunks(self) -> Iterator[tuple[Ids, StoredVectors]]:
        """Yield ids and vectors in ascending order of the ids.

        Raises:
            CollectionError: If a shard is missing or damaged.
        """
        opened: dict[int, StoredVectors] = {}
        for start in range(0, self.count, CHUNK_ROWS):
            part = self._locations.take(slice(start, start + CHUNK_ROWS))
            yield part.contents, self._read(part, opened)

    def sample(self, n: int, seed: int) -> Vectors:
        """Return at most n rows drawn without replacement, (n, d) float32, in the order of their ids."""
        drawn = np.random.default_rng(seed).choice(self.count, size=min(n, self.count), replace=False)
        return self._read(self._locations.take(np.sort(drawn)), {}).astype(np.float32)

    def all(self) -> tuple[Ids, StoredVectors]:
        """Return everything at once: for what is known to be small."""
        return self._locations.contents, self._read(self._locations, {})

    def _read(self, part: Locations, opened: dict[int, StoredVectors]) -> StoredVectors:
        vectors = np.empty((len(part), self.dim), np.float16)
        # Neighbours mostly lie in one shard: one copy for each run of them.
        bounds = [*np.flatnonzero(np.diff(part.shards, prepend=-1)).tolist(), len(part)]
        for start, stop in pairwise(bounds):
            number = int(part.shards[start])
            if number not in opened:
                if len(opened) >= OPEN_SHARDS:
                    opened.clear()
                opened[number] = open_shard(self._folder, self._shards[number], dim=self.dim)
            rows = part.rows[start:stop]
            shard = opened[number]
            if len(rows) and (rows.min() < 0 or rows.max() >= len(shard)):
                raise CollectionError(
                    f"{self._folder} is damaged: row {int(rows.max())} of {self._shards[number].name} is named, it has "
                    f"{len(shard)}. Restore the collection from a backup, or index again"
                )
            is_run = len(rows) == rows[-1] - rows[0] + 1 and (len(rows) == 1 or bool((np.diff(rows) == 1).all()))
            vectors[start:stop] = shard[rows[0] : rows[-1] + 1] if is_run else shard[rows]
        return vectors
