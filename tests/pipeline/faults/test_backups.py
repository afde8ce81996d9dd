"""Backups while a writer works, and kills, failures and full disks while they are made and restored."""

import itertools
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from trivium.pipeline.store.database_file import DATABASE
from trivium.pipeline.store.store import Store
from trivium.pipeline.store.writer import writing
from trivium.pipeline.upkeep.backup import backup
from trivium.pipeline.upkeep.findings import Finding
from trivium.pipeline.upkeep.verification import verify

FILES = 60
REMOVED = 15
EVERY = 1_000_000
PAGE = 4096
LIMIT_SECONDS = 3600.0
BACKUPS = int(os.environ.get("TRIVIUM_BACKUPS", "1000"))
SEED = int(os.environ.get("TRIVIUM_SEED", "0"))


@pytest.mark.parametrize(
    ("backups", "commits", "compactions"), [(6, 20, 2), pytest.param(BACKUPS, 500, 100, marks=pytest.mark.slow)]
)
def test_each_backup_is_of_one_generation(
    backups: int, commits: int, compactions: int, server: Any, groups: Any, scratch: Path
) -> None:
    folder = scratch / "c"
    store = Store.create(folder, groups.SPACE, source="groups")
    with writing(store) as writer:
        writer.set_wish({"kind": "fp16"})
        for group in range(groups.GROUPS):
            groups.put(writer, group, version=0)
    changes, copies = server.run(
        {"do": "change", "folder": str(folder), "seed": SEED, "commits": commits, "compactions": compactions},
        {"do": "back up", "folder": str(folder), "target": str(scratch / "b"), "backups": backups},
        limit=LIMIT_SECONDS,
    )
    made, compacted = map(int, changes.require_done().said("MADE")[0].split())
    assert not copies.require_done().said("TORN"), f"seed {SEED}: {copies.said('TORN')[:5]}"
    copied, generation = map(int, copies.said("BACKED")[0].split())
    assert copied >= backups
    assert generation > 1
    assert not list(scratch.glob(".*"))
    print(f"\n{copied} backups during {made} commits and {compacted} compactions: each whole, of one generation")


class Scene:
    """A collection, an earlier backup of it, and a job that has to do with both."""

    def __init__(self, root: Path, job: str, files: list[str], *, server: Any, audit: Any) -> None:
        self._kept, self.root, self._audit, self._server = root / "kept", root / "now", audit, server
        self._job, self._files = job, files
        self.folder, self.target = self.root / "c", self.root / "b"
        kept = str(self._kept / "c")
        server.run_one({"do": "index", "folder": kept, "kind": "sq8", "runs": [files[:-20]]}).require_done()
        if job != "backup":
            self._copy()
            backup(self.folder, self.target)
            shutil.copytree(self.target, self._kept / "b")
        server.run_one({"do": "index", "folder": kept, "kind": "sq8", "runs": [files]}).require_done()
        server.run_one({"do": "remove", "folder": kept, "paths": files[:REMOVED]}).require_done()

    def run(self, **fault: Any) -> Any:
        """Do it in a fresh copy of everything."""
        self._copy()
        if (self._kept / "b").is_dir():
            shutil.copytree(self._kept / "b", self.target)
        return self.run_again(**fault)

    def run_again(self, **fault: Any) -> Any:
        job = {"do": self._job.replace("replace", "backup"), "folder": str(self.folder), "target": str(self.target)}
        return self._server.run_one(job, **fault)

    def look(self, *, is_done: bool) -> None:
        """Whatever has happened, each of the two is there as it was or as it is to be, and whole."""
        old, new = frozenset(self._files[:-20]), frozenset(self._files[REMOVED:])
        collection, copy = ({old}, {old}) if self._job == "restore" else ({new}, {new})
        if not is_done:
            collection |= {new}
            copy |= {old} if self._job == "replace" else set()
        assert self._paths(self.folder) in collection
        if is_done or self._job != "backup" or self.target.exists():
            assert self._paths(self.target) in copy
        moved = list(self.root.glob("c.before-restore-*"))
        assert self._job == "restore" or not moved
        if is_done and self._job == "restore":
            assert new in [self._paths(path) for path in moved]
        assert not is_done or not list(self.root.glob(".*"))

    def _copy(self) -> None:
        shutil.rmtree(self.root, ignore_errors=True)
        self.root.mkdir()
        shutil.copytree(self._kept / "c", self.folder)

    def _paths(self, folder: Path) -> frozenset[str]:
        assert _unexpected(verify(folder, read_data=True).findings) == []
        found = self._audit.examine(folder)
        return frozenset(found.paths)


