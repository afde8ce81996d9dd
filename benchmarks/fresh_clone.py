"""`make demo` on a fresh clone: install, fetch, index, query, each in seconds.

Nothing of ours is reused; pip may use its own download cache.
"""

import json
import os
import subprocess
import tempfile
import time
from pathlib import Path

from machine import describe

ROOT = Path(__file__).parent.parent


def main() -> None:
    print(describe())
    with tempfile.TemporaryDirectory() as folder:
        clone = Path(folder) / "trivium"
        subprocess.run(["git", "clone", "-q", str(ROOT), str(clone)], check=True)
        environment = os.environ | {"TRIVIUM_CACHE": str(Path(folder) / "cache")}
        installed = timed(["make", "-s", "setup"], clone, environment)
        whole = timed(["make", "-s", "demo"], clone, environment)
        told = json.loads((clone / "demo-output" / "timings.json").read_text())
    print(f"install {installed:.0f} s, then demo {whole:.0f} s")
    print("of the demo: " + ", ".join(f"{stage} {spent:.1f} s" for stage, spent in told["seconds"].items()))
    print(f"while indexing: {sum(told['vectors'].values()) / told['seconds']['index']:.1f} vectors/s")


def timed(command: list[str], folder: Path, environment: dict[str, str]) -> float:
    started = time.perf_counter()
    subprocess.run(command, check=True, cwd=folder, env=environment, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
