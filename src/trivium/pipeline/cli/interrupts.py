"""Ctrl-C, SIGTERM and a closed terminal: a command ends within two seconds, whatever it is at.

A signal raises `Interrupted` in the main thread, and what is under way ends at its next step. Where that does not come
(a library is at work, a thread does not end), a watching thread ends the process: a collection is made for that
(docs/reliability.md). Only for a process that is this program's own; who uses the library keeps their own signals.
"""

import contextlib
import os
import select
import signal
import sys
import threading
import time
from types import FrameType

AGAIN_SECONDS = 0.1  # a signal that comes just as the main thread begins to wait is overlooked, until it is woken
NUDGES = 20
NUDGE = signal.SIGURG  # nobody uses it, and nobody minds it
GRACE_SECONDS = 1.2  # for what is under way to end by itself; two seconds are promised
SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
TOLD = "interrupted; what was done is kept, run again to go on"
SHOW_CURSOR = b"\x1b[?25h"  # a progress bar hides it


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
    status = error.status if isinstance(error, Interrupted) else 128 + signal.SIGINT
    if _watch is not None:
        sys.stderr.flush()
        os._exit(status)  # taking the libraries down in order takes up to a second, and threads may not have ended
    return status


class _Watch:
    """The handler of signals, and the thread that times what follows."""

    def __init__(self, numbers: list[int]) -> None:
        self.is_told = False
        self.spared: frozenset[int] = frozenset()  # are never a reason to end the process
        self._raised: int | None = None
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
        self._raised = None
        self._answered.set()

    def finished(self) -> None:
        for number in self._numbers:
            signal.signal(number, signal.SIG_DFL)
        self._answered.set()

    def _raise(self, number: int, frame: FrameType | None) -> None:
        del frame
        # Once it is ending, a second Ctrl-C would only break that off; but a line that is given up is no end.
        if self._raised is None or (self._raised in self.spared and number not in self.spared):
            self._raised = number
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
                if self._raised is None:
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


_watch: _Watch | None = None
