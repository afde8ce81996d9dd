"""`kill -9` at random times, and between the kills the folder is moved, copied, restored, and robbed of its index.

Meanwhile another process has the collection open and searches it. It may be told that what it has open is no longer the
collection; what it is told otherwise is the collection as it is.
"""

import json
import os
import random
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from trivium.pipeline.store.database import CollectionError
from trivium.pipeline.store.database_file import CHECKSUM
from trivium.pipeline.store.store import Store
from trivium.pipeline.store.writer import writing

BATCH = 20
KIND = "fp16"  # of the index: others would know a vector of their own less surely
FILES = 200
RUN = 60  # files that one run adds at most: the collection is long unfinished, and copies of it are of many ages
SEED = int(os.environ.get("TRIVIUM_SEED", "0"))
KILLS = int(os.environ.get("TRIVIUM_RESTORE_KILLS", "5000"))
LIFE = 50  # kills of one collection


class Ordeal:
    """One collection, what is known of it, and copies of it with what was known when they were made."""

    def __init__(self, folder: Path, files: list[str], *, server: Any, audit: Any, rng: random.Random) -> None:
        self.folder = folder
        self.files = files
        self.server = server
        self.audit = audit
        self.rng = rng
        self.acknowledged = 0
        self.kills = 0
        self.done: Counter[str] = Counter()
        self._copies: list[tuple[Path, int]] = []
        self._elsewhere = folder.with_name("elsewhere")

    def index(self, folder: Path, *, kill_after: float | None) -> Any:
        """Index some files more, or until the kill; check what is there then."""
        wanted = min(len(self.files), self.acknowledged + RUN)
        job = {"do": "index", "folder": str(folder), "kind": KIND, "runs": [self.files[:wanted]]}
        outcome = self.server.run_one(job, kill_after=kill_after)
        if outcome.was_killed:
            self.kills += 1
        else:
            outcome.require_done()
        self.acknowledged = max(self.acknowledged, outcome.acknowledged)
        self.look(folder, wanted=None if outcome.was_killed else wanted)
        return outcome

    def look(self, folder: Path, *, wanted: int | None = None) -> None:
        """Check what is there; ``wanted`` files of an undisturbed run."""
        found = self.audit.examine(folder, whole=wanted is not None, may_lack_index=wanted is None)
        paths: frozenset[str] = frozenset() if found is None else found.paths
        count = len(paths)
        assert paths == set(self.files[:count]), "items that never were together"
        assert count % BATCH == 0
        assert count >= self.acknowledged, f"LOST: {self.acknowledged} were acknowledged, {count} are there"
        assert count <= self.acknowledged + BATCH
        assert found is None or found.vectors == count, f"DOUBLED: {found.vectors} vectors of {count} items"
        assert wanted is None or (count == wanted and found is not None and found.has_index)
        self.acknowledged = count

    # What happens between kills

    def nothing(self, kill_after: float) -> None:
        pass

    def move_and_return(self, kill_after: float) -> None:
        self.folder.rename(self._elsewhere)
        self._elsewhere.rename(self.folder)

    def index_elsewhere(self, kill_after: float) -> None:
        self.folder.rename(self._elsewhere)
        self.index(self._elsewhere, kill_after=kill_after)
        self._elsewhere.rename(self.folder)

    def keep_a_copy(self, kill_after: float) -> None:
        copy = self.folder.with_name(f"copy {len(self._copies)}")
        shutil.copytree(self.folder, copy)
        self._copies.append((copy, self.acknowledged))

    def restore(self, kill_after: float) -> None:
        """Put back a copy, with its times or without, after the present one or in one step."""
        copy, acknowledged = self.rng.choice(self._copies)
        how = self.rng.choice((shutil.copy2, shutil.copy, shutil.copyfile))
        if self.rng.random() < 0.5:
            shutil.rmtree(self.folder)
            shutil.copytree(copy, self.folder, copy_function=how)
        else:
            shutil.copytree(copy, self._elsewhere, copy_function=how)
            self.folder.rename(self.folder.with_name("old"))
            self._elsewhere.rename(self.folder)
            shutil.rmtree(self.folder.with_name("old"))
        self.acknowledged = acknowledged

    def restore_in_place(self, kill_after: float) -> None:
        """Copy a copy over what is there, as a careless hand does; what is not in the copy stays."""
        copy, acknowledged = self.rng.choice(self._copies)
        shutil.copytree(copy, self.folder, copy_function=_replace, dirs_exist_ok=True)
        if not (copy / CHECKSUM).exists():  # the later one says rightly that the database is an old one
            (self.folder / CHECKSUM).unlink(missing_ok=True)
        self.acknowledged = acknowledged

    def lose_the_index(self, kill_after: float) -> None:
        shutil.rmtree(self.folder / "index", ignore_errors=True)

    def suffer(self, kill_after: float) -> None:
        """Let one of these happen, and check that it has changed nothing else."""
        if not (self.folder / "collection.db").exists():
            return
        happenings = [self.nothing, self.move_and_return, self.index_elsewhere, self.keep_a_copy, self.lose_the_index]
        if self._copies:
            happenings += [self.restore, self.restore, self.restore_in_place]
        happening = self.rng.choice(happenings)
        with closing(Store(self.folder)) as stale:
            happening(kill_after)
            self.done[happening.__name__] += 1
            if self.rng.random() < 0.5:
                self.write_with(stale)
        self.look(self.folder)

    def write_with(self, stale: Store) -> None:
        """Write nothing with what was opened before: it is refused, or removes what no run has named."""
        try:
            with writing(stale):
                pass
        except CollectionError:
            self.done["write_refused"] += 1


