"""Groups of items that change together: a reader that sees half of a change has seen two generations.

The members of a group lie so near to each other that a search at their centre finds them first. A version of a group
has its own content for each member, and a similarity to the centre that tells the version; so path, caption and vector
of a hit each say of which version it is.
"""

import hashlib
import math
import os
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np

from trivium.encoders.base import Space, Vectors, unit_rows
from trivium.pipeline.records import ContentKey, NewItem
from trivium.pipeline.search.indexing import Indexer
from trivium.pipeline.search.retrieval import Hit, Retrieval
from trivium.pipeline.store.database import CollectionLockedError
from trivium.pipeline.store.store import Store
from trivium.pipeline.store.writer import Writer, writing
from trivium.pipeline.upkeep.backup import backup
from trivium.pipeline.upkeep.compaction import compact
from trivium.pipeline.upkeep.verification import verify

DIM = 64  # so many that two centres are hardly alike: cosines of at most 0.6 among a hundred
SPACE = Space(name="groups", dim=DIM, revision="1")
GROUPS = 40
MEMBERS = 5
VERSIONS = 5  # told apart by their similarity
STEP = 0.02  # between them; half precision, in which an index file of this kind keeps them, moves it by 3e-4
TOLERANCE = 0.002
INDEX_EVERY = 10  # commits


def centre(group: int) -> Vectors:
    return unit_rows(np.random.default_rng(group).normal(size=(1, DIM)))


def is_lasting(group: int) -> bool:
    """Whether a group is only ever replaced; the others are also removed for a while."""
    return group % 2 == 0


def similarity(version: int) -> float:
    return 1.0 - STEP * (version % VERSIONS)


def vectors(group: int, version: int) -> Vectors:
    """Unit vectors of all members, (MEMBERS, DIM), whose cosine with the centre is the version's."""
    middle = centre(group)
    random = np.random.default_rng([group, version]).normal(size=(MEMBERS, DIM))
    aside = unit_rows(random - (random @ middle.T) * middle)
    cosine = similarity(version)
    return unit_rows(cosine * middle + math.sqrt(1 - cosine**2) * aside)


def put(writer: Writer, group: int, *, version: int) -> None:
    """Add a group, or replace it by another version, in one commit."""
    keys = [
        ContentKey("text", hashlib.sha256(f"{group} {member} {version}".encode()).digest())
        for member in range(MEMBERS)
    ]  # fmt: skip
    items = [
        NewItem(
            path=f"/group/{group}/{member}", modality="text", fingerprint="", caption=str(version),
            contents={"content": key},
        )
        for member, key in enumerate(keys)
    ]  # fmt: skip
    known = writer.store.db.execute("SELECT 1 FROM content WHERE sha256 = ?", (keys[0].sha256,)).fetchone()
    writer.commit(items, [] if known else keys, np.empty((0, DIM), np.float32) if known else vectors(group, version))


def fault_in(hits: list[Hit], group: int) -> str | None:
    """Say what in an answer is of two generations, None if nothing is."""
    members = [hit for hit in hits if hit.path.startswith(f"/group/{group}/")]
    versions = {hit.caption for hit in members}
    if len(members) != MEMBERS and (members or is_lasting(group)):
        return f"{len(members)} of {MEMBERS} members of group {group} are there, versions {versions}"
    if len(versions) > 1 or len({hit.path for hit in members}) != len(members):
        return f"group {group} has versions {versions} at {sorted(hit.path for hit in members)}"
    for hit in members:
        expected = similarity(int(hit.caption or 0))
        if abs(hit.score - expected) > TOLERANCE:
            return f"{hit.path}, version {hit.caption}, has the score {hit.score}, not {expected}"
    return None


# Jobs of `workload.py`


