"""Work in several threads: how it ends early, and how much they hold at once.

Between two steps a thread asks whether anybody still waits for its work. Who would hold too much waits for the others.
"""

import contextlib
import threading
from collections.abc import Iterator

WAIT_SECONDS = 0.1  # for room, between two looks at whether anybody still wants it


class StoppedError(Exception):
    """Work that nobody waits for any more; no fault of any item."""


_here = threading.local()


def obey(stop: threading.Event | None) -> None:
    """Make `check` in this thread look at an event from now on; at none if None."""
    _here.stop = stop


def obeyed() -> threading.Event | None:
    """Return the event that `check` in this thread looks at."""
    stop: threading.Event | None = getattr(_here, "stop", None)
    return stop


def check() -> None:
    """Go on, unless this thread's work was stopped; cheap enough for each pass, block or piece.

    Raises:
        StoppedError: If it was.
    """
    stop = obeyed()
    if stop is not None and stop.is_set():
        raise StoppedError("stopped: nobody waits for it any more")


class ByteBudget:
    """Bytes that may be held together; more than all of them by one thread alone."""

    def __init__(self, size: int) -> None:
        """Allow so many.

        Raises:
            ValueError: If that is below 1.
        """
        if size < 1:
            raise ValueError(f"a budget must be at least 1 byte, got {size}")
        self._size = size
        self._held = 0
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def holding(self, size: int) -> Iterator[None]:
        """Wait until so many may be held, and hold them for the block.

        Raises:
            StoppedError: If the thread's work is stopped meanwhile.
        """
        with self._changed:
            while self._held and self._held + size > self._size:
                check()
                self._changed.wait(WAIT_SECONDS)
            self._held += size
        try:
            yield
        finally:
            with self._changed:
                self._held -= size
                self._changed.notify_all()
