"""Lists of hits put in order and put together."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from trivium.indexes.base import Hits


def best_first(
    ids: NDArray[np.int64], scores: NDArray[np.float32], *, k: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return the ``k`` best of each row, shape (q, at most k), by falling score, ties by rising id."""
    order = np.lexsort((ids, -scores), axis=-1)[:, :k]
    return np.take_along_axis(ids, order, axis=1), np.take_along_axis(scores, order, axis=1)


def merge_hits(parts: Sequence[Hits], *, k: int) -> Hits:
    """Merge what several indexes found for the same queries: the k best, each id once, with its best score.

    Args:
        parts: At least one; all for the same q queries, in the same order.
        k: Hits wanted per query, at least 1.

    Returns:
        Hits of shape (q, at most k), best first, ties by rising id.

    Raises:
        ValueError: If there are no parts, ``k`` is below 1, or the parts have different numbers of queries.
    """
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    sizes = {len(part.counts) for part in parts}
    if len(sizes) != 1:
        raise ValueError(f"parts must be at least one and of the same queries, got {len(parts)} of {sorted(sizes)}")
    ids = np.concatenate([part.ids for part in parts], axis=1)  # (q, sum of widths)
    scores = np.concatenate([part.scores for part in parts], axis=1)
    if len(parts) > 1 and ids.shape[1] > 1:
        # Equal ids side by side, the best score first: the others become padding.
        order = np.lexsort((-scores, ids), axis=-1)
        ids, scores = np.take_along_axis(ids, order, axis=1), np.take_along_axis(scores, order, axis=1)
        again = np.zeros(ids.shape, bool)
        again[:, 1:] = ids[:, 1:] == ids[:, :-1]
        ids[again], scores[again] = -1, -np.inf
    ids, scores = best_first(ids, scores, k=k)
    counts = (ids >= 0).sum(axis=1)
    width = int(counts.max(initial=0))
    return Hits(ids[:, :width], scores[:, :width], counts)
