"""The hot path: jobs are loaded in threads, encoded in batches by the devices, and come back in order.

    jobs -> load (threads: read, decode, prepare) -> batches -> encode (a thread for each device) -> caller

Each stage works while the others do; what waits between them is bounded, so memory stays flat however many jobs there
are. The caller is a stage too: while it writes what it was given, the next batches are loaded and encoded.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

from trivium.encoders.files import stopping
from trivium.encoders.machine import usable_cores

J = TypeVar("J")
L = TypeVar("L")
R = TypeVar("R")
ENCODE = "encode"  # the stage that `run` counts
THIS_PROCESS = ""
FULL_SHARE = 0.9  # of all cores' time: the rest goes to waiting for each other, and to other programs
WAKE_SECONDS = 0.5  # a signal that comes just as a thread begins to wait is heard only when it wakes
BATCHES_AHEAD = 2  # loaded, or being loaded, beside those that are being encoded


@dataclass(slots=True)
class StageStats:
    """What one stage has done so far."""

    name: str
    workers: int
    items: int = 0
    busy_seconds: float = 0.0  # of all workers together
    cpu_seconds: float = 0.0  # of the processor's time, those of its workers' own threads
    queued: int = 0  # items that wait for it now
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @contextmanager
    def working(self, items: int = 1) -> Iterator[None]:
        """Count the time that the block takes, and these items as done."""
        started, used = time.perf_counter(), time.thread_time()
        try:
            yield
        finally:
            self.add(time.perf_counter() - started, items, cpu_seconds=time.thread_time() - used)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leave the time that the block takes out of the work around it."""
        started, used = time.perf_counter(), time.thread_time()
        try:
            yield
        finally:
            self.add(started - time.perf_counter(), 0, cpu_seconds=used - time.thread_time())

    def add(self, seconds: float, items: int = 1, *, cpu_seconds: float = 0.0) -> None:
        """Count work that was timed elsewhere."""
        with self._lock:
            self.busy_seconds += seconds
            self.cpu_seconds += cpu_seconds
            self.items += items

    def busy_share(self, seconds: float) -> float:
        """Share of its workers' time that it was busy, 0 to 1, of this many seconds by the clock."""
        # Below 0 while a block is under way that was paused.
        return min(max(self.busy_seconds, 0.0) / max(seconds * self.workers, 1e-9), 1.0)


class Stats:
    """Counters of a run, for each stage; safe to use from several threads."""

    def __init__(self, *, helpers: Mapping[str, Callable[[], float | None]] | None = None) -> None:
        """Begin to count.

        Args:
            helpers: By stage: what tells the processor's time, in seconds, that other processes have worked for it so
                far; None where the system does not tell.
        """
        self.stages: list[StageStats] = []
        self._started = time.perf_counter()
        self._ended: float | None = None
        self._lock = threading.Lock()
        self._helpers = dict(helpers or {})
        self._used_before = self._used_now()
        self._used_at_end: Mapping[str, float | None] | None = None

    @property
    def seconds(self) -> float:
        """From the start to the end, or to now, by the clock."""
        return (time.perf_counter() if self._ended is None else self._ended) - self._started

    def end(self) -> None:
        """Stop the clock."""
        self._used_at_end = self._used_now()
        self._ended = time.perf_counter()

    def stage(self, name: str, *, workers: int = 1) -> StageStats:
        """Return the stage of this name; the first call makes it."""
        with self._lock:
            for stage in self.stages:
                if stage.name == name:
                    return stage
            self.stages.append(StageStats(name, workers))
            return self.stages[-1]

    def limiting(self) -> StageStats | None:
        """Return the stage whose workers are busiest: more of its resource would make the run faster."""
        seconds = self.seconds
        return max(self.stages, key=lambda stage: stage.busy_share(seconds), default=None)

    def processor_shares(self) -> dict[str, float]:
        """Return what share of all cores' time each stage has used, largest first; nothing where that is not known.

        Their sum is how busy the processor was with this run. What no stage's own threads have used counts for
        `ENCODE`, whose networks have threads of their own; so has torch, whose part in other stages is not told apart.
        """
        used: dict[str, float] = {}
        for name, now in (self._used_at_end or self._used_now()).items():
            before = self._used_before[name]
            if now is None or before is None:
                return {}
            used[name] = now - before
        seconds = {
            stage.name: stage.cpu_seconds + used.get(stage.name, 0.0) for stage in self.stages if stage.name != ENCODE
        }
        seconds[ENCODE] = max(sum(used.values()) - sum(seconds.values()), 0.0)
        whole = max(self.seconds * usable_cores(), 1e-9)
        return {name: seconds[name] / whole for name in sorted(seconds, key=seconds.__getitem__, reverse=True)}

    def fills_processor(self) -> bool:
        """Whether the run has kept all cores busy: then more cores would make it faster, whatever they do."""
        return sum(self.processor_shares().values()) >= FULL_SHARE

    def _used_now(self) -> dict[str, float | None]:
        """Return the processor's time so far: of this process under its own name, and of each stage's helpers."""
        return {THIS_PROCESS: time.process_time(), **{stage: told() for stage, told in self._helpers.items()}}


