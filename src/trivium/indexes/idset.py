"""A set of ids: what a filter lets through, or what has been deleted."""

from collections.abc import Callable
from typing import Any, TypeAlias
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

_Ids: TypeAlias = NDArray[np.int64]


class IdSet:
    """An immutable set of ids; keep one over many searches, it remembers where its ids lie in each index.

    Equality is identity: two sets of the same ids are two keys.
    """

    __slots__ = ("__weakref__", "_ids", "_places")

    def __init__(self, ids: NDArray[Any]) -> None:
        """Hold ``ids``, shape (n,), in any order, repeated or not; they are copied.

        Raises:
            ValueError: If they are no integers, not one row of them, or one is below 0 or beyond 64 bits.
        """
        ids = np.asarray(ids)
        if ids.ndim != 1:
            raise ValueError(f"ids must have shape (n,), got {ids.shape}")
        if len(ids) and not np.issubdtype(ids.dtype, np.integer):
            raise ValueError(f"ids must be integers, got {ids.dtype}")
        if len(ids) and not 0 <= int(ids.min()) <= int(ids.max()) <= np.iinfo(np.int64).max:
            raise ValueError(f"ids must be 0 or more and fit 64 bits, got {int(ids.min())} to {int(ids.max())}")
        self._ids: _Ids = np.unique(ids).astype(np.int64)
        self._ids.flags.writeable = False
        self._places: WeakKeyDictionary[Any, tuple[int, Any]] = WeakKeyDictionary()

    @property
    def ids(self) -> _Ids:
        """The ids, rising, each once; not to be written to."""
        return self._ids

    def __len__(self) -> int:
        return len(self._ids)

    def __repr__(self) -> str:
        return f"IdSet of {len(self)} ids"

    def contains(self, ids: NDArray[np.integer[Any]]) -> NDArray[np.bool_]:
        """Which of ``ids``, any shape, are in the set; the same shape."""
        if not len(self._ids):
            return np.zeros(np.shape(ids), bool)
        places = np.searchsorted(self._ids, ids)
        return np.asarray(self._ids[np.minimum(places, len(self._ids) - 1)] == ids)

    def cached(self, owner: Any, version: int, derive: Callable[["IdSet"], Any]) -> Any:
        """Return what ``derive`` makes of this set for ``owner``, made anew when the owner's version changes.

        The owner is held weakly: what was derived for it goes when it goes.
        """
        known = self._places.get(owner)
        if known is None or known[0] != version:
            known = self._places[owner] = (version, derive(self))
        return known[1]
