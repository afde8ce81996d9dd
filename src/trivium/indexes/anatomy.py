"""The parts of a FAISS index that a search must name, and the positions that it filters by.

Lists, graph, refine step, plain codes. Nothing here changes an index: efforts and filters travel with each search, so
that threads can share one.
"""

from dataclasses import dataclass
from typing import Any

import faiss as _typed
import numpy as np
from numpy.typing import NDArray

from trivium.encoders.base import Vectors

faiss: Any = _typed  # without its type stubs, which do not know half of what is used here


class Positions:
    """Some of an index's positions, as FAISS takes them; immutable."""

    __slots__ = ("_positions", "bitmap", "count")

    def __init__(self, bitmap: NDArray[np.uint8]) -> None:
        """Hold the positions whose bit is set, the lowest bit of the first byte being position 0."""
        self.bitmap = bitmap
        self.count = int(np.bitwise_count(bitmap).sum())
        self._positions: NDArray[np.int64] | None = None

    @classmethod
    def of(cls, ids: NDArray[np.int64], held: NDArray[np.int64]) -> "Positions":
        """Find the rising ``ids`` among the rising ids ``held`` by an index; those it does not hold are left out."""
        mask = np.zeros(len(held), bool)
        if len(held):
            places = np.minimum(np.searchsorted(held, ids), len(held) - 1)
            mask[places[held[places] == ids]] = True
        return cls(np.packbits(mask, bitorder="little"))

    @classmethod
    def everywhere(cls, count: int) -> "Positions":
        """Hold all of ``count`` positions."""
        return cls(np.packbits(np.ones(count, bool), bitorder="little"))

    def minus(self, other: "Positions") -> "Positions":
        """Leave out the positions of ``other``, which is of the same index."""
        return Positions(self.bitmap & ~other.bitmap)

    def positions(self) -> NDArray[np.int64]:
        """Return the positions, rising, shape (count,)."""
        if self._positions is None:
            self._positions = np.flatnonzero(np.unpackbits(self.bitmap, bitorder="little"))
        return self._positions

    def selector(self) -> Any:
        """Make a FAISS selector of these positions; it points into this object, which must outlive it."""
        return faiss.IDSelectorBitmap(len(self.bitmap), faiss.swig_ptr(self.bitmap))


Found = tuple[NDArray[np.float32], NDArray[np.int64]]  # scores and positions, both (q, k); position -1 is padding


@dataclass(frozen=True, slots=True)
class Anatomy:
    """An index by position, taken apart."""

    inner: Any  # what is searched
    lists: Any | None  # the `faiss.IndexIVF` in it
    graph: Any | None  # the `faiss.IndexHNSW` in it
    refined: bool  # whether it finds candidates and compares them anew: a `faiss.IndexRefine`
    codes: Any  # the part that holds the vectors in a row; the lists themselves if nothing else does

    @classmethod
    def of(cls, inner: Any) -> "Anatomy":
        """Take apart ``inner``, which is what a `faiss.IndexIDMap` holds."""
        inner = faiss.downcast_index(inner)
        refined = isinstance(inner, faiss.IndexRefine)
        first = faiss.downcast_index(inner.base_index) if refined else inner
        lists = first if isinstance(first, faiss.IndexIVF) else None
        graph = first if isinstance(first, faiss.IndexHNSW) else None
        behind = inner.refine_index if refined else graph.storage if graph else None
        return cls(inner, lists, graph, refined, inner if behind is None else faiss.downcast_index(behind))

    @property
    def flat(self) -> Any | None:
        """The part that holds the vectors in a row as float32, if there is one."""
        return self.codes if isinstance(self.codes, faiss.IndexFlat) else None

    def parameters(self, effort: int | None, *, candidates: float = 1, selector: Any | None = None) -> Any | None:
        """Make FAISS's parameters of one search; None where it needs none.

        Args:
            effort: Lists or vertices to look at, where there are such.
            candidates: For each wanted hit, how many the refine step compares anew; 1 or more.
            selector: Positions to choose from.
        """
        parameters: Any | None = None
        if self.lists is not None:
            parameters = faiss.SearchParametersIVF(nprobe=effort, sel=selector)
        elif self.graph is not None:
            parameters = faiss.SearchParametersHNSW(efSearch=effort, sel=selector)
        elif selector is not None:
            parameters = faiss.SearchParameters(sel=selector)
        if self.refined:
            return faiss.IndexRefineSearchParameters(k_factor=candidates, base_index_params=parameters)
        return parameters

    def compare_with_all(self, queries: Vectors, k: int, places: Positions | None) -> Found:
        """Compare ``queries`` with every vector at ``places``; slowly if the vectors are float32, see `flat`."""
        selector = places.selector() if places else None
        codes = Anatomy.of(self.codes)
        everything = None if codes.lists is None else codes.lists.nlist
        found: Found = self.codes.search(queries, k, params=codes.parameters(everything, selector=selector))
        return found

    def signature(self) -> str:
        """Tell what kind of index this is and how many bytes its codes take, the same whatever it holds."""
        if self.refined:
            first, second = Anatomy.of(self.inner.base_index), Anatomy.of(self.codes)
            return f"{type(self.inner).__name__}({first.signature()}, {second.signature()})"
        if self.graph is not None:
            return f"{type(self.graph).__name__}({Anatomy.of(self.codes).signature()})"
        # FAISS's factory makes an IndexFlat, which comes back from a file as an IndexFlatIP.
        name = type(self.inner).__name__.removesuffix("IP")
        return f"{name}[{self.inner.code_size}]"
