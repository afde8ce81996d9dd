"""Vectors like those of two modalities, and FAISS on one thread: tests run beside each other."""

from collections.abc import Iterator
from dataclasses import dataclass

import faiss
import numpy as np
import pytest
from numpy.typing import NDArray

from trivium.encoders.base import unit_rows
from trivium.indexes import ArraySource


@dataclass(frozen=True)
class Data:
    """Clustered unit vectors under ids with gaps, and queries: near the vectors, and off to one side of them."""

    ids: NDArray[np.int64]
    vectors: NDArray[np.float32]
    near: NDArray[np.float32]
    aside: NDArray[np.float32]

    @property
    def source(self) -> ArraySource:
        return ArraySource(self.ids, self.vectors)

    def nearest(self, queries: NDArray[np.float32], k: int) -> NDArray[np.int64]:
        """The truth by NumPy, shape (q, k)."""
        return self.ids[np.argsort(-(queries @ self.vectors.T), axis=1, kind="stable")[:, :k]]


def made(count: int, dim: int, *, queries: int = 40, seed: int = 0) -> Data:
    random = np.random.default_rng(seed)
    centres = random.standard_normal((max(4, count // 100), dim))
    offset = random.standard_normal(dim)

    def some(n: int, spread: float) -> NDArray[np.float64]:
        points = centres[random.integers(len(centres), size=n)] + spread * random.standard_normal((n, dim))
        return np.asarray(points, np.float64)

    return Data(
        ids=np.cumsum(random.integers(1, 5, size=count)).astype(np.int64),
        vectors=unit_rows(some(count, 0.7)),
        near=unit_rows(some(queries, 0.7)),
        aside=unit_rows(some(queries, 0.7) + offset),
    )


@pytest.fixture(scope="session")
def data() -> Data:
    return made(3000, 32)


@pytest.fixture(scope="session")
def small() -> Data:
    return made(300, 16)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    yield
    assert faiss.omp_get_max_threads() == 1, "a call left another number of threads behind"
    assert faiss.cvar.distance_compute_blas_threshold == 128_000, "a call left another threshold behind"
    faiss.omp_set_num_threads(before)
