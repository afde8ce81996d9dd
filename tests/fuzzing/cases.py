"""The program that runs hostile cases: one after another, each watched for what it raises, prints, writes and takes.

    python cases.py MODULE TARGET SEED FIRST COUNT SCRATCH

The target makes case N from a random generator that SEED and N give, so that any case can be made again by itself. A
line of JSON tells of each case as it begins, so that whoever listens knows which one a crash or a hang ended, and of
each leak: an error that is not documented, a file outside that was touched, a raw control character in the output.
"""

import contextlib
import faulthandler
import importlib.util
import json
import os
import random
import resource
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

LIMIT_SECONDS = float(
    os.environ.get("TRIVIUM_LIMIT", "30")
)  # for what takes milliseconds; a slow machine is not a bug, a hang is
MEMORY_BYTES = 12 << 30  # of addresses: an endless allocation is to fail here, not to end the machine


class LeakError(AssertionError):
    """What a case must not do, other than raising."""


class RefusedError(Exception):
    """What a target raises for an error of a general class, where it is the one that is documented."""


@dataclass(frozen=True, slots=True)
class Case:
    """What is done to one hostile input."""

    recipe: list[str]  # how it was made
    operations: list[tuple[str, Callable[[], object]]]


class Target(Protocol):
    """A format that is read."""

    documented: tuple[type[BaseException], ...]  # what an operation may raise
    watched: list[Path]  # folders that no case may change

    def case(self, rng: random.Random, number: int) -> Case:
        """Make case ``number``; what it needs on the disk is written now."""
        ...

    def restore(self) -> None:
        """Make what is watched anew, after a case that has changed it."""
        ...


def load_beside(name: str) -> ModuleType:
    """Load a module by its path from this folder, without the ending; each once."""
    path = Path(__file__).parent / f"{name}.py"
    known = f"trivium_fuzzing_{name.replace('/', '_').replace('.', '_')}"
    if known in sys.modules:
        return sys.modules[known]
    spec = importlib.util.spec_from_file_location(known, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look for their module
    spec.loader.exec_module(module)
    return module


def tree(folder: Path) -> dict[str, tuple[int, ...]]:
    """What a later look is compared with: every path below a folder, its kind, size and times."""
    return dict(_walk(os.fspath(folder)))


def _walk(folder: str) -> Iterator[tuple[str, tuple[int, ...]]]:
    with os.scandir(folder) as entries:
        for entry in entries:
            status = entry.stat(follow_symlinks=False)
            is_folder = entry.is_dir(follow_symlinks=False)
            yield entry.path, (status.st_mode, status.st_ino, status.st_size, status.st_mtime_ns)
            if is_folder:
                yield from _walk(entry.path)


def place_of(error: BaseException) -> str:
    """Say where in Trivium an error came from."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if f"{os.sep}trivium{os.sep}" in frame.filename]
    if not ours:
        return "outside of trivium"
    last = ours[-1]
    return f"{last.filename.rpartition(f'{os.sep}trivium{os.sep}')[2]}:{last.name}"


def run(target: Target, *, seed: str, first: int, count: int, tell: Callable[[dict[str, Any]], None]) -> None:
    for number in range(first, first + count):
        tell({"case": number})
        faulthandler.dump_traceback_later(LIMIT_SECONDS, exit=True)
        case = target.case(random.Random(f"{seed} {number}"), number)
        faulthandler.cancel_dump_traceback_later()
        before = [tree(folder) for folder in target.watched]
        started = time.perf_counter()
        for name, operation in case.operations:
            tell({"doing": name, "recipe": case.recipe})
            refused = None
            faulthandler.dump_traceback_later(LIMIT_SECONDS, exit=True)
            try:
                operation()
            except target.documented as error:
                refused = type(error).__name__
            except (KeyboardInterrupt, SystemExit):
                raise
            except BaseException as error:  # also what Rust's panics become
                what = str(error)[:300] if isinstance(error, LeakError) else ""
                signature = what or f"{type(error).__name__} at {place_of(error)}"
                _tell_leak(tell, number, name, case, signature, "".join(traceback.format_exception(error)))
            finally:
                faulthandler.cancel_dump_traceback_later()
            tell({"refused": refused})
        tell({"seconds": time.perf_counter() - started, "memory_mib": _memory_mib()})
        for folder, old in zip(target.watched, before, strict=True):
            if (new := tree(folder)) != old:
                touched = sorted({os.path.relpath(path, folder) for path, _ in old.items() ^ new.items()})
                detail = f"{len(touched)}: {touched[:9]}"
                _tell_leak(tell, number, "all", case, f"touched outside: {touched[0]}", detail)
                target.restore()
    tell({"done": True})


def _memory_mib() -> int:
    """Return the most that this program ever had; Linux counts what its parent had too in what `getrusage` tells."""
    with contextlib.suppress(OSError), open("/proc/self/status", encoding="ascii", errors="replace") as status:
        return int(next(line.split()[1] for line in status if line.startswith("VmHWM:"))) >> 10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> (20 if sys.platform == "darwin" else 10)


def _tell_leak(
    tell: Callable[[dict[str, Any]], None], number: int, operation: str, case: Case, signature: str, detail: str
) -> None:
    tell({"leak": signature, "number": number, "operation": operation, "recipe": case.recipe, "detail": detail[-3000:]})


def main() -> None:
    module, target, seed, first, count, scratch = sys.argv[1:]
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what cases print is no answer

    def tell(line: dict[str, Any]) -> None:
        answers.write(json.dumps(line) + "\n")

    faulthandler.enable()
    warnings.simplefilter("error")
    with contextlib.suppress(ValueError):  # macOS knows no such limit
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    found: Target = load_beside(module).TARGETS[target](Path(scratch))
    run(found, seed=seed, first=int(first), count=int(count), tell=tell)
    answers.close()


if __name__ == "__main__":
    main()
