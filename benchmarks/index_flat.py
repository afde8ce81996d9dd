"""64 queries compared with every vector: Trivium's flat index and FAISS's own, in turn."""

import statistics
import time
from collections.abc import Callable

import faiss
import numpy as np
from index_process import DIM, K, spread
from index_worker import cpu_seconds
from vectors import image_queries, image_vectors, text_queries

from trivium.indexes import ArraySource, FaissIndex

BATCH = 64
ROUNDS = 9


def compare(count: int) -> None:
    rows = np.array(image_vectors(100_000, DIM)[:count])
    queries = np.concatenate([text_queries(BATCH // 2, DIM), image_queries(BATCH // 2, DIM)])
    ours = FaissIndex.build("flat", ArraySource(np.arange(count), rows))
    theirs = faiss.IndexFlatIP(DIM)
    theirs.add(rows)
    own, other = [], []
    for _ in range(ROUNDS):
        own.append(_cost(lambda: ours.search(queries, k=K)))
        other.append(_cost(lambda: theirs.search(queries, K)))
    same = float(np.mean(ours.search(queries, k=K).ids == theirs.search(queries, K)[1]))
    walls = [b[0] / a[0] for a, b in zip(own, other, strict=True)]
    cpus = [b[1] / a[1] for a, b in zip(own, other, strict=True)]
    print(
        f"{BATCH} queries on {count:,} x {DIM}, exact: {statistics.median(a[0] for a in own) * 1e3:.1f} ms against "
        f"{statistics.median(b[0] for b in other) * 1e3:.1f} ms of FAISS; ratio {spread(walls)}, of CPU seconds "
        f"{spread(cpus)}; the same hits at {same:.2%} of the places"
    )


def _cost(call: Callable[[], object]) -> tuple[float, float]:
    wall, cpu = time.perf_counter(), cpu_seconds()
    call()
    return time.perf_counter() - wall, max(cpu_seconds() - cpu, 1e-3)
