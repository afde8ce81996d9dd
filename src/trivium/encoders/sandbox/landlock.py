"""Landlock: a process of Linux 5.13 or later gives up files, TCP, abstract sockets and signals to others, for good.

Three system calls, and so no library for them.
Source: Linux, include/uapi/linux/landlock.h and Documentation/userspace-api/landlock.rst.
"""

import ctypes
import os
import stat
import struct
import sys
from collections.abc import Iterable

# The same on every architecture.
CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446
CREATE_RULESET_VERSION = 1
RULE_PATH_BENEATH = 1
READ_FILE, READ_DIR = 1 << 2, 1 << 3
# What each version of the interface can deny, with all that the versions before it can: from execute to make_sym, then
# refer, truncate, ioctl_dev; bind_tcp and connect_tcp; abstract sockets and signals.
FILES = ((1, (1 << 13) - 1), (2, 1 << 13), (3, 1 << 14), (5, 1 << 15))
TCP = ((4, 0b11),)
SCOPES = ((6, 0b11),)
RULESET, RULESET_SIZES = struct.Struct("=QQQ"), ((1, 8), (4, 16), (6, 24))
BENEATH = struct.Struct("=Qi")


def version() -> int:
    """Return the version of the interface that the running kernel has; 0 if none."""
    if sys.platform != "linux":
        return 0
    try:
        return _call(CREATE_RULESET, None, 0, CREATE_RULESET_VERSION)
    except OSError:
        return 0


def restrict(readable: Iterable[str] = ()) -> int:
    """Deny this thread, and all that it starts, whatever the kernel can deny; it needs `no_new_privileges` before.

    Descriptors that are open stay as they are.

    Args:
        readable: Files, and folders with all below them, that may still be opened for reading; those that are not
            there, or are links, are left out.

    Returns:
        The version of the interface; 0 where there is none, and nothing is denied.

    Raises:
        OSError: If the kernel has it and refuses.
    """
    if not (known := version()):
        return 0
    attributes = RULESET.pack(*(sum(bits for since, bits in table if since <= known) for table in (FILES, TCP, SCOPES)))
    size = max(size for since, size in RULESET_SIZES if since <= known)
    ruleset = _call(CREATE_RULESET, attributes, size, 0)
    try:
        for path in readable:
            _allow_reading(ruleset, path)
        _call(RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)
    return known


def _allow_reading(ruleset: int, path: str) -> None:
    try:
        # Of a link, whoever made it would choose what is readable.
        descriptor = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return
    try:
        is_folder = stat.S_ISDIR(mode := os.fstat(descriptor).st_mode)
        if is_folder or stat.S_ISREG(mode):
            rights = READ_FILE | READ_DIR if is_folder else READ_FILE
            _call(ADD_RULE, ruleset, RULE_PATH_BENEATH, BENEATH.pack(rights, descriptor), 0)
    finally:
        os.close(descriptor)


def _call(number: int, *arguments: int | bytes | None) -> int:
    kept = [ctypes.c_long(value) if isinstance(value, int) else ctypes.c_char_p(value) for value in arguments]
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    if (result := int(libc.syscall(ctypes.c_long(number), *kept))) < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result
