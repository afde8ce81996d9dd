"""Putting a folder in another's place by exchanging names, and removing what was there: nothing is ever halfway.

Linux and macOS exchange two names in one step (`exchange`). Where a file system cannot, the old folder steps aside
first, under a name that `put_back` finds: whoever is killed between the two steps has lost nothing.
"""

import contextlib
import errno
import os
import stat
from collections.abc import Iterator, Sequence, Set
from pathlib import Path
from typing import Literal

from trivium.encoders.files.exchange import exchange


def put_in_place(draft: Path, folder: Path) -> Path | None:
    """Give a draft beside a folder the folder's name.

    Returns:
        Where the old folder is now; None if there was none.

    Raises:
        OSError: If it cannot be done; both are where they were.
    """
    if not os.path.lexists(folder):
        os.rename(draft, folder)  # does not replace what came meanwhile, unless that is an empty folder
        return None
    if exchange(draft, folder):
        return draft
    aside = aside_of(folder)
    os.rename(folder, aside)
    try:
        os.rename(draft, folder)
    except BaseException:
        os.rename(aside, folder)
        raise
    return aside


def aside_of(folder: Path) -> Path:
    """Where an old folder waits where names cannot be exchanged."""
    return folder.with_name(f".{folder.name}.old")


def put_back(folder: Path) -> bool:
    """Put the old folder back if whoever was to replace it was killed between the two steps; say whether."""
    aside = aside_of(folder)
    if os.path.lexists(folder) or not aside.is_dir() or aside.is_symlink():
        return False
    os.rename(aside, folder)
    sync(folder.parent)
    return True


def remove_files(folder: Path, names: Set[str], *, last: str) -> bool:
    """Remove a folder with its files, if these are all that is in it; never through a link.

    Args:
        folder: Not a link.
        names: Of its files, with slashes.
        last: The file by which the folder is known: whoever is killed before leaves a folder that is known.

    Returns:
        Whether it is gone: what has other names stays, and its folder with it.

    Raises:
        OSError: If something cannot be removed.
    """
    of_folder: dict[str, list[str]] = {}
    for name in names:
        below, _, file = name.rpartition("/")
        of_folder.setdefault(below, []).append(file)
    for below in sorted(of_folder, key=len, reverse=True):
        with contextlib.suppress(FileNotFoundError):
            _remove_from(folder / below, sorted(of_folder[below], key=lambda name: (below, name) == ("", last)))
        if below:
            _remove_if_empty(folder / below)
    return _remove_if_empty(folder)


def _remove_from(folder: Path, names: Sequence[str]) -> None:
    """Remove files of a folder by a descriptor of it: a link put in its place meanwhile leads nowhere."""
    with opened_folder(folder) as descriptor:
        for name in names:
            path = name if descriptor is not None else folder / name
            with contextlib.suppress(FileNotFoundError):
                if stat.S_ISREG(os.stat(path, dir_fd=descriptor, follow_symlinks=False).st_mode):
                    os.unlink(path, dir_fd=descriptor)


def _remove_if_empty(folder: Path) -> bool:
    try:
        os.rmdir(folder)
    except FileNotFoundError:
        return True
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        return False
    return True


def found_in(folder: Path) -> Iterator[tuple[str, Literal["file", "folder", "other"]]]:
    """Yield the paths, with slashes, of all that is in a folder and below, and what each is; no link is followed.

    Raises:
        OSError: If a folder cannot be read.
    """
    waiting = [""]
    while waiting:
        below = waiting.pop()
        with os.scandir(folder / below) as entries:
            for entry in entries:
                path = f"{below}{entry.name}"
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(f"{path}/")
                    yield path, "folder"
                else:
                    yield path, "file" if entry.is_file(follow_symlinks=False) else "other"


@contextlib.contextmanager
def opened_folder(folder: Path) -> Iterator[int | None]:
    """Open a folder that is no link, to name its files relative to it; None where systems cannot do that."""
    if os.open not in os.supports_dir_fd:
        yield None
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def sync(path: Path) -> None:
    """Bring a file or a folder to the disk."""
    if os.name == "nt":
        return
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
