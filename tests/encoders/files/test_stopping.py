"""Work in threads that nobody waits for any more ends at its next step, and what it waits for is ended.

What several threads hold at once stays below a bound; what is larger goes alone.
"""

import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest

from trivium.encoders import engine
from trivium.encoders.engine import one_ahead
from trivium.encoders.files import stopping
from trivium.encoders.files.stopping import ByteBudget, StoppedError
from trivium.encoders.text.backbone import passes_by_length

FOREVER_SECONDS = 12.0  # what each piece of work below would take
SOON_SECONDS = 6.0  # less than that by far, whatever the machine does beside


def endless() -> Iterator[int]:
    for number in range(int(FOREVER_SECONDS / 0.005)):
        stopping.check()
        time.sleep(0.005)
        yield number


@contextmanager
def ctrl_c_after(started: threading.Event) -> Iterator[None]:
    """Send the signal of Ctrl-C to this thread, which is to raise it within the block, soon."""

    def send() -> None:
        if started.wait(SOON_SECONDS):
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    sender = threading.Thread(target=send)
    sender.start()
    began = time.perf_counter()
    with pytest.raises(KeyboardInterrupt):
        yield
    sender.join()
    assert time.perf_counter() - began < SOON_SECONDS


def test_a_thread_that_obeys_nobody_goes_on() -> None:
    stopping.check()
    assert stopping.obeyed() is None


def test_what_was_stopped_says_so() -> None:
    stop = threading.Event()
    stopping.obey(stop)
    try:
        stopping.check()
        stop.set()
        with pytest.raises(StoppedError, match="nobody waits"):
            stopping.check()
        with pytest.raises(StoppedError):
            list(passes_by_length([1, 2], numbers_per_pass=1))
    finally:
        stopping.obey(None)


@pytest.mark.parametrize("stage", ["load", "encode"])
def test_a_caller_that_stops_need_not_wait_for_what_runs(stage: str) -> None:
    started = threading.Event()

    def slow(_: object) -> int:
        started.set()
        return list(endless())[-1]

    with ctrl_c_after(started):
        list(
            engine.run(
                range(10),
                load=slow if stage == "load" else abs,
                encode=[slow if stage == "encode" else len],
                batch_items=1,
                loaders=2,
            )
        )


def test_what_a_load_waits_for_is_ended() -> None:
    """A load that hears nothing, as one that reads from another process: `on_stop` ends that."""
    ended, started = threading.Event(), threading.Event()

    def load(job: int) -> int:
        started.set()
        assert ended.wait(FOREVER_SECONDS)
        return job

    with ctrl_c_after(started):
        list(engine.run(range(3), load=load, encode=[len], batch_items=1, loaders=1, on_stop=ended.set))
    assert ended.is_set()


def test_nothing_is_ended_where_all_was_done() -> None:
    def on_stop() -> None:
        raise AssertionError("nobody has stopped")

    batches = engine.run(range(5), load=abs, encode=[len], batch_items=2, loaders=1, on_stop=on_stop)
    assert [size for _, size in batches] == [2, 2, 1]


def test_who_works_ahead_obeys_the_same() -> None:
    stop = threading.Event()
    stopping.obey(stop)
    try:
        numbers = one_ahead(endless())
        assert next(numbers) == 0
        stop.set()
        with pytest.raises(StoppedError):
            list(numbers)
    finally:
        stopping.obey(None)


def test_portions_are_given_as_they_are_made() -> None:
    def load(job: int) -> int:
        return job

    def total(batch: list[int]) -> int:
        return sum(batch)

    def portions(batch: list[int]) -> Iterator[list[int]]:
        return (batch[start : start + 3] for start in range(0, len(batch), 3))

    batches: Any = engine.run(
        range(6),
        load=load,
        encode=[total],
        batch_items=4,
        loaders=2,
        portions=portions,
    )
    assert list(batches) == [([0, 1, 2], 3), ([3], 3), ([4, 5], 9)]


def test_threads_wait_for_each_other() -> None:
    budget, lock = ByteBudget(100), threading.Lock()
    held: list[int] = []
    most: list[int] = []

    def hold(size: int) -> None:
        with budget.holding(size):
            with lock:
                held.append(size)
                most.append(sum(held))
            assert sum(held) <= max(100, size)  # what is larger goes alone
            time.sleep(0.002)
            with lock:
                held.remove(size)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(hold, [60, 30, 250, 0, 50, 100, 10, 40] * 5))
    assert max(most) == 250


def test_who_waits_can_be_stopped() -> None:
    budget, stop = ByteBudget(10), threading.Event()

    def wait() -> None:
        stopping.obey(stop)
        with budget.holding(5):
            pass

    with ThreadPoolExecutor(1) as pool, budget.holding(8):
        waiting = pool.submit(wait)
        stop.set()
        with pytest.raises(StoppedError, match="nobody waits"):
            waiting.result(timeout=20)


def test_what_was_held_is_free_after_an_error() -> None:
    budget = ByteBudget(10)
    for _ in range(3):
        with pytest.raises(KeyError), budget.holding(10):
            raise KeyError


def test_a_budget_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1 byte, got 0"):
        ByteBudget(0)
