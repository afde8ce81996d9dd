"""What a command is, and how it ends: its exit status, signals, faults that nobody expected, and streams that are gone.

Ctrl-C, SIGTERM and a closed terminal: a command ends within two seconds, whatever it is at. A signal raises
`Interrupted` in the main thread, and what is under way ends at its next step. Where that does not come (a library is at
work, a thread does not end), a watching thread ends the process: a collection is made for that (docs/reliability.md).
Only for a process that is this program's own; who uses the library keeps their own signals.
"""

import contextlib
import errno
import io
import os
import select
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import argparse

EXIT_FAILED, EXIT_USAGE, EXIT_SKIPPED, EXIT_MISSING, EXIT_LOCKED = 1, 2, 3, 4, 75
AGAIN_SECONDS = 0.1  # a signal that comes just as the main thread begins to wait is overlooked, until it is woken
NUDGES = 20
NUDGE = signal.SIGURG  # nobody uses it, and nobody minds it
GRACE_SECONDS = 1.2  # for what is under way to end by itself; two seconds are promised
SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
TOLD = "interrupted; what was done is kept, run again to go on"
SHOW_CURSOR = b"\x1b[?25h"  # a progress bar hides it

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


class Command(NamedTuple):
    """A command: each module that does some ends with a table of them by name, `COMMANDS`."""

    options: "Callable[[argparse.ArgumentParser], None]"  # adds its options
    run: "Callable[[argparse.Namespace], int]"  # does it, returns the exit status
    words: Callable[[Sequence[str]], list[str]] = list  # makes of a command line's words what argparse can read


class Interrupted(KeyboardInterrupt):
    """A signal that ends the program, or in `trivium shell` a line."""

    def __init__(self, number: int) -> None:
        super().__init__(TOLD)
        self.number = number

    @property
    def status(self) -> int:
        """Exit status, as shells have it: 130, 143 or 129."""
        return 128 + self.number


def install() -> None:
    """Answer signals from now on until the process ends; to be called once, by its main thread."""
    global _watch
    # What is ignored stays so (nohup, a shell's background jobs), and what somebody else answers is theirs.
    usual = (signal.SIG_DFL, signal.default_int_handler)
    numbers = [number for number in SIGNALS if signal.getsignal(number) in usual]
    if numbers and _watch is None:
        _watch = _Watch(numbers)


def answered() -> None:
    """Tell that what was interrupted has ended, and the program goes on: the next signal counts anew."""
    if _watch is not None:
        _watch.answered()


def finished() -> None:
    """Let a signal that comes after all was done end the process as it does by default: without a word."""
    if _watch is not None:
        _watch.finished()


def spare_lines() -> None:
    """Let Ctrl-C give up a line only, however long that takes: at a prompt, whoever typed it is there to see."""
    if _watch is not None:
        _watch.spared = frozenset({signal.SIGINT})


def is_end(error: KeyboardInterrupt) -> bool:
    """Whether an interrupt is for the whole program, and not Ctrl-C, which may be for a line."""
    return isinstance(error, Interrupted) and error.number != signal.SIGINT


def ended(error: KeyboardInterrupt) -> int:
    """Tell that a command was interrupted; return its exit status, or end a process that is this program's own."""
    if _watch is not None:
        _watch.is_told = True
    print(f"trivium: {TOLD}", file=sys.stderr)
    number = error.number if isinstance(error, Interrupted) else signal.SIGINT
    if _watch is not None and _watch.raised is not None:
        number = _watch.raised  # a library may have answered the signal, and said no more than that there was one
    status = Interrupted(number).status
    if _watch is not None:
        sys.stderr.flush()
        os._exit(status)  # taking the libraries down in order takes up to a second, and threads may not have ended
    return status


class _Watch:
    """The handler of signals, and the thread that times what follows."""

    def __init__(self, numbers: list[int]) -> None:
        self.is_told = False
        self.spared: frozenset[int] = frozenset()  # are never a reason to end the process
        self.raised: int | None = None
        self._answered = threading.Event()
        self._reader, writer = os.pipe()
        os.set_blocking(writer, False)
        self._numbers = frozenset(numbers)
        self._main = threading.get_ident()
        threading.Thread(target=self._run, name="signals", daemon=True).start()
        # Written to as the signal comes, also while the main thread is in a library and cannot run a handler.
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        signal.signal(NUDGE, lambda *_: None)
        for number in numbers:
            signal.signal(number, self._raise)

    def answered(self) -> None:
        self.raised = None
        self._answered.set()

    def finished(self) -> None:
        for number in self._numbers:
            signal.signal(number, signal.SIG_DFL)
        self._answered.set()

    def _raise(self, number: int, frame: FrameType | None) -> None:
        del frame
        # Once it is ending, a second Ctrl-C would only break that off; but a line that is given up is no end.
        if self.raised is None or (self.raised in self.spared and number not in self.spared):
            self.raised = number
            raise Interrupted(number)

    def _run(self) -> None:
        nudges = 0  # that are left for what came while an earlier signal was answered
        while True:
            number = self._next(AGAIN_SECONDS if nudges else None)
            if number is None:
                if nudges:
                    nudges -= 1
                    self._nudge()
                continue
            until = time.monotonic() + GRACE_SECONDS
            while not self._answered.is_set():
                later = self._next(AGAIN_SECONDS)
                if later is not None and number in self.spared and later not in self.spared:
                    number, until = later, time.monotonic() + GRACE_SECONDS
                if self.raised is None:
                    self._nudge()
                if time.monotonic() > until and number not in self.spared:
                    self._end(number)
            self._answered.clear()
            nudges = NUDGES

    def _nudge(self) -> None:
        """Wake the main thread, which then runs the handler of what it has overlooked."""
        signal.pthread_kill(self._main, NUDGE)

    def _next(self, seconds: float | None) -> int | None:
        """Wait for a signal, at most so long."""
        if not select.select([self._reader], [], [], seconds)[0]:
            return None
        (number,) = os.read(self._reader, 1)
        return number if number in self._numbers else None

    def _end(self, number: int) -> None:
        with contextlib.suppress(OSError):
            if not self.is_told:
                os.write(2, f"\ntrivium: {TOLD}\n".encode())
            if os.isatty(2):
                os.write(2, SHOW_CURSOR)
        os._exit(128 + number)


def settle_streams() -> None:
    """Make them so; to be called once, before anything is opened or printed.

    A stream that was closed (``>&-``) becomes one that goes nowhere: else the next file to be opened would get its
    number, and what a library prints would end up in a database.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            null = os.open(os.devnull, os.O_RDWR)  # the lowest number that is free: this one
            if null != number:
                os.dup2(null, number)
                os.close(null)
            os.set_inheritable(number, True)
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))
        elif mode == "w" and isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # of a terminal or pipe that is not UTF-8


def drop_output() -> None:
    """Give up standard output, whose reader has gone or whose disk is full: Python would complain of it at the end."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)


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


_watch: _Watch | None = None
