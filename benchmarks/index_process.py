"""Engines in processes of their own, the vectors they share, and what is true of them."""

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from vectors import CACHE, exact, image_queries, image_vectors, image_vectors_path, recall, text_queries

DIM = 512
K = 10
ASKED = 500  # queries of each modality that recall and times are of
TUNING = 200  # others, for an engine's own tuning: as many as a collection takes
PEERS = os.environ.get("TRIVIUM_PEERS")
WORKER = Path(__file__).with_name("index_worker.py")
LOG = CACHE / "index-workers.log"


@dataclass(frozen=True, slots=True)
class Data:
    """Vectors, and queries of two modalities with their true neighbours, as files that every process can map."""

    count: int
    vectors: Path
    queries: dict[str, Path]  # to ask, (ASKED, d) each
    others: dict[str, Path]  # for an engine's own tuning, (TUNING, d) each
    truth: dict[str, NDArray[np.int64]]  # (ASKED, K)

    @classmethod
    def of(cls, count: int) -> "Data":
        rows = image_vectors(count, DIM)
        queries, others, truth = {}, {}, {}
        for name, made in (("text", text_queries), ("image", image_queries)):
            drawn = made(ASKED + TUNING, DIM)
            queries[name] = _kept(f"queries-{name}", partial(np.array, drawn[:ASKED]))
            others[name] = _kept(f"tuning-{name}", partial(np.array, drawn[ASKED:]))
            true = _kept(f"truth-{name}-{count}", partial(exact, rows, drawn[:ASKED], K))
            truth[name] = np.load(true, allow_pickle=False)
        mixed = np.stack([np.load(path) for path in queries.values()], axis=1).reshape(-1, DIM)  # in turn
        queries["mixed"] = _kept("queries-mixed", partial(np.array, mixed))
        return cls(count, image_vectors_path(count, DIM), queries, others, truth)


def _kept(name: str, make: Callable[[], NDArray[Any]]) -> Path:
    path = CACHE / f"index-{name}x{DIM}.npy"
    if not path.exists():
        np.save(path, make(), allow_pickle=False)
    return path


class Worker:
    """The caller's end of `index_worker.py`."""

    def __init__(self, engine: str) -> None:
        python = sys.executable if engine.startswith("trivium") else PEERS
        assert python is not None, "TRIVIUM_PEERS is not set"
        with LOG.open("a") as log:
            self._process = subprocess.Popen(
                [python, str(WORKER), engine], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True
            )
        self.name = str(self._answer()["engine"])

    def do(self, request: str, /, **arguments: Any) -> dict[str, Any]:
        assert self._process.stdin is not None
        print(json.dumps({"do": request, **arguments}, default=str), file=self._process.stdin, flush=True)
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"a worker ended with {self._process.wait()}: see {LOG}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def recall(self, data: Data, *, effort: int | None = None) -> dict[str, float]:
        """Return the recall@10 of each modality."""
        return {
            name: recall(np.array(self.do("search", queries=data.queries[name], effort=effort)["found"]), truth)
            for name, truth in data.truth.items()
        }

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def spread(values: Sequence[float], form: str = ".2f") -> str:
    """Median and range, for people."""
    if len(values) == 1:
        return f"{values[0]:{form}}"
    return f"{statistics.median(values):{form}} ({min(values):{form}} to {max(values):{form}})"


def told(recall_by_modality: dict[str, float]) -> str:
    return ", ".join(f"{name} {found:.3f}" for name, found in recall_by_modality.items())
