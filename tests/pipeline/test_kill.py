"""`kill -9` at random moments of indexing: the collection opens, nothing committed is lost, the next run goes on."""

import random
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from trivium.pipeline.collection import Collection
from trivium.pipeline.retrieval import Retrieval
from trivium.pipeline.store import Store

FILES = 2000
TRIALS = 6
CHILD = """
import importlib.util, sys
from trivium.pipeline import ingestion
from trivium.pipeline.collection import Collection
spec = importlib.util.spec_from_file_location("conftest", sys.argv[1])
conftest = importlib.util.module_from_spec(spec)
spec.loader.exec_module(conftest)
ingestion.BATCH_FILES = {"text": 4, "image": 4, "audio": 4}
print("ready", flush=True)
Collection.open(sys.argv[2], space=conftest.StubSpace()).add(
    sys.argv[3], progress=lambda modality, done, total: print(done, flush=True)
)
"""


def test_killed_while_indexing(tmp_path: Path, space) -> None:
    media = tmp_path / "media"
    media.mkdir()
    for number in range(FILES):
        (media / f"{number:04}.md").write_text(f"note {number}")
    rng = random.Random(0)
    folder = tmp_path / "c"
    acknowledged = 0
    for trial in range(TRIALS):
        command = [sys.executable, "-c", CHILD, str(Path(__file__).with_name("conftest.py")), str(folder), str(media)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            assert child.stdout.readline() == "ready\n"
            time.sleep(rng.uniform(0.0, 0.3))
            child.send_signal(signal.SIGKILL)
            told = child.stdout.read().split()
        if not (folder / "collection.db").exists():
            continue  # killed before there was one: the next run starts it
        with sqlite3.connect(folder / "collection.db") as db:
            assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",), trial
            assert db.execute("PRAGMA foreign_key_check").fetchall() == []
        db.close()
        store = Store(folder)
        items = list(store.items())
        # A batch of 4 is told after it is committed; one more may be committed and not yet told.
        assert max(acknowledged, int(told[-1]) if told else 0) <= len(items), trial
        assert len(items) % 4 == 0
        assert len(Retrieval(store).search(np.ones((1, 16), np.float32), k=FILES)[0]) == len(items)
        acknowledged = len(items)
        store.close()
    collection = Collection.open(folder, space=space)
    summary = collection.add(media)
    assert summary.added == FILES - acknowledged
    assert len(collection) == FILES == collection.info().vectors
    assert len(collection.search(text="note", k=FILES + 1)) == FILES
