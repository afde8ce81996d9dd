"""Filling a FAISS index from a source: trained on a bounded sample, added chunk by chunk."""

from collections.abc import Callable
from typing import Any

import numpy as np

from trivium.encoders.base import Vectors
from trivium.indexes.anatomy import Anatomy, faiss
from trivium.indexes.base import VectorSource, checked_vectors
from trivium.indexes.kinds import Kind, lists
from trivium.indexes.scan import faiss_threads, threads_allowed

_SAMPLE_BYTES = 512 * 2**20  # k-means may copy its sample once: 1 GiB at most
_SAMPLE_PER_LIST = 48  # vectors per list; FAISS uses up to 256 and asks for 39
_SAMPLE_AT_LEAST = 20_000  # for the ranges of 8-bit codes
_ROUNDS = 10  # of k-means over lists, FAISS's own number for them
_ONE_THREAD_BELOW = 10**9  # multiplications of one round: less is soonest done by one thread, see scan.py
_SUPER_KMEANS_FROM = 64  # numbers a vector; FAISS refuses fewer than 32
_CODE_CENTRES = 16  # 4-bit codes cannot be trained on fewer vectors


def filled(
    kind: Kind,
    source: VectorSource,
    *,
    seed: int,
    progress: Callable[[int, int], None] | None,
    threads: int | None,
) -> Any:
    """Return an `faiss.IndexIDMap` over a new index of ``kind`` with all of ``source``; see `FaissIndex.build`."""
    count, dim = source.count, source.dim
    inner = faiss.index_factory(dim, kind.factory(count, dim), faiss.METRIC_INNER_PRODUCT)
    _settle(inner, seed)
    with faiss_threads(threads or threads_allowed()):
        if not inner.is_trained:
            if not count:
                raise ValueError(f"an index of kind '{kind.name}' must be trained: it needs 1 vector or more, got 0")
            _train(inner, _sample(source, seed))
        whole = faiss.IndexIDMap(inner)
        _reserve(inner, count)
        if progress:
            progress(0, count)
        last = -1
        for ids, stored in source.chunks():
            vectors = checked_vectors(stored, dim=dim, name="vectors")
            if len(ids) != len(vectors) or not len(ids) or ids[0] <= last or not (ids[1:] > ids[:-1]).all():
                raise ValueError(f"the source must give rising ids, one for each vector; it does not after {last}")
            last = int(ids[-1])
            whole.add_with_ids(vectors, ids)
            if progress:
                progress(whole.ntotal, count)
    if whole.ntotal != count:
        raise ValueError(f"the source announced {count} vectors and gave {whole.ntotal}")
    return whole


def _settle(inner: Any, seed: int) -> None:
    """Set how lists and codes are trained."""
    first = Anatomy.of(inner).lists
    if first is None:
        return
    first.cp.niter = _ROUNDS
    first.cp.use_super_kmeans = first.d >= _SUPER_KMEANS_FROM  # centres as good, in 40 to 60 % of the time
    trained = [first.cp, first.pq.cp] if isinstance(first, faiss.IndexIVFPQFastScan) else [first.cp]
    for clustering in trained:
        clustering.seed = seed % 2**31
        clustering.min_points_per_centroid = 1  # else FAISS prints a warning on small collections


def _train(inner: Any, sample: Vectors) -> None:
    """Train the lists' centres on all threads if that pays, and then what codes need, on one.

    A product quantizer is hundreds of tiny k-means with a barrier after every round of each: 1.6 s of one thread, and
    33 CPU-seconds of two on a busy machine (256 parts of 512 numbers).
    """
    first = Anatomy.of(inner).lists
    if first is not None and len(sample) * first.nlist * first.d >= _ONE_THREAD_BELOW:
        first.train_q1(len(sample), faiss.swig_ptr(sample), False, first.metric_type)  # `train` goes on from there
    with faiss_threads(1):
        inner.train(sample)


def _sample(source: VectorSource, seed: int) -> Vectors:
    rows = max(_SAMPLE_PER_LIST * lists(source.count), _SAMPLE_AT_LEAST)
    rows = max(1, min(rows, source.count, _SAMPLE_BYTES // (4 * source.dim)))
    sample = checked_vectors(source.sample(rows, seed), dim=source.dim, name="sample")
    return sample if len(sample) >= _CODE_CENTRES else np.resize(sample, (_CODE_CENTRES, source.dim))  # over again


def _reserve(inner: Any, count: int) -> None:
    """Make room for all codes at once: grown bit by bit, they would be in memory twice at each step."""
    codes = Anatomy.of(inner).codes
    if isinstance(codes, faiss.IndexFlatCodes):
        codes.codes.resize(count * codes.code_size)
        codes.codes.resize(0)
