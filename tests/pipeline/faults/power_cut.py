"""The states of a disk that a power cut may leave, made from a recording of the calls that changed it.

The model is that of ALICE (Pillai et al., "All File Systems Are Not Created Equal", OSDI 2014) with nothing assumed but
what POSIX promises of `fsync`:

- A file's bytes and size are on the disk when its `fsync` or `fdatasync` has returned. Before that, any part of what
  was written since the last one may be there, in any order, down to single sectors of 512 bytes; or the size alone, and
  zeros in place of the bytes; or nothing.
- A name in a folder (made, renamed, removed) is there, or gone, when the `fsync` of the folder has returned. Before
  that, any part of what was done to its names may be there, in any order. A rename is whole or not there. To sync a
  file is no promise of its name.
- Nothing orders one file with another, or a file with its folder. (Of ext4 it is known that it keeps more than that;
  we do not rely on it.)

A recording comes from `fault_record` in `fault.c`.
"""

import hashlib
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

SECTOR = 512


class Call(NamedTuple):
    """One line of a recording."""

    name: str
    fd: int
    number: int  # an offset or a size; of `open`, whether it empties the file; of `rename`, its flags
    path: str
    path2: str
    data: bytes


def read_recording(path: Path) -> Iterator[Call]:
    data, place = path.read_bytes(), 0
    while place < len(data):
        end = data.index(b"\n", place)
        name, fd, number, first, second, size = data[place:end].decode().split("\t")
        place = end + 1 + int(size)
        yield Call(name, int(fd), int(number), first, second, data[end + 1 : place])


class Write(NamedTuple):
    """Bytes that were written; no bytes: the size was set."""

    offset: int
    data: bytes | None


class Naming(NamedTuple):
    """What was done to a folder's names."""

    gone: str | None
    name: str | None
    node: "File | Folder | None"


@dataclass(slots=True, eq=False)
class File:
    synced: bytes = b""
    since: list[Write] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class Folder:
    synced: dict[str, "File | Folder"] = field(default_factory=dict)
    since: list[Naming] = field(default_factory=list)
    now: dict[str, "File | Folder"] = field(default_factory=dict)


State = dict[str, bytes | None]  # by path; None is a folder
VARIANTS = ("nothing unsynced", "all", "names without bytes", "names and sizes", "bytes without names", "torn")


class Disk:
    """What has been done to a folder, and what of it is safe."""

    def __init__(self) -> None:
        self.root = Folder()
        self._open: dict[int, File | Folder] = {}
        self._last: File | None = None  # that was written to

    def make(self, call: Call) -> bool:
        """Do what was recorded; return whether it changed what a power cut may leave."""
        folder, name = self._find(call.path)
        if call.name == "open":
            node: File | Folder | None = self.root if call.path == "." else folder.now.get(name)
            is_new = node is None
            if node is None:
                node = File()
                self._name(folder, None, name, node)
            elif call.number and isinstance(node, File):
                node.since.append(Write(0, None))
            self._open[call.fd] = node
            return is_new or bool(call.number)
        if call.name in ("write", "ftruncate"):
            file = self._open[call.fd]
            assert isinstance(file, File)
            file.since.append(Write(call.number, call.data if call.name == "write" else None))
            self._last = file
        elif call.name in ("fsync", "fdatasync"):
            self._sync(self._open[call.fd])
        elif call.name == "mkdir":
            self._name(folder, None, name, Folder())
        elif call.name in ("unlink", "rmdir"):
            self._name(folder, name, None, None)
        elif call.name == "rename":
            other, new = self._find(call.path2)
            assert other is folder, "a rename from one folder to another has no model here"
            assert not call.number, "nor has an exchange of names"
            self._name(folder, name, new, folder.now[name])
        else:
            assert call.name == "close", call
            return False
        return True

    def state(self, variant: str, rng: random.Random) -> State:
        """Make one of the states that a power cut would leave now; other names than in VARIANTS: by chance."""
        state: State = {}
        self._gather(self.root, "", variant, rng, state)
        return state

    def _find(self, path: str) -> tuple[Folder, str]:
        *parents, name = path.split("/")
        folder = self.root
        for parent in parents:
            node = folder.now[parent]
            assert isinstance(node, Folder)
            folder = node
        return folder, name

    def _name(self, folder: Folder, gone: str | None, name: str | None, node: "File | Folder | None") -> None:
        folder.since.append(Naming(gone, name, node))
        _apply(folder.now, folder.since[-1])

    def _sync(self, node: File | Folder) -> None:
        if isinstance(node, Folder):
            node.synced = dict(node.now)
        else:
            node.synced = _written(node.synced, node.since)
        node.since.clear()

    def _gather(self, folder: Folder, path: str, variant: str, rng: random.Random, state: State) -> None:
        names = dict(folder.synced)
        for naming in folder.since:
            if variant in ("nothing unsynced", "bytes without names"):
                break
            if variant in VARIANTS or rng.random() < 0.5:
                _apply(names, naming)
        for name, node in names.items():
            if isinstance(node, Folder):
                state[f"{path}{name}"] = None
                self._gather(node, f"{path}{name}/", variant, rng, state)
            else:
                state[f"{path}{name}"] = self._bytes(node, variant, rng)

    def _bytes(self, file: File, variant: str, rng: random.Random) -> bytes:
        if variant in ("nothing unsynced", "names without bytes"):
            return file.synced
        if variant in ("all", "bytes without names"):
            return _written(file.synced, file.since)
        if variant == "names and sizes":
            whole = _written(file.synced, file.since)
            return file.synced[: len(whole)].ljust(len(whole), b"\0")
        if variant == "torn":
            if file is not self._last or not file.since or not file.since[-1].data:
                return _written(file.synced, file.since)
            *before, (offset, data) = file.since
            assert data is not None
            kept = rng.randrange((len(data) + SECTOR - 1) // SECTOR) * SECTOR
            return _written(file.synced, [*before, Write(offset, data[:kept])])
        share = rng.choice((0.0, 0.2, 0.5, 0.8, 1.0))  # of this file's sectors
        return _written(file.synced, [part for write in file.since for part in _sectors(write) if rng.random() < share])


def _apply(names: dict[str, "File | Folder"], naming: Naming) -> None:
    if naming.gone is not None:
        names.pop(naming.gone, None)
    if naming.name is not None:
        assert naming.node is not None
        names[naming.name] = naming.node


def _written(data: bytes, writes: list[Write]) -> bytes:
    made = bytearray(data)
    for offset, written in writes:
        if written is None:
            del made[offset:]
            made.extend(bytes(offset - len(made)))
        else:
            made.extend(bytes(max(0, offset - len(made))))
            made[offset : offset + len(written)] = written
    return bytes(made)


def _sectors(write: Write) -> Iterator[Write]:
    if write.data is None:
        yield write
        return
    start = write.offset
    while start < write.offset + len(write.data):
        stop = min((start // SECTOR + 1) * SECTOR, write.offset + len(write.data))
        yield Write(start, write.data[start - write.offset : stop - write.offset])
        start = stop


def put_down(state: State, folder: Path) -> None:
    """Make a state's files."""
    for name, data in state.items():  # a folder comes before what is in it
        if data is None:
            (folder / name).mkdir()
        else:
            (folder / name).write_bytes(data)


def digest(state: State) -> bytes:
    """Tell states apart."""
    found = hashlib.blake2b()
    for name, data in sorted(state.items()):
        found.update(name.encode() + b"\0" + (b"folder" if data is None else hashlib.blake2b(data).digest()))
    return found.digest()
