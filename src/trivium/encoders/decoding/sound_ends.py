"""Whether a sound's file is whole, as far as its container tells: libsndfile quietly gives what is left of some.

Source: EBU Tech 3306 (RF64), RFC 3533 (Ogg), Apple's "Audio Interchange File Format AIFF-C" and "Core Audio Format
Specification"; AU is Sun's, Wave64 Sonic Foundry's.
"""

from collections.abc import Iterator
from typing import Literal, NamedTuple

from trivium.encoders.decoding.sources import Source, patched

MAX_WAVE_CHUNKS = 1000
OPEN_SIZE = 0xFFFF_FFFF  # of recorders that stream, which mean "to the end of the file"
OGG_END_BYTES = 1 << 20  # the last page has at most 65,307; some programs append something
END_OF_STREAM = 4  # of the flags in byte 5 of a page's header
OGG_HEADER_BYTES = 27


class _Chunk(NamedTuple):
    name: bytes
    position: int  # of its content
    size: int


def what_is_missing(data: Source) -> str:
    """Say what of a file is cut off; nothing if that is not seen here, as of FLAC and MP3."""
    if data[:4] == b"OggS":
        return _missing_of_ogg(data)
    if (order := _wave_order(data)) is None:
        end = _end_of_others(data)
        return f"the header says {end:,} bytes, {len(data):,} are there" if end > len(data) else ""
    found = _wave_data(data, order)
    if found is None:
        return "the WAV file has no data"
    there = len(data) - found.position
    is_cut = found.size > there and found.size != OPEN_SIZE
    return f"the header says {found.size:,} bytes of sound, {there:,} are there" if is_cut else ""


def with_its_length(data: Source) -> tuple[Source, str]:
    """Let a WAV file whose header says that there is nothing, but which has bytes behind it, be read to its end.

    A recorder that lost its power leaves that. What follows a sound that is truly empty is other chunks, to the end.

    Returns:
        What a decoder is to read, and what its owner should know.
    """
    order = _wave_order(data)
    found = None if order is None else _wave_data(data, order)
    if order is None or found is None or len(data) <= found.position + 1:
        return data, ""
    behind = len(data) - found.position
    if found.size == OPEN_SIZE and behind > OPEN_SIZE:
        return data, f"only its first 4 GiB of {behind:,} bytes are read: its header leaves its length open"
    if found.size:
        return data, ""
    last = None
    for last in _chunks(data, found.position, order):
        if not last.name.isascii() or not last.name.decode("ascii").isprintable():
            break
    else:
        if last is not None and last.position + last.size + last.size % 2 >= len(data):
            return data, ""
    note = f"its header says that it holds no sound: the {behind:,} bytes behind the header are taken for it"
    return patched(data, found.position - 4, OPEN_SIZE.to_bytes(4, order)), note


def _wave_order(data: Source) -> Literal["little", "big"] | None:
    if data[:4] not in (b"RIFF", b"RIFX", b"RF64") or data[8:12] != b"WAVE":
        return None
    return "big" if data[:4] == b"RIFX" else "little"


def _wave_data(data: Source, order: Literal["little", "big"]) -> _Chunk | None:
    """Find a WAV file's samples; their size is `OPEN_SIZE` if that is left open."""
    long_size = 0
    for name, position, size in _chunks(data, 12, order):
        if name == b"ds64":  # RF64: the sizes that do not fit into 32 bits
            long_size = int.from_bytes(data[position + 8 : position + 16], "little")
        if name == b"data":
            return _Chunk(name, position, long_size or size if size == OPEN_SIZE else size)
    return None


def _chunks(data: Source, position: int, order: Literal["little", "big"]) -> Iterator[_Chunk]:
    for _ in range(MAX_WAVE_CHUNKS):
        if position + 8 > len(data):
            return
        head = data[position : position + 8]
        found = _Chunk(head[:4], position + 8, int.from_bytes(head[4:], order))
        yield found
        position = found.position + found.size + found.size % 2


def _end_of_others(data: Source) -> int:
    """Return how long the header of an AIFF, AU, Wave64 or CAF says that the file is; 0 if it is none, or open."""
    head = data[:24]
    if head[:4] == b"FORM":
        return 8 + int.from_bytes(head[4:8])
    if head[:4] == b".snd":
        start, size = int.from_bytes(head[4:8]), int.from_bytes(head[8:12])
        return 0 if size == OPEN_SIZE else start + size
    if head[:4] == b"riff":
        return int.from_bytes(head[16:24], "little")
    if head[:4] != b"caff":
        return 0
    position = 8
    for _ in range(MAX_WAVE_CHUNKS):
        chunk = data[position : position + 12]
        size = int.from_bytes(chunk[4:], signed=True)  # -1: to the end of the file
        if len(chunk) < 12 or size < 0:
            return 0
        position += 12 + size
        if chunk[:4] == b"data":
            return position
    return 0


def _missing_of_ogg(data: Source) -> str:
    end = data[max(0, len(data) - OGG_END_BYTES) :]
    last = end.rfind(b"OggS")
    if last < 0 or last + OGG_HEADER_BYTES > len(end) or not end[last + 5] & END_OF_STREAM:
        return "the Ogg stream has no last page"
    segments = end[last + 26]
    table = end[last + OGG_HEADER_BYTES : last + OGG_HEADER_BYTES + segments]
    is_whole = last + OGG_HEADER_BYTES + segments + sum(table) <= len(end)
    return "" if is_whole else "the last Ogg page is cut off"
