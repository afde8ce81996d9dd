"""Memory that is freed stays with the process: the networks' large buffers are then not faulted in again and again."""

import ctypes
import sys

# From glibc's malloc.h.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
KEEP_BYTES = 1 << 30


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
