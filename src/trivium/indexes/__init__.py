"""Vectors under ids, nearest neighbours. Importing this package does not import torch."""

from trivium.indexes.base import Hits, Ids, VectorIndex, checked_ids, checked_vectors
from trivium.indexes.flat import FlatIndex

__all__ = ["FlatIndex", "Hits", "Ids", "VectorIndex", "checked_ids", "checked_vectors"]
