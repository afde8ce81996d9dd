"""Every vector compared with every query, as fast as FAISS's parts allow.

Measured with FAISS 1.15.1, d = 512, 2 cores (milliseconds; "FAISS" is `IndexFlatIP.search` with its defaults):

| vectors | queries | FAISS | here |
|---|---|---|---|
| 10,000 | 1 | 1.2 | 0.5 |
| 20,000 | 1 | 4.7 | 1.4 |
| 100,000 | 1 | 18 | 6.6 |
| 100,000 | 8 | 45 | 23 |
| 100,000 | 64 | 362 | 50 to 84 |

FAISS gives one query to several threads as matrix products with a single column, which are slow; and compares small
batches query by query. Here each thread takes a segment of the vectors, with products from 5 queries on.
"""

from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trivium.encoders.base import Vectors
from trivium.indexes.parallel import faiss_threads, products_for_batches, run_all, threads_allowed
from trivium.indexes.ranking import best_first
from trivium.indexes.untyped import faiss

# Numbers compared (n d, times q / 8 for batches) that pay for handing half to another thread, about 0.2 ms.
_SEGMENT_NUMBERS = 4_000_000

Found = tuple[NDArray[np.float32], NDArray[np.int64]]  # scores and positions, both (q, k)


def flat_search(flat: Any, queries: Vectors, *, k: int, positions: NDArray[np.int64] | None = None) -> Found:
    """Compare ``queries`` with all of ``flat``, or with its vectors at ``positions``.

    Args:
        flat: A `faiss.IndexFlat`.
        queries: Shape (q, d), q at least 1.
        k: From 1 to the number of vectors compared.
        positions: Unique, shape (m,), m at least 1.

    Returns:
        Scores and positions, shape (q, k), best first; of equal scores at the end of a row, any.
    """
    count = flat.ntotal if positions is None else len(positions)
    work = count * flat.d * max(1.0, len(queries) / 8)
    parts = min(threads_allowed(), int(work / _SEGMENT_NUMBERS) + 1, max(1, count // k))
    bounds = [count * part // parts for part in range(parts + 1)]
    if parts == 1:
        with products_for_batches(len(queries)), faiss_threads(1):
            return _segment(flat, queries, k, positions, 0, count)
    with products_for_batches(len(queries)):
        found = run_all(
            [partial(_segment, flat, queries, k, positions, start, stop) for start, stop in pairwise(bounds)]
        )
    scores, places = (np.concatenate(arrays, axis=1) for arrays in zip(*found, strict=True))
    places, scores = best_first(places, scores, k=k)
    return scores, places


def _segment(flat: Any, queries: Vectors, k: int, positions: NDArray[np.int64] | None, start: int, stop: int) -> Found:
    """Compare with the vectors from ``start`` to ``stop``, or with those at such a stretch of ``positions``."""
    if positions is not None:
        chosen = np.ascontiguousarray(positions[start:stop])
        selector = faiss.IDSelectorArray(len(chosen), faiss.swig_ptr(chosen))
    elif stop - start < flat.ntotal:
        selector = faiss.IDSelectorRange(start, stop)  # FAISS compares with just that stretch of memory
    else:
        everything: Found = flat.search(queries, k)
        return everything
    found: Found = flat.search(queries, k, params=faiss.SearchParameters(sel=selector))
    return found
