"""Cases of which each does one thing that no case may do: what shows that the fuzzers would notice."""

import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

CASES = sys.modules["__main__"]


def _refuse() -> None:
    raise LookupError("refused as documented")


def _raise() -> None:
    raise ValueError("not documented")


def _end() -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def _panic() -> None:
    raise type("PanicException", (BaseException,), {})("as Rust's panics arrive")


class HostileNothings:
    """The target."""

    documented = (LookupError,)

    def __init__(self, scratch: Path) -> None:
        self._outside = scratch / "outside"
        self.watched = [self._outside]
        self.restore()
        self._cases: list[tuple[str, Callable[[], object]]] = [
            ("nothing", lambda: None),
            ("refuse", _refuse),
            ("raise", _raise),
            ("touch", lambda: (self._outside / "mine").write_text("yours")),
            ("end", _end),
            ("hang", lambda: time.sleep(100)),
            ("panic", _panic),
            ("delete", (self._outside / "mine").unlink),
            ("nothing", lambda: None),
        ]

    def restore(self) -> None:
        """See `cases.Target`."""
        self._outside.mkdir(exist_ok=True)
        (self._outside / "mine").write_text("mine")

    def case(self, rng: random.Random, number: int) -> Any:
        name, operation = self._cases[number]
        return CASES.Case([name], [(name, operation)])


TARGETS = {"nothings": HostileNothings}
