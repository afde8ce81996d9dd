"""`kill -9` while files are indexed: the collection opens, nothing acknowledged is lost, nothing is there twice."""

import fnmatch
import os
import random
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

BATCH = 20
FILES = 2000
SMALL = 40  # files of a trial at a named point, of which the first run takes these:
FIRST_RUN = 20
SEED = int(os.environ.get("TRIVIUM_SEED", "0"))
KILLS = int(os.environ.get("TRIVIUM_KILLS", "1000"))
POINT_KILLS = int(os.environ.get("TRIVIUM_POINT_KILLS", "40"))


@dataclass(frozen=True, slots=True)
class Point:
    """A step of the protocol: the calls that take it; `left_by` is the kill that makes it necessary."""

    name: str
    call: str
    path: str
    left_by: tuple[str, str] | None = None


DRAFT, JOURNAL, CHECKSUM = ".collection.db.new", "collection.db-journal", ".collection.db.sha256.new"
POINTS = [
    Point("folder made", "mkdir", "."),
    Point("lock opened", "open", "lock"),
    Point("pid of the writer: file opened", "open", "lock.holder"),
    Point("pid of the writer: written", "write", "lock.holder"),
    Point("pid of the writer: removed", "unlink", "lock.holder"),
    Point("folder of the shards made", "mkdir", "vectors"),
    Point("folder of the index files made", "mkdir", "index"),
    Point("draft of the database opened", "open", DRAFT),
    Point("draft's journal opened", "open", f"{DRAFT}-journal"),
    Point("draft's journal written", "pwrite", f"{DRAFT}-journal"),
    Point("draft's journal synced", "fdatasync", f"{DRAFT}-journal"),
    Point("draft of the database written", "pwrite", DRAFT),
    Point("draft of the database synced", "fdatasync", DRAFT),
    Point("draft's journal removed", "unlink", f"{DRAFT}-journal"),
    Point("database named", "rename", DRAFT),
    Point("folder synced after naming", "fsync", "."),
    Point("shard opened", "open", "vectors/.*.new"),
    Point("shard written", "write", "vectors/.*.new"),
    Point("shard synced", "fsync", "vectors/.*.new"),
    Point("shard named", "rename", "vectors/.*.new"),
    Point("folder of the shards synced", "fsync", "vectors"),
    Point("journal opened", "open", JOURNAL),
    Point("journal written", "pwrite", JOURNAL),
    Point("journal synced", "fdatasync", JOURNAL),
    Point("folder synced for the journal, or after the commit", "fdatasync", "."),
    Point("database written", "pwrite", "collection.db"),
    Point("database synced", "fdatasync", "collection.db"),
    Point("journal removed: the commit", "unlink", JOURNAL),
    Point("index file opened", "open", "index/.*.new"),
    Point("index file written", "write", "index/.*.new"),
    Point("index file synced", "fsync", "index/.*.new"),
    Point("index file named", "rename", "index/.*.new"),
    Point("folder of the index files synced", "fsync", "index"),
    Point("last index file removed", "unlink", "index/*.faiss"),
    Point("checksum opened", "open", CHECKSUM),
    Point("checksum written", "write", CHECKSUM),
    Point("checksum synced", "fsync", CHECKSUM),
    Point("checksum named", "rename", CHECKSUM),
    Point("shard of a killed run removed", "unlink", "vectors/0*.npy", ("rename", "vectors/.*.new")),
    Point("draft of a shard of a killed run removed", "unlink", "vectors/.*.new", ("write", "vectors/.*.new")),
    Point("index file of a killed run removed", "unlink", "index/t*.faiss", ("rename", "index/.*.new")),
    Point("killed commit undone: database written", "pwrite", "collection.db", ("pwrite", "collection.db")),
    Point("killed commit undone: database synced", "fdatasync", "collection.db", ("pwrite", "collection.db")),
    Point("killed commit undone: journal removed", "unlink", JOURNAL, ("fdatasync", "collection.db")),
]