def _unexpected(findings: list[Finding]) -> list[Finding]:
    """Copied by `shutil`, an index file is hashed at each opening."""
    return [finding for finding in findings if "copied, touched or changed" not in finding.what]


JOBS = ("backup", "replace", "restore")


@pytest.fixture
def scene(faulty_server: Any, audit: Any, notes: Any, scratch: Path, request: pytest.FixtureRequest) -> Scene:
    return Scene(scratch, request.param, notes(FILES), server=faulty_server, audit=audit)


@pytest.mark.parametrize("scene", JOBS, indirect=True)
@pytest.mark.parametrize("wanted", [3, pytest.param(EVERY, marks=pytest.mark.slow)])
def test_killed_at_each_call(wanted: int, scene: Scene, harness: Any) -> None:
    def fault(**given: Any) -> Any:
        return harness.Fault(root=str(scene.root), **given)

    traced = scene.run(fault=fault(mode=harness.NONE, trace=True)).require_done().calls()
    scene.look(is_done=True)
    assert len(traced) > 30
    kills = 0
    for how, mode in harness.KILLS.items():
        for nth in harness.spread(len(traced), wanted=wanted):
            try:
                assert scene.run(fault=fault(mode=mode, nth=nth)).was_killed
                scene.look(is_done=False)
                scene.run_again().require_done()
                scene.look(is_done=True)
            except AssertionError as error:
                raise AssertionError(f"killed {how} call {nth}, {traced[nth - 1]}: {error}") from error
            kills += 1
    print(f"\n{kills} kills, before, after and within {len(traced)} calls: nothing lost, then completed")


@pytest.mark.parametrize("scene", JOBS, indirect=True)
@pytest.mark.parametrize("step", [45, pytest.param(1, marks=pytest.mark.slow)])
def test_each_call_fails(step: int, scene: Scene, harness: Any) -> None:
    told: list[int] = []
    for nth in itertools.count(1, step):
        for mode, calls in (("FAIL", 1), ("FULL", 0)):
            outcome = scene.run(
                fault=harness.Fault(root=str(scene.root), mode=getattr(harness, mode), nth=nth, calls=calls)
            )
            try:
                assert outcome.code in (0, 1), f"not a plain error: {outcome.lines}"
                assert not outcome.code or outcome.lines[-1].startswith("CollectionError"), outcome.lines
                assert not outcome.code or "is damaged" not in outcome.lines[-1], outcome.lines
                scene.look(is_done=False)
                scene.run_again().require_done()
                scene.look(is_done=True)
            except AssertionError as error:
                raise AssertionError(f"{mode} from call {nth}: {error}") from error
            told.append(outcome.code)
        if not outcome.said("HIT"):
            break
    assert told.count(1) >= 2
    print(f"\ncalls 1, {1 + step}, ... {nth} fail: {told.count(1)} plain errors, nothing lost, then completed")


def test_full_disk(server: Any, audit: Any, notes: Any, scratch: Path, small_disk: Path) -> None:
    folder, files, target = scratch / "c", notes(FILES), small_disk / "b"
    server.run_one({"do": "index", "folder": str(folder), "kind": "sq8", "runs": [files]}).require_done()
    job = {"do": "backup", "folder": str(folder), "target": str(target)}
    filler, refused = small_disk / "filler", 0
    for pages in itertools.count(0, 8):
        filler.write_bytes(b"\0" * (shutil.disk_usage(small_disk).free - pages * PAGE))
        outcome = server.run_one(job)
        filler.unlink()
        if not outcome.code:
            break
        assert outcome.code == 1, outcome.lines
        assert outcome.lines[-1].startswith("CollectionError"), outcome.lines
        assert os.listdir(small_disk) == []
        refused += 1
    assert refused >= 2
    assert audit.examine(target, whole=True).paths == set(files)
    assert (folder / DATABASE).exists()
