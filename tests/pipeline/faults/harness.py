"""The tests' side of `workload.py`: faults, and a server that runs jobs under them."""

import errno
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

WORKLOAD = Path(__file__).with_name("workload.py")
LIMIT_SECONDS = 120.0  # for a job that takes a fraction of one; a slow machine is not a bug, a hang is
# As in fault.c.
NONE, FAIL, FULL, SHORT, KILL_BEFORE, KILL_AFTER, TORN = range(7)
KILLS = {"before": KILL_BEFORE, "after": KILL_AFTER, "torn": TORN}
TO_THE_END = 0  # as a number of calls


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What happens to the nth changing call below a folder; of one kind and on matching paths only, if told so."""

    root: str
    mode: int
    nth: int = 1
    calls: int = 1  # so many from the nth on
    error: int = errno.EIO
    call: str = ""
    path: str = ""
    trace: bool = False  # tell of every call


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a job ended."""

    code: int  # minus the signal, if one ended it
    lines: list[str]
    seconds: float

    @property
    def was_killed(self) -> bool:
        return self.code == -9 and "HUNG" not in self.lines

    def said(self, word: str) -> list[str]:
        """What the job said after a word."""
        return [rest for first, _, rest in (line.partition(" ") for line in self.lines) if first == word]

    def calls(self) -> list[tuple[str, str]]:
        """Traced calls, each with its path."""
        return [tuple(line.split("\t")[1:3]) for line in self.said("CALL")]  # type: ignore[misc]

    @property
    def encoded(self) -> int:
        return sum(map(int, self.said("ENCODED")))

    @property
    def acknowledged(self) -> int:
        return int((self.said("ACKNOWLEDGED") or ["0"])[-1])

    def require_done(self) -> "Outcome":
        assert self.code == 0, "\n".join(self.lines)
        return self


class ForkServer:
    """A running `workload.py`."""

    def __init__(self, *, shim: Path | None) -> None:
        self.has_shim = shim is not None
        command = [sys.executable, str(WORKLOAD)]
        # One thread for each child: OpenMP's others would spin on the cores that the next children need.
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        if shim is not None:
            command.append(str(shim))
            environment["LD_PRELOAD"] = str(shim)
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"

    def run(
        self, *jobs: dict[str, Any], kill_after: float | None = None, limit: float = LIMIT_SECONDS
    ) -> list[Outcome]:
        """Run jobs at the same time, to their ends or to a kill."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        request = {"jobs": jobs, "kill_after": kill_after, "limit": limit}
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return [Outcome(**answer) for answer in json.loads(self._process.stdout.readline())]

    def run_one(self, job: dict[str, Any], *, fault: Fault | None = None, kill_after: float | None = None) -> Outcome:
        """Run one job, with a fault."""
        if fault is not None:
            job = {**job, "fault": asdict(fault)}
        (outcome,) = self.run(job, kill_after=kill_after)
        return outcome

    def __enter__(self) -> "ForkServer":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.communicate(timeout=LIMIT_SECONDS)  # its input ends


def spread(count: int, *, wanted: int) -> Sequence[int]:
    """Return ``wanted`` numbers of 1 to ``count``, the middles of as many equal parts."""
    if wanted >= count:
        return range(1, count + 1)
    return [1 + (2 * part + 1) * count // (2 * wanted) for part in range(wanted)]
