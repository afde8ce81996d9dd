"""Codes of 64 bits, and which of them are near: compared by FAISS, 64 bits a step, without a loop here."""

import faiss
import numpy as np
from numpy.typing import NDArray

CHUNK_CODES = 4096  # compared with all others at a time


def near_codes(
    codes: NDArray[np.int64], *, most_bits: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return which codes differ in at most so many bits: for each, those that are near it, itself too.

    Args:
        codes: Shape (n,), all different: of equal ones each would be near each.
        most_bits: 0 to 63.

    Returns:
        Shape (n + 1,): the near ones of code i are at ``starts[i] : starts[i + 1]`` of the other two; their places in
        ``codes``, and by how many bits they differ.
    """
    table = np.ascontiguousarray(codes, np.int64).view(np.uint8).reshape(-1, 8)
    index = faiss.IndexBinaryFlat(64)
    index.add(table)
    counts, places, bits = [np.zeros(1, np.int64)], [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for start in range(0, len(table), CHUNK_CODES):
        limits, distances, found = index.range_search(table[start : start + CHUNK_CODES], most_bits + 1)
        counts.append(np.diff(limits).astype(np.int64))
        places.append(found.astype(np.int64))
        bits.append(distances.astype(np.int64))
    return np.cumsum(np.concatenate(counts)), np.concatenate(places), np.concatenate(bits)
