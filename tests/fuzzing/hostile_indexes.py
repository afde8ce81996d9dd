"""Index files that somebody else has made, with a hash that fits: FAISS itself reads them."""

import os
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from trivium.encoders.base import unit_rows
from trivium.indexes import FaissIndex

CASES: Any = sys.modules["__main__"]
MUTATIONS = CASES.load_beside("mutations")
DIM, COUNT = 16, 400
KINDS = ["flat", "fp16", "sq8", "hnsw", "hnsw-sq8", "ivf-fp16", "ivf-sq8", "ivf-rabitq", "ivf-pq"]
WORDS = [0, 1, 2, 3, 0x7F, 0xFF, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF]


class Vectors:
    """What an index is built of."""

    dim, count, newest = DIM, COUNT, COUNT - 1

    def __init__(self) -> None:
        self._rows = unit_rows(np.random.default_rng(0).normal(size=(COUNT, DIM)))

    def chunks(self) -> Iterator[tuple[Any, Any]]:
        yield np.arange(COUNT, dtype=np.int64), self._rows

    def sample(self, n: int, seed: int) -> Any:
        return self._rows[:n]


class HostileIndexes:
    """The target."""

    documented = (ValueError, OSError)

    def __init__(self, scratch: Path) -> None:
        self.watched: list[Path] = []
        self._path = scratch / "index.faiss"
        self._written: dict[str, bytes] = {}
        source: Any = Vectors()
        for kind in KINDS:
            made = bytearray()
            FaissIndex.build(kind, source).write(made.extend)
            self._written[kind] = bytes(made)

    def restore(self) -> None:
        """See `cases.Target`."""

    def case(self, rng: random.Random, number: int) -> Any:
        kind = rng.choice(KINDS)
        data = bytearray(self._written[kind])
        what = "a word"
        if rng.random() < 0.3:
            data, what = MUTATIONS.bytes_changed(bytes(data), rng)
        else:
            for _ in range(rng.choice((1, 1, 2))):
                at = rng.randrange(min(len(data), rng.choice((60, 300, 2_000, len(data)))) - 8) // 4 * 4
                at += rng.randrange(2)  # FAISS's marks are of 4 bytes, and a flag of one shifts what follows
                data[at : at + 4] = rng.choice((*WORDS, rng.getrandbits(32))).to_bytes(4, "little")
        self._path.unlink(missing_ok=True)
        self._path.write_bytes(data)
        mapped = rng.random() < 0.7
        return CASES.Case(
            [f"{kind}: {what}, {'mapped' if mapped else 'read'}"], [("search", lambda: self._search(kind, mapped))]
        )

    def _search(self, kind: str, mapped: bool) -> None:
        index = FaissIndex.read(os.fspath(self._path), kind=kind, effort=None, dim=DIM, mapped=mapped)
        index.search(unit_rows(np.random.default_rng(1).normal(size=(2, DIM))), k=20)


TARGETS = {"indexes": HostileIndexes}
