"""Readers in other processes see one generation, whatever a writer does meanwhile."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from trivium.pipeline.store.database_file import DATABASE
from trivium.pipeline.store.store import Store
from trivium.pipeline.store.writer import writing

READERS = 4
LIMIT_SECONDS = 3600.0
QUERIES = int(os.environ.get("TRIVIUM_QUERIES", "10000"))
SEED = int(os.environ.get("TRIVIUM_SEED", "0"))


@pytest.mark.parametrize(
    ("queries", "commits", "compactions"), [(100, 10, 1), pytest.param(QUERIES, 200, 2, marks=pytest.mark.slow)]
)
def test_each_answer_is_of_one_generation(
    queries: int, commits: int, compactions: int, server: Any, groups: Any, tmp_path: Path
) -> None:
    folder = str(tmp_path / "c")
    store = Store.create(tmp_path / "c", groups.SPACE, source="groups")
    with writing(store) as writer:
        writer.set_wish({"kind": "fp16"})
        for group in range(groups.GROUPS):
            groups.put(writer, group, version=0)
    writer_job = {"do": "change", "folder": folder, "seed": SEED, "commits": commits, "compactions": compactions}
    reader_jobs = [
        {"do": "read", "folder": folder, "seed": [SEED, reader], "queries": queries} for reader in range(READERS)
    ]
    changes, *readers = server.run(writer_job, *reader_jobs, limit=LIMIT_SECONDS)
    made, compacted = map(int, changes.require_done().said("MADE")[0].split())
    assert made >= commits
    assert compacted >= compactions
    answers = 0
    p50, p99, generations = [], [], []
    for reader in readers:
        assert not reader.require_done().said("TORN"), f"seed {SEED}: {reader.said('TORN')[:5]}"
        count, half, most, seen = reader.said("ANSWERED")[0].split()
        answers += int(count)
        p50.append(float(half))
        p99.append(float(most))
        generations.append(int(seen))
    assert answers >= READERS * queries
    assert min(generations) > 1
    print(
        f"\n{READERS} readers, {answers} queries during {made} commits and {compacted} compactions: each answer of one "
        f"generation, 0 errors; p50 {max(p50)} ms, p99 {max(p99)} ms (the slowest reader's)"
    )


def test_writer_that_ends_leaves_a_reader_in_its_process_its_generation(groups: Any, tmp_path: Path) -> None:
    """Closing a file drops the locks that the process has on it."""
    folder = tmp_path / "c"
    store = Store.create(folder, groups.SPACE, source="groups")
    intrude = (
        f"import sqlite3; sqlite3.connect({str(folder / DATABASE)!r}, timeout=0, isolation_level=None)"
        ".execute('BEGIN EXCLUSIVE')"
    )
    with store.reading():
        assert store.generation == 0
        with writing(Store(folder)):
            pass
        other = subprocess.run([sys.executable, "-c", intrude], capture_output=True, text=True)
    assert "database is locked" in other.stderr
