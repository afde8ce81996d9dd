"""One writer at a time: a lock that dies with its process, and the pid of who holds it."""

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

import filelock

from trivium.pipeline.database import LOCK, LOCK_HOLDER, CollectionError, CollectionLockedError

HOLDER_SECONDS = 0.5  # the holder writes its pid right after it got the lock


@contextlib.contextmanager
def writer_lock(folder: Path) -> Iterator[None]:
    """Be the one writer of a collection's folder, or fail at once.

    Raises:
        CollectionLockedError: With the pid of the process that is writing.
        CollectionError: If the folder cannot be written to.
    """
    lock = filelock.FileLock(folder / LOCK, mode=0o600)
    holder = folder / LOCK_HOLDER
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        raise CollectionLockedError(
            f"{folder} is being written by another process (pid {_holder_pid(holder)}); try again when it has finished"
        ) from None
    except OSError as error:
        raise CollectionError(f"cannot write to {folder}: {error.strerror or error}") from error
    try:
        try:
            with open(holder, "w", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
                file.write(str(os.getpid()))
        except OSError as error:
            raise CollectionError(f"cannot write to {folder}: {error.strerror or error}") from error
        yield
    finally:
        with contextlib.suppress(OSError):
            holder.unlink()
        lock.release()


def _holder_pid(holder: Path) -> str:
    deadline = time.monotonic() + HOLDER_SECONDS
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            if pid := holder.read_text():
                return pid
        time.sleep(0.01)
    return "unknown"
