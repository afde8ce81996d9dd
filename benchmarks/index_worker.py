"""One engine in a process of its own, told what to do line by line; `index_process.Worker` is the other end.

It runs with the project's Python or with that of the peers, who want NumPy 1: so it imports Trivium only for its own
engine. Requests and answers are JSON, one a line.
"""

import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

K = 10
THREADS = os.cpu_count() or 1
CHUNK = 50_000

Found = NDArray[np.int64]  # (q, K)
Queries = NDArray[np.float32]  # (q, d)


class Engine(Protocol):
    """An index that is built from a file of vectors, opened, and asked."""

    def build(self, vectors: Path, file: Path, queries: dict[str, Queries], /) -> str:
        """Build and save; return one line about what it is."""
        ...

    def open(self, file: Path, dim: int, /) -> None:
        """Open what was saved."""
        ...

    def set_effort(self, effort: int) -> None:
        """Trade time for recall."""
        ...

    def search(self, queries: Queries) -> Found:
        """Return the nearest rows."""
        ...


class Trivium:
    """What `auto` makes, tuned with queries of each modality; opened as a collection opens it."""

    latency_ms: float | None = None

    def __init__(self) -> None:
        import trivium.indexes

        self._trivium = trivium.indexes

    def build(self, vectors: Path, file: Path, queries: dict[str, Queries]) -> str:
        rows = np.load(vectors, mmap_mode="r")
        source = self._trivium.ArraySource(np.arange(len(rows)), rows)
        wish = self._trivium.Wish(latency_ms=self.latency_ms)
        built = self._trivium.build_index(source, wish=wish, queries=queries)
        with file.open("wb") as out:
            built.index.write(out.write)
        told = {"kind": built.index.kind, "effort": built.index.effort}
        file.with_suffix(".json").write_text(json.dumps(told))
        return f"{built.index.kind}, effort {built.index.effort}"

    def open(self, file: Path, dim: int) -> None:
        self._index = self._trivium.FaissIndex.read(file, dim=dim, **json.loads(file.with_suffix(".json").read_text()))

    def set_effort(self, effort: int) -> None:
        self._index.effort = effort

    def search(self, queries: Queries) -> Found:
        return self._index.search(queries, k=K).ids


class QuickTrivium(Trivium):
    """What `auto` makes of a wish for 0.3 ms a query."""

    latency_ms = 0.3


class Autofaiss:
    """What it chooses by itself on this machine; it tunes for 10 ms a query."""

    def __init__(self) -> None:
        import autofaiss
        import faiss

        self._autofaiss, self._faiss = autofaiss, faiss

    def build(self, vectors: Path, file: Path, _queries: dict[str, Queries]) -> str:
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, "0.npy").symlink_to(vectors)
            _, infos = self._autofaiss.build_index(
                embeddings=folder,
                index_path=str(file),
                index_infos_path=str(file.with_suffix(".json")),
                metric_type="ip",
                max_index_memory_usage="16GB",
                current_memory_available="20GB",
                nb_cores=THREADS,
                verbose=40,
            )
        return f"{infos['index_key']}, {infos['index_param']}"

    def open(self, file: Path, _dim: int) -> None:
        self._index = self._faiss.read_index(str(file))
        # What autofaiss found is not in the file.
        tuned = json.loads(file.with_suffix(".json").read_text())["index_param"]
        self._faiss.ParameterSpace().set_index_parameters(self._index, tuned)

    def set_effort(self, effort: int) -> None:
        raise NotImplementedError("autofaiss tunes by itself")

    def search(self, queries: Queries) -> Found:
        found: Found = self._index.search(queries, K)[1]
        return found


class Hnswlib:
    """With the parameters of its README."""

    def __init__(self) -> None:
        import hnswlib

        self._hnswlib = hnswlib

    def build(self, vectors: Path, file: Path, _queries: dict[str, Queries]) -> str:
        rows = np.load(vectors, mmap_mode="r")
        index = self._hnswlib.Index(space="ip", dim=rows.shape[1])
        index.init_index(max_elements=len(rows), M=16, ef_construction=200, random_seed=1)
        index.set_num_threads(THREADS)
        for start in range(0, len(rows), CHUNK):
            part = rows[start : start + CHUNK]
            index.add_items(part, np.arange(start, start + len(part)))
        index.save_index(str(file))
        return "M 16, ef_construction 200"

    def open(self, file: Path, dim: int) -> None:
        self._index = self._hnswlib.Index(space="ip", dim=dim)
        self._index.load_index(str(file))
        self._index.set_num_threads(1)

    def set_effort(self, effort: int) -> None:
        self._index.set_ef(effort)

    def search(self, queries: Queries) -> Found:
        return np.asarray(self._index.knn_query(queries, k=K)[0], np.int64)


