"""A command with made-up work, run as users run it, for `test_ends.py`.

    python interrupted.py WORK COMMAND [ARGUMENT ...]

WORK says what encoding does there: see `WORKS`. When the command begins, READY comes on standard error; when encoding
does, BEGUN.
"""

import hashlib
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from trivium.__main__ import main
from trivium.encoders.base import Encoder, Modality, Prepared, Space, Vectors, unit_rows
from trivium.encoders.files import stopping
from trivium.pipeline import collection
from trivium.pipeline.cli import ends
from trivium.pipeline.space.config import SpaceConfig
from trivium.pipeline.space.joint import JointSpace

DIM = 8
LONG_SECONDS = 300.0
SPACE = Space(name="slow", dim=DIM, revision="1")


def in_steps() -> None:
    for _ in range(20):
        stopping.check()
        time.sleep(0.01)


def deaf() -> None:
    """As a thread that never asks."""
    time.sleep(LONG_SECONDS)


def in_c() -> None:
    """As a library that is at work for minutes: no signal's handler runs in the main thread meanwhile."""
    hashlib.pbkdf2_hmac("sha256", b"1", b"2", 1 << 30)


def slow_to_end() -> None:
    """Ends when it is told, and takes its time for it."""
    try:
        for _ in range(int(LONG_SECONDS / 0.01)):
            stopping.check()
            time.sleep(0.01)
    except stopping.StoppedError:
        print("ENDING", file=sys.stderr, flush=True)
        time.sleep(ends.GRACE_SECONDS / 2)
        raise


def fails() -> None:
    raise ZeroDivisionError("something that nobody expected")


def without_memory() -> None:
    raise MemoryError


def without_threads() -> None:
    raise RuntimeError("can't start new thread")


WORKS: dict[str, Callable[[], None]] = {
    work.__name__: work for work in (in_steps, deaf, in_c, slow_to_end, fails, without_memory, without_threads)
}


class SlowEncoder(Encoder):
    """Vectors by hash; each batch is work."""

    def __init__(self, modality: Modality, work: Callable[[], None]) -> None:
        self.modality: Modality = modality
        self.space = SPACE
        self._work = work

    def prepare(self, item: Any, /) -> Prepared:
        return np.frombuffer(str(item).encode(), np.uint8)

    def embed(self, batch: Sequence[Prepared], /) -> Vectors:
        begin()
        self._work()
        seeds = [int.from_bytes(hashlib.sha256(item.tobytes()).digest()[:8], "big") for item in batch]
        return unit_rows(np.stack([np.random.default_rng(seed).normal(size=DIM) for seed in seeds]))


class SlowSpace(JointSpace):
    """A space of texts."""

    def __init__(self, work: Callable[[], None]) -> None:
        super().__init__(SpaceConfig(space=SPACE, description="", encoders={}), source="slow")
        self._work = work

    @property
    def modalities(self) -> tuple[Modality, ...]:
        return ("text",)

    def example_texts(self, n: int) -> list[str]:
        return []

    def encoder(self, modality: Modality, replica: int = 0) -> Encoder:
        return SlowEncoder(modality, self._work)


_begun = threading.Event()


def begin() -> None:
    if not _begun.is_set():
        _begun.set()
        os.write(2, b"BEGUN\n")


if __name__ == "__main__":
    made = SlowSpace(WORKS[sys.argv.pop(1)])
    vars(collection)["load_space"] = lambda *_, **__: made
    ends.settle_streams()
    ends.install()
    os.write(2, b"READY\n")
    sys.exit(main())
