"""All benchmarks of this folder, one after another, each in its own process. `make demo` comes first."""

import subprocess
import sys
from pathlib import Path

for name, *options in (["retrieval"], ["throughput"], ["throughput", "--keep"], ["query_time"], ["index"]):
    print(f"\n## {name} {' '.join(options)}\n", flush=True)
    subprocess.run([sys.executable, str(Path(__file__).with_name(f"{name}.py")), *options], check=True)
