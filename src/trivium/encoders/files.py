"""Reading a media file safely: regular files only, bounded, and the bytes that are hashed are the bytes decoded."""

import os
import stat

from trivium.encoders.base import DecodeError

# A 100-megapixel camera raw-to-TIFF export has 600 MB; nothing that we decode in one piece is larger.
MAX_FILE_BYTES = 1024 * 1024 * 1024


def read_file(path: str | os.PathLike[str] | bytes, *, max_bytes: int = MAX_FILE_BYTES) -> bytes:
    """Read one regular file whole.

    The file is opened without following a link in its last component and without blocking (a FIFO cannot
    hang us), then checked again on the open descriptor, so that it cannot be swapped in between.

    Raises:
        DecodeError: If it is no regular file, unreadable, empty, over ``max_bytes``, gone, or changing.
    """
    # Windows has neither flag; there O_BINARY matters and links need special rights.
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    try:
        descriptor = os.open(path, flags)
    except FileNotFoundError:
        raise DecodeError("the file is gone (it vanished after it was listed)") from None
    except PermissionError:
        raise DecodeError("permission denied") from None
    except OSError as error:
        if os.path.islink(path):
            raise DecodeError("a symbolic link, not followed") from None
        raise DecodeError(f"cannot be opened: {error.strerror}") from None
    except ValueError as error:  # a NUL character in the name
        raise DecodeError(f"not a file name: {error}") from None
    before = os.fstat(descriptor)
    if not stat.S_ISREG(before.st_mode):
        os.close(descriptor)
        raise DecodeError("not a regular file")
    try:
        with os.fdopen(descriptor, "rb") as file:
            if before.st_size > max_bytes:
                raise DecodeError(f"too large: {before.st_size:,} bytes, the limit is {max_bytes:,}")
            data = file.read(max_bytes + 1)
            after = os.fstat(file.fileno())
    except OSError as error:
        raise DecodeError(f"cannot be read: {error.strerror}") from None
    if len(data) != after.st_size or before.st_mtime_ns != after.st_mtime_ns:
        raise DecodeError("changed while it was being read; run again when it is finished")
    if not data:
        raise DecodeError("the file is empty")
    return data


def item_bytes(item: str | os.PathLike[str] | bytes) -> bytes:
    """Return the bytes of an item given as a path (``str`` or ``Path``) or as the bytes themselves."""
    if isinstance(item, bytes):
        if not item:
            raise DecodeError("no bytes")
        return item
    return read_file(os.path.realpath(item) if os.path.islink(item) else item)
