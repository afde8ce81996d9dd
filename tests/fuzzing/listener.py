"""Starts `cases.py`, listens to it, and goes on behind a case that ended it.

python tests/fuzzing/listener.py MODULE TARGET SEED COUNT [FIRST]
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

CASES = Path(__file__).with_name("cases.py")
MOST_ENDS = 200  # of the program: then something is wrong with it, or with everything


@dataclass(slots=True)
class Leak:
    """One way in which cases did what they must not."""

    signature: str
    times: int
    number: int  # of the case with the shortest recipe
    operation: str
    recipe: list[str]
    detail: str

    def __str__(self) -> str:
        return f"{self.signature} ({self.times} times; case {self.number}, {self.operation}: {'; '.join(self.recipe)})"


@dataclass(slots=True)
class Heard:
    """What a run of cases did."""

    seed: str
    cases: int = 0
    operations: int = 0
    slowest: tuple[float, int] = (0.0, -1)  # seconds, and the case that took them
    memory_mib: int = 0
    by_error: Counter[str] = field(default_factory=Counter)
    leaks: dict[str, Leak] = field(default_factory=dict)

    def leaked(self, signature: str, number: int, operation: str, recipe: list[str], detail: str) -> None:
        known = self.leaks.get(signature)
        if known is None:
            self.leaks[signature] = Leak(signature, 1, number, operation, recipe, detail)
            return
        known.times += 1
        if (len(recipe), len(str(recipe))) < (len(known.recipe), len(str(known.recipe))):
            known.number, known.operation, known.recipe, known.detail = number, operation, recipe, detail

    def __str__(self) -> str:
        errors = ", ".join(f"{count:,} {name}" for name, count in self.by_error.most_common())
        return (
            f"{self.cases:,} cases, {self.operations:,} operations, {self.by_error.total():,} refused ({errors}), "
            f"{len(self.leaks)} kinds of leaks; slowest {self.slowest[0]:.2f} s (case {self.slowest[1]}), peak "
            f"{self.memory_mib} MiB; seed {self.seed}"
        )


def listen(module: str, target: str, *, seed: str, count: int, first: int = 0) -> Heard:
    """Run cases in a process of their own; after one that ends it, go on with the next in another."""
    heard = Heard(seed)
    last = first + count
    for _ in range(MOST_ENDS):
        if first >= last:
            break
        with tempfile.TemporaryDirectory(prefix="trivium-fuzzing-", dir=_memory()) as scratch:
            first = _listen_once(heard, module, target, first, last - first, scratch)
    assert first >= last, f"ended {MOST_ENDS} times: {[str(leak) for leak in heard.leaks.values()]}"
    return heard


def _listen_once(heard: Heard, module: str, target: str, first: int, count: int, scratch: str) -> int:
    command = [sys.executable, str(CASES), module, target, heard.seed, str(first), str(count), scratch]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TMPDIR": scratch}
    with (
        tempfile.TemporaryFile("w+", errors="replace") as errors,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment) as process,
    ):
        assert process.stdout is not None
        doing: dict[str, Any] = {"doing": "making the case", "recipe": []}
        number, is_done = first - 1, False
        for text in process.stdout:
            line: dict[str, Any] = json.loads(text)
            if "case" in line:
                number, doing = line["case"], {"doing": "making the case", "recipe": []}
                heard.cases += 1
            elif "doing" in line:
                doing = line
            elif "leak" in line:
                heard.leaked(line["leak"], line["number"], line["operation"], line["recipe"], line["detail"])
            elif "refused" in line:
                heard.operations += 1
                heard.by_error.update([line["refused"]] if line["refused"] else [])
            elif "seconds" in line:
                heard.memory_mib = max(heard.memory_mib, line["memory_mib"])
                heard.slowest = max(heard.slowest, (line["seconds"], number))
            else:
                is_done = True
        code = process.wait()
        errors.seek(0)
        said = errors.read()[-3000:]
    if is_done and code == 0:
        return first + count
    assert number >= first, f"no case was begun: {said}"
    end = f"killed by {signal.Signals(-code).name}" if code < 0 else "hung" if "Timeout (" in said else f"exit {code}"
    heard.leaked(f"{doing['doing']}: {end}", number, doing["doing"], doing["recipe"], said)
    return number + 1


def _memory() -> str | None:
    memory = Path("/dev/shm")
    return str(memory) if memory.is_dir() and os.access(memory, os.W_OK) else None


def main() -> None:
    module, target, seed, count, *first = sys.argv[1:]
    heard = listen(module, target, seed=seed, count=int(count), first=int(first[0]) if first else 0)
    for leak in sorted(heard.leaks.values(), key=lambda leak: leak.signature):
        print(f"- {leak}\n{leak.detail if os.environ.get('TRIVIUM_DETAIL') else ''}")
    print(heard)


if __name__ == "__main__":
    main()
