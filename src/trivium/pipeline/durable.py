"""Files that are wholly there or not there: written aside, synced, renamed, and the folder synced."""

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
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
    try:
        # Opened through Python, not by faiss.write_index, which can report success on a full disk.
        with open(draft, "wb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:

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


def file_state(path: Path) -> str:
    """Tell one state of a file from another without reading it: any later change of its bytes changes its times.

    Raises:
        OSError: If it is not there.
    """
    status = os.stat(path)
    return f"{status.st_dev}-{status.st_ino}-{status.st_size}-{status.st_mtime_ns}-{status.st_ctime_ns}"


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes.

    Raises:
        OSError: If it cannot be read.
    """
    with open(path, "rb") as file:
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