def _replace(source: str, target: str) -> None:
    """Copy as backup programs do: aside, then in place of the old file."""
    shutil.copy2(source, f"{target}.part")
    os.replace(f"{target}.part", target)


@contextmanager
def reading(folder: Path, files: list[str]) -> Iterator[Callable[[], dict[str, Any]]]:
    """Run `reader.py`; asking it tells what it has seen since it was asked before."""
    command = [sys.executable, str(Path(__file__).with_name("reader.py")), str(folder), *files]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None

        def ask() -> dict[str, Any]:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write("\n")
            process.stdin.flush()
            answer = process.stdout.readline()
            assert answer, "the reader has crashed"
            told: dict[str, Any] = json.loads(answer)
            return told

        try:
            yield ask
        finally:
            process.stdin.close()


@pytest.mark.parametrize("kills", [12, pytest.param(KILLS, marks=pytest.mark.slow)])
def test_killed_moved_and_restored(kills: int, server: Any, audit: Any, notes: Any, scratch: Path) -> None:
    rng = random.Random(SEED)
    files, folder = notes(FILES), scratch / "c"
    done, seen = Counter[str](), Counter[str]()
    made = collections = 0
    undisturbed = Ordeal(folder, files, server=server, audit=audit, rng=rng).index(folder, kill_after=None).seconds
    with reading(folder, files) as ask:
        while made < kills:
            shutil.rmtree(scratch)
            scratch.mkdir()
            ordeal = Ordeal(folder, files, server=server, audit=audit, rng=rng)
            what = ""
            try:
                while ordeal.kills < LIFE and ordeal.acknowledged < FILES and made + ordeal.kills < kills:
                    what = f"kill {made + ordeal.kills}, {dict(ordeal.done)}"
                    ordeal.index(folder, kill_after=rng.uniform(0, undisturbed))
                    ordeal.suffer(rng.uniform(0, undisturbed))
                    told = ask()
                    assert not told["wrong"], told["wrong"]
                    assert told["paths"] == files[: ordeal.acknowledged], (
                        f"the reader saw {len(told['paths'])} items ({told['error']}), {ordeal.acknowledged} are there"
                    )
                    seen.update(told["seen"])
                while ordeal.acknowledged < FILES:
                    ordeal.index(folder, kill_after=None)
            except AssertionError as error:
                raise AssertionError(f"seed {SEED}, {what}: {error}") from error
            made, collections = made + ordeal.kills, collections + 1
            done.update(ordeal.done)
    print(
        f"\nkills at random times while {FILES} files are indexed, moved and restored: {made:,} made over "
        f"{collections:,} collections (between them: {_listed(done)}), 0 items lost, 0 doubled, each completed; a "
        f"reader that was open all the while: {_listed(seen)}, 0 wrong; seed {SEED}"
    )


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in sorted(counts.items()))
