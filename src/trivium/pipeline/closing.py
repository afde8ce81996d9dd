"""Closing what several threads use: nobody new comes in, and it is taken apart when the last one is out."""

import contextlib
import threading
from collections import Counter
from collections.abc import Callable, Iterator


class Uses:
    """Who is using something that is closed one day."""

    def __init__(self) -> None:
        self.is_closed = False
        self._inside: Counter[int] = Counter()  # threads by their ids, and how deep they are in
        self._take_apart: Callable[[], object] | None = None
        self._changed = threading.Condition()  # over all of these

    @contextlib.contextmanager
    def inside(self, closed: Callable[[], Exception]) -> Iterator[None]:
        """Use it for the time of the block.

        Args:
            closed: What is raised if it is closed, and instead of what using it raises after it was.
        """
        thread = threading.get_ident()
        with self._changed:
            if self.is_closed:
                raise closed()
            self._inside[thread] += 1
        try:
            yield
        except Exception as error:
            if self.is_closed:
                raise closed() from error
            raise
        finally:
            with self._changed:
                self._inside[thread] -= 1
                self._inside += Counter()  # drops those that are out
                self._end()

    def close(self, *, stop: Callable[[], object], take_apart: Callable[[], object]) -> None:
        """Let nobody in any more, and wait until all are out; but for this thread, should it be in itself.

        Args:
            stop: Called at once: what makes those that are in come out soon.
            take_apart: Called when nobody is in: by this thread, or by the last one that leaves. Both are called once,
                however often this is.
        """
        with self._changed:
            is_first, self.is_closed = not self.is_closed, True
            if is_first:
                self._take_apart = take_apart
        if is_first:
            stop()
        with self._changed:
            self._end()
            if threading.get_ident() not in self._inside:
                self._changed.wait_for(lambda: self._take_apart is None)

    def _end(self) -> None:
        """Take it apart, if it is closed and nobody is in."""
        if not self._inside and self._take_apart is not None:
            self._take_apart()
            self._take_apart = None
            self._changed.notify_all()
