"""What several threads hold at once stays below a bound; what is larger goes alone."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from trivium.encoders.files import stopping
from trivium.encoders.files.byte_budget import ByteBudget
from trivium.encoders.files.stopping import StoppedError


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