def change(job: dict[str, Any], voice: Any) -> None:
    """Change groups until there were enough commits and compactions, and everyone else has had enough too."""
    rng = np.random.default_rng(job["seed"])
    store = Store(Path(job["folder"]))
    commits = compactions = 0
    versions = [0] * GROUPS
    present = set(range(GROUPS))
    while commits < job["commits"] or compactions < job["compactions"] or not voice.is_released():
        with writing(store) as writer:
            for _ in range(INDEX_EVERY):
                group = int(rng.integers(GROUPS))
                if group in present and not is_lasting(group) and rng.random() < 0.4:
                    writer.remove(store.items_named(f"/group/{group}"))
                    present.discard(group)
                else:
                    versions[group] += 1
                    put(writer, group, version=versions[group])
                    present.add(group)
                commits += 1
                if commits == job["commits"] and compactions >= job["compactions"]:
                    voice.say("ENOUGH")
            Indexer(writer).finish()
        if commits >= (compactions + 1) * job["commits"] / (job["compactions"] + 1):
            compact(store)
            compactions += 1
            if commits >= job["commits"] and compactions == job["compactions"]:
                voice.say("ENOUGH")
    voice.say(f"MADE {commits} {compactions}")


def read(job: dict[str, Any], voice: Any) -> None:
    """Search until there were enough queries and everyone else has had enough too."""
    rng = np.random.default_rng(job["seed"])
    store = Store(Path(job["folder"]))
    retrieval = Retrieval(store)
    seconds: list[float] = []
    while len(seconds) < job["queries"] or not voice.is_released():
        group = int(rng.integers(GROUPS))
        started = time.perf_counter()
        (hits,) = retrieval.search(centre(group), k=MEMBERS + 1)
        seconds.append(time.perf_counter() - started)
        if (fault := fault_in(hits, group)) is not None:
            voice.say(f"TORN {fault}")
        if len(seconds) == job["queries"]:
            voice.say("ENOUGH")
    p50, p99 = np.percentile(np.array(seconds) * 1000, [50, 99])
    voice.say(f"ANSWERED {len(seconds)} {p50:.2f} {p99:.2f} {store.generation}")


def back_up(job: dict[str, Any], voice: Any) -> None:
    """Make backups, each anew or in place of the last, and look at them, until there were enough."""
    folder, target, made, notes = Path(job["folder"]), Path(job["target"]), 0, 0
    while made < job["backups"] or not voice.is_released():
        if made % 3 == 0:
            shutil.rmtree(target, ignore_errors=True)
        done = backup(folder, target, replace=made % 3 > 0)
        made, notes = made + 1, notes + len(done.notes)
        found = verify(target, read_data=True)
        for finding in found.findings:
            voice.say(f"TORN {finding.path}: {finding.what}")
        store = Store(target)
        retrieval = Retrieval(store)
        for group in range(GROUPS):
            (hits,) = retrieval.search(centre(group), k=MEMBERS + 1)
            if (fault := fault_in(hits, group)) is not None:
                voice.say(f"TORN {fault}")
        if store.generation != done.generation:
            voice.say(f"TORN generation {store.generation}, not {done.generation}")
        store.close()
        if made == job["backups"]:
            voice.say("ENOUGH")
    voice.say(f"BACKED {made} {done.generation}")


def hold(job: dict[str, Any], voice: Any) -> None:
    """Be the writer until all others have been refused."""
    with writing(Store(Path(job["folder"]))):
        voice.say(f"PID {os.getpid()}")
        voice.say("ENOUGH")
        voice.is_released(timeout=None)


def add(job: dict[str, Any], voice: Any) -> None:
    """Be the writer as soon as nobody else is, and add a group."""
    store = Store(Path(job["folder"]))
    refused, rng = 0, np.random.default_rng(job["group"])
    while True:
        try:
            with writing(store) as writer:
                put(writer, job["group"], version=0)
                voice.say(f"REFUSED {refused}")
                return
        except CollectionLockedError:
            refused += 1
            time.sleep(rng.uniform(0.01, 0.1))  # or a hundred of them leave the writer no core
