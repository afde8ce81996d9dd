"""Contenders in processes of their own: what a run costs, whoever makes it."""

import contextlib
import json
import os
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import numpy as np
from encoding_media import FOLDER
from numpy.typing import NDArray

Vectors = NDArray[np.float32]  # (n, d), rows of length 1, in the order of the items

WORKER = Path(__file__).with_name("encoding_worker.py")
LOG = FOLDER / "workers.log"
THREADS = str(os.cpu_count())
LOOK_SECONDS = 0.1
MANY = 1000


@dataclass(frozen=True, slots=True)
class Run:
    """What encoding all items once took."""

    seconds: float  # by the clock
    cpu: float  # seconds, of all processes together
    peak_mib: float  # the same


class Contestant(Protocol):
    """A contender that is ready to run."""

    name: str
    runs: list[Run]

    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None: ...

    def go(self) -> None:
        """Encode all items once, and add what it took to the runs."""
        ...

    @property
    def vectors(self) -> Vectors:
        """What the last run gave."""
        ...


@dataclass(frozen=True, slots=True)
class WorkerContender:
    """A function of `encoding_worker`, and the Python that runs it."""

    name: str
    function: str
    options: Mapping[str, Any]
    python: str = sys.executable
    most_pairs: int = MANY

    def start(self, items: str, count: int, warm_up: str | None, scratch: Path) -> "Worker":
        """Load and warm up."""
        return Worker(self, {"items": items, "count": count, "warm_up": warm_up}, scratch)


class Worker:
    """The caller's end of `encoding_worker.py`."""

    def __init__(self, contender: WorkerContender, media: Mapping[str, Any], scratch: Path) -> None:
        self.name = contender.name
        self.runs: list[Run] = []
        self._file = scratch / f"{contender.name}.npy"
        options = json.dumps({**contender.options, **media})
        with LOG.open("a") as log:
            self._process = subprocess.Popen(
                [contender.python, str(WORKER), contender.function, options],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=environment(),
            )
        self._answer()

    def go(self) -> None:
        assert self._process.stdin is not None
        with MemoryWatch(self._process.pid) as watch:
            with contextlib.suppress(BrokenPipeError):  # then there is no answer either
                print(f"go {self._file}", file=self._process.stdin, flush=True)
            run = json.loads(self._answer())
        self.runs.append(Run(run["seconds"], run["cpu"], max(watch.peak_mib, run["peak_mib"])))

    @property
    def vectors(self) -> Vectors:
        return np.asarray(np.load(self._file, allow_pickle=False), np.float32)

    def _answer(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.name} ended with {self._process.wait()}: see {LOG}")
        return line

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.wait()


def run_whole(command: Sequence[str], *, folder: Path, variables: Mapping[str, str] | None = None) -> tuple[Run, str]:
    """Run a program to its end; return what it took, with the processes that it started, and what it printed."""
    with LOG.open("a") as log:
        started, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
        process = subprocess.Popen(
            command, cwd=folder, env=environment(variables or {}), stdout=subprocess.PIPE, stderr=log, text=True
        )
        with MemoryWatch(process.pid) as watch, process:
            assert process.stdout is not None
            printed = process.stdout.read()
        # The child's own children are in it too; contenders that live on are not.
        after, seconds = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter() - started
    if process.returncode:
        raise SystemExit(f"{command[0]} ended with {process.returncode}: see {LOG}")
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Run(seconds, cpu, watch.peak_mib), printed


def environment(variables: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the variables of every contender: the same threads for all, and no network."""
    limits = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), THREADS)
    offline = {"HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1", "TOKENIZERS_PARALLELISM": "true"}
    return {**os.environ, **limits, **offline, **(variables or {})}


class MemoryWatch:
    """The most memory that a process and its descendants held together; what they share is counted for each."""

    def __init__(self, pid: int) -> None:
        self.peak_mib = 0.0
        self._pid = pid
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._done.wait(LOOK_SECONDS):
            self.peak_mib = max(self.peak_mib, sum(_rss_mib(pid) for pid in _family(self._pid)))


def _family(pid: int) -> list[int]:
    """Return a process and its descendants; the kernel lists direct children only."""
    found = [pid]
    for one in found:  # grows meanwhile
        for children in Path(f"/proc/{one}/task").glob("*/children"):
            try:
                found += map(int, children.read_text().split())
            except OSError:  # it has ended
                continue
    return found


def _rss_mib(pid: int) -> float:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
    except OSError:
        return 0.0
