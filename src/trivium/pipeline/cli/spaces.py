"""Commands about what spaces there are and what is kept of them on this machine: `spaces`, `pull` and `cache`.

Only files of names that Trivium gives are ever deleted, and no link is followed: the folder may be one that the user
has chosen. What else lies there is left alone and told.
"""

import argparse
import contextlib
import json
import os
import re
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from trivium.encoders.files.reading import file_sha256
from trivium.encoders.files.user_cache import cache_folder, read_sealed
from trivium.encoders.networks.graph_seal import has_its_hash
from trivium.encoders.networks.weights import damaged_files, fetch_again, weights_folder
from trivium.pipeline.cli.ends import EXIT_FAILED, Command
from trivium.pipeline.cli.options import add_json
from trivium.pipeline.cli.terminal import announce, say
from trivium.pipeline.escaping import printable
from trivium.pipeline.features.cache import FILE, FeatureCache
from trivium.pipeline.space.config import SpaceError, read_space_config
from trivium.pipeline.space.joint import DEFAULT_SPACE, load_space, space_folders

HEX, RANDOM = "[0-9a-f]", "[a-z0-9_]{8}"  # the latter is of drafts, which processes leave that are killed
DRAFT_SECONDS = 3600  # what is younger may be in work
# Of each part, the paths of its files below the cache's folder.
PARTS: Mapping[str, re.Pattern[str]] = {
    "weights": re.compile(
        rf"weights/([a-z0-9-]+-{HEX}{{12}}/(manifest|config|tokenizer|model)\.(json|safetensors)"
        rf"|\.[a-z0-9-]+-{RANDOM}/(wheel|staged)/[^/]+)"
    ),
    "graphs": re.compile(rf"graphs/[^/]+-\d+/((float32|int8)\.onnx|\.(float32|int8)-{RANDOM}/[^/]+)"),
    "labels": re.compile(rf"labels/({HEX}{{32}}\.npy|\.{HEX}{{32}}\.npy-{RANDOM})"),
    "open-clip": re.compile(rf"open-clip/({HEX}{{24}}|\.{HEX}{{24}}(?=.*-))\.(tokenizer\.)?json(-{RANDOM})?"),
    "features": re.compile(r"features-\d+/[^/]+/features\.sqlite(-journal)?"),
}
ABOUT: Mapping[str, str] = {
    "weights": "of the networks, as they were fetched",
    "graphs": "made of weights, for this machine's processor",
    "labels": "vectors of label words",
    "open-clip": "what is known of open_clip's models",
    "features": "what networks say of your files and texts",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class CachePart:
    """What a part of the cache holds."""

    files: int
    size_bytes: int


def spaces(options: argparse.Namespace) -> int:
    """List the spaces."""
    listed = []
    for name, folder in space_folders().items():
        try:
            config = read_space_config(folder)
        except SpaceError as error:
            announce(f"warning: {error}")
            continue
        listed.append(
            {
                "name": name,
                "dim": config.space.dim,
                "revision": config.space.revision,
                "encoders": {modality: encoder.backbone for modality, encoder in config.encoders.items()},
                "description": config.description,
                "default": name == DEFAULT_SPACE,
            }
        )
    if options.json:
        say(json.dumps({"spaces": listed}))
        return 0
    for space in listed:
        encoders: Any = space["encoders"]
        say(f"{space['name']}{'  (default)' if space['default'] else ''}")
        say(f"    {space['dim']} dimensions, " + ", ".join(f"{m}: {b}" for m, b in encoders.items()))
        say(f"    {space['description']}")
    return 0


def pull_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of `trivium pull`."""
    parser.add_argument("space", metavar="SPACE", nargs="?", help="a space's name or folder (default: trivium-base)")


def pull(options: argparse.Namespace) -> int:
    """Fetch what a space needs; check every byte of what was fetched and made before."""
    space = load_space(options.space or DEFAULT_SPACE, announce=announce)
    for weights in space.weights():
        if weights_folder(weights).is_dir() and (damaged := damaged_files(weights)):
            announce(f"{weights.name} in the cache is damaged ({', '.join(damaged)}): fetching it again")
            fetch_again(weights, announce=announce)
    for path in drop_damaged():  # now that the weights they are made of are sound
        announce(f"{printable(str(path))} is damaged, or of an older Trivium: it is made again when needed")
    space.pull()
    for weights in space.weights():
        say(f"{weights.name:20} {weights.licence:42} {weights_folder(weights)}")
    return 0


def cache_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of `trivium cache`."""
    deletion = parser.add_mutually_exclusive_group()
    deletion.add_argument(
        "--clear",
        nargs="?",
        const="features",
        choices=(*PARTS, "all"),
        help="delete a part of it, features if none is named; what is needed is fetched or made again",
    )
    deletion.add_argument(
        "--forget", metavar="FILE", nargs="+", help="delete what is kept of the content of some pictures and sounds"
    )
    add_json(parser)


def cache(options: argparse.Namespace) -> int:
    """Tell what lies in the cache, or delete some of it."""
    root = cache_folder()
    before = _sizes(root)
    left: list[Path] = []
    forgotten: int | None = None
    if options.forget:
        forgotten = forget(root, options.forget)
    elif options.clear:
        left = clear(root, list(PARTS) if options.clear == "all" else [options.clear])
    after = _sizes(root)
    deleted = sum(before[part].size_bytes - after[part].size_bytes for part in PARTS)
    if options.json:
        told = {"folder": str(root), "parts": {part: asdict(after[part]) for part in PARTS}}
        say(json.dumps({**told, "deleted_bytes": deleted, "forgotten": forgotten}))
    elif forgotten is not None:
        say(f"{forgotten:,} kept features of {len(options.forget):,} files were deleted")
    else:
        say(root)
        for part in PARTS:
            say(f"{part:10} {_told(before[part], after[part]):>26}  {ABOUT[part]}")
    if after[""].files:
        announce(f"{after[''].files:,} other files in {root} are not Trivium's, and stay")
    for path in left:
        announce(f"{path} cannot be deleted")
    return EXIT_FAILED if left else 0


def clear(root: Path, parts: Sequence[str]) -> list[Path]:
    """Delete parts of a cache; return the files that could not be.

    Args:
        root: The cache's folder.
        parts: Names of `PARTS`.
    """
    left = []
    found = _files_of(root)
    for path in [path for part in parts for path in found[part]]:
        if _may_be_in_work(path, root):
            continue
        try:
            if path.name == FILE and not path.is_symlink():
                FeatureCache(path.parent.name, folder=path.parent.parent).delete()
            else:
                path.unlink(missing_ok=True)
        except (OSError, sqlite3.Error):
            left.append(path)
        for folder in list(path.relative_to(root).parents)[:-1]:
            with contextlib.suppress(OSError):  # it is not empty yet
                (root / folder).rmdir()
    return left


def forget(root: Path, files: Sequence[str]) -> int:
    """Delete what features of any network are kept of some files' content; return how many there were.

    Raises:
        OSError: If a file cannot be read.
    """
    keys = [bytes.fromhex(file_sha256(Path(file))) for file in files]
    kept = [path for path in _files_of(root)["features"] if path.name == FILE and not path.is_symlink()]
    return sum(FeatureCache(path.parent.name, folder=path.parent.parent).forget(keys) for path in kept)


def drop_damaged() -> list[Path]:
    """Delete what was made here and is not as it was made (every byte of it is hashed); return what that was."""
    root = cache_folder()
    found = _files_of(root)
    damaged = [path for path in found["graphs"] if not _is_draft(path, root) and not has_its_hash(path)]
    sealed = [path for path in (*found["labels"], *found["open-clip"]) if ".tokenizer." not in path.name]
    damaged += [path for path in sealed if not _is_draft(path, root) and read_sealed(path) is None]
    for path in damaged:
        path.unlink(missing_ok=True)
    return damaged


def _files_of(root: Path) -> dict[str, list[Path]]:
    """Return the files of each part below a cache's folder, and under "" what Trivium did not put there."""
    found: dict[str, list[Path]] = {name: [] for name in (*PARTS, "")}
    for path in _below(root):
        name = path.relative_to(root).as_posix()
        found[next((part for part, names in PARTS.items() if names.fullmatch(name)), "")].append(path)
    return found


def _below(root: Path) -> Iterator[Path]:
    """Yield all that is below a folder and is no folder; a link to one is a link."""
    for folder, folders, files in os.walk(root):
        links = [name for name in folders if (Path(folder) / name).is_symlink()]
        yield from (Path(folder) / name for name in sorted([*files, *links]))


def _is_draft(path: Path, root: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(root).parts)


def _may_be_in_work(path: Path, root: Path) -> bool:
    """Whether it is a draft that another process may be writing just now."""
    with contextlib.suppress(FileNotFoundError):
        return _is_draft(path, root) and time.time() - path.lstat().st_mtime < DRAFT_SECONDS
    return False


def _sizes(root: Path) -> dict[str, CachePart]:
    return {
        part: CachePart(files=len(paths), size_bytes=sum(map(_size, paths))) for part, paths in _files_of(root).items()
    }


def _size(path: Path) -> int:
    with contextlib.suppress(OSError):  # deleted meanwhile
        return path.lstat().st_size
    return 0


def _told(before: CachePart, after: CachePart) -> str:
    sizes = [f"{part.size_bytes / 1e6:,.1f} MB" for part in (before, after)]
    return sizes[0] if before == after else f"{sizes[0]}, now {sizes[1]}"


COMMANDS: Mapping[str, Command] = {
    "spaces": Command(add_json, spaces),
    "pull": Command(pull_options, pull),
    "cache": Command(cache_options, cache),
}
