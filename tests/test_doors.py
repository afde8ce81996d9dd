"""Users come in by two doors, `trivium` and `trivium.fusion`: what examples and docs import is in their `__all__`."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import trivium
import trivium.fusion

ROOT = Path(__file__).parents[1]
DOORS = {"trivium": trivium, "trivium.fusion": trivium.fusion}
PAGES = sorted([ROOT / "README.md", ROOT / "SECURITY.md", *(ROOT / "docs").glob("*.md")])
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


def snippets() -> Iterator[tuple[str, str]]:
    """Name and text of every program that a user reads."""
    yield from ((path.name, path.read_text(encoding="utf-8")) for path in EXAMPLES)
    for path in PAGES:
        blocks = re.findall(r"```python\n(.*?)```", path.read_text(encoding="utf-8"), re.DOTALL)
        yield from ((f"{path.name} {number}", block) for number, block in enumerate(blocks))


SNIPPETS = dict(snippets())


@pytest.mark.parametrize("name", SNIPPETS)
def test_what_users_read_comes_through_the_doors(name: str) -> None:
    for node in ast.walk(ast.parse(SNIPPETS[name])):
        if isinstance(node, ast.Import):
            wrong = [alias.name for alias in node.names if alias.name.startswith("trivium.")]
            assert set(wrong) <= set(DOORS)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "trivium":
            assert node.module in DOORS
            assert {alias.name for alias in node.names} <= set(DOORS[node.module].__all__)
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "trivium":
            assert node.attr in trivium.__all__


def test_the_walk_sees_them() -> None:
    assert len(EXAMPLES) >= 3
    assert {"README.md 0", "fusion.md 0", "text-learning.md 0"} <= set(SNIPPETS)


@pytest.mark.parametrize("name", DOORS)
def test_every_name_is_there(name: str) -> None:
    door = DOORS[name]
    assert door.__all__ == sorted(door.__all__)
    assert len(set(door.__all__)) == len(door.__all__)
    for each in door.__all__:
        assert getattr(door, each) is not None


def test_unknown_names() -> None:
    with pytest.raises(AttributeError, match=r"module 'trivium' has no attribute 'Colection'"):
        _ = trivium.Colection


def test_all_of_fusion_without_scikit_learn() -> None:
    code = "import sys; sys.modules['sklearn'] = None\n"
    code += "try:\n    from trivium.fusion import *\nexcept ImportError as error: print(error)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120).stdout
    assert found.strip() == "trivium.fusion.BlockClassifier needs scikit-learn: run pip install 'trivium[learn]'"


def test_documents_name_files_that_are_there() -> None:
    root = Path(__file__).parents[1]
    pages = [*root.glob("*.md"), *root.glob("docs/*.md")]
    named = re.compile(r"(?<![\w/])(?:tests/)?(?:encoders|fusion|indexes|pipeline|fuzzing)/[a-z_/]+\.py\b")
    wrong = {
        f"{page.name}: {name}"
        for page in pages
        for name in named.findall(page.read_text(encoding="utf-8"))
        if not any((root / start / name).exists() for start in (".", "src/trivium", "tests"))
    }
    assert not wrong
    tests = {path.name for path in (root / "tests").rglob("test_*.py")}
    assert {name for page in pages for name in re.findall(r"test_\w+\.py", page.read_text(encoding="utf-8"))} <= tests
