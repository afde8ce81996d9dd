"""Folders as a stranger may make them: one that is valid, with some of its files and of what they say changed."""

import json
import os
import random
import shutil
import struct
from pathlib import Path
from typing import Any

MOST_SPARSE = 8 << 30
VALUES: list[Any] = [
    *(None, True, False, 0, 1, -1, 2, 3, 255, 65_537, 1 << 24, (1 << 24) + 1, 1 << 31, 1 << 62, 10**39),
    *(0.5, -0.0, 1e-300, 1e300),
    *("", ".", "..", "../secret", "/etc/passwd", "secret/", "a\0b", "\ud800", "x" * 100_000, "NaN", "\x1b[2J"),
    *([], {}, [[]], [None] * 1_000, {"a": {"b": {}}}, "open-clip:hf-hub:x/y", "open-clip:hf-hub:x/y@" + "0" * 40),
    *("open-clip:ViT-B-32/openai", "text-model:", "text-model:.", "text-model:..", "text-model:../secret", "head"),
    *("linear", "identity", "labels", "centred", "minilm-l6", "pooled", "F32", "BF16", "F8_E4M3"),
    *("I64", "transformer", "lstm"),
    *("relative", "//host/share", "/nonexistent", "kernels", "network", "agreement", "transfer", "gated-units"),
]  # fmt: skip


def change(folder: Path, secret: Path, seed: int) -> str:
    """Change a folder in one to three ways; ``secret`` lies outside. Return what was done."""
    chance = random.Random(seed)
    return "; ".join(_change(folder, secret, chance) for _ in range(chance.choice([1, 1, 1, 2, 3])))


def _change(folder: Path, secret: Path, chance: random.Random) -> str:
    files = sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    if not files:
        return "nothing left"
    file = chance.choice(files)
    told = file.relative_to(folder).as_posix()
    kind = chance.choice(["tell", "tell", "tell", "tell", "bytes", "size", "file"])
    if kind == "tell" and file.suffix == ".json":
        return f"{told}: {_change_json(file, chance)}"
    if kind == "tell" and file.suffix == ".safetensors":
        return f"{told}: {_change_header(file, chance)}"
    if kind == "file":
        return f"{told}: {_change_file(file, secret, chance)}"
    data = bytearray(file.read_bytes())
    if kind == "size" or not data:
        size = chance.choice([0, 1, 7, 8, 9, len(data) // 2, len(data) - 1, len(data) + 1, 2 * len(data), MOST_SPARSE])
        os.truncate(file, max(0, size))
        return f"{told}: {size} bytes"
    places = [chance.randrange(len(data)) for _ in range(chance.choice([1, 1, 8, 64]))]
    for place in places:
        data[place] = chance.randrange(256)
    file.write_bytes(data)
    return f"{told}: bytes {places}"


def _change_file(file: Path, secret: Path, chance: random.Random) -> str:
    what = chance.choice(["gone", "link", "folder link", "folder", "pipe", "loop", "inner link", "more", "dangling"])
    if what == "more":
        (file.parent / chance.choice(["more.txt", "model.json", "x" * 200])).touch()
        return what
    if what == "folder link":
        if file.parent.parent == file.parent or len(file.parents) < 2 or file.parent.name == "folder":
            return "nothing"
        shutil.rmtree(file.parent)
        file.parent.symlink_to(secret.parent)
        return what
    file.rename(moved := file.with_name("moved"))
    if what == "inner link":
        file.symlink_to("moved")
        return what
    moved.unlink()
    if what == "link":
        file.symlink_to(secret)
    elif what == "folder":
        file.mkdir()
    elif what == "pipe":
        os.mkfifo(file)
    elif what == "loop":
        file.symlink_to(file.name)
    elif what == "dangling":
        file.symlink_to("/nonexistent/file")
    return what


def _change_json(file: Path, chance: random.Random) -> str:
    try:
        raw = json.loads(file.read_bytes())
    except (ValueError, RecursionError):
        return "no JSON any more"
    told = changed_value(raw, chance)
    text = json.dumps(raw)
    odd = chance.random()
    if odd < 0.03:
        text = '{"format": 1, ' + text.lstrip()[1:]
    elif odd < 0.06:
        text = text.replace("1", chance.choice(["NaN", "1e999", "9" * 5_000, "-Infinity"]), 1)
    elif odd < 0.08:
        text = text.replace("{", '{"deep": ' + "[" * 2_000 + "]" * 2_000 + ", ", 1)
    file.write_bytes(text.encode("utf-8", "surrogatepass"))
    return told


def _change_header(file: Path, chance: random.Random) -> str:
    data = file.read_bytes()
    try:
        (length,) = struct.unpack("<Q", data[:8])
        raw = json.loads(data[8 : 8 + length])
    except (ValueError, struct.error, RecursionError):
        return "no header any more"
    told = changed_value(raw, chance)
    text = json.dumps(raw).encode("utf-8", "surrogatepass")
    length = len(text) if chance.random() < 0.9 else chance.choice([0, 1, 1 << 20, 1 << 40, (1 << 64) - 1])
    file.write_bytes(struct.pack("<Q", length) + text + data[8 + len(data[8:]) - (len(data) - 8 - _length(data)) :])
    return told


def _length(data: bytes) -> int:
    return int.from_bytes(data[:8], "little")


def changed_value(raw: Any, chance: random.Random) -> str:
    """Change one place of what JSON holds, in place; say how."""
    places: list[tuple[Any, Any]] = []
    waiting = [raw]
    while waiting:
        of = waiting.pop()
        keys = list(of) if isinstance(of, dict) else range(len(of)) if isinstance(of, list) else []
        for key in list(keys)[:40]:  # of a vocabulary some will do
            places.append((of, key))
            waiting.append(of[key])
    if not places:
        return "nothing to change"
    of, key = chance.choice(places)
    before = of[key]
    what = chance.choice(["value", "value", "value", "drop", "add", "rename", "number", "swap"])
    if what == "drop":
        del of[key]
    elif what == "add" or (what == "rename" and not isinstance(of, dict)):
        of.update({chance.choice(["more", "", "..", "bias"]): chance.choice(VALUES)}) if isinstance(
            of, dict
        ) else of.append(chance.choice(VALUES))
    elif what == "rename":
        of[chance.choice(["renamed", "text", "image", "audio", "weight", "../x"])] = of.pop(key)
    elif what == "number" and isinstance(before, int | float) and not isinstance(before, bool):
        of[key] = chance.choice(
            [before + 1, before - 1, -before, before * 2, before * 1_000_000, float(before), str(before)]
        )
    elif what == "swap":
        other, place = chance.choice(places)
        try:
            of[key] = json.loads(json.dumps(other[place]))
        except (LookupError, TypeError):  # in what was there before
            return "nothing"
    else:
        of[key] = chance.choice(VALUES)
    return f"{what} of {key!r}"