def run(
    jobs: Iterable[J],
    *,
    load: Callable[[J], L],
    encode: Sequence[Callable[[list[L]], R]],
    batch_items: int,
    loaders: int,
    cost: Callable[[J], float] = lambda _: 0.0,
    batch_cost: float = float("inf"),
    portions: Callable[[list[L]], Iterable[list[L]]] = lambda batch: [batch],
    on_stop: Callable[[], object] = lambda: None,
    stats: Stats | None = None,
) -> Generator[tuple[list[L], R]]:
    """Load and encode jobs; yield each batch as it was loaded with what encoding it gave, in the order of the jobs.

    When the caller stops early, by an error or Ctrl-C, what has not begun is dropped, and what runs ends at its next
    `stopping.check`.

    Args:
        jobs: Taken as they are needed.
        load: Runs in several threads at once. What it raises is raised here; a bad item that should cost no more than
            itself is for it to return as a value.
        encode: One for each device; each is called by one thread at a time.
        batch_items: Most jobs in a batch, at least 1.
        loaders: Threads that load.
        cost: What a job will take in memory, in any unit.
        batch_cost: Most of that in a batch, unless a single job takes more.
        portions: Cuts a loaded batch into what is encoded, and given to the caller, at a time.
        on_stop: Called when the caller stops early, to end what a load may wait for.
        stats: Where to count.

    Raises:
        ValueError: If a number is below 1.
    """
    if min(batch_items, loaders, len(encode)) < 1:
        raise ValueError(
            f"batch_items, loaders and encoders must be at least 1, got {batch_items, loaders, len(encode)}"
        )
    counted = (stats or Stats()).stage(ENCODE, workers=len(encode))
    free = deque(encode)  # thread-safe; as many threads as entries, so none finds it empty

    def encode_batch(batch: list[L]) -> R:
        device = free.popleft()
        try:
            with counted.working(len(batch)):
                return device(batch)
        finally:
            free.append(device)

    stop = threading.Event()
    loading = ThreadPoolExecutor(loaders, "load", initializer=stopping.obey, initargs=(stop,))
    encoding = ThreadPoolExecutor(len(encode), "encode", initializer=stopping.obey, initargs=(stop,))
    ahead: deque[list[Future[L]]] = deque()
    loaded: Iterator[list[L]] = iter(())
    encoded: deque[tuple[list[L], Future[R]]] = deque()
    batches = in_batches(jobs, batch_items, cost, batch_cost)
    try:
        while True:
            while len(ahead) < BATCHES_AHEAD and (batch := next(batches, None)):
                ahead.append([loading.submit(load, job) for job in batch])
            if len(encoded) <= len(encode):
                if (portion := next(loaded, None)) is not None:
                    encoded.append((portion, encoding.submit(encode_batch, portion)))
                    counted.queued = sum(len(waiting) for waiting, _ in encoded)
                    continue
                if ahead:
                    loaded = iter(portions([_result(future, loading) for future in ahead.popleft()]))
                    continue
            if not encoded:
                return
            portion, future = encoded.popleft()
            yield portion, _result(future, encoding)
            counted.queued = sum(len(waiting) for waiting, _ in encoded)
    except BaseException:
        stop.set()
        on_stop()
        raise
    finally:
        loading.shutdown(cancel_futures=True)
        encoding.shutdown(cancel_futures=True)


def _result(future: Future[R], pool: ThreadPoolExecutor) -> R:
    """Wait for a result, so that Ctrl-C is heard.

    Raises:
        MemoryError: If a thread has died, perhaps with this in its hands: without memory it does so without a word.
    """
    while not future.done():
        wait((future,), timeout=WAKE_SECONDS)
        if not future.done() and not all(thread.is_alive() for thread in pool._threads):
            raise MemoryError("a thread had too little memory to go on")
    return future.result()


def in_batches(jobs: Iterable[J], batch_items: int, cost: Callable[[J], float], batch_cost: float) -> Iterator[list[J]]:
    """Cut jobs into batches of at most so many, and at most so much together, unless one alone takes more."""
    batch: list[J] = []
    total = 0.0
    for job in jobs:
        price = cost(job)
        if batch and (len(batch) == batch_items or total + price > batch_cost):
            yield batch
            batch, total = [], 0.0
        batch.append(job)
        total += price
    if batch:
        yield batch


def one_ahead(items: Iterator[J]) -> Iterator[J]:
    """Yield items while a thread already makes the next one."""
    with ThreadPoolExecutor(1, "ahead", initializer=stopping.obey, initargs=(stopping.obeyed(),)) as worker:
        end = object()
        coming = worker.submit(next, items, end)
        while (item := coming.result()) is not end:
            coming = worker.submit(next, items, end)
            yield item  # type: ignore[misc]
