"""One writer at a time: a lock that dies with its process, and the pid of who holds it."""

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

from trivium.pipeline.database import LOCK, LOCK_HOLDER, CollectionError, CollectionLockedError

HOLDER_SECONDS = 5.0  # a holder writes its pid right after it got the lock, on a busy machine not at once


@contextlib.contextmanager
def writer_lock(folder: Path) -> Iterator[None]:
    """Be the one writer of a collection's folder, or fail at once.

    Raises:
        CollectionLockedError: With the pid of the process that is writing.
        CollectionError: If the folder cannot be written to.
    """
    import filelock  # searches import this module, and lock nothing

    lock = filelock.FileLock(folder / LOCK, mode=0o600)
    holder = folder / LOCK_HOLDER
    deadline = time.monotonic() + HOLDER_SECONDS
    while True:
        try:
            lock.acquire(timeout=0)
            break
        except filelock.Timeout:
            pid = _holder_pid(holder)
            if pid is None and time.monotonic() < deadline:
                time.sleep(0.01)  # it is just beginning or ending
                continue
            raise CollectionLockedError(
                f"{folder} is being written by another process (pid {pid or 'unknown'}); try again when it has finished"
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


def _holder_pid(holder: Path) -> str | None:
    with contextlib.suppress(OSError, ValueError):
        pid = holder.read_text()
        return pid if _is_alive(pid) else None  # else it was left by a writer that was killed
    return None


def _is_alive(pid: str) -> bool:
    if os.name == "nt":  # where asking with signal 0 ends a process
        return True
    try:
        os.kill(int(pid), 0)
    except (ProcessLookupError, ValueError, OverflowError):
        return False
    except PermissionError:
        return True
    return True
