"""The thumbnails of a collection: WebP files by content, derived, so that lost ones are only made again.

    NAME/thumbnails/ab/ab12...ef.webp    the SHA-256 of what is shown, as the database has it

They are written whole or not, but not synced: after a power cut one may be empty, which `read` notices. Backups leave
them out. What stands in there may be a stranger's, as all of a collection: it is bounded, and never decoded here.
"""

import contextlib
import os
import re
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

from trivium.encoders.files.reading import open_regular
from trivium.encoders.files.writing import check_folder, opened_folder, written_aside

FOLDER = "thumbnails"
MAX_BYTES = 128 << 10  # ours have some 8,000
_OWN_FOLDER, _OWN_FILE = re.compile("[0-9a-f]{2}"), re.compile(r"([0-9a-f]{64})\.webp|\.[0-9a-f]{64}\.[0-9a-f]{8}\.new")


def write_thumbnail(folder: Path, sha256: bytes, data: bytes) -> None:
    """Keep the thumbnail of a content of a collection; one that is there is replaced.

    Raises:
        OSError: If the disk is full or fails, or the folder for it is a link.
    """
    path = _path(folder, sha256)
    for place in (path.parent.parent, path.parent):
        place.mkdir(mode=0o700, exist_ok=True)
        check_folder(place)
    draft = f".{path.stem}.{secrets.token_hex(4)}.new"
    with opened_folder(path.parent) as opened, written_aside(path, draft, folder=opened, is_synced=False) as file:
        file.write(data)


def read_thumbnail(folder: Path, sha256: bytes) -> bytes | None:
    """Return the thumbnail of a content; None if there is none, or it is not whole."""
    try:
        with open_regular(_path(folder, sha256)) as file:
            data = file.read(MAX_BYTES + 1)
    except OSError:
        return None
    return data if is_whole(data) else None


def is_whole(data: bytes) -> bool:
    """Whether this is a WebP file of the length that it states, and no larger than ours are."""
    is_webp = data[:4] == b"RIFF" and data[8:12] == b"WEBP"
    return is_webp and len(data) <= MAX_BYTES and len(data) == 8 + int.from_bytes(data[4:8], "little")


def count_thumbnails(folder: Path) -> tuple[int, int]:
    """Return how many there are, and their bytes."""
    count = size = 0
    for entry, sha256 in _files(folder):
        if sha256 is not None:
            with contextlib.suppress(FileNotFoundError):
                size += entry.stat(follow_symlinks=False).st_size
                count += 1
    return count, size


def drop_thumbnails(folder: Path, is_wanted: Callable[[bytes], bool]) -> int:
    """Delete those of contents that are not wanted, and drafts that a crash has left; return how many thumbnails went.

    Raises:
        OSError: If one cannot be deleted.
    """
    gone = 0
    for entry, sha256 in _files(folder):
        if sha256 is None or not is_wanted(sha256):
            os.unlink(entry.path)
            gone += sha256 is not None
    return gone


def is_own_folder(folder: Path) -> bool:
    """Whether a folder of this name holds nothing but thumbnails of ours."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if not (_OWN_FOLDER.fullmatch(entry.name) and entry.is_dir(follow_symlinks=False)):
                return False
            with os.scandir(entry.path) as files:
                if not all(_OWN_FILE.fullmatch(file.name) and file.is_file(follow_symlinks=False) for file in files):
                    return False
    return True


def _path(folder: Path, sha256: bytes) -> Path:
    name = sha256.hex()
    return folder / FOLDER / name[:2] / f"{name}.webp"


def _files(folder: Path) -> Iterator[tuple["os.DirEntry[str]", bytes | None]]:
    """Yield files with names of ours, never through a link; drafts without a content."""
    root = folder / FOLDER
    if root.is_symlink() or not root.is_dir():
        return
    with os.scandir(root) as entries:
        rooms = [e.path for e in entries if _OWN_FOLDER.fullmatch(e.name) and e.is_dir(follow_symlinks=False)]
    for room in sorted(rooms):
        with os.scandir(room) as entries:
            files = [e for e in entries if e.is_file(follow_symlinks=False)]
        for entry in files:
            if (match := _OWN_FILE.fullmatch(entry.name)) is not None:
                yield entry, None if match[1] is None else bytes.fromhex(match[1])
