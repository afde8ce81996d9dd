"""What a large file looks like before it is read: whether a decoder takes what begins so, and whether it is there."""

import errno
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from trivium.encoders.base import DecodeError, UnreadableError
from trivium.encoders.decoding.containers import ASF, BOXES, MATROSKA, PROGRAM_STREAM
from trivium.encoders.decoding.raw_pictures import MARKS as RAW_MARKS
from trivium.encoders.files.reading import item_bytes, open_file
from trivium.encoders.sandbox.kinds import MediaKind

# Larger files are not held in memory as well: the decoder reads them itself.
MAX_HELD_BYTES = 32 << 20
HEAD_BYTES = 64
# As `decode_image`, `decode_audio` and `layout_of` tell them; a drawing is XML, of any encoding.
KNOWN: Mapping[MediaKind, re.Pattern[bytes]] = {
    "image": re.compile(
        rb"\x89PNG|\xff\xd8|GIF8|BM|II[*+]\0|MM\0[*+]|RIFF....WEBP|....ftyp|(\xef\xbb\xbf)?[ \t\r\n]*<|%b"
        % b"|".join(map(re.escape, RAW_MARKS)),
        re.DOTALL,
    ),
    "audio": re.compile(
        rb"RIFF|RIFX|RF64|riff|FORM|caff|\.snd|fLaC|OggS|ID3|\xff[\xe0-\xff]|....(%b)|%b"
        % (b"|".join(BOXES), re.escape(ASF)),
        re.DOTALL,
    ),
    # An MPEG transport stream has a sync byte in each packet, of which the head holds one.
    "video": re.compile(
        rb"%b|....(%b)|RIFF....AVI |%b|%b|G|....G"
        % (re.escape(MATROSKA), b"|".join(BOXES), re.escape(ASF), re.escape(PROGRAM_STREAM)),
        re.DOTALL,
    ),
}
REFUSED: Mapping[MediaKind, str] = {
    "image": "not a picture: the content is in no known image format",
    "audio": "not a sound that can be decoded: the content is in no known format",
    "video": "not a video: the content is neither MP4 nor QuickTime, WebM nor Matroska, AVI, Windows Media nor MPEG",
}
FILLED_SHARE = 0.01  # of a file; a download that has just begun, or a trap, has less
SECTOR_BYTES = 512  # what `st_blocks` counts, whatever the disk's blocks
MOST_STRETCHES = 10_000


def require_known_head(kind: MediaKind, head: bytes) -> None:
    """Refuse what no decoder takes before it is read, hashed and handed over.

    Args:
        kind: What the file's name says.
        head: Its first `HEAD_BYTES`.

    Raises:
        DecodeError: If it begins as no file of its kind does.
    """
    if kind in KNOWN and KNOWN[kind].match(head) is None:
        raise DecodeError(REFUSED[kind])


def require_filled(descriptor: int, status: os.stat_result) -> None:
    """Refuse a file that is next to nothing but a hole: it would be hashed and decoded for minutes, at each run.

    Args:
        descriptor: Of the open file; where it reads from is left as it was.
        status: Of the file.

    Raises:
        UnreadableError: If less than `FILLED_SHARE` of it is there.
    """
    most = int(status.st_size * FILLED_SHARE)
    # Some file systems count no blocks: what they say is only a reason to look.
    if getattr(status, "st_blocks", most) * SECTOR_BYTES >= most or not hasattr(os, "SEEK_DATA"):
        return
    there = _data_bytes(descriptor, status.st_size, most)
    if there < most:
        raise UnreadableError(
            f"only {there:,} of its {status.st_size:,} bytes are on the disk, the rest is a hole (a download that was "
            "not finished?)"
        )


@contextmanager
def decodable(kind: MediaKind, item: str | os.PathLike[str] | bytes) -> Iterator[bytes | int]:
    """Open an item for the sandbox: its bytes, or of a large file the descriptor.

    Args:
        kind: What it is.
        item: A file, or its bytes.

    Raises:
        DecodeError: If it cannot be read, or is seen at once not to be what it should.
    """
    if isinstance(item, bytes):
        yield item_bytes(item)
        return
    with open_file(os.path.realpath(item) if os.path.islink(item) else item) as file:
        if file.size <= MAX_HELD_BYTES:
            yield file.read()
        else:
            require_known_head(kind, file.head(HEAD_BYTES))
            require_filled(file.descriptor, file.status)
            yield file.descriptor
            file.require_unchanged()


def _data_bytes(descriptor: int, size: int, enough: int) -> int:
    """Count what is no hole, until that is enough."""
    before = os.lseek(descriptor, 0, os.SEEK_CUR)
    total = position = 0
    try:
        for _ in range(MOST_STRETCHES):
            start = os.lseek(descriptor, position, os.SEEK_DATA)
            position = os.lseek(descriptor, start, os.SEEK_HOLE)
            total += position - start
            if total >= enough or position >= size:
                return total
    except OSError as error:
        return total if error.errno == errno.ENXIO else enough  # no more data; or it cannot be told here
    finally:
        os.lseek(descriptor, before, os.SEEK_SET)
    return enough
