"""What a benchmark ran on: printed with every figure."""

import os
import platform
import statistics
import subprocess
import time
from pathlib import Path

import numpy as np


def describe() -> str:
    """Return one line: processor, cores, memory, versions, commit, and how fast the machine is just now."""
    import faiss
    import torch

    model = next(
        (line.split(":", 1)[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")),
        platform.processor(),
    )
    memory_kb = next((int(line.split()[1]) for line in _lines("/proc/meminfo") if line.startswith("MemTotal")), 0)
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return (
        f"{model}, {os.cpu_count()} cores, {memory_kb / 2**20:.0f} GiB; Python {platform.python_version()}, "
        f"torch {torch.__version__}, faiss {faiss.__version__}, float32; {gemm_gflops():.0f} GFLOP/s (1024^3 matmul); "
        f"commit {commit.stdout.strip() or 'unknown'}"
    )


def gemm_gflops() -> float:
    """Median speed of a 1024 x 1024 x 1024 float32 matrix product, all threads."""
    a = np.ones((1024, 1024), np.float32)
    spent = []
    for _ in range(15):
        started = time.perf_counter()
        a @ a
        spent.append(time.perf_counter() - started)
    return 2 * 1024**3 / statistics.median(spent) / 1e9


def peak_rss_mib() -> float:
    """Most memory this process has held, MiB."""
    status = next((line for line in _lines("/proc/self/status") if line.startswith("VmHWM")), "VmHWM: 0 kB")
    return int(status.split()[1]) / 1024


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines() if Path(path).exists() else []
