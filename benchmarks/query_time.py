"""One text query: as a whole process, cold and warm, and in one process once the model is loaded.

Cold means that no file is in the page cache, where we may drop it (root).
"""

import statistics
import subprocess
import sys
import time
from pathlib import Path

from machine import describe

from trivium.pipeline.collection import Collection

COLLECTION = Path(__file__).parent.parent / "demo-output" / "collection"
RUNS = 7


def main() -> None:
    print(describe())
    if not COLLECTION.is_dir():
        raise SystemExit(f"{COLLECTION} is missing: run `make demo` first")
    command = [sys.executable, "-m", "trivium.pipeline.cli", "search", str(COLLECTION), "a bird singing", "--json"]
    if drop_page_cache():
        print(f"cold, whole process: {timed(command):.2f} s")
    else:
        print("cold: not measured (dropping the page cache needs root)")
    warm = [timed(command) for _ in range(RUNS)]
    print(f"warm, whole process: median {statistics.median(warm):.2f} s ({min(warm):.2f} to {max(warm):.2f})")
    for part in ("import torch", "import trivium.encoders.text, transformers.models.bert.modeling_bert"):
        spent = [timed([sys.executable, "-c", part]) for _ in range(3)]
        print(f"    of which `{part}`: median {statistics.median(spent):.2f} s")
    with Collection.open(COLLECTION) as collection:
        collection.search(text="warm up")
        spent = []
        for number in range(50):
            started = time.perf_counter()
            collection.search(text=f"a bird singing {number} times")
            spent.append((time.perf_counter() - started) * 1000)
        print(f"in one process, {len(collection):,} items: median {statistics.median(spent):.1f} ms")


def drop_page_cache() -> bool:
    try:
        subprocess.run(["sync"], check=True)
        Path("/proc/sys/vm/drop_caches").write_text("3")
    except OSError:
        return False
    return True


def timed(command: list[str]) -> float:
    started = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
