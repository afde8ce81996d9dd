"""An index of any kind of `KINDS`: FAISS inside, ids, filters and effort handled here.

FAISS works on positions, 0 to n - 1 in the order of adding. Ids rise with them, so that position -> id is one look-up
and id -> position a binary search; filters are translated once per set of ids (`IdSet.cached`).
"""

from collections.abc import Callable
from math import ceil
from os import PathLike
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trivium.encoders.base import Vectors
from trivium.indexes.anatomy import Anatomy, Found, Positions, faiss
from trivium.indexes.base import Hits, Ids, IdSet, VectorSource, best_first, checked_ids, checked_vectors
from trivium.indexes.faiss_file import read_faiss, write_faiss
from trivium.indexes.filling import filled
from trivium.indexes.kinds import Kind, kind_named
from trivium.indexes.scan import flat_search, products_for_batches

# Deleted ids up to this many are searched for and dropped, where every float32 vector is compared: a filter there
# costs the matrix products.
_DROP_AT_MOST = 1024
# A filtered search of a graph looks at about this many vectors per step of effort.
_GRAPH_LOOKS = 20
_GRAPH_EFFORT_AT_MOST = 4096
# A refine step never gets fewer candidates than for this many hits: the best hit is no easier to have among them.
_HITS_AT_LEAST = 10


