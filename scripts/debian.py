"""Debian packages without installing them: fetched by apt with state of our own, unpacked where we like.

Neither root nor an earlier `apt-get update` is needed, and nothing of the system's own state is touched.
"""

import shutil
import subprocess
import tarfile
from collections.abc import Callable, Iterable
from pathlib import Path


class FetchError(Exception):
    """Packages cannot be had here; the message says why."""


def download(packages: Iterable[str], folder: Path) -> dict[str, Path]:
    """Download packages, each once, and return their files by name.

    Args:
        packages: Names of Debian packages.
        folder: Where the files and apt's state go; files that are there from an earlier call are used.

    Raises:
        FetchError: If there is no apt, or it cannot fetch a package.
    """
    folder.mkdir(parents=True, exist_ok=True)
    names = list(dict.fromkeys(packages))
    missing = [name for name in names if _newest(folder, name) is None]
    if missing:
        _apt_download(missing, folder)
    found = {name: _newest(folder, name) for name in names}
    if lost := [name for name, path in found.items() if path is None]:
        raise FetchError(f"apt fetched no file for {', '.join(lost)}")
    return {name: path for name, path in found.items() if path is not None}


def version(package: Path) -> str:
    """Return the version that a package file states."""
    told = subprocess.run(["dpkg-deb", "-f", str(package), "Version"], check=True, capture_output=True, text=True)
    return told.stdout.strip()


def unpack(package: Path, folder: Path, *, wanted: Callable[[str], bool]) -> list[Path]:
    """Unpack those regular files of a package whose path in it, such as `usr/share/x.ogg`, is wanted."""
    unpacked = []
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(package)], stdout=subprocess.PIPE) as process:
        with tarfile.open(fileobj=process.stdout, mode="r|") as tar:
            for member in tar:
                name = member.name.removeprefix("./")
                if member.isreg() and wanted(name):
                    tar.extract(member, folder, filter="data")
                    unpacked.append(folder / name)
    if process.returncode:
        raise FetchError(f"{package}: damaged, dpkg-deb cannot unpack it. Delete it, and it is fetched anew")
    return unpacked


def _newest(folder: Path, name: str) -> Path | None:
    """Return the package file of that name; apt names it NAME_VERSION_ARCHITECTURE.deb."""
    return max(folder.glob(f"{name}_*.deb"), key=lambda path: path.stat().st_mtime, default=None)


def _apt_download(names: list[str], folder: Path) -> None:
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        raise FetchError("there is no apt here: this needs Debian, Ubuntu or their kind")
    state = (folder / "apt").resolve()
    for part in ("lists/partial", "cache/archives/partial"):
        (state / part).mkdir(parents=True, exist_ok=True)
    (state / "status").touch()
    apt = [
        "apt-get",
        *("-o", f"Dir::State={state}", "-o", f"Dir::State::lists={state}/lists", "-o", f"Dir::Cache={state}/cache"),
        *("-o", f"Dir::State::status={state}/status", "-o", "APT::Sandbox::User=", "-o", "Debug::NoLocking=1", "-q=2"),
    ]
    try:
        subprocess.run([*apt, "update"], check=True)
        subprocess.run([*apt, "download", *names], check=True, cwd=folder)
    except subprocess.CalledProcessError as error:
        raise FetchError(f"apt cannot fetch {', '.join(names)} ({error})") from error
    shutil.rmtree(state)
