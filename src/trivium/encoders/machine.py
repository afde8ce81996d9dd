"""What the machine gives this process: its cores and their time, and memory that glibc's mallopt lets it keep."""

import ctypes
import os
import sys
from pathlib import Path

# Of `mallopt`, from glibc's malloc.h.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
KEEP_BYTES = 1 << 30


def usable_cores() -> int:
    """Cores that this process may use, which in a container may be fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def memory_bytes() -> int:
    """Return how much memory the machine has."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def cpu_seconds_of(pid: int) -> float | None:
    """Return the processor's time that a process has used; None where the system does not tell, as only Linux does."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    # After the name, which may hold anything, in brackets: the 12th and 13th are user and system time (proc(5)).
    fields = status.rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def keep_freed_memory() -> None:
    """Ask glibc to reuse blocks of up to 1 GiB, where it would give those above 32 MiB back at once.

    Encoding pictures on a CPU gets 1.5 to 1.8 times as fast (docs/benchmarks.md). It concerns the whole process, so
    only programs call it, never the library. Elsewhere than on glibc it does nothing.
    """
    if not sys.platform.startswith("linux"):
        return
    try:
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(M_MMAP_THRESHOLD, KEEP_BYTES)
        libc.mallopt(M_TRIM_THRESHOLD, KEEP_BYTES)
    except (OSError, AttributeError):  # another C library
        return
