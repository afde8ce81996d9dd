"""The layout that the README promises: four links, imports that point one way, and a light import."""

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import trivium

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "trivium"
PACKAGES = ("encoders", "fusion", "indexes", "pipeline")
# Package -> what of trivium it may import, besides itself.
ALLOWED = {
    "encoders": set(),
    "fusion": {"encoders"},
    "indexes": {"encoders"},
    "pipeline": {"encoders", "fusion", "indexes", ""},  # "": trivium itself, for its version
}


def imported(path: Path, package: tuple[str, ...]) -> Iterator[str]:
    """Absolute dotted names of every module or member that a file imports, at any depth and in any function."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = list(package[: len(package) - node.level + 1]) if node.level else []
            base = ".".join([*start, *([node.module] if node.module else [])])
            yield from (f"{base}.{alias.name}" for alias in node.names)


def parts_used(path: Path) -> set[str]:
    """The parts of trivium that a file imports; "" for trivium itself or a name in it."""
    package = ("trivium", *path.relative_to(SOURCE).parent.parts)
    names = [name.split(".") for name in imported(path, package)]
    return {name[1] if len(name) > 1 and (SOURCE / name[1]).is_dir() else "" for name in names if name[0] == "trivium"}


@pytest.mark.parametrize("name", PACKAGES)
def test_root_link(name: str) -> None:
    link = ROOT / name
    assert link.is_symlink()
    assert os.readlink(link) == f"src/trivium/{name}"
    assert (link / "__init__.py").samefile(SOURCE / name / "__init__.py")


def test_tests_run_on_this_source() -> None:
    assert Path(trivium.__file__).samefile(SOURCE / "__init__.py")


def test_the_walk_sees_every_kind_of_import(tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    path.write_text(
        "import trivium.a\nfrom trivium import b\nfrom trivium.c import d\nfrom . import e\nfrom ..f import g\n"
        "def late():\n    from trivium.h import i\n"
    )
    found = set(imported(path, ("trivium", "pipeline")))
    assert found == {
        *("trivium.a", "trivium.b", "trivium.c.d", "trivium.pipeline.e", "trivium.f.g", "trivium.h.i"),
    }


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_point_one_way(package: str) -> None:
    files = sorted((SOURCE / package).rglob("*.py"))
    assert len(files) >= 3
    wrong = {
        f"{path.relative_to(SOURCE)} imports {part or 'trivium'}"
        for path in files
        for part in parts_used(path) - ALLOWED[package] - {package}
    }
    assert not wrong


def test_every_package_is_covered() -> None:
    holders = {path.parent.name for path in SOURCE.glob("*/*.py")}
    assert holders == set(PACKAGES)


@pytest.mark.parametrize(
    "module", ["trivium", "trivium.encoders", "trivium.indexes", "trivium.fusion", "trivium.pipeline.cli"]
)
def test_importing_loads_nothing_heavy(module: str) -> None:
    code = (
        f"import sys, {module}\n"
        "heavy = {'torch', 'torchaudio', 'torchvision', 'timm', 'transformers'} & set(sys.modules)\n"
        "print(sorted(heavy))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert result.stdout.strip() == "[]"
