"""The program that is killed: a warm process that forks a child for each job, arms the shim in it, and may kill it.

    python workload.py [SHIM]

One request a line, as JSON: {"jobs": [{"do": NAME, "fault": {...}}, ...], "kill_after": seconds or null, "limit":
seconds}. All jobs of a request start together; those that wait for the others go on when each has said ENOUGH or has
ended. One answer a line: for each job what it said, and its exit code, which is minus the signal that ended it. A fork
takes milliseconds where importing takes a second; that is what makes thousands of trials possible.
"""

import contextlib
import ctypes
import importlib.util
import json
import os
import resource
import select
import selectors
import signal
import sqlite3
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import filelock  # noqa: F401, imported by the first writer: its many allocations are not what should fail
import numpy as np

from trivium.encoders.base import Vectors, unit_rows
from trivium.indexes import Wish
from trivium.pipeline.ingest import contents, scanning
from trivium.pipeline.ingest.ingestion import ingest
from trivium.pipeline.ingest.settings import IngestSettings
from trivium.pipeline.search import indexing
from trivium.pipeline.search.retrieval import Retrieval
from trivium.pipeline.store.database import CollectionError
from trivium.pipeline.store.database_file import DATABASE
from trivium.pipeline.store.store import Store
from trivium.pipeline.store.writer import writing
from trivium.pipeline.upkeep.backup import backup, restore
from trivium.pipeline.upkeep.compaction import compact
from trivium.pipeline.upkeep.migration import migrate

BATCH_FILES = 20
# So few vectors outside of an index file make a new one fall due: a short run goes through all of its life.
TAIL = 10

Job = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Voice:
    """A child's way to tell what it has done, and to wait for its siblings."""

    pipe: int
    release: int
    shim: ctypes.CDLL | None = None  # that records

    def say(self, line: str) -> None:
        if self.shim is not None:
            self.shim.fault_mark(line.encode())
        os.write(self.pipe, line.replace("\n", " ").encode() + b"\n")

    def is_released(self, *, timeout: float | None = 0.0) -> bool:
        return bool(select.select([self.release], [], [], timeout)[0])


