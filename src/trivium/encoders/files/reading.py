"""Reading a media file safely: regular files only, bounded, and the bytes that are hashed are the bytes decoded."""

import errno
import hashlib
import os
import stat
from io import BufferedReader
from pathlib import Path
from typing import Self

from trivium.encoders.base import DecodeError, UnreadableError
from trivium.encoders.files import stopping

# A 100-megapixel camera raw-to-TIFF export has 600 MB; nothing that we decode in one piece is larger.
MAX_FILE_BYTES = 1024 * 1024 * 1024
CHUNK_BYTES = 1 << 20


class OpenedFile:
    """A regular file that is open, and was looked at: read whole, or hashed and read piece by piece by others."""

    def __init__(self, file: BufferedReader, status: os.stat_result) -> None:
        self._file = file
        self._status = status

    @property
    def size(self) -> int:
        """Bytes, when it was opened."""
        return self._status.st_size

    @property
    def descriptor(self) -> int:
        """For whoever reads it piece by piece; valid until `close`."""
        return self._file.fileno()

    @property
    def status(self) -> os.stat_result:
        """What the system said of it, when it was opened."""
        return self._status

    def head(self, size: int) -> bytes:
        """Return its first bytes, at most so many; it is read from where it was all the same.

        Raises:
            DecodeError: If it cannot be read.
        """
        try:
            return self._file.peek(size)[:size]
        except OSError as error:
            raise UnreadableError(f"cannot be read: {error.strerror}") from None

    def read(self) -> bytes:
        """Return all of it.

        Raises:
            DecodeError: If it cannot be read, is empty, or changes meanwhile.
        """
        try:
            data = self._file.read(self.size + 1)
        except OSError as error:
            raise UnreadableError(f"cannot be read: {error.strerror}") from None
        self.require_unchanged(len(data))
        if not data:
            raise UnreadableError("the file is empty")
        return data

    def sha256(self) -> bytes:
        """Hash all of it in little memory.

        Raises:
            DecodeError: As `read` does.
            StoppedError: If the thread's work is stopped.
        """
        digest, count = hashlib.sha256(), 0
        chunk = memoryview(bytearray(CHUNK_BYTES))
        try:
            while read := self._file.readinto(chunk):
                stopping.check()
                digest.update(chunk[:read])
                count += read
        except OSError as error:
            raise UnreadableError(f"cannot be read: {error.strerror}") from None
        self.require_unchanged(count)
        return digest.digest()

    def require_unchanged(self, size: int | None = None) -> None:
        """Refuse a file that is no longer as it was when it was opened, or of which another number of bytes was read.

        Raises:
            DecodeError: If so.
        """
        now = os.fstat(self._file.fileno())
        if now.st_mtime_ns != self._status.st_mtime_ns or now.st_size != (self.size if size is None else size):
            raise UnreadableError("changed while it was being read; run again when it is finished")

    def close(self) -> None:
        """Close it."""
        self._file.close()

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close."""
        self.close()


def open_file(path: str | os.PathLike[str] | bytes, *, max_bytes: int = MAX_FILE_BYTES) -> OpenedFile:
    """Open one regular file for reading.

    The file is opened without following a link in its last component and without blocking (a FIFO cannot
    hang us), then checked again on the open descriptor, so that it cannot be swapped in between.

    Raises:
        DecodeError: If it is no regular file, unreadable, over ``max_bytes``, or gone.
    """
    # Windows has neither flag; there O_BINARY matters and links need special rights.
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    try:
        descriptor = os.open(path, flags)
    except FileNotFoundError:
        raise DecodeError("the file is gone, or was never there") from None
    except PermissionError:
        raise DecodeError("permission denied") from None
    except OSError as error:
        if os.path.islink(path):
            raise DecodeError("a symbolic link, not followed") from None
        raise DecodeError(f"cannot be opened: {error.strerror}") from None
    except ValueError as error:  # a NUL character in the name
        raise DecodeError(f"not a file name: {error}") from None
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        raise DecodeError("not a regular file")
    if status.st_size > max_bytes:
        os.close(descriptor)
        raise DecodeError(f"too large: {status.st_size:,} bytes, the limit is {max_bytes:,}")
    return OpenedFile(os.fdopen(descriptor, "rb"), status)


def read_file(path: str | os.PathLike[str] | bytes, *, max_bytes: int = MAX_FILE_BYTES) -> bytes:
    """Read one regular file whole; see `open_file`.

    Raises:
        DecodeError: If it is no regular file, unreadable, empty, over ``max_bytes``, gone, or changing.
    """
    with open_file(path, max_bytes=max_bytes) as file:
        return file.read()


def item_bytes(item: str | os.PathLike[str] | bytes) -> bytes:
    """Return the bytes of an item given as a path (``str`` or ``Path``) or as the bytes themselves."""
    if isinstance(item, bytes):
        if not item:
            raise DecodeError("no bytes")
        return item
    return read_file(os.path.realpath(item) if os.path.islink(item) else item)


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
