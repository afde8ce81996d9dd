"""Archives that games keep their media in: zip, Qt resources, OpenClonk's groups, OpenTTD's sound catalogue."""

import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

Member = tuple[str, bytes]
ZIP_SUFFIXES = (".pk3", ".wz", ".zip", ".h2drumkit")
# Qt's rcc, version 2 and later: what is a folder, what is compressed, and how long an entry of the tree is.
RCC_FOLDER, RCC_ZLIB, RCC_ZSTD = 2, 1, 4
RCC_ENTRY_BYTES = 22
# OpenClonk's C4Group: a header and entries of these sizes; the header's bytes are mixed with this one.
GROUP_HEADER_BYTES, GROUP_ENTRY_BYTES, GROUP_NAME_BYTES, GROUP_MIX = 204, 316, 260, 237
# OpenTTD marks offsets with the highest bit when names come before the sounds.
CAT_OFFSET = 0x7FFFFFFF


def members(path: Path) -> Iterator[Member]:
    """Yield each file in an archive: its path inside and its content.

    Raises:
        ValueError: If the suffix is of no known archive, or the content is not what the suffix says.
    """
    for suffixes, read in READERS.items():
        if path.suffix in suffixes:
            yield from read(path)
            return
    raise ValueError(f"{path}: no known archive; known are {', '.join(s for known in READERS for s in known)}")


def is_archive(path: Path) -> bool:
    """Tell by the suffix whether `members` reads this file."""
    return any(path.suffix in suffixes for suffixes in READERS)


def _zip_members(path: Path) -> Iterator[Member]:
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            if not name.endswith("/"):
                yield name, archive.read(name)


def _rcc_members(path: Path) -> Iterator[Member]:
    """Read a Qt binary resource: a tree whose entries point to names and to data, all numbers big-endian."""
    data = path.read_bytes()
    magic, version, tree, contents, names = struct.unpack_from(">4sIIII", data)
    if magic != b"qres" or version < 2:
        raise ValueError(f"{path}: not a Qt resource of version 2 or later")

    def walk(entry: int, folder: str) -> Iterator[Member]:
        name_offset, flags = struct.unpack_from(">IH", data, tree + entry * RCC_ENTRY_BYTES)
        length = struct.unpack_from(">H", data, names + name_offset)[0]
        start = names + name_offset + 6  # after the length and the name's hash
        inside = folder + data[start : start + 2 * length].decode("utf-16-be") if entry else folder
        if flags & RCC_FOLDER:
            count, first = struct.unpack_from(">II", data, tree + entry * RCC_ENTRY_BYTES + 6)
            for child in range(first, first + count):
                yield from walk(child, f"{inside}/" if entry else inside)
            return
        offset = contents + struct.unpack_from(">I", data, tree + entry * RCC_ENTRY_BYTES + 10)[0]
        content = data[offset + 4 : offset + 4 + struct.unpack_from(">I", data, offset)[0]]
        if flags & RCC_ZSTD:
            return  # seen in no package of ours; the standard library reads it from Python 3.14 on
        yield inside, zlib.decompress(content[4:]) if flags & RCC_ZLIB else content

    yield from walk(0, "")


def _group_members(path: Path) -> Iterator[Member]:
    """Read an OpenClonk group: gzip under another magic number, groups inside groups."""
    data = path.read_bytes()
    yield from _group_entries(zlib.decompressobj(31).decompress(b"\x1f\x8b" + data[2:]), "")


def _group_entries(data: bytes, folder: str) -> Iterator[Member]:
    header = _unmix(data[:GROUP_HEADER_BYTES])
    if not header.startswith(b"RedWolf Design GrpFolder"):
        raise ValueError("not an OpenClonk group")
    count = struct.unpack_from("<i", header, 36)[0]
    contents = GROUP_HEADER_BYTES + GROUP_ENTRY_BYTES * count
    for entry in range(count):
        start = GROUP_HEADER_BYTES + GROUP_ENTRY_BYTES * entry
        name = folder + data[start : start + GROUP_NAME_BYTES].split(b"\0")[0].decode("latin-1")
        is_group, size, _, offset = struct.unpack_from("<iiii", data, start + GROUP_NAME_BYTES + 4)
        content = data[contents + offset : contents + offset + size]
        if is_group:
            yield from _group_entries(content, f"{name}/")
        else:
            yield name, content


def _unmix(header: bytes) -> bytes:
    plain = bytearray(byte ^ GROUP_MIX for byte in header)
    for place in range(0, len(plain) - 2, 3):
        plain[place], plain[place + 2] = plain[place + 2], plain[place]
    return bytes(plain)


def _cat_members(path: Path) -> Iterator[Member]:
    """Read an OpenTTD sound catalogue: pairs of offset and length, then each sound's description and its WAV file."""
    data = path.read_bytes()
    count = (struct.unpack_from("<I", data)[0] & CAT_OFFSET) // 8
    for sound in range(count):
        offset, length = struct.unpack_from("<II", data, 8 * sound)
        start = (offset & CAT_OFFSET) + 1
        told = data[start : start + data[start - 1]].split(b"\0")[0].decode("utf-8", "replace")
        start += data[start - 1]
        # "Jackhammer". Original "x.wav" by ... License: ...
        title = told.split('"')[1] if '"' in told else told
        yield f"{title.replace('/', ' or ')}.wav", data[start : start + length]


READERS: dict[tuple[str, ...], Callable[[Path], Iterator[Member]]] = {
    ZIP_SUFFIXES: _zip_members,
    (".rcc",): _rcc_members,
    (".ocg", ".ocd"): _group_members,
    (".cat",): _cat_members,
}
