"""Many writers at once: one proceeds, the others are told at once who it is."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from trivium.pipeline.store import locking
from trivium.pipeline.store.database import LOCK_HOLDER, CollectionLockedError
from trivium.pipeline.store.store import Store

STARTS = int(os.environ.get("TRIVIUM_STARTS", "100"))
SOME_OR_ALL = [6, pytest.param(STARTS, marks=pytest.mark.slow)]


@pytest.fixture
def folder(groups: Any, tmp_path: Path) -> Path:
    Store.create(tmp_path / "c", groups.SPACE, source="groups").close()
    # A writer that was killed has left its pid, which is nobody's now.
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        pass
    (tmp_path / "c" / LOCK_HOLDER).write_text(str(ended.pid))
    return tmp_path / "c"


@pytest.mark.parametrize("starts", SOME_OR_ALL)
def test_one_proceeds_and_the_others_are_told_its_pid(starts: int, folder: Path, server: Any) -> None:
    outcomes = server.run(*[{"do": "hold", "folder": str(folder)}] * starts)
    holders = [outcome for outcome in outcomes if outcome.code == 0]
    refused = [outcome for outcome in outcomes if outcome.code != 0]
    assert len(holders) == 1, [outcome.lines for outcome in outcomes]
    (pid,) = holders[0].said("PID")
    for outcome in refused:
        assert re.match(rf"CollectionLockedError .* is being written .*\(pid {pid}\)", outcome.lines[-1]), (
            pid, outcome.lines,
        )  # fmt: skip
    print(f"\n{starts} simultaneous starts: 1 proceeded, {len(refused)} were refused with its pid")


@pytest.mark.parametrize("starts", SOME_OR_ALL)
def test_all_that_try_again_have_their_turn(starts: int, folder: Path, server: Any, groups: Any) -> None:
    jobs = [{"do": "add", "folder": str(folder), "group": group} for group in range(starts)]
    refused = sum(int(outcome.require_done().said("REFUSED")[0]) for outcome in server.run(*jobs))
    store = Store(folder)
    assert store.generation == starts
    assert len(list(store.items())) == store.vector_count() == starts * groups.MEMBERS
    print(f"\n{starts} writers that try again until it is their turn: {starts} commits, {refused} refusals")


def test_pid_is_told_only_if_it_can_be_the_writers(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locking, "HOLDER_SECONDS", 0.0)
    killed = (folder / LOCK_HOLDER).read_text()
    with locking.writer_lock(folder):
        with (
            pytest.raises(CollectionLockedError, match=rf"\(pid {os.getpid()}\); try again"),
            locking.writer_lock(folder),
        ):
            pass
        for left in (killed, "", "no pid", "9" * 40):
            (folder / LOCK_HOLDER).write_text(left)
            with pytest.raises(CollectionLockedError, match=r"\(pid unknown\)"), locking.writer_lock(folder):
                pass
