"""Nearest vectors of one generation: what lies in index files, what has come since, and without what was removed.

Each modality's vectors have an index of their own: texts, pictures and sounds lie in different regions of a space, and
recall is measured and kept for queries of each modality in each of them.
"""

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from trivium.encoders.base import MODALITIES, Modality, Vectors
from trivium.indexes import FaissIndex, Hits, IdSet, merge_hits
from trivium.pipeline.escaping import printable
from trivium.pipeline.records import IndexFile
from trivium.pipeline.store.database import CollectionError
from trivium.pipeline.store.index_seal import reason_against
from trivium.pipeline.store.store import INDEX, Store

log = logging.getLogger(__name__)

# Modality, scores (q, k) and the number of vectors searched, to numbers that compare across modalities.
Rescale: TypeAlias = Callable[[Modality, NDArray[np.float32], int], NDArray[np.float32]]

TAIL_FLOAT32_BYTES = 256 << 20  # beyond it, what no index file holds is kept in half precision


def usable_index(store: Store, file: IndexFile) -> FaissIndex | None:
    """Open an index file if it is the one that was written, on this machine, else None.

    FAISS trusts its files, and neither notices a flipped bit nor withstands a hostile one (`index_seal`).
    """
    path = store.folder / INDEX / file.name
    try:
        if against := reason_against(path, file):
            problem = f"{against} and is not used"
        else:
            index = FaissIndex.read(path, kind=file.kind, effort=file.effort, dim=store.space.dim)
            if len(index) == file.vectors and index.newest <= file.through:
                return index
            problem = "is not the one that is recorded"
    except FileNotFoundError:
        problem = "is missing"
    except (OSError, ValueError) as error:
        problem = f"cannot be used ({error})"
    log.warning("%s %s: searching without it until it is rebuilt", printable(path), printable(problem))
    return None


@dataclass(slots=True)
class _ModalityVectors:
    """The vectors of one modality."""

    modality: Modality
    file: IndexFile | None = None
    index: FaissIndex | None = None
    tail: FaissIndex | None = None  # what the index file does not hold, exactly
    newest: int = 0  # the largest content id among all

    def refresh(self, store: Store, file: IndexFile | None) -> None:
        if (file is None) != (self.file is None) or (file and self.file and file.name != self.file.name):
            self.file = file
            self.index = None if file is None else usable_index(store, file)
            self.tail = None
            self.newest = file.through if file is not None and self.index is not None else 0
        locations = store.locations(self.modality, after=self.newest)
        if not len(locations):
            return
        source = store.source(locations)
        if self.tail is None:
            small = len(locations) * source.dim * 4 <= TAIL_FLOAT32_BYTES
            self.tail = FaissIndex.build("flat" if small else "fp16", source)
        else:
            for ids, vectors in source.chunks():
                self.tail.add(ids, vectors.astype(np.float32))
                self.newest = int(ids[-1])  # should the next chunk fail, this one is not added again
        self.newest = source.newest

    def search(self, queries: Vectors, k: int, among: IdSet | None, without: IdSet | None) -> Iterator[Hits]:
        if self.index is not None:
            yield self.index.search(queries, k=k, among=among, without=without)
        if self.tail is not None:
            yield self.tail.search(queries, k=k, among=among, without=without)

    def __len__(self) -> int:
        return sum(len(index) for index in (self.index, self.tail) if index is not None)


class VectorSearch:
    """Searches the vectors of a store's present generation; call it inside `Store.reading`.

    Several threads may search at the same time, but not while one refreshes.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._generation = -1
        self._space = -1
        self._parts: dict[Modality, _ModalityVectors] = {}
        self._orphans: IdSet | None = None
        self._joined: WeakKeyDictionary[IdSet, IdSet] = WeakKeyDictionary()  # with the orphans

    def refresh(self, generation: int) -> None:
        """Take in what has been committed since the last call.

        Raises:
            CollectionError: If a shard is missing or damaged, or holds no vectors.
        """
        if generation == self._generation:
            return
        store = self._store
        space = store.space_id
        if space != self._space:
            self._parts = {modality: _ModalityVectors(modality) for modality in MODALITIES}
        files = store.index_files()
        for modality, part in self._parts.items():
            try:
                part.refresh(store, files.get(modality))
            except ValueError as error:  # of a shard that its hash fits, or that is not read by `verify` yet
                raise CollectionError(
                    f"{store.folder} is damaged: what is stored of {modality} are no vectors ({error}). `trivium "
                    "verify --read-data` tells which files are wrong"
                ) from error
        orphans = store.orphans()
        self._orphans = IdSet(orphans) if len(orphans) else None
        self._joined.clear()
        self._generation, self._space = generation, space

    def search(
        self,
        queries: Vectors,
        *,
        k: int,
        among: Mapping[Modality, IdSet | None] | None = None,
        without: IdSet | None = None,
        rescale: Rescale | None = None,
    ) -> Hits:
        """Find the k best contents for each query, shape (q, d).

        Args:
            queries: Unit vectors.
            k: At least 1.
            among: For each modality that is searched, the contents to choose from, None for all; all if not given.
            without: Contents to leave out.
            rescale: Makes the scores of modalities comparable before they are merged; rising with the scores.
        """
        gone = self._gone(without)
        found: list[Hits] = []
        for modality, part in self._parts.items():
            if among is not None and modality not in among:
                continue
            chosen = None if among is None else among[modality]
            of_part = list(part.search(queries, k, chosen, gone))
            if rescale is not None:
                searched = len(part) if chosen is None else len(chosen)
                of_part = [Hits(h.ids, rescale(modality, h.scores, searched), h.counts) for h in of_part]
            found += of_part
        if not found:
            return Hits.none(len(queries))
        return found[0] if len(found) == 1 else merge_hits(found, k=k)

    @property
    def modalities(self) -> list[Modality]:
        """Which have vectors."""
        return [modality for modality, part in self._parts.items() if len(part)]

    def _gone(self, without: IdSet | None) -> IdSet | None:
        """Join what is left out with what no item has; the same set for the same set, because sets remember places."""
        if without is None or self._orphans is None:
            return self._orphans if without is None else without
        joined = self._joined.get(without)
        if joined is None:
            joined = self._joined.setdefault(without, IdSet(np.concatenate([self._orphans.ids, without.ids])))
        return joined

    def __len__(self) -> int:
        return sum(len(part) for part in self._parts.values())
