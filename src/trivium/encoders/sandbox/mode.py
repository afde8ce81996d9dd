"""What is asked of decoding: how much isolation, and what is said where a system has less; and pictures how large."""

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
MEGAPIXELS_VARIABLE = "TRIVIUM_MAX_MEGAPIXELS"

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


def asked_megapixels() -> float | None:
    """Return what TRIVIUM_MAX_MEGAPIXELS says, None if nothing.

    Raises:
        SandboxError: If it is no number.
    """
    if not (told := os.environ.get(MEGAPIXELS_VARIABLE)):
        return None
    try:
        return float(told)
    except ValueError:
        raise SandboxError(f"{MEGAPIXELS_VARIABLE} must be a number, got '{told}'") from None


@contextlib.contextmanager
def asked_for(mode: SandboxMode | None, *, max_megapixels: float | None = None) -> Iterator[None]:
    """Ask for a mode and a limit within this context, in this process and those that it starts; None: leave it."""
    asked = {VARIABLE: mode, MEGAPIXELS_VARIABLE: None if max_megapixels is None else str(max_megapixels)}
    before = {name: os.environ.get(name) for name in asked}
    os.environ.update({name: value for name, value in asked.items() if value is not None})
    try:
        yield
    finally:
        for name, value in before.items():
            if value is not None:
                os.environ[name] = value
            else:
                os.environ.pop(name, None)


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
