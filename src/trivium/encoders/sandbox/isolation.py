"""What a process gives up for good before it looks at a file of unknown origin, and what of it the system has not.

On Linux; elsewhere nothing of it is to be had, and `worker`'s limits on time, memory and files are all there is.
What holds where, and what it is good for: docs/sandbox.md.
"""

import contextlib
import ctypes
import os
import signal
import struct
import sys
from collections.abc import Collection, Mapping

from trivium.encoders.sandbox import landlock, seccomp

# Of prctl (linux/prctl.h), unshare (linux/sched.h) and capset (linux/capability.h).
SET_DEATH_SIGNAL, SET_DUMPABLE, DROP_BOUNDING, SET_NO_NEW_PRIVILEGES, AMBIENT, CLEAR_AMBIENT = 1, 4, 24, 38, 47, 4
NEW_USER, NEW_NETWORK, NEW_IPC = 0x1000_0000, 0x4000_0000, 0x0800_0000
CAPABILITY_VERSION = 0x2008_0522
CAPABILITIES = 64  # there are some 41 now
# What shuts a decoder in that a file has taken over; the others of `isolate` are second walls behind these.
NEEDED = ("no_new_privileges", "landlock", "seccomp")
FONTS = (
    *("/usr/share/fonts", "/usr/local/share/fonts", "/etc/fonts", "/usr/share/fontconfig", "/var/cache/fontconfig"),
    *("/usr/X11R6/lib/X11/fonts", "/usr/share/X11/fonts", "/run/current-system/sw/share/X11/fonts"),
)


def isolate(*, reads_fonts: bool, starts_threads: bool) -> dict[str, int]:
    """Give up files, network, other processes, new processes and rights; open descriptors stay.

    Args:
        reads_fonts: Whether `font_places` stay readable.
        starts_threads: Whether threads may be started.

    Returns:
        What holds now, by name, each with its level: 0 where the system has not got it.
    """
    if sys.platform != "linux":
        return dict.fromkeys(NEEDED, 0)
    folders = font_places() if reads_fonts else []
    libc = ctypes.CDLL(None)
    found = {"namespaces": _enter_namespaces(libc)}
    found["no_capabilities"] = _drop_capabilities(libc)
    found["no_new_privileges"] = _control(libc, SET_NO_NEW_PRIVILEGES, 1)
    _control(libc, SET_DUMPABLE, 0)  # other processes of this user neither read its memory nor trace it
    # After what changes rights, for that undoes it.
    _control(libc, SET_DEATH_SIGNAL, signal.SIGKILL)
    found["landlock"] = 0
    with contextlib.suppress(OSError):
        found["landlock"] = landlock.restrict(folders)
    found["seccomp"] = int(seccomp.restrict(reads_files=reads_fonts, starts_threads=starts_threads))
    return found


def missing(found: Mapping[str, int]) -> list[str]:
    """Return the names of what is needed and does not hold."""
    return [name for name in NEEDED if not found.get(name)]


def risk(lacking: Collection[str]) -> str:
    """Say what a file that has taken over its decoder may do where these are missing (tried: docs/sandbox.md)."""
    if {"landlock", "seccomp"} <= {*lacking}:
        return "may read, change and delete your files, use the network and run programs"
    if "seccomp" in lacking:
        return "may speak to other programs, on some systems by the network, and change who may read your files"
    if "landlock" in lacking:
        return "may read any file that you may read, if it is a drawing (SVG)"
    return "may gain the rights of a program that has more than you"


def font_places() -> list[str]:
    """Return where fonts and their configuration are looked for: the system's places and this user's."""
    home = os.environ.get("HOME", "")
    data = os.environ.get("XDG_DATA_HOME") or (home and f"{home}/.local/share")
    configuration = os.environ.get("XDG_CONFIG_HOME") or (home and f"{home}/.config")
    own = [home and f"{home}/.fonts", data and f"{data}/fonts", configuration and f"{configuration}/fontconfig"]
    named = [os.environ.get("FONTCONFIG_PATH", ""), os.environ.get("FONTCONFIG_FILE", "")]
    return [*FONTS, *filter(None, own), *filter(None, named)]


def _enter_namespaces(libc: ctypes.CDLL) -> int:
    """Have no network but an own one without interfaces, and no capability over anything outside."""
    return int(libc.unshare(NEW_USER | NEW_NETWORK | NEW_IPC) == 0)


def _drop_capabilities(libc: ctypes.CDLL) -> int:
    for capability in range(CAPABILITIES):
        if libc.prctl(DROP_BOUNDING, capability, 0, 0, 0) != 0:
            break  # there are no more, or we have none to drop
    libc.prctl(AMBIENT, CLEAR_AMBIENT, 0, 0, 0)
    header = ctypes.c_char_p(struct.pack("=Ii", CAPABILITY_VERSION, 0))
    return int(libc.capset(header, ctypes.c_char_p(bytes(24))) == 0)


def _control(libc: ctypes.CDLL, operation: int, value: int) -> int:
    zero = ctypes.c_ulong(0)
    return int(libc.prctl(operation, ctypes.c_ulong(value), zero, zero, zero) == 0)
