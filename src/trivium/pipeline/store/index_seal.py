"""Which index files FAISS may read: FAISS trusts its input, and a stranger's file may be built to break it.

A hash beside a file, in a database that came with it, says nothing of who made it, nor do inode and times, on a disk
that came with it. What does is a seal: a hash under a key that lies with the user's own data and never leaves there.
"""

import contextlib
import hmac
import os
from pathlib import Path

import platformdirs

from trivium.encoders.files.reading import file_sha256, file_state, open_regular
from trivium.encoders.files.writing import WrittenFile, open_own
from trivium.pipeline.records import IndexFile

KEY_FILE = "index.key"
KEY_BYTES = 32


def sealed_state(written: WrittenFile) -> str:
    """Return what is recorded of an index file that was just written: its state and its seal."""
    return f"{written.state} {_seal(written.sha256, _key(make=True))}".rstrip()


def moved_state(path: Path, state: str) -> str:
    """Return what is recorded of a copy of an index file, at ``path``, whose bytes were compared.

    Raises:
        OSError: If it is not there.
    """
    return f"{file_state(path)} {state.partition(' ')[2]}".rstrip()


def is_untouched(path: Path, file: IndexFile) -> bool:
    """Whether a file is the very one that was written, by its inode and times.

    Where this user has no key (a container whose home is new each time), that is all there is to go by; where there is
    one, a stranger's disk, which may give a file any times, is told by the seal.

    Raises:
        OSError: If it is not there.
    """
    state, _, seal = file.state.partition(" ")
    return file_state(path) == state and (not _key(make=False) or _fits(seal, file.sha256))


def is_sealed(file: IndexFile) -> bool:
    """Whether the bytes that are recorded of a file were written by this user on this machine."""
    return _fits(file.state.partition(" ")[2], file.sha256)


def reason_against(path: Path, file: IndexFile) -> str | None:
    """Say why FAISS may not read an index file; None if it may.

    A file that is untouched is not read for that, so that opening costs the same at any size; else it is hashed.

    Raises:
        OSError: If it cannot be read.
    """
    if is_untouched(path, file):
        return None
    if path.stat().st_size != file.size:
        return "is damaged"
    if not is_sealed(file):
        return "was not made here by this Trivium"
    return None if file_sha256(path) == file.sha256 else "is damaged"


def _seal(sha256: str, key: bytes) -> str:
    return hmac.new(key, sha256.encode(), "sha256").hexdigest() if key else ""


def _fits(seal: str, sha256: str) -> bool:
    expected = _seal(sha256, _key(make=False))
    return bool(expected) and hmac.compare_digest(seal.encode(), expected.encode())


def _key(*, make: bool) -> bytes:
    """Return this user's key; none where there is none, and none can be kept."""
    path = Path(platformdirs.user_data_dir("trivium", appauthor=False)) / KEY_FILE
    with contextlib.suppress(OSError):
        if make:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with contextlib.suppress(FileExistsError), open(path, "xb", opener=open_own) as file:
                file.write(os.urandom(KEY_BYTES))
        with open_regular(path) as file:
            key = file.read(KEY_BYTES)
        if len(key) == KEY_BYTES:
            return key
    return b""
