"""One Collection searched from many threads while one adds and removes: errors, whole answers, how long a search takes.

    python benchmarks/threads.py [SECONDS] [THREADS]   # 60 and 16
    python benchmarks/threads.py latency               # of one thread, and what a connection of a thread costs

A stub encoder and small texts: what is looked at is the database, the index and what threads share. Every answer is
checked: as many hits as were asked for, each of an item that was added, with its own text, none that had been removed
before the search began, none twice, best first.
"""

import random
import resource
import statistics
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from machine import describe
from stub_space import StubSpace

from trivium.indexes import Wish
from trivium.pipeline.collection import Collection
from trivium.pipeline.search.retrieval import Hit

FILES = 2_000
STEP = 100  # files added, and removed, at a time
K = 10
LATENCY_SEARCHES = 2_000


class Truth:
    """Which notes there are, as far as the thread that writes has come."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.written = range(0)  # told before they are added
        self.removed = 0  # told after they are removed: all below

    def write(self, count: int) -> None:
        self.written = range(self.written.stop + count)
        for number in self.written[-count:]:
            (self._folder / f"{number:07}.md").write_text(f"note {number}")

    def remove(self, collection: Collection, count: int) -> None:
        paths = [self._folder / f"{number:07}.md" for number in range(self.removed, self.removed + count)]
        assert collection.remove(paths) == count
        for path in paths:
            path.unlink()
        self.removed += count

    def check(self, hits: list[Hit], *, k: int, removed_before: int) -> None:
        numbers = [int(Path(hit.path).stem) for hit in hits]
        assert len(set(numbers)) == len(numbers) == k, f"{len(hits)} hits of {k}"
        assert all(removed_before <= number < self.written.stop for number in numbers), numbers
        assert all(hit.caption == f"note {number}" for hit, number in zip(hits, numbers, strict=True))
        assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)


def stress(seconds: float, threads: int, root: Path) -> None:
    media = root / "media"
    media.mkdir()
    truth = Truth(media)
    truth.write(FILES)
    collection = Collection.open(root / "c", space=StubSpace())
    collection.add(media, index=Wish(kind="ivf-flat", recall=0.9))
    end = time.monotonic() + seconds
    errors: list[str] = []

    def search(number: int) -> list[float]:
        rng, spent = random.Random(number), []
        while time.monotonic() < end:
            removed, k = truth.removed, rng.choice([1, K, 5 * K])
            paths = ["*7.md"] if rng.random() < 0.2 else []
            started = time.perf_counter()
            try:
                hits = collection.search(text=f"query {rng.random()}", k=k, paths=paths)
                spent.append(time.perf_counter() - started)
                truth.check(hits, k=k, removed_before=removed)
                if rng.random() < 0.01:
                    assert collection.info().items["text"] >= FILES - STEP
            except Exception as error:
                errors.append(f"{type(error).__name__}: {error}")
        return spent

    def write() -> int:
        commits = 0
        while time.monotonic() < end:
            try:
                truth.write(STEP)
                assert collection.add(media).added == STEP
                truth.remove(collection, STEP)
                commits += 2
                if commits % 20 == 0:
                    collection.compact()
            except Exception as error:
                errors.append(f"writing: {type(error).__name__}: {error}")
        return commits

    with ThreadPoolExecutor(threads + 1) as pool:
        writing, searching = pool.submit(write), [pool.submit(search, number) for number in range(threads)]
        spent = sorted(took for future in searching for took in future.result())
        print(
            f"{seconds:.0f} s, {threads} threads: {len(spent):,} searches, {writing.result():,} writes, "
            f"{len(errors)} errors; a search took {1e3 * statistics.median(spent):.1f} ms (median), "
            f"{1e3 * spent[len(spent) * 99 // 100]:.0f} ms (99 %), {1e3 * spent[-1]:.0f} ms (longest); "
            f"peak {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB"
        )
    collection.close()
    for error in errors[:5]:
        print(error)
    sys.exit(bool(errors))


def latency(root: Path) -> None:
    media = root / "media"
    media.mkdir()
    Truth(media).write(FILES)
    with Collection.open(root / "c", space=StubSpace()) as collection:
        collection.add(media)

        def searches(count: int) -> float:
            spent = []
            for number in range(count):
                started = time.perf_counter()
                collection.search(text=f"query {number}", k=K)
                spent.append(time.perf_counter() - started)
            return 1e3 * statistics.median(spent)

        searches(100)
        used = time.process_time()
        searches(LATENCY_SEARCHES)
        print(f"one thread: {1e3 * (time.process_time() - used) / LATENCY_SEARCHES:.3f} ms of the processor a search")
        print(
            f"one thread: {', '.join(f'{searches(LATENCY_SEARCHES // 5):.3f}' for _ in range(5))} ms a search (medians)"
        )
        firsts: list[float] = []
        for _ in range(100):
            thread = threading.Thread(target=lambda: firsts.append(searches(1)))
            thread.start()
            thread.join()
        print(f"the first search of a new thread: {statistics.median(firsts):.3f} ms (its connection is opened)")


def main(arguments: list[str]) -> None:
    print(describe())
    with tempfile.TemporaryDirectory() as root:
        if arguments == ["latency"]:
            latency(Path(root))
        else:
            seconds, threads = [*map(int, arguments), *(60, 16)[len(arguments) :]]
            stress(seconds, threads, Path(root))


if __name__ == "__main__":
    main(sys.argv[1:])
