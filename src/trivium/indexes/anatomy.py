"""The parts of a FAISS index that a search must name: lists, graph, plain codes.

Nothing here changes an index: efforts and filters travel with each search, so that threads can share one.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trivium.encoders.base import Vectors
from trivium.indexes.places import Places
from trivium.indexes.untyped import faiss

Found = tuple[NDArray[np.float32], NDArray[np.int64]]  # scores and positions, both (q, k); position -1 is padding


@dataclass(frozen=True, slots=True)
class Anatomy:
    """An index by position, taken apart."""

    inner: Any  # what is searched
    lists: Any | None  # the same, if it is a `faiss.IndexIVF`
    graph: Any | None  # the same, if it is a `faiss.IndexHNSW`
    codes: Any  # the part that holds the vectors in a row; the lists themselves if those do

    @classmethod
    def of(cls, inner: Any) -> "Anatomy":
        """Take apart ``inner``, which is what a `faiss.IndexIDMap` holds."""
        inner = faiss.downcast_index(inner)
        lists = inner if isinstance(inner, faiss.IndexIVF) else None
        graph = inner if isinstance(inner, faiss.IndexHNSW) else None
        return cls(inner, lists, graph, faiss.downcast_index(graph.storage) if graph else inner)

    @property
    def flat(self) -> Any | None:
        """The part that holds the vectors in a row as float32, if there is one."""
        return self.codes if isinstance(self.codes, faiss.IndexFlat) else None

    def parameters(self, effort: int | None, selector: Any | None = None) -> Any | None:
        """Make FAISS's parameters of one search; None where it needs none."""
        if self.lists is not None:
            return faiss.SearchParametersIVF(nprobe=effort, sel=selector)
        if self.graph is not None:
            return faiss.SearchParametersHNSW(efSearch=effort, sel=selector)
        return None if selector is None else faiss.SearchParameters(sel=selector)

    def compare_with_all(self, queries: Vectors, k: int, places: Places | None) -> Found:
        """Compare ``queries`` with every vector at ``places``; slowly if the vectors are float32, see `flat`."""
        selector = places.selector() if places else None
        parameters = Anatomy.of(self.codes).parameters(self.lists.nlist if self.lists is not None else None, selector)
        found: Found = self.codes.search(queries, k, params=parameters)
        return found

    def signature(self) -> str:
        """Tell what kind of index this is and how many bytes its codes take, the same whatever it holds."""
        if self.graph is not None:
            return f"{type(self.graph).__name__}({Anatomy.of(self.codes).signature()})"
        # FAISS's factory makes an IndexFlat, which comes back from a file as an IndexFlatIP.
        name = type(self.inner).__name__.removesuffix("IP")
        return f"{name}[{self.inner.code_size}]"