class Trial:
    """One collection that is indexed again and again until it is whole, and what has been seen of it."""

    def __init__(self, folder: Path, files: list[str], *, server: Any, audit: Any) -> None:
        self.folder = folder
        self._files = files
        self._server = server
        self._audit = audit
        self.kills = 0
        self._acknowledged = 0
        self._encoded = 0
        self.encoded_again = 0

    def run(self, *, first: int | None = None, look: bool = True, **fault: Any) -> Any:
        """Index all files, or the first ones and then all, under a fault; then check the collection."""
        runs = [self._files] if first is None else [self._files[:first], self._files]
        job = {"do": "index", "folder": str(self.folder), "kind": "sq8", "runs": runs}
        outcome = self._server.run_one(job, **fault)
        if outcome.was_killed:
            self.kills += 1
        else:
            outcome.require_done()
        self._acknowledged = max(self._acknowledged, outcome.acknowledged)
        self._encoded += outcome.encoded
        if look:
            self._look(is_end=not outcome.was_killed)
        return outcome

    def _look(self, *, is_end: bool) -> None:
        found = self._audit.examine(self.folder, whole=is_end)
        paths: frozenset[str] = frozenset() if found is None else found.paths
        count = len(paths)
        assert paths == set(self._files[:count])  # in the order of the files, so none is missing
        assert count % BATCH == 0
        assert count >= self._acknowledged, f"LOST: {self._acknowledged} were acknowledged, {count} are there"
        assert count <= self._acknowledged + BATCH
        self._acknowledged = count
        assert found is None or found.vectors == count, f"DOUBLED: {found.vectors} vectors of {count} items"
        self.encoded_again = self._encoded - count
        # One that was being committed, and two that were encoded ahead of it.
        assert 0 <= self.encoded_again <= 3 * BATCH * self.kills
        if is_end:
            assert count == len(self._files)
            assert found is not None
            assert found.has_index


@pytest.mark.parametrize(("kills", "count"), [(10, 400), pytest.param(KILLS, FILES, marks=pytest.mark.slow)])
def test_killed_at_any_time(kills: int, count: int, server: Any, audit: Any, notes: Any, scratch: Path) -> None:
    rng = random.Random(SEED)
    files = notes(count)
    full_seconds = 0.0  # that the last undisturbed run took
    made = completed = encoded_again = 0
    while made < kills:
        trial = Trial(scratch / "c", files, server=server, audit=audit)
        is_whole = False
        while not is_whole and made + trial.kills < kills:
            kill_after = rng.uniform(0, full_seconds) if full_seconds else None
            try:
                outcome = trial.run(kill_after=kill_after)
            except AssertionError as error:
                raise AssertionError(f"seed {SEED}, kill {made + trial.kills}, {kill_after} s: {error}") from error
            is_whole = not outcome.was_killed
            if is_whole and not trial.kills:
                full_seconds = outcome.seconds
        made, completed, encoded_again = made + trial.kills, completed + is_whole, encoded_again + trial.encoded_again
        shutil.rmtree(trial.folder, ignore_errors=True)  # killed before it was made, it is not there
    print(
        f"\nkills at random times while indexing {count} files ({full_seconds:.2f} s undisturbed): {made} made, "
        f"0 items lost, 0 doubled, {completed} collections completed, {encoded_again / made:.1f} items encoded again "
        f"a kill (a batch is {BATCH})"
    )


@pytest.mark.parametrize("kills", [1, pytest.param(POINT_KILLS, marks=pytest.mark.slow)])
def test_killed_at_each_named_point(
    kills: int, faulty_server: Any, harness: Any, audit: Any, notes: Any, scratch: Path
) -> None:
    rng = random.Random(SEED)
    folder, files = scratch / "c", notes(SMALL)
    tracing = harness.Fault(root=str(folder), mode=harness.NONE, trace=True)
    traced = Trial(folder, files, server=faulty_server, audit=audit).run(first=FIRST_RUN, fault=tracing)
    made = encoded_again = 0
    for point in POINTS:
        for number in range(kills):
            shutil.rmtree(folder)
            trial = Trial(folder, files, server=faulty_server, audit=audit)
            call, path = point.left_by or (point.call, point.path)
            times = sum(called == call and fnmatch.fnmatchcase(on, path) for called, on in traced.calls())
            nth = rng.randint(1, times)
            hows = ["before", "after", "torn"] if point.call.endswith("write") else ["before", "after"]
            how = hows[(number + POINTS.index(point)) % len(hows)]
            mode = harness.KILLS[how]
            try:
                if point.left_by is not None:
                    kill = harness.Fault(root=str(folder), mode=harness.KILL_AFTER, nth=nth, call=call, path=path)
                    assert trial.run(first=FIRST_RUN, look=False, fault=kill).was_killed
                    nth = 1
                kill = harness.Fault(root=str(folder), mode=mode, nth=nth, call=point.call, path=point.path)
                assert trial.run(first=FIRST_RUN, fault=kill).was_killed
                trial.run()
            except AssertionError as error:
                raise AssertionError(f"seed {SEED}, killed {how} {point}, number {nth}: {error}") from error
            made, encoded_again = made + trial.kills, encoded_again + trial.encoded_again
    print(
        f"\nkills at {len(POINTS)} named points, {kills} times each: {made} made, 0 items lost, 0 doubled, "
        f"{encoded_again / made:.1f} items encoded again a kill (a batch is {BATCH}), every collection completed"
    )