class Usearch:
    """With its defaults, the number type included."""

    def __init__(self) -> None:
        import usearch.index

        self._usearch = usearch.index

    def build(self, vectors: Path, file: Path, _queries: dict[str, Queries]) -> str:
        rows = np.load(vectors, mmap_mode="r")
        index = self._usearch.Index(ndim=rows.shape[1], metric="ip")
        for start in range(0, len(rows), CHUNK):
            part = np.ascontiguousarray(rows[start : start + CHUNK])
            index.add(np.arange(start, start + len(part)), part, threads=THREADS)
        index.save(str(file))
        return f"{index.dtype.name}, connectivity {index.connectivity}"

    def open(self, file: Path, _dim: int) -> None:
        self._index = self._usearch.Index.restore(str(file))

    def set_effort(self, effort: int) -> None:
        self._index.expansion_search = effort

    def search(self, queries: Queries) -> Found:
        found = self._index.search(queries, K, threads=1)
        return np.asarray(found.keys, np.int64).reshape(len(queries), -1)


ENGINES: dict[str, Callable[[], Engine]] = {
    "trivium": Trivium,
    "trivium-quick": QuickTrivium,
    "autofaiss": Autofaiss,
    "hnswlib": Hnswlib,
    "usearch": Usearch,
}


class Watch:
    """Wall and CPU seconds of a stretch of work, and the most memory of its own that the process held meanwhile."""

    def __enter__(self) -> "Watch":
        self._done = threading.Event()
        self.peak_mib = self.before_mib = memory_mib("RssAnon")
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()
        self._wall, self._cpu = time.perf_counter(), cpu_seconds()
        return self

    def __exit__(self, *_: object) -> None:
        self.wall, self.cpu = time.perf_counter() - self._wall, cpu_seconds() - self._cpu
        self._done.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._done.wait(0.02):
            self.peak_mib = max(self.peak_mib, memory_mib("RssAnon"))

    def told(self) -> dict[str, float]:
        return {"wall": self.wall, "cpu": self.cpu, "peak_mib": self.peak_mib - self.before_mib}


def cpu_seconds() -> float:
    """Of this process and of the children that have ended."""
    return sum(os.times()[:4])


def memory_mib(*names: str) -> float:
    """Memory as Linux counts it: RssAnon is this process's own, RssFile is of mapped files."""
    wanted = names or ("RssAnon", "RssFile")
    lines = Path("/proc/self/status").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.split(":")[0] in wanted) / 1024


def build(engine: Engine, *, vectors: str, file: str, queries: dict[str, str]) -> dict[str, Any]:
    with Watch() as watch:
        said = engine.build(Path(vectors), Path(file), {name: np.load(path) for name, path in queries.items()})
    return {"said": said, "size": Path(file).stat().st_size, **watch.told()}


def open_(engine: Engine, *, file: str, dim: int) -> dict[str, Any]:
    with Watch() as watch:
        engine.open(Path(file), dim)
    return watch.told()


def search(engine: Engine, *, queries: str, effort: int | None = None) -> dict[str, Any]:
    if effort is not None:
        engine.set_effort(effort)
    return {"found": engine.search(np.load(queries)).tolist()}


def ask(engine: Engine, *, queries: str, first: int, count: int) -> dict[str, Any]:
    """Search one query at a time."""
    some = np.load(queries)
    some = some[np.arange(first, first + count) % len(some)]
    engine.search(some[:1])
    seconds = []
    cpu = time.process_time()  # finer than `cpu_seconds`
    for number in range(len(some)):
        started = time.perf_counter()
        engine.search(some[number : number + 1])
        seconds.append(time.perf_counter() - started)
    return {"ms": [1e3 * one for one in seconds], "cpu_ms": 1e3 * (time.process_time() - cpu) / len(some)}


def memory(_engine: Engine) -> dict[str, Any]:
    return {"mib": memory_mib()}


REQUESTS: dict[str, Callable[..., dict[str, Any]]] = {
    "build": build,
    "open": open_,
    "search": search,
    "ask": ask,
    "memory": memory,
}


def main() -> None:
    name = sys.argv[1]
    engine = ENGINES[name]()
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what the engines print goes elsewhere
    installed = "" if name.startswith("trivium") else f" {version(name)}"
    print(json.dumps({"engine": name + installed}), file=answers, flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        answer = REQUESTS[request.pop("do")](engine, **request)
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
