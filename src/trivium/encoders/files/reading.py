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


class NotRegularError(OSError):
    """What was to be read is no regular file: a folder, a pipe, a device."""


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


def open_file(path: str | os.PathLike[str] | bytes, *, max_bytes: int = MAX_FILE_BYTES, remedy: str = "") -> OpenedFile:
    """Open one regular file for reading.

    Args:
        path: Where it is.
        max_bytes: A larger one is refused.
        remedy: What helps against that.

    Raises:
        DecodeError: If it is no regular file, unreadable, over ``max_bytes``, or gone.
    """
    try:
        file = open_regular(path)
    except FileNotFoundError:
        raise DecodeError("the file is gone, or was never there") from None
    except PermissionError:
        raise DecodeError("permission denied") from None
    except NotRegularError:
        raise DecodeError("not a regular file") from None
    except OSError as error:
        if os.path.islink(path):
            raise DecodeError("a symbolic link, not followed") from None
        raise DecodeError(f"cannot be opened: {error.strerror}") from None
    except ValueError as error:  # a NUL character in the name
        raise DecodeError(f"not a file name: {error}") from None
    status = os.fstat(file.fileno())
    if status.st_size > max_bytes:
        file.close()
        told = f" ({remedy})" if remedy else ""
        raise DecodeError(f"too large: {status.st_size:,} bytes, the limit is {max_bytes:,}{told}")
    return OpenedFile(file, status)


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


def open_regular(path: str | os.PathLike[str] | bytes) -> BufferedReader:
    """Open a file for reading that may have become something else: a pipe cannot hang us, a link is not followed.

    Raises:
        NotRegularError: If it is no regular file.
        OSError: If it is a link, or cannot be opened.
    """
    return os.fdopen(regular_descriptor(path), "rb")


def regular_descriptor(path: str | os.PathLike[str] | bytes) -> int:
    """Return a descriptor of a file to read; see `open_regular`."""
    try:
        descriptor = os.open(path, os.O_RDONLY | flags_of("O_NONBLOCK", "O_NOFOLLOW", "O_BINARY", "O_CLOEXEC"))
    except OSError as error:
        if error.errno == errno.ELOOP and os.path.islink(path):
            raise OSError(error.errno, "it is a link, which is not followed", os.fsdecode(path)) from None
        raise
    mode = os.fstat(descriptor).st_mode  # of what is open, which nobody can exchange any more
    if stat.S_ISREG(mode):
        return descriptor
    os.close(descriptor)
    if stat.S_ISDIR(mode):
        raise NotRegularError(errno.EISDIR, os.strerror(errno.EISDIR), os.fsdecode(path))
    raise NotRegularError(errno.EINVAL, "it is no regular file", os.fsdecode(path))


def flags_of(*names: str) -> int:
    """Return flags of `os.open`, those of them that the system has: Windows alone has O_BINARY, and not the others."""
    return sum(getattr(os, name, 0) for name in names)


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
