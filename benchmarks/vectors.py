"""Vectors for the index benchmarks: real embeddings of the default space, lifted to 512 numbers and grown to any count.

Photos of Flickr8k (the train split) and product photos are what is indexed. The queries come from Flickr8k's dev
split, whose photos are never indexed: its captions as they are (text against pictures is out of distribution, and no
index may be judged without it), and vectors grown from its photos.

The default space has 384 numbers a vector. A fixed random matrix with orthonormal columns lifts them to ``dim``, which
keeps every inner product. A set of n rows is grown from the N real ones along differences between real ones:
x' = unit(x_i + 0.35 (x_j - x_k) + noise), with i, j, k random rows of the same modality, and isotropic noise of length
0.1. So the grown set has the spread and the directions of the real one, yet no two rows are alike. Row r depends on
the seed, ``dim`` and r alone: the first 20,000 of a million are the set of 20,000.

The media are found through TRIVIUM_DATA (default ../shared/data), the results kept in TRIVIUM_BENCH_CACHE (default
~/.cache/trivium-bench): 2 GB for a million vectors. `python benchmarks/vectors.py 20000 100000` makes them beforehand.
"""

import csv
import os
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from stamps import ROOT

from trivium.encoders.base import Modality, Vectors, unit_rows
from trivium.encoders.machine import keep_freed_memory
from trivium.pipeline.space.joint import load_space

DATA = Path(os.environ.get("TRIVIUM_DATA", ROOT.parent / "shared" / "data"))
CACHE = Path(os.environ.get("TRIVIUM_BENCH_CACHE", Path.home() / ".cache" / "trivium-bench"))
SPREAD, NOISE = 0.35, 0.1
CHUNK = 16384  # rows grown at once; part of what a row is, so never change it without VERSION
VERSION = 1
LIFT_SEED, QUERY_SEED = 384, 1_000_003  # the queries' seed is none that a caller is likely to index with


