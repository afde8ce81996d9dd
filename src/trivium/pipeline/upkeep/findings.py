"""What a verification gathers: findings, and how much of the files has been read."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from trivium.encoders.files.reading import CHUNK_BYTES
from trivium.pipeline.progress import Progress

SHOWN_DIGITS = 16  # of a hash


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that is wrong."""

    is_damage: bool  # else a note
    path: str  # of the file or folder that it is about
    what: str
    remedy: str


@dataclass(slots=True)
class Report:
    """The findings so far about one collection; reads its files and tells how far it is."""

    folder: Path
    progress: Progress | None = None
    findings: list[Finding] = field(default_factory=list)
    files: int = 0  # looked at
    bytes_read: int = 0
    bytes_done: int = 0  # read, or passed over
    bytes_to_do: int = 0
    part: tuple[int, int] | None = None  # of how many is read; None for everything

    def is_due(self, name: str | bytes) -> bool:
        """Whether a file is in the part that is read.

        By its name alone: a file stays in its part while others come and go between the runs.
        """
        if self.part is None:
            return True
        number, parts = self.part
        digest = hashlib.sha256(name.encode("utf-8", "surrogateescape") if isinstance(name, str) else name).digest()
        return int.from_bytes(digest[:8], "big") % parts == number - 1

    def damage(self, path: Path | str, what: str, remedy: str | None = None) -> None:
        """Note what cannot be made anew from the rest of the collection."""
        remedy = remedy or (
            f"restore a backup (`trivium restore BACKUP {self.folder}`), or delete {self.folder} and index again; your "
            "media are untouched"
        )
        self.findings.append(Finding(is_damage=True, path=str(path), what=what, remedy=remedy))

    def note(self, path: Path | str, what: str, remedy: str) -> None:
        """Note what is worth knowing and loses nothing."""
        self.findings.append(Finding(is_damage=False, path=str(path), what=what, remedy=remedy))

    def pass_over(self, size: int) -> None:
        """Count bytes as done."""
        self.bytes_done += size
        self.bytes_to_do = max(self.bytes_to_do, self.bytes_done)  # some sizes are known only when the file is met
        if self.progress is not None:
            self.progress(self.bytes_done, self.bytes_to_do)

    def pieces(self, file: BinaryIO, *, first: int = CHUNK_BYTES, others: int = CHUNK_BYTES) -> Iterator[bytes]:
        """Yield a file's bytes in pieces of these sizes; the last may be shorter."""
        size = first
        while piece := file.read(size):
            self.count(piece)
            yield piece
            size = others

    def count(self, piece: bytes) -> None:
        """Count bytes as read."""
        self.bytes_read += len(piece)
        self.pass_over(len(piece))

    def sha256(self, file: BinaryIO) -> str:
        """Hash what is left of a file."""
        digest = hashlib.sha256()
        for piece in self.pieces(file):
            digest.update(piece)
        return digest.hexdigest()


def other_bytes(found: str, written: str) -> str:
    """Say that a hash is not the one it should be."""
    return f"SHA-256 {found[:SHOWN_DIGITS]}..., not {written[:SHOWN_DIGITS]}..."


def reason(error: OSError) -> str:
    """Say in short what the system had against it."""
    return error.strerror or str(error)
