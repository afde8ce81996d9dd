"""`kill -9` before, after and in the middle of each changing call of a removal, a compaction and a migration."""

import shutil
from pathlib import Path
from typing import Any

import pytest

FILES = 60
REMOVED = 20
EVERY = 1_000_000
# What may be searched after a kill: (items, revision of the space).
BEFORE_AND_AFTER = {
    "remove": {(FILES - REMOVED, "1"), (FILES - 2 * REMOVED, "1")},
    "compact": {(FILES - REMOVED, "1")},
    "migrate": {(FILES - REMOVED, "1"), (FILES - REMOVED, "2")},
}
AT_LAST = {"remove": (FILES - 2 * REMOVED, "1"), "compact": (FILES - REMOVED, "1"), "migrate": (FILES - REMOVED, "2")}


@pytest.mark.parametrize("job", ["remove", "compact", "migrate"])
@pytest.mark.parametrize("wanted", [2, pytest.param(EVERY, marks=pytest.mark.slow)])
def test_killed_at_each_call(
    job: str, wanted: int, faulty_server: Any, harness: Any, audit: Any, notes: Any, scratch: Path
) -> None:
    files = notes(FILES)
    prepared, folder = scratch / "prepared", scratch / "c"
    faulty_server.run_one({"do": "index", "folder": str(prepared), "kind": "sq8", "runs": [files]}).require_done()
    faulty_server.run_one({"do": "remove", "folder": str(prepared), "paths": files[:REMOVED]}).require_done()
    do = {"do": job, "folder": str(folder), "paths": files[REMOVED : 2 * REMOVED]}

    def run(**fault: Any) -> Any:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(prepared, folder)
        return faulty_server.run_one(do, fault=harness.Fault(root=str(folder), **fault))

    def state(*, whole: bool) -> tuple[int, str]:
        found = audit.examine(folder, whole=whole)
        assert found.paths <= set(files[REMOVED:])
        assert found.has_index or not whole
        return len(found.paths), found.revision

    calls = len(run(mode=harness.NONE, trace=True).require_done().calls())
    assert state(whole=True) == AT_LAST[job]
    kills = 0
    for how, mode in harness.KILLS.items():
        for nth in harness.spread(calls, wanted=wanted):
            try:
                outcome = run(mode=mode, nth=nth)
                assert outcome.was_killed, outcome.lines
                kills += 1
                assert state(whole=False) in BEFORE_AND_AFTER[job]
                faulty_server.run_one(do).require_done()
                assert state(whole=True) == AT_LAST[job]
            except AssertionError as error:
                raise AssertionError(f"{job}, killed {how} call {nth}: {error}") from error
    print(f"\n{job}: {kills} kills, before, after and within {calls} calls: all or nothing each time, then completed")
