"""What a command says when it fails as nobody expected: one message, and for a report of the fault its traceback."""

import errno
import os
import traceback
from collections.abc import Iterator
from pathlib import Path

TRACEBACK = "TRIVIUM_TRACEBACK"  # set it to anything, and a traceback comes before the message
NEAR_LIMIT = 0.8  # of the address space: what fails then fails for the lack of it
# What libraries say, who have no MemoryError.
MEMORY_WORDS = (
    *("failed to map segment", "Cannot allocate memory", "cannot allocate memory", "not enough memory"),
    *("bad_alloc", "bad allocation", "out of memory", "can't allocate"),
)
REMEDIES = {
    errno.EMFILE: "this shell allows too few open files (`ulimit -n` tells and sets how many)",
    errno.ENFILE: "the system has too many open files",
    errno.ENOMEM: "not enough memory",
    errno.EAGAIN: "too many processes or threads (`ulimit -u` tells and sets how many)",
}


def told(error: BaseException) -> str:
    """Return what to say of an error that no command expects, on one line.

    With `TRACEBACK` in the environment, its traceback goes to standard error first.
    """
    if os.environ.get(TRACEBACK):
        traceback.print_exception(error)
    chain = list(_chain(error))
    if any(map(_is_memory, chain)) or _is_near_limit():
        return f"not enough memory: {_said(error)}{_limit()}"
    if isinstance(error, OSError):
        remedy = REMEDIES.get(error.errno or 0)
        return f"{error}: {remedy}" if remedy and remedy not in str(error) else str(error)
    if isinstance(error, RuntimeError) and "can't start new thread" in str(error):
        return f"no thread can be started: {REMEDIES[errno.EAGAIN]}, or too little memory{_limit()}"
    if type(error).__module__.startswith("trivium."):  # made to be read
        return str(error)
    if isinstance(error, RecursionError):
        return f"something is nested too deeply: {_said(error)}{_place(error)}"
    return (
        f"unexpected {type(error).__name__}: {_said(error)}{_place(error)}. That is a fault of Trivium's: please "
        f"report it, with what it says when {TRACEBACK}=1 is set"
    )


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _is_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return True
    return isinstance(error, ImportError | OSError | RuntimeError) and any(w in str(error) for w in MEMORY_WORDS)


def _said(error: BaseException) -> str:
    return str(error) or type(error).__name__


def _place(error: BaseException) -> str:
    """Say where in this package it was raised, or what called who raised it."""
    package = str(Path(__file__).parents[2])
    ours = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename.startswith(package)]
    return f" ({os.path.relpath(ours[-1].filename, package)}, line {ours[-1].lineno})" if ours else ""


def _address_space() -> tuple[int, int] | None:
    """Return the most that this process has had, and what it may have, in bytes; None if there is no limit."""
    try:
        import resource

        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
        if limit == resource.RLIM_INFINITY:
            return None
        status = Path("/proc/self/status").read_text()
        peak = next(line for line in status.splitlines() if line.startswith("VmPeak:"))
        return int(peak.split()[1]) * 1024, limit
    except (ImportError, OSError, StopIteration, ValueError):
        return None


def _is_near_limit() -> bool:
    space = _address_space()
    return space is not None and space[0] >= NEAR_LIMIT * space[1]


def _limit() -> str:
    space = _address_space()
    return "" if space is None else f" (this process may use {space[1] / 2**30:.3g} GiB, see `ulimit -v`)"
