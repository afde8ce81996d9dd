"""Seccomp: a process of Linux may from then on make the system calls of a short list only, for good.

A filter is a program for the kernel's BPF machine, a few instructions for each call; no library writes it here, because
those that do (``pyseccomp``) need libseccomp on the machine. A call that is not listed fails with EPERM, so that a
library which tries one goes on without. Source: Linux, Documentation/userspace-api/seccomp_filter.rst.
"""

import ctypes
import errno
import os
import platform
import struct
import sys
from collections.abc import Mapping, Sequence
from typing import NamedTuple

INSTRUCTION = struct.Struct("=HBBI")
LOAD, EQUALS, AT_LEAST, AND, RETURN = 0x20, 0x15, 0x35, 0x54, 0x06  # BPF_LD|W|ABS, BPF_JMP|JEQ|K, ...
NUMBER_AT, ARCHITECTURE_AT, ARGUMENTS_AT = 0, 4, 16  # in struct seccomp_data
ALLOW, FAIL, KILL = 0x7FFF_0000, 0x0005_0000, 0x8000_0000
X32 = 0x4000_0000  # numbers from here on are those of the x32 ABI
SET_SECCOMP, MODE_FILTER = 22, 2  # of prctl


class Machine(NamedTuple):
    """An architecture as the kernel names it, and which of the two numbers of a call is its."""

    architecture: int  # AUDIT_ARCH_...
    column: int


MACHINES = {"x86_64": Machine(0xC000_003E, 0), "aarch64": Machine(0xC000_00B7, 1)}


class Check(NamedTuple):
    """What must hold of an argument, of which the lower 32 bits are looked at: ``argument & mask`` is one of these."""

    argument: int
    mask: int
    values: tuple[int, ...]


