"""Power cuts at every write: each state that the disk may be left in opens, with all that was acknowledged, once.

The disk is simulated: what one life of a collection does to its files is recorded call by call, and each prefix of the
recording makes the states that `power_cut.py` describes. So it is no test of real disks and file systems, which do less
harm than the model if they keep to POSIX, and any harm if they do not.
"""

import os
import random
import shutil
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from trivium.pipeline.upkeep.verification import verify

BATCH = 20
SEED = int(os.environ.get("TRIVIUM_SEED", "0"))
SAMPLES = int(os.environ.get("TRIVIUM_POWER_SAMPLES", "4"))  # of each prefix, by chance
EVERY = 1_000_000
NEXT_RUN = 10  # of so many states one is gone on with


@dataclass(frozen=True, slots=True)
class Task:
    """A part of the life: what it may leave, and how it is gone on with."""

    name: str
    before: frozenset[str]
    after: frozenset[str]
    is_whole: bool  # all or nothing
    vectors: tuple[int, int]  # at least, at most
    revisions: frozenset[str]
    job: dict[str, Any]


@pytest.fixture
def life(notes: Any, scratch: Path) -> tuple[dict[str, Any], list[Task]]:
    """The job that is recorded, and its parts."""
    files = notes(60)
    first, gone, more = files[:40], frozenset(files[:15]), files[40:]
    folder = str(scratch / "home" / "c")
    base = {"folder": folder, "kind": "sq8"}
    indexing = {**base, "do": "index", "runs": [first]}
    indexing_more = {**base, "do": "index", "runs": [files]}
    kept, everything, last = frozenset(first) - gone, frozenset(files), frozenset(files) - frozenset(more)
    one, two = frozenset("1"), frozenset("2")
    nothing: frozenset[str] = frozenset()
    remove = {**base, "do": "remove"}
    compact = {**base, "do": "compact"}
    tasks = [
        Task("create and index", nothing, frozenset(first), False, (0, 40), one, indexing),
        Task("remove", frozenset(first), kept, True, (40, 40), one, {**remove, "paths": sorted(gone)}),
        Task("compact", kept, kept, True, (25, 40), one, compact),
        Task("index again", kept, everything, False, (25, 60), one, indexing_more),
        Task("migrate", everything, everything, True, (60, 120), one | two, {**base, "do": "migrate"}),
        Task("remove again", everything, last, True, (60, 60), two, {**remove, "paths": more}),
        Task("compact again", last, last, True, (40, 60), two, compact),
    ]
    job = {**indexing, "do": "live_long", "more": more, "paths": sorted(gone)}
    return job, tasks


@dataclass(slots=True)
class Progress:
    """What the marks in a recording say so far."""

    tasks: dict[str, Task]
    task: Task | None = None
    is_done: bool = False
    acknowledged: int = 0

    def hear(self, mark: str) -> None:
        word, _, rest = mark.partition(" ")
        if word == "BEGUN":
            self.task, self.is_done = self.tasks[rest], False
            self.acknowledged = len(self.task.before)
        elif word == "DONE":
            self.is_done = True
        elif word == "ACKNOWLEDGED":
            self.acknowledged = int(rest)

    def check(self, found: Any) -> None:
        """What the collection holds after a power cut is what was there before the task, or after it, or between."""
        assert self.task is not None
        task = self.task
        paths = frozenset[str]() if found is None else found.paths
        if self.is_done:
            assert paths == task.after, f"LOST or doubled: {len(paths)} items, not {len(task.after)}"
        elif task.is_whole:
            assert paths in (task.before, task.after), f"neither before nor after: {len(paths)} items"
        else:
            assert task.before <= paths <= task.after
            assert len(paths) >= self.acknowledged, f"LOST: {self.acknowledged} acknowledged, {len(paths)} there"
            assert len(paths) <= self.acknowledged + BATCH
            assert found is None or found.vectors == len(paths), f"DOUBLED: {found.vectors} vectors of {len(paths)}"
        if found is not None:
            assert task.vectors[0] <= found.vectors <= task.vectors[1], f"{found.vectors} vectors"
            assert found.revision in (max(task.revisions) if self.is_done else task.revisions)


@pytest.mark.parametrize("wanted", [100, pytest.param(EVERY, marks=pytest.mark.slow)])
def test_power_cut_at_each_write(
    wanted: int, life: Any, faulty_server: Any, harness: Any, audit: Any, power_cut: Any, scratch: Path
) -> None:
    job, tasks = life
    home, recording, folder = scratch / "home", scratch / "recording", scratch / "home" / "c"
    home.mkdir()
    fault = harness.Fault(root=str(home), mode=harness.NONE)
    faulty_server.run_one({**job, "record": str(recording)}, fault=fault).require_done()
    calls = list(power_cut.read_recording(recording))
    check_recording_is_whole(power_cut, calls, home)
    rng = random.Random(SEED)
    changing = sum(call.name not in ("mark", "close") for call in calls)
    variants = [*power_cut.VARIANTS, *(f"by chance {number}" for number in range(SAMPLES))]
    share = min(1.0, wanted / (changing * len(variants)))
    disk, progress = power_cut.Disk(), Progress({task.name: task for task in tasks})
    seen: set[bytes] = set()
    checked: Counter[str] = Counter()
    gone_on = 0
    for number, call in enumerate(calls):
        if call.name == "mark":
            progress.hear(call.path)
        elif not disk.make(call):
            continue
        for variant in variants:
            if rng.random() >= share:
                continue
            seed = rng.random()
            state = disk.state(variant, random.Random(seed))
            # The same state may have to hold more, once more has been acknowledged.
            key = power_cut.digest(state) + repr((progress.task, progress.is_done, progress.acknowledged)).encode()
            if key in seen:
                continue
            seen.add(key)
            assert progress.task is not None
            try:
                shutil.rmtree(home)
                home.mkdir()
                power_cut.put_down(state, home)
                found = audit.examine(folder)
                progress.check(found)
                if found is not None:
                    assert (findings := verify(folder, read_data=True)).is_sound, findings
                checked[progress.task.name] += 1
                if rng.random() < 1 / NEXT_RUN:
                    go_on(progress.task, faulty_server, audit, folder)
                    gone_on += 1
            except AssertionError as error:
                what = f"{progress.task.name}, power cut behind call {number} ({call[:5]}), {variant}"
                raise AssertionError(f"seed {SEED} ({seed}), {what}: {error}") from error
    assert len(checked) == len(tasks)
    phases = ", ".join(f"{count:,} of {name}" for name, count in checked.items())
    print(
        f"\npower cuts behind {changing:,} calls, {len(variants)} ways each: {checked.total():,} different states "
        f"({phases}): 0 items lost, 0 doubled, all sound; {gone_on:,} gone on with, each to its end; seed {SEED}"
    )


def check_recording_is_whole(power_cut: Any, calls: list[Any], home: Path) -> None:
    """What was recorded, done again, is what is there: no kind of call was missed."""
    disk = power_cut.Disk()
    for call in calls:
        if call.name != "mark":
            disk.make(call)
    there = {
        path.relative_to(home).as_posix(): path.read_bytes() if path.is_file() else None for path in home.rglob("*")
    }
    assert disk.state("all", random.Random(0)) == there


def go_on(task: Task, server: Any, audit: Any, folder: Path) -> None:
    server.run_one(task.job).require_done()
    found = audit.examine(folder, whole=True)
    assert found.paths == task.after
    assert found.revision == max(task.revisions)
