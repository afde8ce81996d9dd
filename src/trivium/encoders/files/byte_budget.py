"""How much several threads hold at once: who would go over waits for the others."""

import contextlib
import threading
from collections.abc import Iterator

from trivium.encoders.files import stopping

WAIT_SECONDS = 0.1  # between two looks at whether anybody still wants it


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
                stopping.check()
                self._changed.wait(WAIT_SECONDS)
            self._held += size
        try:
            yield
        finally:
            with self._changed:
                self._held -= size
                self._changed.notify_all()
