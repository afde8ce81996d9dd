"""How a batch is cut into passes of a network: as large as memory allows, and of few shapes where that pays."""

import threading

FIRST_NUMBERS = 1 << 21  # 14 pictures of 224 x 224: fits any GPU, and tells how much memory a number takes
MOST_NUMBERS = 1 << 26  # 445 such pictures: a larger pass is no faster, and several passes overlap with their copies
SHARE = 0.5  # of the free memory: the rest is for copies on their way, and for what fragmentation wastes
SHORTEST = 32  # positions; shorter texts are padded to it where shapes are fixed


class PassSize:
    """How many numbers, of all inputs together, a pass takes: learnt from passes that fitted and from one that did not.

    Safe to use from several threads.
    """

    def __init__(self, first: int | None = None) -> None:
        """Start with so many numbers; None: no limit until a pass has failed."""
        self._numbers = first
        self._failed: int | None = None
        self._largest = 0
        self._lock = threading.Lock()

    def rows(self, numbers_per_row: int) -> int | None:
        """Return how many rows a pass takes, at least 1; None: any number."""
        return None if self._numbers is None else max(1, self._numbers // max(1, numbers_per_row))

    def fitted(self, numbers: int, *, used_bytes: int, free_bytes: int) -> None:
        """Learn from a pass how many would fit; what is fixed weighs less in a larger one, so that counts more."""
        with self._lock:
            if numbers <= self._largest or self._numbers is None:
                return
            self._largest = numbers
            affordable = int(numbers * SHARE * free_bytes / max(1, used_bytes))
            most = MOST_NUMBERS if self._failed is None else min(MOST_NUMBERS, self._failed)
            self._numbers = max(1, min(affordable, most))

    def failed(self, numbers: int) -> None:
        """Take half of what did not fit, from now on."""
        with self._lock:
            self._failed = min(numbers // 2, numbers if self._failed is None else self._failed)
            self._numbers = max(1, self._failed)


def next_size(count: int, *, least: int = 1, most: int | None = None) -> int:
    """Return the next power of two from ``least`` on, or ``most`` if that is less."""
    size = max(least, 1 << max(0, count - 1).bit_length())
    return size if most is None else min(size, most)