# x86_64 and aarch64; -1 where there is none.
NUMBERS = {
    **{"recvfrom": (45, 207), "recvmsg": (47, 212), "sendto": (44, 206), "read": (0, 63), "close": (3, 57)},
    **{"pread64": (17, 67)},
    **{"mmap": (9, 222), "munmap": (11, 215), "mremap": (25, 216), "mprotect": (10, 226), "madvise": (28, 233)},
    **{"brk": (12, 214), "futex": (202, 98), "fstat": (5, 80), "lseek": (8, 62), "fcntl": (72, 25)},
    **{"rt_sigaction": (13, 134), "rt_sigprocmask": (14, 135), "rt_sigreturn": (15, 139), "sigaltstack": (131, 132)},
    **{"restart_syscall": (219, 128), "setitimer": (38, 103), "prlimit64": (302, 261), "getrusage": (98, 165)},
    **{"clock_gettime": (228, 113), "clock_getres": (229, 114), "clock_nanosleep": (230, 115)},
    **{"gettimeofday": (96, 169), "getrandom": (318, 278), "getpid": (39, 172), "gettid": (186, 178)},
    **{"sched_yield": (24, 124), "sched_getaffinity": (204, 123), "tgkill": (234, 131)},
    **{"exit": (60, 93), "exit_group": (231, 94), "clone": (56, 220), "clone3": (435, 435)},
    **{"set_robust_list": (273, 99), "rseq": (334, 293)},
    **{"openat": (257, 56), "newfstatat": (262, 79), "statx": (332, 291), "getdents64": (217, 61)},
    **{"open": (2, -1), "stat": (4, -1), "lstat": (6, -1), "readlink": (89, -1), "readlinkat": (267, 78)},
}
# Of mmap and mprotect; of fcntl: duplicates, and what the flags are; of open and openat: all that writes or makes.
EXECUTABLE = 0x4
DUPLICATE_CLOSING, GET_DESCRIPTOR_FLAGS, SET_DESCRIPTOR_FLAGS, GET_FLAGS = 1030, 1, 2, 3
WRITING = 0o3 | 0o100 | 0o1000 | 0o2000 | 0o20000000  # O_ACCMODE, O_CREAT, O_TRUNC, O_APPEND, O_TMPFILE
# Of clone: what a thread shares with those that are there, and what would make it more or else than a thread.
THREAD = 0x100 | 0x800 | 0x1_0000  # CLONE_VM, CLONE_SIGHAND, CLONE_THREAD
NO_THREAD = (
    0x7E00_0000 | 0x2_0000 | 0x4000 | 0x2000 | 0x8000 | 0x80_0000
)  # CLONE_NEW..., VFORK, PTRACE, PARENT, UNTRACED
# What computing takes, and answering on a socket that is there.
COMPUTING: Mapping[str, tuple[Check, ...]] = {
    **dict.fromkeys(
        ("recvfrom", "sendto", "read", "pread64", "munmap", "mremap", "futex", "brk", "madvise", "close"), ()
    ),
    "mmap": (Check(2, EXECUTABLE, (0,)),),
    "mprotect": (Check(2, EXECUTABLE, (0,)),),
    **dict.fromkeys(("recvmsg", "fstat", "lseek", "setitimer", "getrusage", "restart_syscall"), ()),
    "fcntl": (Check(1, 0xFFFF_FFFF, (DUPLICATE_CLOSING, GET_DESCRIPTOR_FLAGS, SET_DESCRIPTOR_FLAGS, GET_FLAGS)),),
    "prlimit64": (Check(0, 0xFFFF_FFFF, (0,)),),  # of this process alone
    **dict.fromkeys(("rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "sigaltstack"), ()),
    **dict.fromkeys(("clock_gettime", "clock_getres", "clock_nanosleep", "gettimeofday", "getrandom"), ()),
    **dict.fromkeys(("getpid", "gettid", "sched_yield", "sched_getaffinity", "exit", "exit_group"), ()),
}
# What looking for files and reading them takes beside it: which ones, only Landlock can say.
READING: Mapping[str, tuple[Check, ...]] = {
    "open": (Check(1, WRITING, (0,)),),
    "openat": (Check(2, WRITING, (0,)),),
    **dict.fromkeys(("stat", "lstat", "newfstatat", "statx", "getdents64", "readlink", "readlinkat"), ()),
}
THREADING: Mapping[str, tuple[Check, ...]] = {
    "clone": (Check(0, THREAD | NO_THREAD, (THREAD,)),),
    **dict.fromkeys(("set_robust_list", "rseq"), ()),
}


def restrict(*, reads_files: bool, starts_threads: bool) -> bool:
    """Let this thread, and all that it starts, compute and use the descriptors that it has; no more.

    It needs `no_new_privileges` before.

    Args:
        reads_files: Whether files may be opened for reading, and looked at.
        starts_threads: Whether threads may be started.

    Returns:
        Whether the kernel does so: False where it has no such filters, or the architecture is none of `MACHINES`.
    """
    machine = MACHINES.get(platform.machine())
    if sys.platform != "linux" or sys.byteorder != "little" or machine is None:
        return False
    allowed = {**COMPUTING, **(READING if reads_files else {}), **(THREADING if starts_threads else {})}
    allowed["tgkill"] = (Check(0, 0xFFFF_FFFF, (os.getpid(),)),)
    code = program(machine, allowed)
    kept = ctypes.create_string_buffer(code, len(code))
    # struct sock_fprog: a count, and behind a gap a pointer.
    filter_ = struct.pack("@HP", len(code) // INSTRUCTION.size, ctypes.addressof(kept))
    pointer, mode = ctypes.c_char_p(filter_), ctypes.c_ulong(MODE_FILTER)
    return bool(ctypes.CDLL(None).prctl(SET_SECCOMP, mode, pointer, ctypes.c_ulong(0), ctypes.c_ulong(0)) == 0)


def program(machine: Machine, allowed: Mapping[str, Sequence[Check]]) -> bytes:
    """Return the filter that allows these calls, as their arguments are checked; foreign numbers end the process."""
    steps = [(LOAD, 0, 0, ARCHITECTURE_AT), (EQUALS, 1, 0, machine.architecture), (RETURN, 0, 0, KILL)]
    steps += [(LOAD, 0, 0, NUMBER_AT), (AT_LEAST, 0, 1, X32), (RETURN, 0, 0, KILL)]
    for name, checks in allowed.items():
        if (number := NUMBERS[name][machine.column]) < 0:
            continue
        block = [step for check in checks for step in _check(check)]
        block.append((RETURN, 0, 0, ALLOW))
        steps += [(EQUALS, 0, len(block), number), *block]
    # The C library then starts threads by the older call, whose flags a filter can read.
    steps += [(EQUALS, 0, 1, NUMBERS["clone3"][machine.column]), (RETURN, 0, 0, FAIL | errno.ENOSYS)]
    steps.append((RETURN, 0, 0, FAIL | errno.EPERM))
    return b"".join(INSTRUCTION.pack(*step) for step in steps)


def _check(check: Check) -> list[tuple[int, int, int, int]]:
    """Go on behind these steps if it holds, fail if not."""
    steps = [(LOAD, 0, 0, ARGUMENTS_AT + 8 * check.argument), (AND, 0, 0, check.mask)]
    left = len(check.values)
    steps += [(EQUALS, left - place, 0, value) for place, value in enumerate(check.values)]
    steps.append((RETURN, 0, 0, FAIL | errno.EPERM))
    return steps
