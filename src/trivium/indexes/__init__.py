"""Vectors under ids, nearest neighbours. Importing this package does not import torch."""

from trivium.indexes.base import (
    CHUNK_ROWS,
    ArraySource,
    Hits,
    Ids,
    VectorIndex,
    VectorSource,
    checked_ids,
    checked_vectors,
)
from trivium.indexes.building import Built, build_index
from trivium.indexes.choice import Choice, Wish, alternatives, choose, needs_rebuild
from trivium.indexes.exact import exact_search
from trivium.indexes.faiss_index import FaissIndex
from trivium.indexes.idset import IdSet
from trivium.indexes.kinds import KINDS, Kind, kind_named
from trivium.indexes.ranking import merge_hits
from trivium.indexes.tuning import Measurement, ground_truth, recall_at_10, tune

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
    "VectorIndex",
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
