"""The layout that the README promises: four links, imports that point one way, and a light import."""

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import trivium
from trivium.pipeline.cli.main import LIST

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


# The floors of each package, lowest first: what is on one may import what is on those below, and itself.
FLOORS = {
    "encoders": (
        {"base", "machine", "several"},
        {"files"},
        {"decoding"},
        {"tags"},
        {"sandbox", "engine"},
        {"devices"},
        {"networks"},
        {"text", "batching"},
        {"image", "audio"},
        {"clip", "registry"},
    ),
    "fusion": (
        {"blocks", "combination"},
        {"projections", "kernels", "networks"},
        {"estimators"},
        {"transfer"},
        {"state"},
    ),
    "pipeline": (
        {"closing", "escaping", "paths", "progress", "records"},
        {"suffixes"},
        {"space", "store", "tables"},
        {"features", "search", "evaluation", "text_learning"},
        {"ingest", "align"},
        {"upkeep", "explain", "bench"},
        {"collection"},
        {"fused"},
        {"cli"},
    ),
}
# What indexing and searching do without; it is imported when it is asked for.
WINGS = (
    "trivium.encoders.clip",
    "trivium.encoders.image.on_gpu",
    "trivium.encoders.audio.on_gpu",
    *(
        f"trivium.pipeline.{room}"
        for room in ("upkeep", "explain", "fused", "align", "evaluation", "text_learning", "bench")
    ),
)
CORE = (
    *(f"trivium.encoders.{room}." for room in ("files", "decoding", "sandbox", "networks", "text", "image", "audio")),
    *("trivium.encoders.engine", "trivium.encoders.batching", "trivium.encoders.registry", "trivium.indexes."),
    *(f"trivium.pipeline.{room}." for room in ("space", "store", "tables", "ingest", "search")),
    "trivium.pipeline.collection",
)
MOST_MODULES = 15


def imported(path: Path, package: tuple[str, ...], *, eager: bool = False) -> Iterator[str]:
    """Absolute dotted names of every module or member that a file imports; ``eager``: only when it is imported."""
    for node in imports(ast.parse(path.read_text(encoding="utf-8")), eager=eager):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        else:
            start = list(package[: len(package) - node.level + 1]) if node.level else []
            base = ".".join([*start, *([node.module] if node.module else [])])
            yield from (f"{base}.{alias.name}" for alias in node.names)


def imports(node: ast.AST, *, eager: bool) -> Iterator[ast.Import | ast.ImportFrom]:
    """Import statements, but those that only type checkers see."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import | ast.ImportFrom):
            yield child
        elif isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
            continue
        elif not (eager and isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef)):
            yield from imports(child, eager=eager)


def names_of(path: Path) -> tuple[str, ...]:
    parts = path.relative_to(SOURCE.parent).with_suffix("").parts
    return parts[:-1] if parts[-1] == "__init__" else parts


def graph_of_modules(*, eager: bool) -> dict[str, set[str]]:
    """Module -> the modules of trivium that it imports."""
    modules = {".".join(names_of(path)): path for path in sorted(SOURCE.rglob("*.py"))}
    graph: dict[str, set[str]] = {}
    for name, path in modules.items():
        package = names_of(path) if path.name == "__init__.py" else names_of(path)[:-1]
        found = imported(path, package, eager=eager)
        used = {full if full in modules else full.rpartition(".")[0] for full in found}
        graph[name] = (used & modules.keys()) - {name}
    return graph


MODULES, EAGER = graph_of_modules(eager=False), graph_of_modules(eager=True)


def room_of(module: str, package: str) -> str | None:
    """The room of a package that a module is in; a module beside the rooms is one of its own."""
    parts = module.split(".")
    return parts[2] if parts[:2] == ["trivium", package] and len(parts) > 2 else None


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


@pytest.mark.parametrize("package", sorted(FLOORS))
def test_imports_between_rooms_point_down(package: str) -> None:
    """A room imports itself and what lies on floors below; lazy imports count.

    Not those that name a module in a string: the doors (`trivium`, `trivium.fusion`) stand above all that they open.
    """
    floor = {room: level for level, rooms in enumerate(FLOORS[package]) for room in rooms}
    wrong, met = set(), set()
    for module, used in MODULES.items():
        if (home := room_of(module, package)) is None:
            continue
        met.add(home)
        for other in used:
            room = room_of(other, package)
            if room not in (None, home) and floor[room] >= floor[home]:
                wrong.add(f"{module} imports {other}")
    assert not wrong
    assert met == set(floor)  # no room is forgotten, none is gone


def test_no_module_is_part_of_a_circle() -> None:
    """Lazy imports count, and the command line's by name; type checkers' do not."""
    graph = {module: set(used) for module, used in MODULES.items()}
    graph["trivium.pipeline.cli.main"] |= {f"trivium.pipeline.cli.{listed.module}" for listed in LIST.values()}
    graph["trivium.pipeline.cli.main"].discard("trivium.pipeline.cli.main")  # for `completion`
    while leaves := [module for module, used in graph.items() if not used & graph.keys()]:
        for module in leaves:
            del graph[module]
    assert not graph, f"in circles, or above one: {sorted(graph)}"


@pytest.mark.parametrize("wing", WINGS)
def test_the_core_imports_no_wing_when_it_is_imported(wing: str) -> None:
    core = {name for name in MODULES if name.startswith(CORE)}
    assert len(core) > 40
    wrong = {f"{name} imports {used}" for name in core for used in EAGER[name] if f"{used}.".startswith(f"{wing}.")}
    assert not wrong


def test_no_room_is_crowded() -> None:
    rooms = {path.parent for path in SOURCE.rglob("*.py")}
    assert all((room / "__init__.py").exists() for room in rooms)
    crowded = {
        str(room.relative_to(SOURCE)): count
        for room in rooms
        if (count := sum(path.name != "__init__.py" for path in room.glob("*.py"))) > MOST_MODULES
    }
    assert not crowded


def test_every_room_says_what_lives_there() -> None:
    for path in SOURCE.rglob("__init__.py"):
        told = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
        assert told, path
        if path.parent.parent.parent == SOURCE:  # a room of a package
            assert "May import" in told, path


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
