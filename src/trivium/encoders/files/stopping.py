"""Work in threads that ends early: between two steps it asks whether anybody still waits for it."""

import threading


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
