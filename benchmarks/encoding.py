"""Files and texts to vectors on a CPU: ours against the peers on the same weights, files and threads, A B A B.

    python benchmarks/encoding.py [CASE ...] [--pairs 5]

A CASE is one of `encoding_cases.CASES` or the beginning of some (`texts`), or `query`: a text query as a whole process.
Every row has its accuracy beside its speed. A contender is a process that has loaded its model and warmed up
(`encoding_worker`), or a program that is run whole (`encoding_programs` says what of its time counts). Peers that need
an environment of their own are named by TRIVIUM_TEXT_PEERS (a Python that has sentence-transformers, fastembed and
infinity), TRIVIUM_CLIP_RETRIEVAL and TRIVIUM_RCLIP (the programs), and left out without: `benchmarks/peers.sh` makes
them all.
"""

import argparse
import os
import statistics
import tempfile
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from encoding_cases import CASES, WHEN_NAMED, Case, Contender
from encoding_media import FOLDER
from encoding_process import Contestant, Vectors
from encoding_query import compare_queries
from index_process import spread
from machine import describe, gemm_gflops

COLUMNS = (
    "case",
    "size",
    "A",
    "B",
    "A faster, by the clock",
    "by CPU seconds",
    "A's vectors to B's",
    "peak MiB",
    "A/floor",
)


class Floor:
    """How fast this machine multiplies matrices at its best: others use it too, so it is looked at again and again."""

    def __init__(self) -> None:
        self.gflops = 0.0

    def look(self) -> None:
        self.gflops = max(self.gflops, gemm_gflops())


def compare(case: Case, a: Contender, b: Contender, *, pairs: int, floor: Floor | None) -> None:
    """Run A, B, A, B, ... and print a row; without ``floor`` where A does not calculate in float32."""
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as stack:
        ours, theirs = (
            stack.enter_context(one.start(case.items, case.count, case.warm_up, Path(scratch))) for one in (a, b)
        )
        for _ in range(min(pairs, a.most_pairs, b.most_pairs)):
            if floor is not None:
                floor.look()
            ours.go()
            theirs.go()
        print(f"| {' | '.join(row(case, ours, theirs, floor))} |", flush=True)


def row(case: Case, a: Contestant, b: Contestant, floor: Floor | None) -> list[str]:
    """Return the cells of a comparison."""
    walls, cpus = (
        [getattr(theirs, what) / getattr(own, what) for own, theirs in zip(a.runs, b.runs, strict=True)]
        for what in ("seconds", "cpu")
    )
    rates = [case.count * case.amount / statistics.median(run.seconds for run in one.runs) for one in (a, b)]
    peaks = [max(run.peak_mib for run in one.runs) for one in (a, b)]
    share = "" if floor is None or case.gflop is None else f"{rates[0] / case.amount * case.gflop / floor.gflops:.0%}"
    told = [f"{one.name} {rate:.1f} {case.rate}" for one, rate in zip((a, b), rates, strict=True)]
    return [
        *(case.name, f"{case.count} {case.unit}", *told),
        *(f"{spread(walls)}, pairs: {len(walls)}", spread(cpus), accuracy(a.vectors, b.vectors)),
        *(f"{peaks[0]:.0f} / {peaks[1]:.0f}", share),
    ]


def accuracy(found: Vectors, expected: Vectors) -> str:
    """How near each vector is to the other contender's, and how many of the ten nearest stay."""
    cosines = (found * expected).sum(axis=1)
    told = f"cos {cosines.mean():.6f}, least {cosines.min():.5f}, differ by {np.abs(found - expected).max():.1e}"
    if len(found) > 50:
        nearest = [np.argsort(-(v @ v.T - 2 * np.eye(len(v))), axis=1)[:, :10] for v in (found, expected)]
        kept = np.mean([len(set(x) & set(y)) / 10 for x, y in zip(*(n.tolist() for n in nearest), strict=True)])
        told += f", top 10 kept {kept:.1%}"
    return told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", help="most if none is named")
    parser.add_argument("--pairs", type=int, default=5, help="how often each runs, in turn (default 5)")
    options = parser.parse_args()
    known = [*CASES, "query"]
    named = options.cases or [name for name in known if name not in WHEN_NAMED]
    wanted = [name for name in known if any(name.startswith(case) for case in named)]
    if not wanted or options.pairs < 1:
        parser.error(f"name at least one of {', '.join(known)}, and 1 or more pairs")
    FOLDER.mkdir(parents=True, exist_ok=True)
    print(describe(), "\n")
    for variable in ("TRIVIUM_TEXT_PEERS", "TRIVIUM_CLIP_RETRIEVAL", "TRIVIUM_RCLIP"):
        if variable not in os.environ:
            print(f"{variable} is not set: without the peers that it names\n")
    if wanted != ["query"]:
        print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}", flush=True)
    floor = Floor()
    for name in wanted:
        if name == "query":
            continue
        case = CASES[name]()
        for peer in case.peers:
            compare(case, case.ours, peer, pairs=options.pairs, floor=floor)
        for other in case.others:
            compare(case, other, case.ours, pairs=options.pairs, floor=None)
    if "query" in wanted:
        compare_queries(pairs=options.pairs)


if __name__ == "__main__":
    main()
