"""The Nth allocation fails: an error that says so, a collection that is sound, and the next run goes on.

As SQLite tests it (sqlite.org/testing.html, 3.1), of the C library's allocations (SQLite's, NumPy's, FAISS's, and
Python's larger ones), of all of Python's own, and with less memory than SQLite wants. A process that aborts is as good
as one that was killed: C++ has nowhere to tell a thread's failure, and neither has Python everywhere.
"""

import os
import random
import shutil
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("_testcapi", reason="this Python was built without what makes its allocations fail")

FILES = 60
REMOVED = 20
SEED = int(os.environ.get("TRIVIUM_SEED", "0"))
TRIALS = int(os.environ.get("TRIVIUM_ALLOCATIONS", "100"))  # of each job and kind
MANY = 10**12
PLAIN = ("MemoryError", "CollectionError")
NO_THREAD_LOCAL = 127  # glibc ends a process that has no memory for what its threads keep
# Of Python's not more in a row: after thousands a thread of its pools dies without a word, and is waited for.
# By kind: about how many allocations the longest job makes (of SQLite: the bytes that it wants), and how many fail.
KINDS = {"c": (60_000, (1, 20, MANY)), "python": (400_000, (1, 20)), "sqlite": (1_500_000, (0,))}
LIMIT_SECONDS = 60.0


@pytest.fixture
def jobs(faulty_server: Any, notes: Any, scratch: Path) -> dict[str, dict[str, Any]]:
    """What is done to copies of one collection, which lies in `prepared`."""
    files = notes(FILES + REMOVED)
    old = files[:FILES]
    prepared, folder = str(scratch / "prepared"), str(scratch / "c")
    faulty_server.run_one({"do": "index", "folder": prepared, "kind": "sq8", "runs": [old]}).require_done()
    faulty_server.run_one({"do": "remove", "folder": prepared, "paths": old[:REMOVED]}).require_done()
    base = {"folder": folder, "kind": "sq8", "k": FILES + 1}
    return {
        "index": {**base, "do": "index", "runs": [files[REMOVED:]]},
        "search": {**base, "do": "search"},
        "compact": {**base, "do": "compact"},
        "remove": {**base, "do": "remove", "paths": old[REMOVED : REMOVED + 5]},
        "migrate": {**base, "do": "migrate"},
    }


@pytest.mark.parametrize("of", KINDS)
@pytest.mark.parametrize("trials", [2, pytest.param(TRIALS, marks=pytest.mark.slow)])
def test_the_nth_allocation_fails(
    trials: int, of: str, jobs: dict[str, Any], faulty_server: Any, audit: Any, scratch: Path
) -> None:
    rng = random.Random(f"{SEED} {of}")
    most, windows = KINDS[of]
    ended: Counter[str] = Counter()
    for name, job in jobs.items():
        first = FILES - REMOVED
        after = {"index": FILES, "remove": first - 5}.get(name, first)
        for _ in range(trials):
            # Where something is allocated matters more than how often: early ones are as likely as late ones.
            nth = int(most ** rng.uniform(0.5 if of == "sqlite" else 0.2, 1))
            shortage = {"of": of, "nth": nth, "calls": rng.choice(windows)}
            shutil.rmtree(scratch / "c", ignore_errors=True)
            shutil.copytree(scratch / "prepared", scratch / "c")
            what = f"seed {SEED}, {name}, {shortage}"
            (outcome,) = faulty_server.run({**job, "shortage": shortage}, limit=LIMIT_SECONDS)
            said = outcome.lines[-1] if outcome.lines else ""
            assert "HUNG" not in outcome.lines, what
            if outcome.code == 0:
                ended["went to their end"] += 1
                assert name != "search" or outcome.said("FOUND") == [str(first)], f"{what}: {outcome.lines}"
            elif outcome.code == 1:
                ended["said it plainly"] += 1
                assert said.startswith(PLAIN), f"{what}: {said}"
                assert "damaged" not in said, f"{what}: {said}"
            elif "SystemError" in said:  # CPython has lost an error of its own, in code that it compiles say
                ended["had the interpreter's own error"] += 1
            else:
                assert outcome.code in (-signal.SIGABRT, NO_THREAD_LOCAL), f"{what}: {outcome.lines}"
                ended["aborted"] += 1
            try:
                found = audit.examine(scratch / "c")
                assert len(found.paths) in {first, after}, f"{len(found.paths)} items"
                assert outcome.code or len(found.paths) == after
                faulty_server.run_one(job).require_done()
                found = audit.examine(scratch / "c", whole=True)
                assert len(found.paths) == after
            except AssertionError as error:
                raise AssertionError(f"{what}: {error}") from error
    counts = ", ".join(f"{count:,} {how}" for how, count in sorted(ended.items()))
    print(f"\nallocations of {of} that fail: {ended.total():,} runs, {counts}; each collection sound, and gone on with")
