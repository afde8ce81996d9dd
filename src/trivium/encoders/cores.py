"""How many processor cores there are to use, and how much of their time a process has used."""

import os
from pathlib import Path


def usable_cores() -> int:
    """Cores that this process may use, which in a container may be fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cpu_seconds_of(pid: int) -> float | None:
    """Return the processor's time that a process has used; None where the system does not tell, as only Linux does."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    # After the name, which may hold anything, in brackets: the 12th and 13th are user and system time (proc(5)).
    fields = status.rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
