"""Files that are wholly there or not there: written aside, synced, renamed, and the folder synced."""

import errno
import hashlib
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import TypeAlias

Buffer: TypeAlias = bytes | bytearray | memoryview
CHUNK_BYTES = 1 << 20


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
    try:
        # Opened through Python, not by faiss.write_index, which can report success on a full disk.
        with open(draft, "xb", opener=open_own) as file:

            def write(data: Buffer) -> None:
                digest.update(data)
                file.write(data)

            produce(write)
            file.flush()
            os.fsync(file.fileno())
            size = file.tell()
        draft.rename(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)
    return WrittenFile(size=size, sha256=digest.hexdigest(), state=file_state(path))


def open_own(path: str, flags: int) -> int:
    """Open a file that this call makes, for its owner alone: what is there already, or a link, is never written to.

    For ``open(path, "xb", opener=open_own)``.
    """
    return os.open(path, flags | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0), 0o600)


def open_regular(path: Path | str) -> BufferedReader:
    """Open a file for reading that may have become something else: a pipe cannot hang us, a link is not followed.

    Raises:
        OSError: If it cannot be opened or is no regular file.
    """
    flags = os.O_RDONLY
    for name in ("O_NONBLOCK", "O_NOFOLLOW", "O_BINARY", "O_CLOEXEC"):
        flags |= getattr(os, name, 0)
    try:
        file = os.fdopen(os.open(path, flags), "rb")
    except OSError as error:
        if error.errno == errno.ELOOP and os.path.islink(path):
            raise OSError(error.errno, "it is a link, which is not followed", str(path)) from None
        raise
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "it is no regular file", str(path))
    return file


def open_folder(folder: Path) -> int:
    """Return a descriptor of a folder, which is not a link.

    Raises:
        OSError: If it is a link, no folder, or cannot be opened.
    """
    try:
        return os.open(folder, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        if os.path.islink(folder):
            raise OSError(errno.ELOOP, "it is a link, which is not followed", str(folder)) from None
        raise


def file_state(path: Path) -> str:
    """Tell one state of a file from another without reading it: any later change of its bytes changes its times.

    Raises:
        OSError: If it is not there.
    """
    status = os.stat(path, follow_symlinks=False)
    return f"{status.st_dev}-{status.st_ino}-{status.st_size}-{status.st_mtime_ns}-{status.st_ctime_ns}"


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes.

    Raises:
        OSError: If it cannot be read.
    """
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync_folder(folder: Path) -> None:
    """Make a rename in ``folder`` survive a power cut."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
