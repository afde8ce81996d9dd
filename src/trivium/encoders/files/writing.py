"""Files that are wholly there or not there: written aside, brought to the disk, then renamed; never through a link.

What a user asked for outside of collections (a page, a report, a table of predictions) tells of the user's media, and
is for its owner alone, whatever the umask; what is made to be passed on (models, word vectors) is as the umask says.
"""

import contextlib
import errno
import hashlib
import os
import secrets
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TypeAlias

from trivium.encoders.files.reading import file_state, flags_of

Buffer: TypeAlias = bytes | bytearray | memoryview
PRIVATE, SHARED = 0o600, 0o666  # the umask takes more away
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | flags_of("O_NOFOLLOW", "O_CLOEXEC", "O_BINARY")


class TargetError(OSError):
    """A place that is not written to; the message says why, and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenFile:
    """What is recorded of a file that was written."""

    size: int
    sha256: str
    state: str  # see `file_state`


def write_durably(path: Path, produce: Callable[[Callable[[Buffer], object]], object]) -> WrittenFile:
    """Write a new file for its owner alone; ``produce`` is handed the function that takes the bytes.

    It is hashed on its way, so the hash is of what was meant, not of what a bad disk made of it. After an error nothing
    of it is left: a failed sync is never tried again, because the system may have dropped what it could not write.

    Raises:
        OSError: If the disk is full or fails.
    """
    draft = path.with_name(f".{path.name}.new")
    digest = hashlib.sha256()
    if os.path.lexists(draft):
        draft.unlink()  # by a run that was killed; were it a link, it is the link that goes
    # Opened through Python, not by faiss.write_index, which can report success on a full disk.
    with written_aside(path, draft.name) as file:

        def write(data: Buffer) -> None:
            digest.update(data)
            file.write(data)

        produce(write)
        size = file.tell()
    sync_folder(path.parent)
    return WrittenFile(size=size, sha256=digest.hexdigest(), state=file_state(path))


def write_file(
    target: Path, content: str | bytes | Callable[[IO[bytes]], object], *, mode: int = PRIVATE, own_folder: bool = False
) -> None:
    """Write a file, whole or not at all; one that is there is replaced.

    Args:
        target: Where to; its folder is there.
        content: Text (written as UTF-8), bytes, or what writes them into the open file that it is given.
        mode: Of the file.
        own_folder: The folder is one that we fill, not one that the user chose for this file: it must not be a link.

    Raises:
        TargetError: If the target is a link, a folder, or anything else but a regular file.
        OSError: If the disk is full or fails; what was there before is still there then.
    """
    if isinstance(content, str):
        content = content.encode("utf-8", "backslashreplace")
    with opened_folder(target.parent, follow=not own_folder) as folder:
        check_file(target, folder)
        draft = f".{os.fsdecode(os.fsencode(target.name)[:200])}.{secrets.token_hex(4)}.new"
        with written_aside(target, draft, folder=folder, mode=mode, check=check_file) as file:
            if isinstance(content, bytes):
                file.write(content)
            else:
                content(file)
        if folder is not None:
            os.fsync(folder)


@contextlib.contextmanager
def written_aside(
    target: Path,
    draft: str,
    *,
    folder: int | None = None,
    mode: int = PRIVATE,
    check: Callable[[Path, int | None], None] | None = None,
    is_synced: bool = True,
) -> Iterator[IO[bytes]]:
    """Give a new file to write into, which takes the target's place once it is on the disk.

    After an error nothing of it is left, and what was there before still is. What has the target's name is replaced
    whatever it is, a link too, but for what ``check`` refuses at the last moment.

    Args:
        target: The file.
        draft: The name beside it that it is written under; nothing has it.
        folder: A descriptor of the target's folder, if it is open.
        mode: Of the file.
        check: Given the target and the descriptor of its folder.
        is_synced: It has to survive a power cut; not so what is only made again.

    Raises:
        OSError: If the disk is full or fails.
    """
    path = _in(folder, target, draft)
    descriptor = os.open(path, _NEW_FILE, mode, dir_fd=folder)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            if is_synced:
                file.flush()
                os.fsync(file.fileno())
        if check is not None:
            check(target, folder)
        os.replace(path, _in(folder, target, target.name), src_dir_fd=folder, dst_dir_fd=folder)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path, dir_fd=folder)
        raise


def open_own(path: str, flags: int) -> int:
    """Open a file that this call makes, for its owner alone: what is there already, or a link, is never written to.

    For ``open(path, "xb", opener=open_own)``.
    """
    return os.open(path, flags | os.O_CREAT | os.O_EXCL | flags_of("O_NOFOLLOW"), PRIVATE)


def make_folder(folder: Path) -> None:
    """Make a folder that files are written into, unless it is there.

    Raises:
        TargetError: If it is a link, or no folder.
        OSError: If it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise TargetError(f"{folder} is not a folder: name another one") from None
    check_folder(folder)


def check_folder(folder: Path) -> None:
    """Refuse a folder to fill that is a link: it may lead to anything.

    Raises:
        TargetError: If it is one.
    """
    if folder.is_symlink():
        raise TargetError(f"{folder} is a link: name the folder itself, or another one")


def check_file(target: Path, folder: int | None = None) -> None:
    """Refuse a file to write that is there already as something else.

    Args:
        target: The file.
        folder: A descriptor of its folder, if that is open.

    Raises:
        TargetError: If it is a link, a folder, or anything else but a regular file.
    """
    try:
        status = os.stat(_in(folder, target, target.name), dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return
    if stat.S_ISLNK(status.st_mode):
        raise TargetError(f"{target} is a link, which is not written through: remove it, or name another file")
    if not stat.S_ISREG(status.st_mode):
        raise TargetError(f"{target} is not a regular file: name another one")


@contextlib.contextmanager
def opened_folder(folder: Path, *, follow: bool = False) -> Iterator[int | None]:
    """Open a folder, so that nobody can put another in its place meanwhile; None where systems cannot do that.

    Args:
        folder: What is named relative to the descriptor lies in it.
        follow: It may be a link.

    Raises:
        TargetError: If it is no folder, or a link that is not followed.
        OSError: If it cannot be opened.
    """
    if os.open not in os.supports_dir_fd:
        if not follow:
            check_folder(folder)
        yield None
        return
    try:
        descriptor = open_folder(folder, follow=follow)
    except NotADirectoryError:
        check_folder(folder)
        raise TargetError(f"{folder} is not a folder: name another one") from None
    except OSError:
        if not follow:
            check_folder(folder)  # which says more
        raise
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def open_folder(folder: Path, *, follow: bool = False) -> int:
    """Return a descriptor of a folder, which is not a link unless one is followed.

    Raises:
        OSError: If it is a link, no folder, or cannot be opened.
    """
    try:
        return os.open(folder, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY | (0 if follow else os.O_NOFOLLOW))
    except OSError:
        if not follow and os.path.islink(folder):
            raise OSError(errno.ELOOP, "it is a link, which is not followed", str(folder)) from None
        raise


def sync_folder(folder: Path) -> None:
    """Make a rename in ``folder`` survive a power cut; it may be a link."""
    sync(folder, follow=True)


def sync(path: Path, *, follow: bool = False) -> None:
    """Bring a file or a folder to the disk."""
    if os.name == "nt":
        return
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW))
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _in(folder: int | None, target: Path, name: str) -> str:
    return name if folder is not None else str(target.with_name(name))
