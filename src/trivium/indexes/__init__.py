"""Vectors under ids, nearest neighbours. Importing this package does not import torch."""

from trivium.indexes.base import (
    CHUNK_ROWS,
    ArraySource,
    Hits,
    Ids,
    IdSet,
    VectorSource,
    checked_ids,
    checked_vectors,
    merge_hits,
)
from trivium.indexes.building import Built, Measurement, build_index, ground_truth, recall_at_10, tune
from trivium.indexes.choice import Choice, Wish, alternatives, choose, needs_rebuild
from trivium.indexes.faiss_index import FaissIndex
from trivium.indexes.kinds import KINDS, Kind, kind_named
from trivium.indexes.scan import exact_search

__all__ = [
    "ArraySource",
    "Built",
    "CHUNK_ROWS",
    "Choice",
    "FaissIndex",
    "Hits",
    "IdSet",
    "Ids",
    "KINDS",
    "Kind",
    "Measurement",
    "VectorSource",
    "Wish",
    "alternatives",
    "build_index",
    "checked_ids",
    "checked_vectors",
    "choose",
    "exact_search",
    "ground_truth",
    "kind_named",
    "merge_hits",
    "needs_rebuild",
    "recall_at_10",
    "tune",
]