def image_vectors(n: int, dim: int = 512, seed: int = 0) -> Vectors:
    """Return n vectors to index, shape (n, dim): a read-only memory map, made on the first call."""
    path = image_vectors_path(n, dim, seed)
    if not path.exists():
        real = lifted(np.concatenate([_photos("train"), _products()]), dim)
        partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
        made = np.lib.format.open_memmap(partial, mode="w+", dtype=np.float32, shape=(n, dim))
        for start in range(0, n, CHUNK):
            made[start : start + CHUNK] = _grown(real, start // CHUNK, seed)[: n - start]
        made.flush()
        del made
        os.replace(partial, path)
    vectors: Vectors = np.load(path, mmap_mode="r", allow_pickle=False)
    return vectors


def image_vectors_path(n: int, dim: int = 512, seed: int = 0) -> Path:
    """Return the file that `image_vectors` makes."""
    return CACHE / f"images-v{VERSION}-{n}x{dim}-s{seed}.npy"


def text_queries(n: int, dim: int = 512) -> Vectors:
    """Return the vectors of n real captions of the dev split (at most 5,000), shape (n, dim)."""
    captions = [row["caption"] for row in _flickr8k("dev")]
    if n > len(captions):
        raise ValueError(f"there are {len(captions):,} captions to ask with, not {n:,}")
    order = np.random.default_rng(QUERY_SEED).permutation(len(captions))[:n]
    return lifted(_encoded("text", "flickr8k-dev-captions", captions)[order], dim)


def image_queries(n: int, dim: int = 512) -> Vectors:
    """Return n vectors grown from the dev split's photos, shape (n, dim)."""
    real = lifted(_photos("dev"), dim)
    chunks = [_grown(real, chunk, QUERY_SEED) for chunk in range(-(-n // CHUNK))]
    return np.concatenate(chunks)[:n]


def lifted(vectors: Vectors, dim: int) -> Vectors:
    """Return the vectors in ``dim`` numbers, all inner products kept."""
    width = vectors.shape[1]
    if dim < width:
        raise ValueError(f"the space has {width} numbers a vector, {dim} are too few to lift it to")
    if dim == width:
        return vectors
    basis, _ = np.linalg.qr(np.random.default_rng(LIFT_SEED).standard_normal((dim, width)))
    return unit_rows(vectors @ basis.T.astype(np.float32))


def _grown(real: Vectors, chunk: int, seed: int) -> Vectors:
    """Return one chunk of the endless set grown from ``real``."""
    random = np.random.default_rng([seed, chunk])
    first, second, third = random.integers(len(real), size=(3, CHUNK))
    noise = random.standard_normal((CHUNK, real.shape[1]), dtype=np.float32) * np.float32(NOISE / real.shape[1] ** 0.5)
    return unit_rows(real[first] + np.float32(SPREAD) * (real[second] - real[third]) + noise)


def _photos(split: str) -> Vectors:
    paths = dict.fromkeys(DATA / "flickr8k" / row["path"] for row in _flickr8k(split))
    return _encoded("image", f"flickr8k-{split}-photos", list(paths))


def _products() -> Vectors:
    return _encoded(
        "image", "fashion-photos", [DATA / "fashion" / row["path"] for row in _rows("fashion/products.csv")]
    )


def _flickr8k(split: str) -> list[dict[str, str]]:
    return [row for row in _rows("flickr8k/captions.csv") if row["split"] == split]


def _rows(name: str) -> list[dict[str, str]]:
    if not DATA.is_dir():
        raise SystemExit(f"{DATA} is missing: set TRIVIUM_DATA to the folder with flickr8k and fashion")
    with (DATA / name).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _encoded(modality: Modality, name: str, items: list[Any]) -> Vectors:
    """Return the default space's vectors of the items, encoded once."""
    path = CACHE / f"{name}-{len(items)}.npy"
    if not path.exists():
        print(f"encoding {len(items):,} of {name} (once)", file=sys.stderr, flush=True)
        keep_freed_memory()
        vectors = load_space().encode(modality, items, batch_size=128 if modality == "text" else 32)
        CACHE.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
        with partial.open("wb") as file:
            np.save(file, vectors, allow_pickle=False)
        os.replace(partial, path)
    kept: Vectors = np.load(path, allow_pickle=False)
    return kept


def exact(vectors: Vectors, queries: Vectors, k: int, keep: NDArray[np.bool_] | None = None) -> NDArray[np.int64]:
    """Return the true k nearest rows of each query, best first, shape (q, k); only those in ``keep`` (n,) if given."""
    best = np.full((len(queries), 0), -np.inf, np.float32)
    rows = np.zeros((len(queries), 0), np.int64)
    for start in range(0, len(vectors), 65536):
        scores = queries @ vectors[start : start + 65536].T
        if keep is not None:
            scores[:, ~keep[start : start + 65536]] = -np.inf
        taken = np.argpartition(-scores, min(k, scores.shape[1]) - 1, axis=1)[:, :k]
        best = np.concatenate([best, np.take_along_axis(scores, taken, axis=1)], axis=1)
        rows = np.concatenate([rows, taken + start], axis=1)
    order = np.argsort(-best, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(rows, order, axis=1)


def recall(found: NDArray[np.int64], truth: NDArray[np.int64]) -> float:
    """Return the share of the true neighbours (q, k) that were found (q, k)."""
    return float(np.mean([len(np.intersect1d(a, b)) for a, b in zip(found, truth, strict=True)]) / truth.shape[1])


def main(counts: Iterable[int]) -> None:
    for count in counts:
        _tell(f"{count:,} pictures", image_vectors, count)
    _tell("captions to ask with", text_queries, 5000)
    _tell("pictures to ask with", image_queries, 1000)


def _tell(what: str, make: Callable[[int], Vectors], count: int) -> None:
    started = time.perf_counter()
    print(f"{what}: {make(count).shape}, {time.perf_counter() - started:.0f} s", flush=True)


if __name__ == "__main__":
    main(int(argument) for argument in sys.argv[1:] or ("20000", "100000"))