def load_beside(name: str, path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look for their module
    spec.loader.exec_module(module)
    return module


STUB = load_beside("stub_space", Path(__file__).parents[1] / "conftest.py")


def telling_space(voice: Voice, revision: str = "1") -> Any:
    """Return a stub space that tells of every batch that it encodes."""
    space = STUB.StubSpace(revision)

    class TellingEncoder(STUB.StubEncoder):  # type: ignore[misc, name-defined]
        def embed(self, batch: Any, /) -> Vectors:
            voice.say(f"ENCODED {len(batch)}")
            return super().embed(batch)  # type: ignore[no-any-return]

    space.encoder = lambda modality, replica=0: TellingEncoder(modality, space.space, space.calls)
    return space


def index(job: Job, voice: Voice) -> None:
    """Index files in one or several runs, and tell after each batch how many items are committed."""
    folder, space, wish = Path(job["folder"]), telling_space(voice), {"kind": job["kind"]}
    is_made = (folder / DATABASE).exists()
    store = Store(folder) if is_made else Store.create(folder, space.space, source="stub")
    if store.wish != Wish(**wish):
        with writing(store) as writer:
            writer.set_wish(wish)
    for media in job["runs"]:
        before = sum(store.counts().values())

        def tell(modality: str, done: float, total: int, before: int = before) -> None:
            voice.say(f"ACKNOWLEDGED {before + done}")

        ingest(store, space, media, IngestSettings(progress=tell))


def remove(job: Job, voice: Voice) -> None:
    """Remove the items at some paths, all or none."""
    store, paths = Store(Path(job["folder"])), set(job["paths"])
    with writing(store) as writer:
        if found := [item.id for item in store.items() if item.path in paths]:
            writer.remove(found)


def run_compact(job: Job, voice: Voice) -> None:
    """Compact."""
    compact(Store(Path(job["folder"])))


def run_migrate(job: Job, voice: Voice) -> None:
    """Move to the second revision of the space."""
    assert migrate(Store(Path(job["folder"])), telling_space(voice, revision="2")).is_done


def run_backup(job: Job, voice: Voice) -> None:
    """Back a collection up, in place of an earlier backup if there is one."""
    target = Path(job["target"])
    backup(Path(job["folder"]), target, replace=target.exists())


def run_restore(job: Job, voice: Voice) -> None:
    """Make a collection of a backup."""
    restore(Path(job["target"]), Path(job["folder"]))


def search(job: Job, voice: Voice) -> None:
    """Search, and say what was found."""
    store = Store(Path(job["folder"]))
    (hits,) = Retrieval(store).search(unit_rows(np.ones((1, store.space.dim))), k=job["k"])
    voice.say(f"FOUND {len({hit.path for hit in hits})}")


def live(job: Job, voice: Voice) -> None:
    """Create, index, remove, compact: every way in which a collection's files change."""
    index(job, voice)
    remove(job, voice)
    run_compact(job, voice)


def live_long(job: Job, voice: Voice) -> None:
    """Live, then move to another space and index more, and say what is begun and what is done."""
    more = {**job, "runs": [[*job["runs"][-1], *job["more"]]]}
    tasks: list[tuple[str, Callable[[Job, Voice], None], Job]] = [
        ("create and index", index, job),
        ("remove", remove, job),
        ("compact", run_compact, job),
        ("index again", index, more),
        ("migrate", run_migrate, job),
        ("remove again", remove, {**job, "paths": job["more"]}),
        ("compact again", run_compact, job),
    ]
    for name, task, its_job in tasks:
        voice.say(f"BEGUN {name}")
        task(its_job, voice)
        voice.say(f"DONE {name}")


def watch(job: Job, voice: Voice) -> None:
    """Search, and see whole generations only, until the others have ended."""
    voice.say("ENOUGH")
    folder, answers = Path(job["folder"]), 0
    while not (folder / DATABASE).exists():
        if voice.is_released(timeout=0.001):
            return
    store = Store(folder)
    retrieval, queries = Retrieval(store), unit_rows(np.ones((1, store.space.dim)))
    while not voice.is_released():
        with store.reading():
            count = sum(store.counts().values())
            (hits,) = retrieval.search(queries, k=max(1, count))
        answers += 1
        if len({hit.path for hit in hits}) != count or len(hits) != count:
            voice.say(f"TORN {len(hits)} hits of {count} items")
    voice.say(f"ANSWERED {answers}")


GROUPS = load_beside("groups", Path(__file__).with_name("groups.py"))
JOBS: dict[str, Callable[[Job, Voice], None]] = {
    "index": index,
    "remove": remove,
    "compact": run_compact,
    "migrate": run_migrate,
    "search": search,
    "live": live,
    "backup": run_backup,
    "restore": run_restore,
    "live_long": live_long,
    "watch": watch,
    "hold": GROUPS.hold,
    "add": GROUPS.add,
    "back up": GROUPS.back_up,
    "change": GROUPS.change,
    "read": GROUPS.read,
}


@dataclass(slots=True)
class Child:
    """A job that runs."""

    pid: int
    pipe: int
    said: bytearray = field(default_factory=bytearray)

    def lines(self) -> list[str]:
        return self.said.decode().splitlines()


@contextlib.contextmanager
def short_of_memory(shortage: Job | None, shim: ctypes.CDLL | None, voice: Voice) -> Iterator[None]:
    """Let the Nth allocation fail, and some after it: the C library's, Python's, or what SQLite takes above a limit."""
    if shortage is None:
        yield
        return
    import _testcapi  # type: ignore[import-not-found]

    nth, calls = shortage["nth"], shortage["calls"]
    counted = -1
    if shortage["of"] == "c":
        assert shim is not None, "no shim was given"
        shim.allocations_arm(ctypes.c_long(nth), ctypes.c_long(calls))
    elif shortage["of"] == "python":
        _testcapi.set_nomemory(nth, nth + calls)
    else:
        sqlite3.connect(":memory:").execute(f"PRAGMA hard_heap_limit = {nth}").fetchall()
    try:
        yield
    finally:
        _testcapi.remove_mem_hooks()
        if shortage["of"] == "c" and shim is not None:
            counted = shim.allocations_disarm()
        voice.say(f"ALLOCATIONS {counted}")


def run_child(job: Job, voice: Voice, gate: int, shim: ctypes.CDLL | None) -> int:
    try:
        if job.get("file_size_limit"):
            resource.setrlimit(resource.RLIMIT_FSIZE, (job["file_size_limit"],) * 2)
        os.read(gate, 1)  # until all have been started
        if (fault := job.get("fault")) is not None:
            assert shim is not None, "no shim was given"
            shim.fault_only(fault["call"].encode(), fault["path"].encode())
            shim.fault_arm(
                os.fsencode(fault["root"]), fault["mode"], fault["nth"], fault["calls"], fault["error"], voice.pipe,
                int(fault["trace"]),
            )  # fmt: skip
        if job.get("record"):
            assert shim is not None, "no shim was given"
            assert shim.fault_record(os.fsencode(job["record"])) >= 0
            voice = replace(voice, shim=shim)
        with short_of_memory(job.get("shortage"), shim, voice):
            JOBS[job["do"]](job, voice)
    except MemoryError as error:
        voice.say(f"{type(error).__name__} {error}")
        return 1
    except CollectionError as error:
        voice.say(f"{type(error).__name__} {error}")
        return 1
    except BaseException:
        voice.say(f"CRASHED {traceback.format_exc()}")
        return 2
    return 0


def start(jobs: list[Job], shim: ctypes.CDLL | None) -> tuple[list[Child], int]:
    """Fork all children and open the gate; return them, and the descriptor whose closing releases those that wait."""
    gate, open_gate = os.pipe()
    released, release = os.pipe()
    children = []
    for job in jobs:
        listen, pipe = os.pipe()
        if not (pid := os.fork()):
            os.close(open_gate)
            os.close(release)
            os._exit(run_child(job, Voice(pipe, released), gate, shim))
        os.close(pipe)
        children.append(Child(pid, listen))
    for descriptor in (gate, open_gate, released):
        os.close(descriptor)
    return children, release


def run(jobs: list[Job], shim: ctypes.CDLL | None, *, kill_after: float | None, limit: float) -> list[Any]:
    children, release = start(jobs, shim)
    started = time.monotonic()
    deadline = started + (limit if kill_after is None else kill_after)
    waiting = {child.pid for child in children}
    with selectors.DefaultSelector() as selector:
        for child in children:
            selector.register(child.pipe, selectors.EVENT_READ, child)
        while selector.get_map():
            events = selector.select(max(0.0, deadline - time.monotonic()))
            if not events and time.monotonic() >= deadline:
                for child in children:
                    os.kill(child.pid, signal.SIGKILL)  # not waited for yet, so the pid is still its own
                    if kill_after is None:
                        child.said += b"HUNG\n"
                deadline = started + 10 * limit
            for key, _ in events:
                child = key.data
                data = os.read(child.pipe, 1 << 16)
                child.said += data
                if not data:
                    selector.unregister(child.pipe)
                    os.close(child.pipe)
                if child.pid in waiting and (not data or "ENOUGH" in child.lines()):
                    waiting.remove(child.pid)
                    if not waiting:
                        os.close(release)
    seconds = time.monotonic() - started
    codes = [os.waitstatus_to_exitcode(os.waitpid(child.pid, 0)[1]) for child in children]
    return [
        {"lines": child.lines(), "code": code, "seconds": seconds}
        for child, code in zip(children, codes, strict=True)
    ]  # fmt: skip


def main() -> None:
    shim = ctypes.CDLL(sys.argv[1]) if len(sys.argv) > 1 else None
    # The folders' own life is slowed down by none of this: files may be as fresh as they are, batches are small.
    contents.BATCH_FILES = dict.fromkeys(("text", "image", "audio"), BATCH_FILES)
    scanning.FRESH_NS = 0
    indexing.FEWEST = TAIL
    print("ready", flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        answer = run(request["jobs"], shim, kill_after=request["kill_after"], limit=request["limit"])
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
