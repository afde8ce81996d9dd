"""One real collection of made-up items with real vectors: filled, indexed, opened, searched, added to.

`python benchmarks/index_store.py COUNT` does it in a process of its own and prints JSON; `index.py` makes tables of it.
Collections are kept in the cache folder of `vectors.py`; each index is built anew.
"""

import hashlib
import json
import os
import shutil
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from index_process import DIM, Data, K
from index_worker import Watch, cpu_seconds
from vectors import CACHE, image_vectors, recall

from trivium.encoders.base import Space, Vectors
from trivium.indexes import FaissIndex
from trivium.pipeline.records import ContentKey, NewItem
from trivium.pipeline.search.indexing import Indexer
from trivium.pipeline.search.retrieval import Retrieval
from trivium.pipeline.search.vectors import VectorSearch, usable_index
from trivium.pipeline.store.store import INDEX, Store
from trivium.pipeline.store.writer import Writer, writing

FOLDER = CACHE / "stores"
SPACE = Space(name="benchmark", dim=DIM, revision="1")
BATCH = 4096  # items in a commit
OPENINGS = 20
QUERIES = 400  # timed one by one, of both modalities in turn
BLOCK = 50  # of these queries are asked of one layer before the next layer is asked
ADDED_SHARE = 0.01


def main(count: int) -> None:
    data = Data.of(count)
    folder = FOLDER / f"{count}x{DIM}"
    told: dict[str, Any] = {"count": count, "fill": _filled(folder, count)}
    store = Store(folder)
    with writing(store) as writer, Watch() as watch:
        texts = np.load(data.others["text"])
        Indexer(writer, examples=lambda: {"text": texts}).rebuild()
    told["build"] = watch.told()
    file = store.index_files()["image"]
    told |= {"kind": file.kind, "effort": file.effort, "bytes": file.size / count, "report": file.report}
    openings = [_seconds(lambda: usable_index(store, file)) for _ in range(OPENINGS)]
    told["open_ms"] = statistics.median(openings) * 1e3
    index = usable_index(store, file)
    assert index is not None
    told["recall"], told["query"] = {}, {}
    for modality, truth in data.truth.items():
        queries = np.load(data.queries[modality])
        told["recall"][modality] = recall(index.search(queries, k=K).ids - 1, truth)  # content ids begin at 1
        told["query"][modality] = _quantiles([_seconds(partial(index.search, q, k=K)) for q in _singly(queries)])
    told["layers"] = _layers(store, index, np.load(data.queries["mixed"]))
    told["add"] = _added(folder, count)
    print(json.dumps(told))


def _filled(folder: Path, count: int) -> dict[str, float]:
    record = folder.with_suffix(".fill.json")
    if not record.exists():
        shutil.rmtree(folder, ignore_errors=True)
        FOLDER.mkdir(parents=True, exist_ok=True)
        rows = image_vectors(count, DIM)
        store = Store.create(folder, SPACE, source="benchmark")
        with writing(store) as writer, Watch() as watch:
            for start in range(0, count, BATCH):
                _commit(writer, np.asarray(rows[start : start + BATCH]), first=start)
        store.close()
        record.write_text(json.dumps(watch.told()))
    known: dict[str, float] = json.loads(record.read_text())
    return known


def _commit(writer: Writer, vectors: Vectors, *, first: int) -> None:
    numbers = range(first, first + len(vectors))
    keys = [ContentKey("image", hashlib.sha256(b"%d" % number).digest()) for number in numbers]
    items = [
        NewItem(
            path=f"{number // 1000:05d}/{number:08d}.jpg",
            modality="image",
            fingerprint="1",
            contents={"content": key},
            caption=f"photo {number}",
        )
        for number, key in zip(numbers, keys, strict=True)
    ]
    writer.commit(items, keys, vectors)


def _layers(store: Store, index: FaissIndex, queries: Vectors) -> dict[str, Any]:
    """Time each layer, block of queries by block: medians in ms, and the share above the bare FAISS call.

    In blocks, because the second layer to ask the same query would find everything in the processor's caches.
    """
    vectors, retrieval = VectorSearch(store), Retrieval(store)
    retrieval.search(queries[:1], k=K)
    vectors.refresh(store.generation)
    contents = [hits.tolist() for hits in index.search(queries, k=K).ids]
    bare = _bare(index)
    layers: dict[str, Callable[[int, Vectors], object]] = {
        "bare FAISS call": lambda _, query: bare(query),
        "FaissIndex.search": lambda _, query: index.search(query, k=K),
        "VectorSearch.search": lambda _, query: vectors.search(query, k=K),
        "Retrieval.search": lambda _, query: retrieval.search(query, k=K),
        "transaction and generation": lambda _, _query: _transaction(store),
        "items of 10 contents, by SQL": lambda number, _: store.matches(contents[number]),
    }
    blocks: dict[str, list[float]] = {name: [] for name in layers}
    some = _singly(queries)
    for start in [*range(0, len(some), BLOCK)] * 3:
        for name, call in layers.items():
            numbers = range(start, min(start + BLOCK, len(some)))
            blocks[name].append(statistics.median(_seconds(partial(call, n, some[n])) for n in numbers))
    first = blocks["bare FAISS call"]
    return {
        name: {
            "ms": statistics.median(block) * 1e3,
            "shares": [one / base for one, base in zip(block, first, strict=True)],
        }
        for name, block in blocks.items()
    }


def _bare(index: FaissIndex) -> Callable[[Vectors], object]:
    """Return FAISS's own search with the parameters that the index uses."""
    inner, parameters = index._anatomy.inner, index._anatomy.parameters(index.effort, candidates=index._candidates(K))
    return lambda query: inner.search(query, K, params=parameters)


def _transaction(store: Store) -> None:
    with store.reading():
        _ = store.generation


def _added(folder: Path, count: int) -> dict[str, float]:
    """Commit 1 % more to a copy, and search: what is new is found from then on."""
    more = max(1, round(ADDED_SHARE * count))
    rows = np.asarray(image_vectors(20_000, DIM, seed=1)[:more])
    copy = folder.with_suffix(".copy")
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(folder, copy, copy_function=_linked)
    store = Store(copy)
    retrieval = Retrieval(store)
    retrieval.search(rows[:1], k=K)
    wall, cpu = time.perf_counter(), cpu_seconds()
    with writing(store) as writer:
        for start in range(0, more, BATCH):
            _commit(writer, rows[start : start + BATCH], first=count + start)
        indexer = Indexer(writer)
        indexer.start()
        indexer.finish()
    found = retrieval.search(rows[-1:], k=1)[0][0].path
    told = {"wall": time.perf_counter() - wall, "cpu": cpu_seconds() - cpu}
    assert found == f"{(count + more - 1) // 1000:05d}/{count + more - 1:08d}.jpg", found
    store.close()
    shutil.rmtree(copy)
    return told


def _linked(source: str, target: str) -> None:
    """Vectors and index files are written once: a link will do. The database is copied."""
    if Path(source).parent.name in ("vectors", INDEX):
        os.link(source, target)
    else:
        shutil.copy2(source, target)


def _singly(queries: Vectors) -> list[Vectors]:
    return [queries[number : number + 1] for number in range(min(QUERIES, len(queries)))]


def _seconds(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def _quantiles(seconds: Sequence[float]) -> dict[str, float]:
    return {"p50": float(np.quantile(seconds, 0.5)) * 1e3, "p99": float(np.quantile(seconds, 0.99)) * 1e3}


if __name__ == "__main__":
    main(int(sys.argv[1]))
