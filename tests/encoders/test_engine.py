"""The engine: the order and the results do not depend on how jobs fall into batches, threads or devices."""

import threading
import time
from collections.abc import Iterator
from contextlib import closing

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trivium.encoders import engine
from trivium.encoders.engine import BATCHES_AHEAD, StageStats, Stats
from trivium.encoders.machine import usable_cores


def squares(batch: list[int]) -> list[int]:
    return [number * number for number in batch]


@settings(max_examples=40)
@given(
    st.lists(st.integers(0, 50), max_size=30),
    st.integers(1, 8),
    st.integers(1, 4),
    st.integers(1, 3),
    st.integers(1, 60),
)
def test_every_job_comes_back_in_order(
    jobs: list[int], batch_items: int, loaders: int, devices: int, batch_cost: int
) -> None:
    def load(job: int) -> int:
        time.sleep((job % 3) * 1e-4)  # later jobs may be ready first
        return job + 1

    found = list(
        engine.run(
            iter(jobs),
            load=load,
            encode=[squares] * devices,
            batch_items=batch_items,
            loaders=loaders,
            cost=float,
            batch_cost=batch_cost,
        )
    )
    assert [number for batch, _ in found for number in batch] == [job + 1 for job in jobs]
    assert [square for _, result in found for square in result] == [(job + 1) ** 2 for job in jobs]
    for batch, _ in found:
        assert len(batch) <= batch_items
        assert len(batch) == 1 or sum(number - 1 for number in batch) <= batch_cost


def test_what_waits_is_bounded() -> None:
    """However slow the caller is, jobs are taken only a few batches ahead of what it was given."""
    taken = given_back = most = 0

    def jobs() -> Iterator[int]:
        nonlocal taken, most
        for job in range(200):
            taken += 1
            most = max(most, taken - given_back)
            yield job

    for batch, _ in engine.run(jobs(), load=abs, encode=[squares], batch_items=5, loaders=3):
        time.sleep(0.002)
        given_back += len(batch)
    assert given_back == 200
    # Loaded ahead, encoded or waiting for it, the one given out, and the next one's first job.
    assert most <= 5 * (BATCHES_AHEAD + 2 + 1) + 1


def test_stages_work_at_the_same_time() -> None:
    """Loading waits for encoding and the reverse: each of them would wait forever if they took turns."""
    loading, encoding = threading.Event(), threading.Event()

    def load(job: int) -> int:
        if job == 1:
            loading.set()
            assert encoding.wait(10)
        return job

    def encode(batch: list[int]) -> list[int]:
        if batch == [0]:
            assert loading.wait(10)
            encoding.set()
        return batch

    assert len(list(engine.run(range(3), load=load, encode=[encode], batch_items=1, loaders=1))) == 3


def test_devices_share_the_batches() -> None:
    barrier = threading.Barrier(2, timeout=10)

    def device(batch: list[int]) -> list[int]:
        barrier.wait()  # passes only when both devices are at work
        return batch

    found = list(engine.run(range(4), load=abs, encode=[device, device], batch_items=1, loaders=1))
    assert [result for _, result in found] == [[0], [1], [2], [3]]


def test_an_error_comes_after_what_was_done_before_it() -> None:
    def load(job: int) -> int:
        if job == 7:
            raise RuntimeError("job 7")
        return job

    seen: list[int] = []

    def take_all() -> None:
        for batch, _ in engine.run(range(20), load=load, encode=[squares], batch_items=1, loaders=2):
            seen.extend(batch)

    with pytest.raises(RuntimeError, match="job 7"):
        take_all()
    assert seen == list(range(len(seen)))
    assert len(seen) >= 7 - BATCHES_AHEAD - 2


def test_an_error_of_encoding_is_raised() -> None:
    def encode(batch: list[int]) -> list[int]:
        raise ValueError(f"cannot encode {batch}")

    with pytest.raises(ValueError, match=r"cannot encode \[0, 1\]"):
        list(engine.run(range(4), load=abs, encode=[encode], batch_items=2, loaders=1))


def test_a_caller_that_stops_leaves_no_thread_and_no_work() -> None:
    before = threading.active_count()
    loaded: list[int] = []

    def load(job: int) -> int:
        loaded.append(job)
        return job

    batches = engine.run(range(1000), load=load, encode=[squares], batch_items=2, loaders=2)
    with closing(batches):
        next(batches)
    assert threading.active_count() == before
    assert len(loaded) <= 2 * (BATCHES_AHEAD + 3)