class FaissIndex:
    """Vectors under rising ids. Several threads may search one at the same time, but not while one adds."""

    def __init__(self, whole: Any, *, kind: Kind, effort: int | None, mapped: bool) -> None:
        """Wrap ``whole``, an `faiss.IndexIDMap` with rising ids; see `build` and `read`.

        Raises:
            ValueError: If the effort does not suit the kind.
        """
        self._whole = whole
        self._kind = kind
        self._mapped = mapped
        self._anatomy = Anatomy.of(whole.index)
        self._ids = _view_of_ids(whole)
        self._effort: int | None = None
        self.effort = self.efforts[-1] if effort is None and kind.effort_name else effort

    @classmethod
    def build(
        cls,
        kind: str,
        source: VectorSource,
        *,
        seed: int = 0,
        progress: Callable[[int, int], None] | None = None,
        threads: int | None = None,
    ) -> "FaissIndex":
        """Train on a sample of ``source`` and add all of it, in memory.

        Args:
            kind: A name in `KINDS`.
            source: The vectors.
            seed: The same seed, source and number of threads give the same index; a graph (``hnsw``) built by several
                threads may differ in a few links.
            progress: Called as ``progress(vectors_added, vectors_to_add)``, first with 0.
            threads: How many FAISS uses; all it is allowed if not given.

        Raises:
            ValueError: If there is no such kind, it must be trained and there is no vector, a vector is not finite, or
                the source gives other vectors than it announced.
        """
        found = kind_named(kind)
        whole = filled(found, source, seed=seed, progress=progress, threads=threads)
        return cls(whole, kind=found, effort=None, mapped=False)

    @classmethod
    def read(
        cls, path: str | PathLike[str], *, kind: str, effort: int | None, dim: int, mapped: bool = True
    ) -> "FaissIndex":
        """Read what `write` wrote. FAISS trusts its input: pass only a file whose hash has been checked.

        Args:
            path: The file; while the index lives it must not change if it is mapped.
            kind: What it was built as.
            effort: As found by tuning; the most there is if not given.
            dim: Numbers per vector.
            mapped: Leave codes and links in the file and let the system read them when they are needed. The index
                then takes no `add`.

        Raises:
            ValueError: If it is no such index.
            OSError: If the file cannot be opened.
        """
        found = kind_named(kind)
        return cls(read_faiss(path, kind=found, dim=dim, mapped=mapped), kind=found, effort=effort, mapped=mapped)

    def write(self, write: Callable[[bytes], object]) -> None:
        """Hand FAISS's file format to ``write``, piece by piece, at most 1 MiB at a time.

        Raises:
            Exception: Whatever ``write`` raises; what has been written by then is no index.
        """
        write_faiss(self._whole, write)

    @property
    def kind(self) -> str:
        """Its name in `KINDS`."""
        return self._kind.name

    @property
    def dim(self) -> int:
        """Numbers per vector."""
        return int(self._whole.d)

    @property
    def ids(self) -> Ids:
        """The ids, rising, shape (n,); a view, not to be written to, and void after `add`."""
        return self._ids

    @property
    def size_bytes(self) -> int:
        """About how much memory it takes; its file if it is mapped."""
        return round(self._kind.bytes_per_vector(self.dim, len(self)) * len(self))

    @property
    def is_exact(self) -> bool:
        """Whether scores and order are those of float32 arithmetic on the vectors added."""
        return self._kind.is_exact

    @property
    def efforts(self) -> tuple[int, ...]:
        """The efforts worth trying, rising; empty if the kind has none."""
        return self._kind.efforts(self._most_effort)

    @property
    def effort(self) -> int | None:
        """How much of the index a search looks at (nprobe, efSearch); None if always all."""
        return self._effort

    @effort.setter
    def effort(self, effort: int | None) -> None:
        if (effort is None) != (self._kind.effort_name is None) or (effort is not None and effort < 1):
            needed = "none" if self._kind.effort_name is None else f"{self._kind.effort_name}, 1 or more"
            raise ValueError(f"effort of an index of kind '{self.kind}' must be {needed}, got {effort}")
        self._effort = effort
        # By candidates. Searches without a filter share them, and none of them changes one.
        self._parameters: dict[float, Any] = {}

    @property
    def newest(self) -> int:
        """Return the largest id, 0 if there is none."""
        return int(self._ids[-1]) if len(self._ids) else 0

    def __len__(self) -> int:
        return len(self._ids)

    def __repr__(self) -> str:
        effort = f", {self._kind.effort_name} {self._effort}" if self._kind.effort_name else ""
        return f"FaissIndex of {len(self):,} x {self.dim}, {self.kind}{effort}"

    def add(self, ids: Ids, vectors: Vectors) -> None:
        """Add ``vectors``, shape (n, d), under ``ids``, shape (n,), beyond all there are; nothing is trained anew.

        Raises:
            ValueError: If the index is mapped, a shape is wrong, a value is not finite, or the ids do not rise beyond
                the last one.
        """
        if self._mapped:
            raise ValueError("the index is mapped from its file: to add to it, read it with mapped=False")
        vectors = checked_vectors(vectors, dim=self.dim, name="vectors")
        ids = checked_ids(ids, count=len(vectors))
        if not (ids[1:] > ids[:-1]).all():
            raise ValueError("ids must rise from one to the next")
        if len(ids) and len(self) and ids[0] <= self._ids[-1]:
            raise ValueError(f"ids must be beyond the last id, {int(self._ids[-1])}, got {int(ids[0])}")
        if len(ids):
            self._whole.add_with_ids(vectors, ids)
            self._ids = _view_of_ids(self._whole)

    def search(self, queries: Vectors, *, k: int, among: IdSet | None = None, without: IdSet | None = None) -> Hits:
        """Find the k best ids for each query.

        Fewer come back only where there are not k to choose from: a query that found too few with the usual effort is
        compared with every vector.

        Args:
            queries: Unit vectors, shape (q, d).
            k: At least 1; may be more than there are vectors.
            among: Ids to choose from; all if not given. Effort grows as they get fewer.
            without: Ids to leave out, such as deleted ones.

        Returns:
            Hits of shape (q, at most k), best first, ties by rising id; of equal scores at the end of a row, any.

        Raises:
            ValueError: If ``k`` is below 1, or the queries have another width or are not finite.
        """
        if k < 1:
            raise ValueError(f"k must be at least 1, got {k}")
        queries = checked_vectors(queries, dim=self.dim, name="queries")
        places, dropped = self._scope(among, without)
        allowed = len(self) if places is None else places.count
        width = min(k, allowed - len(dropped))
        if width < 1 or not len(queries):
            return Hits.none(len(queries))
        scores, positions = self._nearest(queries, width + len(dropped), places)
        if len(dropped):
            positions = np.where(np.isin(positions, dropped), -1, positions)
            scores = np.where(positions < 0, np.float32(-np.inf), scores)
            positions, scores = best_first(positions, scores, k=width)
        return self._hits(positions, scores)

    def _scope(self, among: IdSet | None, without: IdSet | None) -> tuple[Positions | None, NDArray[np.int64]]:
        """Positions to choose from (None: all), and positions to drop from the hits."""
        nothing: NDArray[np.int64] = np.empty(0, np.int64)
        kept = None if among is None else self._places(among)
        if without is None or not len(without):
            return kept, nothing
        gone = self._places(without)
        if not gone.count:
            return kept, nothing
        if kept is None and self._anatomy.inner is self._anatomy.flat and gone.count <= _DROP_AT_MOST:
            return None, gone.positions()
        return (kept or Positions.everywhere(len(self))).minus(gone), nothing

    def _places(self, ids: IdSet) -> Positions:
        place = ids.cached(self, len(self), lambda ids: Positions.of(ids.ids, self._ids))
        assert isinstance(place, Positions)
        return place

    def _nearest(self, queries: Vectors, k: int, places: Positions | None) -> Found:
        """Scores and positions, shape (q, k); where there are k to choose from, k are found."""
        anatomy = self._anatomy
        if anatomy.inner is anatomy.flat:
            return self._compare_with_all(queries, k, places)
        effort = self._effort
        if effort is not None and places is not None:
            effort = self._filtered_effort(effort, k, places)
            if effort is None:
                return self._compare_with_all(queries, k, places)
        scores, positions = self._search(queries, k, effort, places)
        if positions[:, -1].min() < 0:
            short = positions[:, -1] < 0
            scores[short], positions[short] = self._compare_with_all(queries[short], k, places)
        return scores, positions

    def _filtered_effort(self, effort: int, k: int, places: Positions) -> int | None:
        """Return the effort that finds as much among ``places`` as ``effort`` among all; None: compare with all."""
        share = places.count / len(self)
        wanted = ceil(effort / share)
        if self._anatomy.graph is None:
            return min(wanted, self._most_effort)
        wanted = max(wanted, k)
        if places.count <= wanted * _GRAPH_LOOKS or wanted > _GRAPH_EFFORT_AT_MOST:
            return None
        return wanted

    def _search(self, queries: Vectors, k: int, effort: int | None, places: Positions | None) -> Found:
        candidates = self._candidates(k)
        if places is not None:
            parameters = self._anatomy.parameters(effort, candidates=candidates, selector=places.selector())
        elif candidates in self._parameters:
            parameters = self._parameters[candidates]
        else:
            parameters = self._parameters[candidates] = self._anatomy.parameters(effort, candidates=candidates)
        with products_for_batches(len(queries)):  # matters for the comparison with the lists' centres
            found: Found = self._anatomy.inner.search(queries, k, params=parameters)
        return found

    def _candidates(self, k: int) -> float:
        """How many candidates for each of ``k`` hits the refine step compares anew: as many for 1 hit as for 10."""
        few = self._kind.candidates
        return few if few == 1 else max(1.0, min(few * max(k, _HITS_AT_LEAST), len(self)) / k)

    def _compare_with_all(self, queries: Vectors, k: int, places: Positions | None) -> Found:
        if self._anatomy.flat is not None:
            positions = None if places is None else places.positions()
            return flat_search(self._anatomy.flat, queries, k=k, positions=positions)
        return self._anatomy.compare_with_all(queries, k, places)

    @property
    def _most_effort(self) -> int:
        return len(self) if self._anatomy.lists is None else int(self._anatomy.lists.nlist)

    def _hits(self, positions: NDArray[np.int64], scores: NDArray[np.float32]) -> Hits:
        ids = self._ids[positions]
        queries, width = ids.shape
        if (scores[:, 1:] == scores[:, :-1]).any():
            ids, scores = best_first(ids, scores, k=width)
        counts = np.empty(queries, np.int64)
        counts.fill(width)
        return Hits(ids, scores, counts)


def _view_of_ids(whole: Any) -> Ids:
    if not whole.ntotal:
        return np.empty(0, np.int64)
    view: Ids = faiss.rev_swig_ptr(whole.id_map.data(), whole.ntotal)
    view.flags.writeable = False
    return view
