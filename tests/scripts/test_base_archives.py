import struct
import zipfile
import zlib
from pathlib import Path

import pytest

from base.archives import is_archive, members


def qt_resource(files: dict[str, bytes], *, compressed: bool) -> bytes:
    """Write a Qt resource with all files in one folder, as the format's description says."""
    names, data, entries = b"", b"", []

    def name_at(name: str) -> int:
        nonlocal names
        place = len(names)
        names += struct.pack(">HI", len(name), 0) + name.encode("utf-16-be")
        return place

    for name, content in files.items():
        packed = struct.pack(">I", len(content)) + zlib.compress(content) if compressed else content
        entries.append(struct.pack(">IHHHIQ", name_at(name), int(compressed), 0, 0, len(data), 0))
        data += struct.pack(">I", len(packed)) + packed
    folder = struct.pack(">IHIIQ", name_at("folder"), 2, len(files), 2, 0)
    root = struct.pack(">IHIIQ", 0, 2, 1, 1, 0)
    tree = b"".join([root, folder, *entries])
    places = (20, 20 + len(tree), 20 + len(tree) + len(data))
    return struct.pack(">4sIIII", b"qres", 2, places[0], places[1], places[2]) + tree + data + names


def group(files: dict[str, bytes | dict[str, bytes]]) -> bytes:
    """Write an OpenClonk group, without the gzip around it."""
    header = bytearray(204)
    header[:24] = b"RedWolf Design GrpFolder"
    struct.pack_into("<i", header, 36, len(files))
    for place in range(0, 202, 3):
        header[place], header[place + 2] = header[place + 2], header[place]
    mixed = bytes(byte ^ 237 for byte in header)
    entries, data = b"", b""
    for name, content in files.items():
        packed = group(dict(content)) if isinstance(content, dict) else content
        entry = name.encode().ljust(260, b"\0")
        entry += struct.pack("<iiiii", 0, int(isinstance(content, dict)), len(packed), 0, len(data))
        entries += entry.ljust(316, b"\0")
        data += packed
    return mixed + entries + data


@pytest.mark.parametrize("compressed", [False, True])
def test_qt_resource(tmp_path: Path, compressed: bool):
    files = {"owl.ogg": b"hoo" * 50, "ö.png": b""}
    (tmp_path / "a.rcc").write_bytes(qt_resource(files, compressed=compressed))
    assert dict(members(tmp_path / "a.rcc")) == {f"folder/{name}": content for name, content in files.items()}


def test_group_inside_a_group(tmp_path: Path):
    compressor = zlib.compressobj(wbits=31)
    packed = compressor.compress(group({"bell.wav": b"ding", "Animals.ocg": {"cow.wav": b"moo"}})) + compressor.flush()
    (tmp_path / "a.ocg").write_bytes(b"\x1e\x8c" + packed[2:])
    assert dict(members(tmp_path / "a.ocg")) == {"bell.wav": b"ding", "Animals.ocg/cow.wav": b"moo"}


def test_sound_catalogue_names_sounds_by_their_titles(tmp_path: Path):
    sounds = [(b'"Car horn". By X. License: CC0.\0', b"RIFFhonk"), (b'"Truck/bus". By Y.\0', b"RIFFbrum")]
    table, data = b"", b""
    for told, wave in sounds:
        table += struct.pack("<II", (16 + len(data)) | 0x80000000, len(wave))
        data += bytes([len(told)]) + told + wave
    (tmp_path / "a.cat").write_bytes(table + data)
    # The first offset tells how long the table is.
    assert dict(members(tmp_path / "a.cat")) == {"Car horn.wav": b"RIFFhonk", "Truck or bus.wav": b"RIFFbrum"}


def test_zip_under_a_game_s_suffix(tmp_path: Path):
    with zipfile.ZipFile(tmp_path / "pak0.pk3", "w") as archive:
        archive.writestr("sound/", "")
        archive.writestr("sound/wind.wav", "hush")
    assert is_archive(tmp_path / "pak0.pk3")
    assert list(members(tmp_path / "pak0.pk3")) == [("sound/wind.wav", b"hush")]


@pytest.mark.parametrize(("name", "said"), [("a.tar", "no known archive"), ("a.rcc", "not a Qt resource")])
def test_says_what_it_cannot_read(tmp_path: Path, name: str, said: str):
    (tmp_path / name).write_bytes(b"x" * 64)
    with pytest.raises(ValueError, match=said):
        list(members(tmp_path / name))
