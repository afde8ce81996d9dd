"""Folders that are wholly there or not there: spaces, text models, classifiers; and never another's folder lost.

What is written takes the place of what was there only if that is ours: its marker, a JSON file, says so, and there is
nothing in it that we did not write. At any time either the old folder or the new one is there as a whole.

Linux and macOS exchange two names in one step (`exchange`). Where a file system cannot, the old folder steps aside
first, under a name that `put_back` finds: whoever is killed between the two steps has lost nothing.
"""

import contextlib
import ctypes
import errno
import os
import secrets
import shutil
import stat
import sys
from collections.abc import Callable, Iterator, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from trivium.encoders.files.foreign import ForeignFileError, read_foreign_json, shown
from trivium.encoders.files.writing import SHARED, opened_folder, sync, sync_folder

MAX_MARKER_BYTES = 16 * 1024 * 1024
NAMED = 3  # files that a message names
_AT_FDCWD = -100
_EXCHANGE = 2  # RENAME_EXCHANGE of Linux's renameat2(2), RENAME_SWAP of macOS's renamex_np(2)
# What a kernel or a file system says that cannot do it.
_NOT_HERE = (errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EPERM)


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnFolder:
    """How a kind of folder that we write is known."""

    what: str  # it is called in messages
    refused: type[Exception]  # raised with a message
    marker: str  # the file that says what it is
    # Given a folder, the files that we may have written into it, by their paths with slashes; None if its marker is not
    # one that we write.
    names: Callable[[Path], Set[str] | None]


def marker_of(folder: Path, name: str, *, formats: int, kinds: Set[str] | None = None) -> dict[str, object] | None:
    """Read the JSON file that says what a folder is.

    Args:
        folder: The folder.
        name: Of the file.
        formats: The newest format that we write; older ones count from 1.
        kinds: What its "kind" may be; None: it has none.

    Returns:
        What it holds; None if it is none of ours.
    """
    try:
        told = read_foreign_json(folder / name, max_bytes=MAX_MARKER_BYTES)
    except ForeignFileError:
        return None
    is_ours = type(told.get("format")) is int and 1 <= told["format"] <= formats
    kind = told.get("kind")
    return told if is_ours and (kinds is None or (isinstance(kind, str) and kind in kinds)) else None


def check_target(folder: Path, own: OwnFolder) -> None:
    """Refuse a folder that must not be replaced, before hours are spent.

    Raises:
        Exception: Of the kind that ``own`` names, if it is neither new nor empty nor wholly ours, or is a place where
            nothing is to be replaced: the folder one stands in, say.
    """
    reason = _why_not(folder, own)
    if reason is not None:
        raise own.refused(reason)


@contextmanager
def written_whole(folder: Path, own: OwnFolder) -> Iterator[Path]:
    """Give a draft to write into, which takes the folder's place when the block ends; after an error nothing changes.

    Files and folders are as the umask says. What a run left that was killed is put right first.

    Raises:
        OSError: If it cannot be written.
        Exception: As `check_target` does.
    """
    check_target(folder, own)
    folder.parent.mkdir(parents=True, exist_ok=True)
    _put_right(folder, own)
    draft = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.new")
    draft.mkdir()
    try:
        yield draft
        _finish(draft)
        check_target(folder, own)  # again: what was put there meanwhile is not ours to remove
        names = own.names(folder) if folder.exists() else None
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)  # which follows no link
        raise
    try:
        old = put_in_place(draft, folder)
    except OSError:  # and no more: interrupted just after the exchange, the draft's name is the old folder's
        shutil.rmtree(draft, ignore_errors=True)
        raise
    sync_folder(folder.parent)
    if old is not None and not remove_files(old, names or set(), last=own.marker):
        raise own.refused(f"{folder} is written; what was put into the old one meanwhile is kept in {old}")


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
    sync_folder(folder.parent)
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


def exchange(one: Path, other: Path) -> bool:
    """Exchange the names of two files or folders of one file system.

    Returns:
        False if the system or the file system has no such thing; nothing is changed then.

    Raises:
        OSError: If one of them is missing, or they may not be renamed.
    """
    if os.name != "posix":
        return False
    library = ctypes.CDLL(None, use_errno=True)
    names = os.fsencode(one), os.fsencode(other)
    if sys.platform.startswith("linux") and hasattr(library, "renameat2"):
        failed = library.renameat2(_AT_FDCWD, names[0], _AT_FDCWD, names[1], ctypes.c_uint(_EXCHANGE))
    elif sys.platform == "darwin" and hasattr(library, "renamex_np"):
        failed = library.renamex_np(*names, ctypes.c_uint(_EXCHANGE))
    else:
        return False
    if not failed:
        return True
    number = ctypes.get_errno()
    if number in _NOT_HERE:
        return False
    raise OSError(number, os.strerror(number), str(one), None, str(other))


def _why_not(folder: Path, own: OwnFolder) -> str | None:
    """Say why a folder is not written to; None if it is."""
    if folder.is_symlink():
        return f"{folder} is a link: name the folder itself, or a new one"
    real = Path(os.path.realpath(folder))
    if folder.name in ("", "..") or Path.cwd().is_relative_to(real):
        return f"{folder} is the folder that you are in, or one above it: name a new folder"
    if real == Path(os.path.realpath(Path.home())) or os.path.ismount(real):
        return f"{folder} is a home folder or a disk of its own: name a new folder in it"
    if not os.path.lexists(folder):
        return None
    if not folder.is_dir():
        return f"{folder} exists and is no {own.what}: choose another folder"
    if not any(folder.iterdir()):
        return None
    names = own.names(folder)
    if names is None:
        return f"{folder} exists and is no {own.what}: choose another folder"
    if foreign := sorted(_foreign(folder, names)):
        more = f" and {len(foreign) - NAMED:,} more" if len(foreign) > NAMED else ""
        return (
            f"{folder} holds {', '.join(map(shown, foreign[:NAMED]))}{more}, which no {own.what} has: move that away, "
            "or choose another folder"
        )
    return None


def _foreign(folder: Path, names: Set[str]) -> Iterator[str]:
    """Yield all in a folder that is neither a regular file of one of the names nor a folder that leads to one."""
    folders = {name[:place] for name in names for place, letter in enumerate(name) if letter == "/"}
    for path, kind in found_in(folder):
        if (kind != "file" or path not in names) and (kind != "folder" or path not in folders):
            yield path


def _put_right(folder: Path, own: OwnFolder) -> None:
    """Undo what a run did that was killed where names cannot be exchanged; see `put_in_place`."""
    aside = aside_of(folder)
    if not os.path.lexists(aside):
        return
    is_folder = aside.is_dir() and not aside.is_symlink()
    names = own.names(aside) if is_folder else None
    if is_folder and not any(aside.iterdir()):
        names = set()
    if names is None or any(_foreign(aside, names)):
        raise own.refused(f"{aside} is in the way: move it elsewhere")
    if not names or not put_back(folder):
        remove_files(aside, names, last=own.marker)


def _finish(draft: Path) -> None:
    """Bring all of a draft to the disk, readable for whom the umask says: safetensors' own files are not."""
    mode = stat.S_IMODE(draft.stat().st_mode) & SHARED
    folders = [draft]
    for path, kind in found_in(draft):
        if kind == "file":
            (draft / path).chmod(mode)
            sync(draft / path)
        elif kind == "folder":
            folders.append(draft / path)
    for each in reversed(folders):
        sync(each)
