"""The Nth changing call fails: a plain error, a sound collection, and the next run goes on."""

import errno
import itertools
import shutil
from pathlib import Path
from typing import Any

import pytest

FILES = 60  # three batches
REMOVED = 15
# (mode, number of calls, error); names as in fault.c
MODES = {
    "the Nth call fails": ("FAIL", 1, errno.EIO),
    # So a commit fails, and then taking it back does, but not what comes after that.
    "the Nth call and the next fail": ("FAIL", 2, errno.EIO),
    "the Nth call and all after it fail": ("FAIL", 0, errno.EIO),
    "the disk is full from the Nth call on": ("FULL", 0, errno.ENOSPC),
    "the Nth call writes half, then the disk is full": ("SHORT", 0, errno.ENOSPC),
}


@pytest.fixture
def life(faulty_server: Any, harness: Any, audit: Any, notes: Any, scratch: Path) -> Any:
    """Run a collection's whole life under a fault and check what is left; None if there was no Nth call."""
    folder, files = scratch / "c", notes(FILES)
    do = {"do": "live", "folder": str(folder), "kind": "sq8", "runs": [files], "paths": files[:REMOVED]}

    def check_end(*, undisturbed: bool = True) -> None:
        found = audit.examine(folder, whole=undisturbed)
        assert found.paths == set(files[REMOVED:])
        assert found.vectors == FILES - REMOVED
        assert found.has_index

    def run(name: str, nth: int, *, watched: bool = False) -> str | None:
        shutil.rmtree(folder, ignore_errors=True)
        mode, calls, error = MODES[name]
        fault = harness.Fault(
            root=str(folder), mode=getattr(harness, mode), nth=nth, calls=calls, error=error
        )  # fmt: skip
        jobs = [{**do, "fault": harness.asdict(fault)}]
        if watched:
            jobs.append({"do": "watch", "folder": str(folder)})
        outcome, *watchers = faulty_server.run(*jobs)
        for watcher in watchers:
            assert not watcher.require_done().said("TORN"), watcher.lines
        if not outcome.said("HIT"):
            outcome.require_done()
            check_end()
            return None
        if outcome.code == 0:  # what failed was not needed: the pid for others to read, a checksum
            check_end(undisturbed=False)
            return "unharmed"
        assert outcome.code == 1, f"not a plain error: {outcome.lines}"
        assert outcome.lines[-1].startswith("CollectionError"), outcome.lines
        assert "damaged" not in outcome.lines[-1], outcome.lines[-1]
        found = audit.examine(folder)
        assert found is None or len(found.paths) >= outcome.acknowledged - REMOVED
        faulty_server.run_one(do).require_done()
        check_end()
        return "refused"

    return run


@pytest.mark.slow
@pytest.mark.parametrize("name", MODES)
def test_each_call_fails(name: str, life: Any) -> None:
    told: list[str] = []
    for nth in itertools.count(1):
        try:
            ended = life(name, nth)
        except AssertionError as error:
            raise AssertionError(f"{name}, N = {nth}: {error}") from error
        if ended is None:
            break
        told.append(ended)
    assert len(told) > 100
    print(
        f"\n{name}: N = 1 to {len(told)}, until a run was clean: {told.count('refused')} plain errors, "
        f"{told.count('unharmed')} runs that went to their end, store sound and completed each time"
    )


@pytest.mark.slow
def test_each_call_fails_while_another_process_reads(life: Any) -> None:
    name, nth = "the Nth call fails", 1
    while life(name, nth, watched=True) is not None:
        nth += 1
    print(f"\n{name}, with a reader at work: N = 1 to {nth - 1}, all answers whole")


def test_some_calls_fail(life: Any, harness: Any) -> None:
    for number, nth in enumerate(harness.spread(400, wanted=16)):
        name = list(MODES)[number % len(MODES)]
        try:
            assert life(name, nth, watched=number % 5 == 0) is not None
        except AssertionError as error:
            raise AssertionError(f"{name}, N = {nth}: {error}") from error


def test_nothing_is_deleted_before_the_commit_that_replaced_it_is_on_the_disk(
    faulty_server: Any, harness: Any, audit: Any, notes: Any, scratch: Path
) -> None:
    """The sync after the journal's removal fails: a power cut may bring the journal back, and what it names."""
    folder, files = scratch / "c", notes(FILES)
    faulty_server.run_one({"do": "index", "folder": str(folder), "kind": "sq8", "runs": [files]}).require_done()
    faulty_server.run_one({"do": "remove", "folder": str(folder), "paths": files[:REMOVED]}).require_done()
    named = {path.name for part in ("vectors", "index") for path in (folder / part).iterdir()}
    # The first sync of the folder is for the journal's creation.
    fault = harness.Fault(root=str(folder), mode=harness.FAIL, nth=2, calls=0, call="f*sync", path=".")
    outcome = faulty_server.run_one({"do": "compact", "folder": str(folder)}, fault=fault)
    assert outcome.code == 1, outcome.lines
    assert named <= {path.name for part in ("vectors", "index") for path in (folder / part).iterdir()}
    faulty_server.run_one({"do": "compact", "folder": str(folder)}).require_done()
    assert audit.examine(folder, whole=True).vectors == FILES - REMOVED
