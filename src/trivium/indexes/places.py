"""Where the ids of a set lie in an index: the positions that FAISS filters by."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from trivium.indexes.untyped import faiss


class Places:
    """Some of an index's positions, as FAISS takes them; immutable."""

    __slots__ = ("_positions", "bitmap", "count")

    def __init__(self, bitmap: NDArray[np.uint8]) -> None:
        """Hold the positions whose bit is set, the lowest bit of the first byte being position 0."""
        self.bitmap = bitmap
        self.count = int(np.bitwise_count(bitmap).sum())
        self._positions: NDArray[np.int64] | None = None

    @classmethod
    def of(cls, ids: NDArray[np.int64], held: NDArray[np.int64]) -> "Places":
        """Find the rising ``ids`` among the rising ids ``held`` by an index; those it does not hold are left out."""
        mask = np.zeros(len(held), bool)
        if len(held):
            places = np.minimum(np.searchsorted(held, ids), len(held) - 1)
            mask[places[held[places] == ids]] = True
        return cls(np.packbits(mask, bitorder="little"))

    @classmethod
    def everywhere(cls, count: int) -> "Places":
        """Hold all of ``count`` positions."""
        return cls(np.packbits(np.ones(count, bool), bitorder="little"))

    def minus(self, other: "Places") -> "Places":
        """Leave out the positions of ``other``, which is of the same index."""
        return Places(self.bitmap & ~other.bitmap)

    def positions(self) -> NDArray[np.int64]:
        """Return the positions, rising, shape (count,)."""
        if self._positions is None:
            self._positions = np.flatnonzero(np.unpackbits(self.bitmap, bitorder="little"))
        return self._positions

    def selector(self) -> Any:
        """Make a FAISS selector of these positions; it points into this object, which must outlive it."""
        return faiss.IDSelectorBitmap(len(self.bitmap), faiss.swig_ptr(self.bitmap))
