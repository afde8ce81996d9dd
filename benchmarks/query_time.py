"""One text query: as a whole process, cold and warm; in `trivium shell`; and in one process, the models loaded.

Cold means that no file is in the page cache, where we may drop it (root). Python's bytecode is there in either case, as
it is with an installed package, whatever PYTHONDONTWRITEBYTECODE says here.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from machine import describe

from trivium.pipeline.collection import Collection

COLLECTION = Path(__file__).parent.parent / "demo-output" / "collection"
RUNS = 15
QUERIES = 50
TRIVIUM = [sys.executable, "-P", "-m", "trivium"]
# What a query is made of, each in a process of its own; each line holds the one before.
PARTS = {
    "Python alone": "pass",
    "NumPy": "import numpy",
    "our modules, SQLite, FAISS": "import trivium.pipeline.cli.searching",
    "ONNX Runtime, tokenizers": "import trivium.pipeline.cli.searching, onnxruntime, tokenizers",
    "the network": "import trivium.pipeline.cli.searching\n"
    "from trivium.pipeline.space.joint import load_space\n"
    "load_space().encoder('text')",
}


def main() -> None:
    print(describe())
    if not COLLECTION.is_dir():
        raise SystemExit(f"{COLLECTION} is missing: run `make demo` first")
    with tempfile.TemporaryDirectory() as bytecode:
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        measure(environment | {"PYTHONPYCACHEPREFIX": bytecode})


def measure(environment: Mapping[str, str]) -> None:
    search = [*TRIVIUM, "search", str(COLLECTION), "a bird singing", "--json", "--device", "cpu"]
    timed(search, environment)  # compiles
    if drop_page_cache():
        print(f"cold, whole process: {timed(search, environment):.2f} s")
    else:
        print("cold: not measured (dropping the page cache needs root)")
    commands = {"whole process": search} | {name: [sys.executable, "-P", "-c", code] for name, code in PARTS.items()}
    spent: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(RUNS):  # in turns: what else the machine does falls on all alike
        for name, command in commands.items():
            spent[name].append(timed(command, environment))
    for name, seconds in spent.items():
        print(f"warm, {name}: median {statistics.median(seconds):.3f} s ({min(seconds):.3f} to {max(seconds):.3f})")
    print(f"in `trivium shell`, a pipe: median {statistics.median(shell(environment)) * 1000:.1f} ms a query")
    with Collection.open(COLLECTION, device="cpu") as collection:
        collection.search(text="warm up")
        spent_inside = []
        for number in range(QUERIES):
            started = time.perf_counter()
            collection.search(text=query(number))
            spent_inside.append((time.perf_counter() - started) * 1000)
        print(f"in one process, {len(collection):,} items: median {statistics.median(spent_inside):.1f} ms")


def shell(environment: Mapping[str, str]) -> list[float]:
    """Ask one question after the other through a pipe; return the seconds to each answer, the first left out."""
    command = [*TRIVIUM, "shell", str(COLLECTION), "--json", "--device", "cpu"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True, bufsize=1
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        spent = []
        for number in range(QUERIES + 1):
            started = time.perf_counter()
            process.stdin.write(f"{query(number)}\n")
            process.stdout.readline()
            spent.append(time.perf_counter() - started)
        process.stdin.close()
    return spent[1:]


def query(number: int) -> str:
    """Return a text that is not the one before."""
    return f"a bird singing {number} times"


def drop_page_cache() -> bool:
    try:
        subprocess.run(["sync"], check=True)
        Path("/proc/sys/vm/drop_caches").write_text("3")
    except OSError:
        return False
    return True


def timed(command: list[str], environment: Mapping[str, str]) -> float:
    started = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True, env=environment)
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
