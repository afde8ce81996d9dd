"""`trivium cache`: what lies in the user's cache, how much of it, and how it is deleted.

Only names that Trivium itself gives are ever deleted, and no link is followed: the folder is one that the user may
have chosen. What else lies there is left alone and told.
"""

import argparse
import contextlib
import json
import os
import re
import sqlite3
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from trivium.encoders.graph_seal import read_seal
from trivium.encoders.user_cache import cache_folder, read_sealed
from trivium.pipeline.durable import file_sha256
from trivium.pipeline.feature_cache import FILE, FeatureCache
from trivium.pipeline.page import printable
from trivium.pipeline.terminal import announce

HEX = "[0-9a-f]"
# Of each part of the cache: the paths of its files below the cache's folder. A draft begins with a dot; processes that
# are killed leave some.
PARTS: Mapping[str, re.Pattern[str]] = {
    "weights": re.compile(
        rf"weights/([a-z0-9-]+-{HEX}{{12}}/(manifest\.json|config\.json|tokenizer\.json|model\.safetensors)"
        r"|\.[a-z0-9-]+-[a-z0-9_]{8}/.+)"
    ),
    "graphs": re.compile(r"graphs/[^/]+-\d+/((float32|int8)\.onnx|\.(float32|int8)-[a-z0-9_]{8}/.+)"),
    "labels": re.compile(rf"labels/(\.?{HEX}{{32}}\.npy(-[a-z0-9_]{{8}})?|tmp[a-z0-9_]{{8}}\.npy)"),
    "open-clip": re.compile(rf"open-clip/\.?{HEX}{{24}}\.(tokenizer\.)?(json(-[a-z0-9_]{{8}})?|\d+)"),
    "features": re.compile(r"features-\d+/[^/]+/features\.sqlite(-journal)?"),
}
ABOUT: Mapping[str, str] = {
    "weights": "fetched by `trivium pull` or when first used",
    "graphs": "made of weights, for this machine's processor",
    "labels": "vectors of label words",
    "open-clip": "what is known of open_clip's models",
    "features": "what networks say of your files and texts: for your eyes only",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class CachePart:
    """What a part of the cache holds."""

    files: int
    size_bytes: int


def parts_of(root: Path) -> dict[str, list[Path]]:
    """Return the files of each part below a cache's folder, and under "" what Trivium did not put there."""
    found: dict[str, list[Path]] = {name: [] for name in (*PARTS, "")}
    for path in _files_below(root):
        name = path.relative_to(root).as_posix()
        part = next((part for part, names in PARTS.items() if names.fullmatch(name)), "")
        found[part].append(path)
    return found


def clear(root: Path, parts: Sequence[str]) -> list[Path]:
    """Delete parts of a cache; return the files that could not be.

    Args:
        root: The cache's folder.
        parts: Names of `PARTS`.
    """
    left = []
    found = parts_of(root)
    for path in [path for part in parts for path in found[part]]:
        try:
            if path.name == FILE:
                FeatureCache(path.parent.name, folder=path.parent.parent).delete()
            else:
                path.unlink(missing_ok=True)
        except (OSError, sqlite3.Error):
            left.append(path)
        for folder in path.relative_to(root).parents:
            if folder.name:  # the cache's own folder stays
                with contextlib.suppress(OSError):  # not empty yet
                    (root / folder).rmdir()
    return left


def drop_damaged() -> list[Path]:
    """Delete what was made of weights and is not as it was made (all of it is read); return what that was."""
    found = parts_of(cache_folder())
    damaged = [path for path in found["graphs"] if path.suffix == ".onnx" and _is_damaged_graph(path)]
    damaged += [path for path in found["labels"] if read_sealed(path) is None]
    damaged += [path for path in found["open-clip"] if ".tokenizer." not in path.name and read_sealed(path) is None]
    for path in damaged:
        path.unlink(missing_ok=True)
    return damaged


def cache(options: argparse.Namespace) -> int:
    """Tell what lies in the cache, or delete some of it."""
    root = cache_folder()
    if options.forget:
        return _forget(options.forget)
    before = _sizes(root)
    left: list[Path] = []
    if options.clear:
        left = clear(root, list(PARTS) if options.clear == "all" else [options.clear])
    after = _sizes(root)
    if options.json:
        told = {"folder": str(root), "parts": {part: asdict(size) for part, size in after.items()}}
        if options.clear:
            told["deleted_bytes"] = sum(before[part].size_bytes - after[part].size_bytes for part in PARTS)
        print(json.dumps(told))
    else:
        print(printable(str(root)))
        for part in PARTS:
            size = f"{before[part].size_bytes / 1e6:,.1f} MB"
            if options.clear:
                size += f" -> {after[part].size_bytes / 1e6:,.1f} MB"
            print(f"{part:10} {size:>12}  {ABOUT[part]}")
    if after[""].files:
        announce(f"{after[''].files:,} other files in {printable(str(root))} are not Trivium's, and stay")
    for path in left:
        announce(f"cannot delete {printable(str(path))}")
    return 1 if left else 0


def _forget(files: Sequence[str]) -> int:
    """Delete what is known of some files' content."""
    keys = []
    for file in files:
        keys.append(bytes.fromhex(file_sha256(Path(file))))
    count = 0
    for path in parts_of(cache_folder())["features"]:
        if path.name == FILE:
            count += FeatureCache(path.parent.name, folder=path.parent.parent).forget(keys)
    print(f"{count:,} kept features of {len(files):,} files deleted")
    return 0


def _sizes(root: Path) -> dict[str, CachePart]:
    return {
        part: CachePart(files=len(paths), size_bytes=sum(_size(path) for path in paths))
        for part, paths in parts_of(root).items()
    }


def _size(path: Path) -> int:
    with contextlib.suppress(OSError):  # deleted meanwhile
        return path.lstat().st_size
    return 0


def _files_below(root: Path) -> Iterator[Path]:
    """Yield all that is below a folder and is no folder; links are not followed."""
    for folder, folders, files in os.walk(root):
        links = [name for name in folders if stat.S_ISLNK((Path(folder) / name).lstat().st_mode)]
        yield from (Path(folder) / name for name in sorted([*files, *links]))


def _is_damaged_graph(path: Path) -> bool:
    seal = read_seal(path)
    if seal is None:
        return True
    try:
        return _sha256_of_start(path, seal.size) != seal.sha256
    except OSError:
        return True


def _sha256_of_start(path: Path, size: int) -> str:
    import hashlib

    digest = hashlib.sha256()
    with path.open("rb") as file:
        while size > 0 and (chunk := file.read(min(size, 1 << 20))):
            digest.update(chunk)
            size -= len(chunk)
    return digest.hexdigest()
