"""What decoders read: a file's bytes, or an open file of any size, of which only what is asked for is read."""

import io
import os
from typing import TypeAlias

BUFFER_BYTES = 1 << 18


class FileBytes:
    """The bytes of an open file; slices are read where they are asked for, and the descriptor's own place stays.

    Not mapped: the address space of a decoder is limited to bound what it may allocate, and a file of 2 GiB would fill
    it; and whoever cuts a mapped file short kills the process that reads it.
    """

    def __init__(self, descriptor: int, size: int, *, patch: tuple[int, bytes] | None = None) -> None:
        """Read an open file.

        Args:
            descriptor: Open for reading; must stay so.
            size: Of the file.
            patch: A place, and what is read there instead of what the file holds.
        """
        self._descriptor = descriptor
        self._size = size
        self._patch = patch

    def __len__(self) -> int:
        """Return the size that the file had when it was opened."""
        return self._size

    def __getitem__(self, place: slice) -> bytes:
        """Return a stretch; what is beyond the end, or has been cut off since, is left out."""
        start, stop, _ = place.indices(self._size)
        parts: list[bytes] = []
        at = start
        while at < stop and (part := os.pread(self._descriptor, stop - at, at)):
            parts.append(part)
            at += len(part)
        found = b"".join(parts)
        if self._patch is not None:
            first, new = self._patch[0] - start, self._patch[1]
            if -len(new) < first < len(found):
                found = found[: max(0, first)] + new[max(0, -first) : len(found) - first] + found[first + len(new) :]
        return found

    def patched(self, place: int, new: bytes) -> "FileBytes":
        """Return the same with other bytes in one place."""
        return FileBytes(self._descriptor, self._size, patch=(place, new))


Source: TypeAlias = bytes | FileBytes


def as_file(source: Source) -> io.BytesIO | io.BufferedReader:
    """Return a source as a file that can be read and searched from its beginning."""
    return io.BytesIO(source) if isinstance(source, bytes) else io.BufferedReader(_Raw(source), BUFFER_BYTES)


def patched(source: Source, place: int, new: bytes) -> Source:
    """Return a source with other bytes in one place."""
    if isinstance(source, FileBytes):
        return source.patched(place, new)
    return source[:place] + new + source[place + len(new) :]


class _Raw(io.RawIOBase):
    """Pieces of an open file, for a buffer."""

    def __init__(self, source: FileBytes) -> None:
        self._source = source
        self._place = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: "memoryview") -> int:  # type: ignore[override]
        piece = self._source[self._place : self._place + len(buffer)]
        buffer[: len(piece)] = piece
        self._place += len(piece)
        return len(piece)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._place = max(0, offset + (0, self._place, len(self._source))[whence])
        return self._place

    def tell(self) -> int:
        return self._place
