"""One writer at a time: a lock that dies with its process, and the pid of who holds it."""

import contextlib
import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path

from trivium.encoders.files.reading import open_regular
from trivium.encoders.files.writing import open_own
from trivium.pipeline.store.database import LOCK, LOCK_HOLDER, CollectionError, CollectionLockedError

MAX_PID_BYTES = 20
HOLDER_SECONDS = 5.0  # a holder writes its pid right after it got the lock, on a busy machine not at once


@contextlib.contextmanager
def writer_lock(folder: Path) -> Iterator[None]:
    """Be the one writer of a collection's folder, or fail at once.

    Raises:
        CollectionLockedError: With the pid of the process that is writing.
        CollectionError: If the folder cannot be written to.
    """
    import filelock  # searches import this module, and lock nothing

    _require_own(folder / LOCK)
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
            who = "this process" if pid == str(os.getpid()) else "another process"
            raise CollectionLockedError(
                f"{folder} is being written by {who} (pid {pid or 'unknown'}); try again when it has finished"
            ) from None
        except OSError as error:
            raise CollectionError(f"cannot write to {folder}: {error.strerror or error}") from error
    try:
        try:
            _write_pid(holder)
        except OSError as error:
            raise CollectionError(f"cannot write to {folder}: {error.strerror or error}") from error
        yield
    finally:
        with contextlib.suppress(OSError):
            holder.unlink()
        lock.release()


def _write_pid(holder: Path) -> None:
    try:
        file = open(holder, "x", opener=open_own)
    except FileExistsError:  # of a writer that was killed; were it a link, it is the link that goes
        holder.unlink()
        file = open(holder, "x", opener=open_own)
    with file:
        file.write(str(os.getpid()))


def _require_own(lock: Path) -> None:
    """Refuse a lock that is no file of ours: it would be emptied.

    Raises:
        CollectionError: If it is a link, or no regular file.
    """
    with contextlib.suppress(FileNotFoundError):
        mode = os.stat(lock, follow_symlinks=False).st_mode
        if not stat.S_ISREG(mode):
            what = "a link" if stat.S_ISLNK(mode) else "no regular file"
            raise CollectionError(f"{lock} is {what}: it is not what Trivium made; delete it, then try again")


def _holder_pid(holder: Path) -> str | None:
    with contextlib.suppress(OSError, ValueError):
        with open_regular(holder) as file:
            pid = file.read(MAX_PID_BYTES).decode("ascii")
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
