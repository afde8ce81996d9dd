"""Fork servers with and without the shim, and the modules beside the tests, which are no package."""

import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

DISK_BYTES = 4 << 20
COMPILER = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
WHY_NO_SHIM = (
    "the shim that makes system calls fail is for Linux"
    if not sys.platform.startswith("linux")
    else "no C compiler to build the shim that makes system calls fail"
    if COMPILER is None
    else None
)


def _build_shim(folder: Path) -> Path:
    assert COMPILER is not None
    shim = folder / "fault.so"
    sources = [str(Path(__file__).with_name(name)) for name in ("fault.c", "allocations.c")]
    subprocess.run([COMPILER, "-shared", "-fPIC", "-O1", "-o", str(shim), *sources, "-ldl", "-lpthread"], check=True)
    return shim


def _load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"trivium_faults_{name}", Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look for their module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def harness() -> Any:
    return _load("harness")


@pytest.fixture(scope="session")
def audit() -> Any:
    return _load("audit")


@pytest.fixture(scope="session")
def power_cut() -> Any:
    return _load("power_cut")


@pytest.fixture(scope="session")
def groups() -> Any:
    return _load("groups")


@pytest.fixture(scope="session")
def server(harness: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Runs jobs in processes of their own; under faults where the shim can be built."""
    if not hasattr(os, "fork"):
        pytest.skip("this system cannot fork")
    shim = _build_shim(tmp_path_factory.mktemp("shim")) if WHY_NO_SHIM is None else None
    with harness.ForkServer(shim=shim) as running:
        yield running


@pytest.fixture
def faulty_server(server: Any) -> Any:
    """Runs jobs under faults."""
    if WHY_NO_SHIM is not None:
        pytest.skip(WHY_NO_SHIM)
    return server


@pytest.fixture
def scratch(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory where there is one: what a killed process has written stays written, synced or not."""
    memory = Path("/dev/shm")
    if not (memory.is_dir() and os.access(memory, os.W_OK)):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(prefix="trivium-faults-", dir=memory) as folder:
        yield Path(folder)


@pytest.fixture(scope="session")
def notes(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Return the paths of so many short texts, each of its own content."""

    def make(count: int) -> list[str]:
        folder = tmp_path_factory.mktemp("notes")
        paths = [folder / f"{number:05}.md" for number in range(count)]
        for number, path in enumerate(paths):
            path.write_text(f"note {number}")
        return [str(path) for path in paths]

    return make


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    if not sys.platform.startswith("linux") or shutil.which("mount") is None:
        pytest.skip("a small file system to fill is mounted on Linux only")
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "none", str(folder)]
    mounted = subprocess.run(command, capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"no right to mount a small file system: {mounted.stderr.strip()}")
    yield folder
    # Lazily: the process keeps the databases open that it has looked at (see `database_file.kept_open`).
    subprocess.run(["umount", "--lazy", str(folder)], check=True)
