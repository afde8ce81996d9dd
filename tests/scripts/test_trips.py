import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from trips import command_line, trip_of

SOURCE = """
import threading
from dataclasses import dataclass

@dataclass
class Point:
    x: int

def one(): return [x for x in (1, 2)], (lambda: 1)(), Point(1)

def three():
    yield 1
    yield from (2, 3)

def pair(): return [one() for _ in range(2)]

def threaded():
    thread = threading.Thread(target=one)
    thread.start()
    thread.join()

def defining():
    class Local:
        x = 1
"""


@pytest.fixture
def module(tmp_path: Path) -> ModuleType:
    path = tmp_path / "room" / "module.py"
    path.parent.mkdir()
    path.write_text(SOURCE)
    spec = importlib.util.spec_from_file_location("module_of_trips", path)
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


@pytest.mark.parametrize(("name", "calls"), [("one", 1), ("pair", 3), ("threaded", 2), ("defining", 1)])
def test_named_functions_are_counted_in_all_threads(module: ModuleType, tmp_path: Path, name: str, calls: int):
    assert trip_of(getattr(module, name), tmp_path) == ["room/module.py"] * calls


def test_a_generator_counts_once(module: ModuleType, tmp_path: Path):
    assert trip_of(lambda: list(module.three()), tmp_path) == ["room/module.py"]


def test_other_files_are_not_counted(module: ModuleType, tmp_path: Path):
    assert trip_of(module.one, tmp_path / "elsewhere") == []


def test_counting_ends_with_an_error(module: ModuleType, tmp_path: Path):
    def fails() -> None:
        module.one()
        raise ValueError("on purpose")

    with pytest.raises(ValueError, match="on purpose"):
        trip_of(fails, tmp_path)
    assert trip_of(module.one, tmp_path) == ["room/module.py"]


def test_the_command_line_is_found():
    assert command_line().__name__ == "main"
