"""The user's cache: where it lies, what in it is for its owner alone, and small files that tell when they are damaged.

Nothing in it is the truth: all can be fetched or made again. It is trusted as the installed program is: whoever may
write to it decides what is computed. A failing disk is another matter, and noticed: a sealed file ends in the SHA-256
of what stands before, weights are pinned (`weights`), graphs carry their own checks (`graph_seal`).
"""

import hashlib
import os
import secrets
import stat
from pathlib import Path

import platformdirs

from trivium.encoders.files.writing import written_aside

SEAL = b"\nsha256 %b\n"
SEAL_BYTES = len(SEAL % (b"0" * 64))


def cache_folder() -> Path:
    """Where weights and derived files are kept: ``$TRIVIUM_CACHE``, else the user's cache directory; absolute."""
    chosen = os.environ.get("TRIVIUM_CACHE")
    return Path(chosen).absolute() if chosen else Path(platformdirs.user_cache_dir("trivium", appauthor=False))


def private_folder(folder: Path) -> Path:
    """Make a folder that its owner alone may enter; one of theirs that others may enter is closed to them.

    Raises:
        OSError: If it cannot be made.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.mkdir(mode=0o700, exist_ok=True)
    close_to_others(folder)
    return folder


def close_to_others(path: Path) -> None:
    """Take from a file or folder what its group and others may do with it; not from what is somebody else's."""
    status = path.stat()
    if os.name == "posix" and status.st_mode & 0o077 and status.st_uid == os.geteuid():
        path.chmod(stat.S_IMODE(status.st_mode) & 0o700)


def write_private(path: Path, content: bytes) -> None:
    """Write a file that its owner alone may read, whole or not at all; other processes may do so at the same time.

    Raises:
        OSError: If it cannot be written; what was there is still there then.
    """
    private_folder(path.parent)
    with written_aside(path, f".{path.name}-{secrets.token_hex(4)}") as file:
        file.write(content)


def write_sealed(path: Path, content: bytes) -> None:
    """Do what `write_private` does, with a seal at the end.

    Raises:
        OSError: See there.
    """
    write_private(path, content + SEAL % hashlib.sha256(content).hexdigest().encode())


def read_sealed(path: Path) -> bytes | None:
    """Return what was written to a sealed file; None if it is not there, or not as it was written."""
    try:
        data = path.read_bytes()
    except OSError:
        return None
    content, seal = data[:-SEAL_BYTES], data[-SEAL_BYTES:]
    return content if seal == SEAL % hashlib.sha256(content).hexdigest().encode() else None
