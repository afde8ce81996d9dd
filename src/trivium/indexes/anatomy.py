"""The parts of a FAISS index that a search must name: lists, graph, second stage, plain codes.

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
    lists: Any | None  # the `faiss.IndexIVF` in it
    graph: Any | None  # the `faiss.IndexHNSW` in it
    refined: bool  # whether the best are compared anew
    everything: Any  # the part that compares with every vector; itself lists if nothing else holds them all

    @classmethod
    def of(cls, inner: Any) -> "Anatomy":
        """Take ``inner`` apart; it is what an `faiss.IndexIDMap` holds."""
        inner = faiss.downcast_index(inner)
        refined = isinstance(inner, faiss.IndexRefine)
        first = faiss.downcast_index(inner.base_index) if refined else inner
        lists = first if isinstance(first, faiss.IndexIVF) else None
        graph = first if isinstance(first, faiss.IndexHNSW) else None
        if refined:
            everything = faiss.downcast_index(inner.refine_index)
        else:
            everything = faiss.downcast_index(graph.storage) if graph else inner
        return cls(inner, lists, graph, refined, everything)

    @property
    def flat(self) -> Any | None:
        """The part that holds all vectors as float32, if there is one."""
        return self.everything if isinstance(self.everything, faiss.IndexFlat) else None

    def parameters(self, effort: int | None, *, refine_factor: int = 1, selector: Any | None = None) -> Any | None:
        """FAISS's parameters of one search; None where it needs none."""
        parameters: Any | None = None
        if self.lists is not None:
            parameters = faiss.SearchParametersIVF(nprobe=effort, sel=selector)
        elif self.graph is not None:
            parameters = faiss.SearchParametersHNSW(efSearch=effort, sel=selector)
        elif selector is not None:
            parameters = faiss.SearchParameters(sel=selector)
        if self.refined:
            return faiss.IndexRefineSearchParameters(k_factor=refine_factor, base_index_params=parameters)
        return parameters

    def compare_with_all(self, queries: Vectors, k: int, places: Places | None) -> Found:
        """Compare ``queries`` with every vector at ``places``; for parts that hold no float32, see `flat`."""
        selector = places.selector() if places else None
        parameters: Any | None = faiss.SearchParameters(sel=selector) if places else None
        if self.lists is not None and self.everything is self.lists:
            parameters = faiss.SearchParametersIVF(nprobe=self.lists.nlist, sel=selector)
        found: Found = self.everything.search(queries, k, params=parameters)
        return found

    def signature(self) -> str:
        """Tell what kind of index this is and how many bytes its codes take, the same whatever it holds."""
        if self.refined:
            first, second = Anatomy.of(self.inner.base_index), Anatomy.of(self.inner.refine_index)
            return f"{type(self.inner).__name__}({first.signature()}, {second.signature()})"
        if self.graph is not None:
            return f"{type(self.graph).__name__}({Anatomy.of(self.graph.storage).signature()})"
        # FAISS's factory makes an IndexFlat, which comes back from a file as an IndexFlatIP.
        name = type(self.inner).__name__.removesuffix("IP")
        return f"{name}[{self.inner.code_size}]"
