"""A process that keeps a collection open and searches it all the while, whatever becomes of its folder.

    python reader.py FOLDER FILES...

Each of the files' contents has a vector that is known here too, so that a hit is known to be the right one. A line on
standard input asks for a last look and what was seen since the line before; it is answered in one line of JSON.
"""

import hashlib
import json
import logging
import select
import sys
from collections import Counter
from pathlib import Path

import numpy as np

from trivium.encoders.base import Vectors, unit_rows
from trivium.pipeline.search.retrieval import Retrieval
from trivium.pipeline.store.database import CollectionError
from trivium.pipeline.store.store import Store

PAUSE_SECONDS = 0.05
ASKED = 3  # queries of each look
ALIKE = 0.999  # a content's own vector, in half precision


def vector_of(path: str, dim: int) -> Vectors:
    seed = int.from_bytes(hashlib.sha256(Path(path).read_bytes()).digest()[:8], "big")
    vector: Vectors = unit_rows(np.random.default_rng(seed).normal(size=(1, dim)))[0]
    return vector


class Reader:
    """Looks at one folder; opens it anew when it was told that what it had open is of no use."""

    def __init__(self, folder: Path, files: list[str]) -> None:
        self._folder = folder
        self._files = files
        self._opened: tuple[Store, Retrieval] | None = None
        self._vectors: dict[str, Vectors] = {}
        self._rng = np.random.default_rng(0)
        self.seen: Counter[str] = Counter()
        self.wrong: list[str] = []

    def look(self) -> tuple[list[str], str | None]:
        """Return the paths of all items, or the error that was told instead."""
        is_new = self._opened is None
        try:
            if self._opened is None:
                store = Store(self._folder)
                self._opened = store, Retrieval(store)
            paths = self._search(*self._opened)
        except CollectionError as error:
            if self._opened is not None:
                self._opened[0].close()
            self._opened = None
            self.seen["refused when opened" if is_new else "told to be stale"] += 1
            return [], str(error)
        self.seen["answered"] += 1
        return paths, None

    def _search(self, store: Store, retrieval: Retrieval) -> list[str]:
        dim = store.space.dim
        asked = [self._files[place] for place in self._rng.integers(len(self._files), size=ASKED)]
        for path in asked:
            if path not in self._vectors:
                self._vectors[path] = vector_of(path, dim)
        queries = np.stack([self._vectors[path] for path in asked])
        found = retrieval.search(queries, k=len(self._files) + 1)
        paths = sorted(hit.path for hit in found[0])
        for path, hits in zip(asked, found, strict=True):
            if sorted(hit.path for hit in hits) != paths:
                self.wrong.append(f"{len(hits)} and {len(paths)} hits in one answer")
            elif path in paths and (hits[0].path != path or hits[0].score < ALIKE):
                self.wrong.append(f"{hits[0].path} ({hits[0].score}) was found for {path}")
        if paths != self._files[: len(paths)]:
            self.wrong.append(f"{len(paths)} items that never were together")
        return paths


def main() -> None:
    folder, *files = sys.argv[1:]
    logging.disable()  # of index files that are gone
    reader = Reader(Path(folder), files)
    while True:
        if select.select([sys.stdin], [], [], PAUSE_SECONDS)[0]:
            if not sys.stdin.readline():
                return
            paths, error = reader.look()
            if error is not None:  # stale: now it has to be right
                paths, error = reader.look()
            answer = {"paths": paths, "error": error, "seen": reader.seen, "wrong": reader.wrong}
            print(json.dumps(answer), flush=True)
            reader.seen, reader.wrong = Counter(), []
        else:
            reader.look()


if __name__ == "__main__":
    main()
