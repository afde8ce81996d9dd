"""Against autofaiss, hnswlib and usearch: same vectors, recall-matched, each in its own process, asked in turn.

The peers live in an environment of their own, because autofaiss wants NumPy 1:

    python -m venv peers
    peers/bin/pip install autofaiss==2.18.0 hnswlib==0.8.0 usearch==2.26.6 'numpy<2' 'pyarrow<18'
    TRIVIUM_PEERS=peers/bin/python python benchmarks/index.py
"""

import json
import statistics
from pathlib import Path
from typing import Any

from index_process import DIM, PEERS, Data, Worker, spread, told
from vectors import CACHE

WANTED = 0.95
ROUNDS = 7
QUERIES = 200  # in a round, of both modalities in turn
EFFORTS = (10, 12, 16, 20, 24, 32, 40, 48, 64, 80, 96, 128, 160, 192, 256, 320, 384, 512, 640, 768, 1024, 1536, 2048)
FOLDER = CACHE / "peers"


def against(ours: str, peer: str, data: Data, *, builds: int) -> None:
    """Print how ``ours`` compares with ``peer``; with no builds, the last one of each is taken."""
    if PEERS is None:
        print(f"{peer}: skipped, TRIVIUM_PEERS names no Python that has it (see benchmarks/index_peers.py)")
        return
    if not Path(PEERS).exists():
        raise SystemExit(f"TRIVIUM_PEERS must be a Python executable, there is no {PEERS}")
    FOLDER.mkdir(parents=True, exist_ok=True)
    costs: list[list[dict[str, Any]]] = [[], []]
    for _ in range(max(builds, 1)):
        for engine, cost in zip((ours, peer), costs, strict=True):
            cost.append(_built(engine, data, again=builds > 0))
    with Worker(ours) as first, Worker(peer) as second:
        print(
            f"\n{data.count:,} x {DIM}: {first.name} ({costs[0][-1]['said']}), {second.name} ({costs[1][-1]['said']})"
        )
        memory = []
        for worker, engine in ((first, ours), (second, peer)):
            before = worker.do("memory")["mib"]
            worker.do("open", file=_file(engine, data), dim=DIM)
            print(f"  recall@10 {worker.name}: {_tuned(worker, data, engine)}")
            worker.do("ask", queries=data.queries["mixed"], first=0, count=QUERIES)
            memory.append(worker.do("memory")["mib"] - before)
        for what in ("wall", "cpu"):
            ratios = [theirs[what] / own[what] for own, theirs in zip(*costs, strict=True)]
            shown = [spread([one[what] for one in cost], ".1f") for cost in costs]
            print(f"  build, {what} s: {' against '.join(shown)}, ratio {spread(ratios)}")
        ours_ms, theirs_ms, walls, cpus = [], [], [], []
        for number in range(ROUNDS):
            asked, other = (
                worker.do("ask", queries=data.queries["mixed"], first=number * QUERIES, count=QUERIES)
                for worker in (first, second)
            )
            ours_ms.append(statistics.median(asked["ms"]))
            theirs_ms.append(statistics.median(other["ms"]))
            walls.append(theirs_ms[-1] / ours_ms[-1])
            cpus.append(other["cpu_ms"] / asked["cpu_ms"])
        print(f"  query, ms: {spread(ours_ms, '.3f')} against {spread(theirs_ms, '.3f')}, ratio {spread(walls)}")
        print(f"  query, CPU ms: ratio {spread(cpus)}")
    sizes = [cost[-1]["size"] / data.count for cost in costs]
    print(f"  bytes a vector: {sizes[0]:.0f} against {sizes[1]:.0f}, ratio {sizes[0] / sizes[1]:.2f}")
    print(f"  memory when asked, MiB: {memory[0]:.0f} against {memory[1]:.0f}, ratio {memory[0] / memory[1]:.2f}")


def _file(engine: str, data: Data) -> Path:
    return FOLDER / f"{engine}-{data.count}x{DIM}.index"


def _built(engine: str, data: Data, *, again: bool) -> dict[str, Any]:
    file = _file(engine, data)
    record = file.with_suffix(".cost.json")
    if again or not record.exists():
        with Worker(engine) as worker:
            cost = worker.do("build", vectors=data.vectors, file=file, queries=data.others)
        record.write_text(json.dumps(cost))
    known: dict[str, Any] = json.loads(record.read_text())
    return known


def _tuned(worker: Worker, data: Data, engine: str) -> str:
    """Set the least effort that finds enough for every modality, where the engine does not do so itself."""
    if engine not in ("hnswlib", "usearch"):
        return told(worker.recall(data))
    for effort in EFFORTS:
        found = worker.recall(data, effort=effort)
        if min(found.values()) >= WANTED:
            break
    return f"{told(found)} with ef {effort}"
