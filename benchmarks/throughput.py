"""Items per second and memory, by modality: our batches against a plain loop (one item at a time), in one run.

Pairs A B A B ..., medians of the ratios. Weights are loaded and warm before the clock starts.
"""

import statistics
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from machine import describe, peak_rss_mib
from stamps import files, stamps

from trivium.encoders.base import Encoder, Modality
from trivium.encoders.machine import keep_freed_memory
from trivium.pipeline.space.joint import load_space

PAIRS = 5
ITEMS: dict[Modality, int] = {"text": 512, "image": 128, "audio": 64}


def main() -> None:
    if "--keep" in sys.argv:
        keep_freed_memory()
    print(describe(), "\nfreed memory", "kept, as `trivium index` does" if "--keep" in sys.argv else "as glibc does")
    space = load_space(announce=print)
    media: dict[Modality, Sequence[Any]] = {
        "text": [stamp.caption for stamp in stamps(".png", ".svg")],
        "image": files(".png"),
        "audio": files(".ogg"),
    }
    print(f"\n| modality | items | batches, items/s | one by one, items/s | ratio, median of {PAIRS} (range) |")
    print("|---|---|---|---|---|")
    for modality, items in media.items():
        encoder = space.encoder(modality)
        # Every third or so, so that neighbours in one folder do not stand for all.
        chosen = list(items)[:: max(1, len(items) // ITEMS[modality])][: ITEMS[modality]]
        for item in chosen[:4]:
            encoder.embed([encoder.prepare(item)])
        batched, single = [], []
        for _ in range(PAIRS):
            batched.append(len(chosen) / seconds(in_batches, encoder, chosen))
            single.append(len(chosen) / seconds(one_by_one, encoder, chosen))
        ratios = [a / b for a, b in zip(batched, single, strict=True)]
        print(
            f"| {modality} | {len(chosen)} | {statistics.median(batched):.1f} | {statistics.median(single):.1f} | "
            f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}) |"
        )
    print(f"\npeak memory of this process {peak_rss_mib():,.0f} MiB")


def in_batches(encoder: Encoder, items: Sequence[Any]) -> None:
    """As indexing does it: decode in threads, embed 32 at a time."""
    with ThreadPoolExecutor() as workers:
        prepared = list(workers.map(encoder.prepare, items))
        for start in range(0, len(prepared), 32):
            encoder.embed(prepared[start : start + 32])


def one_by_one(encoder: Encoder, items: Sequence[Any]) -> None:
    """Run the plain loop."""
    for item in items:
        encoder.embed([encoder.prepare(item)])


def seconds(work: Callable[[Encoder, Sequence[Any]], None], encoder: Encoder, items: Sequence[Any]) -> float:
    started = time.perf_counter()
    work(encoder, items)
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
