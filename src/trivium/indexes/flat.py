"""The exact index: FAISS's flat inner product, every vector compared with every query."""

from typing import Any

import faiss
import numpy as np

from trivium.encoders.base import Vectors
from trivium.indexes.base import Hits, Ids, checked_ids, checked_vectors


class FlatIndex:
    """Exact nearest neighbours under ids of the caller's choice."""

    def __init__(self, ids: Ids, vectors: Vectors, *, dim: int) -> None:
        """Index ``vectors``, shape (n, dim), under ``ids``, shape (n,).

        Raises:
            ValueError: If a shape is wrong, a value is not finite, or an id is negative or occurs twice.
        """
        vectors = checked_vectors(vectors, dim=dim, name="vectors")
        self.dim = dim
        self._faiss: Any = faiss.IndexIDMap2(faiss.IndexFlatIP(dim))
        self._faiss.add_with_ids(vectors, checked_ids(ids, count=len(vectors)))

    def __len__(self) -> int:
        return int(self._faiss.ntotal)

    def search(self, queries: Vectors, *, k: int, among: Ids | None = None) -> Hits:
        """Find the k best ids for each query, exactly.

        Args:
            queries: Unit vectors, shape (q, d).
            k: At least 1; may be more than there are vectors.
            among: Ids to choose from, shape (m,); all if not given.

        Raises:
            ValueError: If ``k`` is below 1, or the queries have another width or are not finite.
        """
        if k < 1:
            raise ValueError(f"k must be at least 1, got {k}")
        queries = checked_vectors(queries, dim=self.dim, name="queries")
        # FAISS allocates (q, k) up front, and pads what it does not find with id -1 and score -3.4e38.
        width = min(k, len(self) if among is None else len(among))
        if not width or not len(queries):
            shape = (len(queries), 0)
            return Hits(np.empty(shape, np.int64), np.empty(shape, np.float32), np.zeros(len(queries), np.int64))
        params: Any = None
        if among is not None:
            params = faiss.SearchParameters()
            params.sel = faiss.IDSelectorBatch(among)
        scores, ids = self._faiss.search(queries, width, params=params)
        found = ids >= 0
        return Hits(ids, np.where(found, scores, -np.inf).astype(np.float32), found.sum(axis=1))

    def to_bytes(self) -> bytes:
        """Return the index in FAISS's file format."""
        return bytes(faiss.serialize_index(self._faiss))

    @classmethod
    def from_bytes(cls, data: bytes) -> "FlatIndex":
        """Read what `to_bytes` wrote. FAISS trusts its input: pass only bytes whose hash has been checked."""
        index = cls.__new__(cls)
        index._faiss = faiss.deserialize_index(np.frombuffer(data, dtype=np.uint8))
        index.dim = index._faiss.d
        return index
