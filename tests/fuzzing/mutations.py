"""Changes to documents of JSON and to bytes, each told in a few words."""

import contextlib
import copy
import json
import random
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

CASES: Any = sys.modules["__main__"]
VALUES = CASES.load_beside("values")
MUTANTS = CASES.load_beside("../reference/mutants")
RAW = [
    b"", b"{}", b"[]", b"null", b"[" * 100_000, b'{"a":' * 50_000, b"\xff\xfe{}", b"\xef\xbb\xbf{}", b"{}{}", b"NaN",
    b'{"format":' + b"1" * 5_000 + b"}", b"\0" * 100, b'"\\ud800"',
]  # fmt: skip
DEEP: Any = []
for _ in range(150):  # deeper ones are in RAW
    DEEP = [DEEP]
ODD: list[Any] = [
    None, True, False, 0, 1, -1, 2, 16, 1 << 24, 1 << 31, 1 << 62, 1 << 70, 10**400, 0.5, -0.0, 1e300, 1e-320,
    float("nan"), float("inf"), float("-inf"), "", "x", "0", ".", "..", "../x", "/etc/passwd", "a\0b", "\ud800",
    "\x1b[31m", "x" * 10_000, [], {}, [[]], [None],
    ["x", 5], {"x": None}, [1] * 1_000, DEEP, {"kind": {}}, [{}], "NaN", "1e999",
]  # fmt: skip


def bytes_changed(data: bytes, rng: random.Random) -> tuple[bytes, str]:
    """Damage bytes in one of six ways."""
    operator = rng.choice(MUTANTS.OPERATORS)
    mutant = bytearray(data)
    if mutant:
        operator(mutant, rng.choice((min(100, len(data)), len(data))), rng)
    return bytes(mutant), operator.__name__


def json_changed(document: Any, rng: random.Random, *, odd: list[Any] = ODD) -> tuple[bytes, str]:
    """Put an odd value somewhere, take something away, add something unknown; or write something else altogether."""
    chance = rng.random()
    if chance < 0.06:
        raw = rng.choice(RAW)
        return raw, f"all of it is {raw[:20]!r}"
    if chance < 0.12:
        return bytes_changed(json.dumps(document).encode(), rng)
    made = copy.deepcopy(document)
    where, holder, key = rng.choice(list(_places(made, "", None, None)) or [("", None, None)])
    if holder is None:
        made = rng.choice(odd)
        what = f"{where or 'all'} = {_shown(made)}"
    elif chance < 0.25:
        del holder[key]
        what = f"{where} is missing"
    elif chance < 0.32 and isinstance(holder, dict):
        name = rng.choice(("unknown", "", "\ud800", "__class__", "a" * 1_000))
        holder[name] = rng.choice(odd)
        what = f"{where[:-1]} has {name[:9]!r} too"
    else:
        holder[key] = rng.choice(odd)
        what = f"{where} = {_shown(holder[key])}"
    return json.dumps(made).encode(), what


def _places(node: Any, path: str, holder: Any, key: Any) -> Iterator[tuple[str, Any, Any]]:
    """Every place of a document; long lists are looked into here and there."""
    yield path, holder, key
    if isinstance(node, dict):
        for name in list(node)[:50]:
            yield from _places(node[name], f"{path}.{name}", node, name)
    elif isinstance(node, list):
        for place in {0, len(node) // 2, len(node) - 1} if node else ():
            yield from _places(node[place], f"{path}[{place}]", node, place)


def safetensors_changed(data: bytes, rng: random.Random) -> tuple[bytes, str]:
    """Change what a file says of its tensors, the tensors, or any of its bytes."""
    if rng.random() < 0.15:
        return bytes_changed(data, rng)
    (length,) = struct.unpack("<Q", data[:8])
    header, body = json.loads(data[8 : 8 + length]), bytearray(data[8 + length :])
    name = rng.choice([each for each in header if each != "__metadata__"])
    entry = header[name]
    how = rng.choice(("dtype", "shape", "offsets", "gone", "renamed", "numbers", "json", "length", "empty"))
    if how == "dtype":
        entry["dtype"] = rng.choice(
            ("F64", "F16", "BF16", "F8_E4M3", "F8_E5M2", "I64", "I8", "U8", "BOOL", "F4", "C64", "", 5)
        )
        if rng.random() < 0.7:  # with a shape that fits the bytes
            size = {"F64": 8, "I64": 8, "C64": 8, "F16": 2, "BF16": 2}.get(str(entry["dtype"]), 1)
            entry["shape"] = [(entry["data_offsets"][1] - entry["data_offsets"][0]) // size]
    elif how == "shape":
        entry["shape"] = rng.choice(([], [0], [-1], [1 << 62, 4], [2**63], ["x"], None, [1] * 40, entry["shape"][::-1]))
    elif how == "offsets":
        entry["data_offsets"] = rng.choice(
            ([0, 0], [-1, 5], [0, 1 << 62], [5, 0], ["a", "b"], None, [0, len(body) + 8])
        )
    elif how == "gone":
        del header[name]
    elif how == "renamed":
        header[rng.choice(("x", "", "weight", "\ud800", "linear.weight"))] = header.pop(name)
    elif how == "numbers":
        first, last = entry["data_offsets"]
        value = rng.choice((float("nan"), float("inf"), 0.0, -1.0, 3e38, 1e-45))
        body[first:last] = struct.pack("<f", value) * ((last - first) // 4)
        how = f"numbers are {value}"
    elif how == "empty":
        return rng.choice((b"", b"\0" * 8, b"\xff" * 8, struct.pack("<Q", 2) + b"{}")), "empty"
    if how == "json":
        written, what = json_changed(header, rng)
    else:
        written, what = json.dumps(header).encode(), f"{name}: {how}"
    said = rng.choice((0, 1 << 40, (1 << 64) - 1, len(written) + 1)) if how == "length" else len(written)
    return struct.pack("<Q", said) + written + bytes(body), what


def change_file(path: Path, rng: random.Random) -> str:
    """Change a file by what its name says that it is."""
    data = path.read_bytes()
    made, what = bytes_changed(data, rng)
    with contextlib.suppress(ValueError, RecursionError, KeyError, TypeError, AttributeError, struct.error, IndexError):
        # Else an earlier change has left nothing that could be changed with sense.
        if path.suffix == ".json":
            made, what = json_changed(json.loads(data), rng)
        elif path.suffix == ".safetensors":
            made, what = safetensors_changed(data, rng)
    path.write_bytes(made)
    return f"{path.name}: {what}"


def _shown(value: Any) -> str:
    try:
        shown = repr(value)
    except (RecursionError, ValueError):
        return f"a huge {type(value).__name__}"
    return shown if len(shown) < 60 else f"{shown[:40]}... ({len(shown)})"
