"""How much isolation of decoding is asked for, and what is said where a system has less."""

import contextlib
import logging
import os
import threading
from collections.abc import Iterator, Mapping
from typing import Literal, TypeAlias, get_args

from trivium.encoders.base import SandboxError

SandboxMode: TypeAlias = Literal["auto", "strict"]
MODES: tuple[SandboxMode, ...] = get_args(SandboxMode)
VARIABLE = "TRIVIUM_SANDBOX"

log = logging.getLogger(__name__)
_told = threading.Event()


def sandbox_mode() -> SandboxMode:
    """Return what TRIVIUM_SANDBOX says, ``auto`` if nothing.

    Raises:
        SandboxError: If it is none of `SandboxMode`.
    """
    mode = os.environ.get(VARIABLE) or MODES[0]
    if mode not in MODES:
        raise SandboxError(f"{VARIABLE} must be one of {', '.join(MODES)}, got '{mode}'")
    return mode


@contextlib.contextmanager
def asked_for(mode: SandboxMode | None) -> Iterator[None]:
    """Ask for a mode within this context, in this process and those that it starts; None: leave it."""
    before = os.environ.get(VARIABLE)
    if mode is not None:
        os.environ[VARIABLE] = mode
    try:
        yield
    finally:
        if before is not None:
            os.environ[VARIABLE] = before
        else:
            os.environ.pop(VARIABLE, None)


def judge(found: Mapping[str, int], mode: SandboxMode) -> None:
    """Say once in the life of this process what a worker's isolation lacks, or refuse it.

    Args:
        found: What holds in the worker, as `isolate` says.
        mode: What is asked for.

    Raises:
        SandboxError: If something lacks and the mode is ``strict``.
    """
    from trivium.encoders.sandbox.isolation import missing, risk  # a text query decodes nothing

    if not (lacking := missing(found)):
        return
    told = (
        f"the sandbox is not whole on this system: it lacks {' and '.join(lacking)}. A file made to take over its "
        f"decoder {risk(lacking)}"
    )
    if mode == "strict":
        raise SandboxError(
            f"{told}. Nothing is decoded, as {VARIABLE} or --sandbox asks: use Linux 5.13 or later with Landlock and "
            "seccomp (some containers switch them off), or 'auto' for files that you trust"
        )
    if not _told.is_set():
        _told.set()
        log.warning(f"{told}. To refuse that: {VARIABLE}=strict or --sandbox strict (docs/sandbox.md)")  # our own words
