"""`make dist`: builds a source distribution and from it a wheel, looks into both, installs the wheel and asks it.

The wheel goes into an environment of its own with what it requires and nothing else (6 GB with CUDA), far from this
checkout. `--quick` leaves that out.
"""

import argparse
import email
import os
import subprocess
import sys
import tarfile
import tempfile
import time
import venv
import zipfile
from collections.abc import Sequence
from pathlib import Path

from trivium.version import __version__

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "trivium"
TARGET = ROOT / "dist"
NOTES = {
    "lark.txt": "A lark sings above the field in the morning.",
    "soup.txt": "Boil the pumpkin, add salt, and eat it hot.",
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="install nothing")
    arguments = parser.parse_args()
    wheel, sdist = build()
    problems = [*wheel_problems(wheel), *sdist_problems(sdist)]
    if problems:
        print(*problems, sep="\n")
        return 1
    print(f"{wheel.name}: {wheel.stat().st_size / 1e6:.1f} MB, {sdist.name}: {sdist.stat().st_size / 1e6:.1f} MB")
    if not arguments.quick:
        with tempfile.TemporaryDirectory(prefix="trivium-dist-") as folder:
            ask(wheel, Path(folder))
    return 0


def build() -> tuple[Path, Path]:
    """Build both anew; the wheel from what the source distribution holds."""
    for old in (*TARGET.glob("trivium-*.whl"), *TARGET.glob("trivium-*.tar.gz")):
        old.unlink()
    run([sys.executable, "-m", "build", "--outdir", str(TARGET), str(ROOT)], quiet=True)
    (wheel,), (sdist,) = TARGET.glob("trivium-*.whl"), TARGET.glob("trivium-*.tar.gz")
    return wheel, sdist


def wheel_problems(path: Path) -> list[str]:
    """Say what a wheel lacks, has too much, or says wrong."""
    with zipfile.ZipFile(path) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        (metadata,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        told = email.message_from_bytes(archive.read(metadata))
    shipped = (path for kind in ("*.py", "py.typed", "*.json", "*.safetensors") for path in SOURCE.rglob(kind))
    wanted = {path.relative_to(SOURCE.parent).as_posix() for path in shipped}
    problems = [f"the wheel lacks {name}" for name in sorted(wanted - names)]
    problems += [f"the wheel holds {name}" for name in sorted(names - wanted)]
    if told["Version"] != __version__:
        problems.append(f"the wheel says that it is {told['Version']}, not {__version__}")
    if not str(told.get_payload()).startswith("# Trivium"):
        problems.append("the wheel does not describe itself with README.md")
    return problems


def sdist_problems(path: Path) -> list[str]:
    """Say what a source distribution lacks, or holds that is nobody's business."""
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    wanted = {"pyproject.toml", "README.md", "LICENSE", "src/trivium/__init__.py", "src/trivium/py.typed"}
    foreign = (".venv", "build", "dist", "demo-output")
    problems = [f"the source distribution lacks {name}" for name in sorted(wanted - names)]
    return problems + [f"the source distribution holds {name}" for name in sorted(names) if name.startswith(foreign)]


def ask(wheel: Path, folder: Path) -> None:
    """Install a wheel where nothing else is, index two notes, and ask for one of them.

    Raises:
        SystemExit: If it does not answer with the right one.
    """
    started = time.perf_counter()
    venv.create(folder / "env", with_pip=True, symlinks=True)
    run([str(folder / "env" / "bin" / "python"), "-m", "pip", "install", "--quiet", str(wheel)])
    size = sum(path.lstat().st_size for path in (folder / "env").rglob("*"))
    print(f"installed in {time.perf_counter() - started:.0f} s: {size / 1e9:.1f} GB")
    notes = folder / "notes"
    notes.mkdir()
    for name, text in NOTES.items():
        (notes / name).write_text(text)
    program, collection = str(folder / "env" / "bin" / "trivium"), str(folder / "notes.trivium")
    assert run([program, "--version"], cwd=folder).split() == ["trivium", __version__]
    run([program, "index", collection, str(notes)], cwd=folder)
    answer = run([program, "search", collection, "a bird singing", "-k", "1"], cwd=folder)
    print(answer.strip())
    if "lark.txt" not in answer:
        raise SystemExit("the wheel that was installed does not find a bird")


def run(command: Sequence[str], *, cwd: Path = ROOT, quiet: bool = False) -> str:
    """Run a program without our own paths; return what it prints, or end with what it said."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return "" if quiet else done.stdout


if __name__ == "__main__":
    sys.exit(main())
