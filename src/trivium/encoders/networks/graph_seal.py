"""What an exported graph says of itself: a checksum of its bytes, and a canary: what its network says of one input.

Both lie in the graph's own file, as the entry of its metadata that ONNX provides for such things, so that a graph and
its seal are always of one piece. The checksum is made for speed, a seventh of the time that SHA-256 takes: so a graph
is read whole and compared whenever it is loaded, not only when its times have changed. `trivium pull` compares the
SHA-256 too.
"""

import base64
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

KEY = "trivium"
CHUNK_BYTES, BLOCK_WORDS = 1 << 20, 2048
HASH_DIGITS, LENGTH_DIGITS = 64, 10  # of the text before them, and of the whole; they are its end
MAX_SEAL_BYTES = 64 << 20  # a canary of pictures is some 200 kB
METADATA, STRING_KEY, STRING_VALUE = b"\x72", b"\x0a", b"\x12"  # field 14 of ModelProto; 1 and 2 of its entries


@dataclass(frozen=True, slots=True, kw_only=True)
class Seal:
    """What is recorded of a graph when it is made."""

    size: int  # of the file without the seal
    checksum: str  # see `checksum_of`
    sha256: str
    inputs: Sequence[NDArray[Any]]  # one item
    outputs: Sequence[NDArray[Any]]  # what the network made of it

    def differs(self, found: Sequence[NDArray[Any]], *, tolerance: float) -> bool:
        """Whether a network's answer to ``inputs`` is another one; ``tolerance`` is of the largest number, or of 1."""
        if [each.shape for each in found] != [each.shape for each in self.outputs]:
            return True
        return not all(
            np.abs(new - old).max(initial=0) <= tolerance * max(float(np.abs(old).max(initial=0)), 1.0)
            for new, old in zip(found, self.outputs, strict=True)
        )


def seal_graph(file: Path, inputs: Sequence[NDArray[Any]], outputs: Sequence[NDArray[Any]]) -> Seal:
    """Append its seal to a graph that was just made.

    Raises:
        OSError: If the file cannot be read or written.
    """
    size = file.stat().st_size
    checksum, sha256 = checksum_of(file, size), _sha256(file, size)
    seal = Seal(size=size, checksum=checksum, sha256=sha256, inputs=inputs, outputs=outputs)
    with file.open("ab") as graph:
        graph.write(_entry(_text_of(seal)))
    return seal


def read_seal(file: Path) -> Seal | None:
    """Return a graph's seal; None if it has none, or a damaged one."""
    try:
        with file.open("rb") as graph:
            whole = graph.seek(0, os.SEEK_END)
            graph.seek(max(0, whole - LENGTH_DIGITS))
            length = int(graph.read())
            if not 0 < length <= min(MAX_SEAL_BYTES, whole):
                return None
            size = whole - len(_entry(b" " * length))
            graph.seek(max(0, size))
            found = graph.read()
        text = found[-length:]
        told = json.loads(text[: -HASH_DIGITS - LENGTH_DIGITS])
        seal = Seal(
            size=told["size"],
            checksum=told["checksum"],
            sha256=told["sha256"],
            inputs=[_array_of(each) for each in told["inputs"]],
            outputs=[_array_of(each) for each in told["outputs"]],
        )
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return seal if seal.size == size and text == _ended(text[: -HASH_DIGITS - LENGTH_DIGITS]) else None


def is_intact(file: Path, seal: Seal) -> bool:
    """Whether a graph's bytes are those that were sealed (all are read)."""
    try:
        return checksum_of(file, seal.size) == seal.checksum
    except OSError:
        return False


def has_its_hash(file: Path) -> bool:
    """Whether a graph has a seal, and the SHA-256 that is told there."""
    seal = read_seal(file)
    try:
        return seal is not None and _sha256(file, seal.size) == seal.sha256
    except OSError:
        return False


def checksum_of(file: Path, size: int) -> str:
    """Return a checksum of a file's first bytes, made as fast as memory is read.

    A MiB is 64 blocks of 16 KiB; they are added up word by word, and the sums hashed. Any change of one word, and of
    any number of words that stand at different places of their blocks, changes a sum: what is flipped, zeroed, or moved
    within a block. Of other damage one in 2^64 stays hidden, and what moves by whole blocks within a MiB. It is no
    protection against whoever means to deceive it.

    Args:
        file: What to read.
        size: How many bytes of it.

    Raises:
        OSError: If it cannot be read.
    """
    buffer = bytearray(CHUNK_BYTES)
    words = np.frombuffer(buffer, "<u8").reshape(-1, BLOCK_WORDS)  # (blocks, words)
    digest = hashlib.sha256(str(size).encode())
    with file.open("rb") as source:
        left = size
        while left > 0:
            count = source.readinto(memoryview(buffer)[: min(left, CHUNK_BYTES)])
            if not count:
                raise OSError(f"{file} is shorter than it was")
            buffer[count:] = bytes(CHUNK_BYTES - count)
            digest.update(words.sum(axis=0, dtype=np.uint64).tobytes())
            left -= count
    return digest.hexdigest()


def _sha256(file: Path, size: int) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as source:
        while size > 0 and (chunk := source.read(min(size, CHUNK_BYTES))):
            digest.update(chunk)
            size -= len(chunk)
    return digest.hexdigest()


def _text_of(seal: Seal) -> bytes:
    told = {
        "size": seal.size,
        "checksum": seal.checksum,
        "sha256": seal.sha256,
        "inputs": [_told(each) for each in seal.inputs],
        "outputs": [_told(each) for each in seal.outputs],
    }
    return _ended(json.dumps(told).encode())


def _ended(told: bytes) -> bytes:
    length = str(len(told) + HASH_DIGITS + LENGTH_DIGITS).rjust(LENGTH_DIGITS)
    return told + f"{hashlib.sha256(told).hexdigest()}{length}".encode()


def _entry(value: bytes) -> bytes:
    """Return an entry of a model's metadata as protobuf has it; a model may be continued by appending to its bytes."""
    key = KEY.encode()
    entry = STRING_KEY + _varint(len(key)) + key + STRING_VALUE + _varint(len(value)) + value
    return METADATA + _varint(len(entry)) + entry


def _varint(number: int) -> bytes:
    found = bytearray()
    while number > 127:
        found.append(number & 127 | 128)
        number >>= 7
    return bytes([*found, number])


def _told(array: NDArray[Any]) -> Mapping[str, Any]:
    data = base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()
    return {"dtype": array.dtype.str, "shape": list(array.shape), "data": data}


def _array_of(told: Any) -> NDArray[Any]:
    dtype = np.dtype(told["dtype"])
    if dtype.kind not in "iuf":
        raise ValueError(f"an array of {dtype}")
    return np.frombuffer(base64.b64decode(told["data"], validate=True), dtype).reshape(told["shape"])