def test_stages_are_counted() -> None:
    stats = Stats()
    write = stats.stage("write")

    def encode(batch: list[int]) -> list[int]:
        time.sleep(0.01)
        return batch

    for batch, _ in engine.run(range(10), load=abs, encode=[encode], batch_items=2, loaders=1, stats=stats):
        with write.working(len(batch)):
            pass
    stats.end()
    encoding = stats.stage("encode")
    assert (encoding.items, write.items) == (10, 10)
    assert encoding.busy_seconds >= 0.05
    assert stats.limiting() is encoding
    assert 0 < encoding.busy_share(stats.seconds) <= 1
    seconds = stats.seconds
    time.sleep(0.002)
    assert stats.seconds == seconds  # the clock stands


def test_busy_share_counts_all_workers() -> None:
    stage = StageStats("decode", workers=4)
    stage.add(2.0)
    assert stage.busy_share(1.0) == 0.5
    assert stage.busy_share(0.1) == 1.0
    assert StageStats("x", 1).busy_share(0.0) == 0.0


def work(seconds: float) -> None:
    """Use a core for so long."""
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        pass


def test_processor_shares() -> None:
    """A stage's own threads and its helpers; what other threads do is encoding."""
    helped = [5.0]
    stats = Stats(helpers={"decode": lambda: helped[0]})
    with stats.stage("prepare", workers=2).working():
        work(0.03)
    with stats.stage("decode", workers=2).working():
        work(0.01)
        with stats.stage("decode").paused():
            work(0.02)  # nobody's own: it is the rest
    helped[0] = 5.1
    network = threading.Thread(target=work, args=(0.06,))
    network.start()
    network.join()
    stats.end()
    helped[0] = 9.0
    shares = stats.processor_shares()
    cores = stats.seconds * usable_cores()
    assert list(shares) == ["decode", "encode", "prepare"]
    expected = {"decode": 0.11 / cores, "encode": 0.08 / cores, "prepare": 0.03 / cores}
    assert shares == pytest.approx(expected, abs=0.02 / cores)


def test_a_processor_is_full_when_its_cores_are(monkeypatch: pytest.MonkeyPatch) -> None:
    stats = Stats()
    work(0.05)
    monkeypatch.setattr(engine, "usable_cores", lambda: 1)
    stats.end()
    stats._ended = stats._started + 0.052  # on a machine that does nothing else
    assert stats.fills_processor()
    monkeypatch.setattr(engine, "usable_cores", lambda: 2)
    assert not stats.fills_processor()


def test_where_the_system_does_not_tell() -> None:
    stats = Stats(helpers={"decode": lambda: None})
    assert stats.processor_shares() == {}
    assert not stats.fills_processor()


def test_what_is_paused_is_no_work() -> None:
    stage = StageStats("decode", workers=1)
    with stage.working():
        with stage.paused():
            time.sleep(0.02)
            assert stage.busy_share(1.0) == 0.0
        assert stage.busy_share(1.0) == 0.0  # not below
    assert 0 < stage.busy_seconds < 0.02
    assert stage.items == 1


def test_nothing_to_do() -> None:
    assert list(engine.run([], load=abs, encode=[squares], batch_items=1, loaders=1)) == []
    assert Stats().limiting() is None


@pytest.mark.parametrize(("batch_items", "loaders", "encoders"), [(0, 1, 1), (1, 0, 1), (1, 1, 0)])
def test_numbers_below_1(batch_items: int, loaders: int, encoders: int) -> None:
    with pytest.raises(ValueError, match=rf"at least 1, got \({batch_items}, {loaders}, {encoders}\)"):
        list(engine.run([1], load=abs, encode=[squares] * encoders, batch_items=batch_items, loaders=loaders))


def test_one_ahead_makes_the_next_while_this_one_is_used() -> None:
    made: list[int] = []
    second = threading.Event()

    def numbers() -> Iterator[int]:
        for number in range(4):
            made.append(number)
            if number == 1:
                second.set()
            yield number

    seen = []
    for number in engine.one_ahead(numbers()):
        if number == 0:
            assert second.wait(10)
        assert len(made) <= number + 2
        seen.append(number)
    assert seen == made == [0, 1, 2, 3]


def test_one_ahead_passes_errors_on() -> None:
    def numbers() -> Iterator[int]:
        yield 1
        raise ValueError("no second")

    items = engine.one_ahead(numbers())
    assert next(items) == 1
    with pytest.raises(ValueError, match="no second"):
        next(items)
