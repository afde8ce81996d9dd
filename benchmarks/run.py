"""All benchmarks of this folder, one after another, each in its own process. `make demo` comes first."""

import subprocess
import sys
from pathlib import Path

for name in ("retrieval", "throughput", "query_time"):
    print(f"\n## {name}\n", flush=True)
    subprocess.run([sys.executable, str(Path(__file__).with_name(f"{name}.py"))], check=True)
