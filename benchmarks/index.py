"""What the index costs and finds, beside its peers: every figure of docs/benchmarks.md that is about it.

    python benchmarks/index.py             # up to 100,000 vectors against the peers, up to 1,000,000 in a collection
    python benchmarks/index.py --million   # the peers at 1,000,000 too: they build for an hour the first time

Vectors: `vectors.py`. Peers: `index_peers.py` says how to install them; without them their rows are left out. Figures
are medians with ranges; those of two engines are from the same run, asked in turn, and so are their ratios. Ratios of
CPU seconds hold also on a busy machine.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import index_flat
import index_peers
import numpy as np
from index_process import DIM, Data, spread, told
from machine import describe

COLLECTIONS = (10_000, 100_000, 1_000_000)
MILLION = COLLECTIONS[-1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--million", action="store_true", help="compare with the peers at 1,000,000 vectors too")
    options = parser.parse_args()
    print(describe())
    print("\n### 64 queries, exact\n")
    for count in (50_000, 100_000):
        index_flat.compare(count)
    print("\n### Against the peers")
    for count, builds in ((20_000, 3), (100_000, 2), *([(MILLION, 0)] if options.million else [])):
        data = Data.of(count)
        index_peers.against("trivium", "autofaiss", data, builds=builds)
        for peer in ("autofaiss", "hnswlib", "usearch"):
            index_peers.against("trivium-quick", peer, data, builds=builds)
    print("\n### A collection of made-up items with real vectors")
    collections(COLLECTIONS)


def collections(counts: tuple[int, ...]) -> None:
    figures = [_measured(count) for count in counts]
    for one in figures:
        build, fill, add = one["build"], one["fill"], one["add"]
        print(f"\n{one['count']:,} x {DIM}: {one['report']['reason']}; effort {one['effort']}")
        print(f"  fill: {fill['wall']:.1f} s, {fill['cpu']:.1f} CPU s")
        print(
            f"  build, tuning included: {build['wall']:.1f} s, {build['cpu']:.1f} CPU s; memory of its own at most "
            f"{build['peak_mib']:.0f} MiB"
        )
        print(
            f"  open: {one['open_ms']:.2f} ms; {one['bytes']:.0f} bytes a vector ({one['bytes'] / (4 * DIM):.2f} raw)"
        )
        print(f"  recall@10: {told(one['recall'])}")
        for modality, taken in one["query"].items():
            print(f"  one {modality} query: p50 {taken['p50']:.2f} ms, p99 {taken['p99']:.2f} ms")
        for name, layer in one["layers"].items():
            print(f"    {name}: {layer['ms']:.3f} ms, {spread(layer['shares'])} of the bare call")
        full = {what: fill[what] + build[what] for what in ("wall", "cpu")}
        print(
            f"  adding 1 % and finding it: {add['wall']:.2f} s, {add['wall'] / full['wall']:.2%} of all; "
            f"CPU {add['cpu']:.2f} s, {add['cpu'] / full['cpu']:.2%}"
        )
    _growth("filling, CPU s", figures, [one["fill"]["cpu"] for one in figures])
    with_lists = [one for one in figures if one["effort"] is not None]  # what is compared with all has nothing to build
    _growth("building, CPU s", with_lists, [one["build"]["cpu"] for one in with_lists])
    for modality in figures[0]["query"]:
        _growth(f"one {modality} query, p50", figures, [one["query"][modality]["p50"] for one in figures])


def _growth(name: str, figures: list[dict[str, Any]], costs: list[float]) -> None:
    counts = [one["count"] for one in figures]
    exponent = np.polyfit(np.log(counts), np.log(costs), 1)[0]
    print(f"exponent of n from {counts[0]:,} to {counts[-1]:,}, {name}: {exponent:.2f}")


def _measured(count: int) -> dict[str, Any]:
    script = Path(__file__).with_name("index_store.py")
    done = subprocess.run([sys.executable, str(script), str(count)], check=True, capture_output=True, text=True)
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return figures


if __name__ == "__main__":
    main()
