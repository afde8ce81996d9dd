"""Finding the media: walks files and folders, pairs each file with its caption and sidecar. Reads no content."""

import os
import stat
import time
from collections.abc import Callable, Collection, Container, Sequence
from dataclasses import dataclass, field

from trivium.pipeline.records import SUFFIXES, ItemKind
from trivium.pipeline.store.database_file import DATABASE
from trivium.pipeline.store.roots import nearest

CAPTION_SUFFIX = ".txt"
SIDECAR_SUFFIX = ".json"  # metadata: photo.jpg.json, else photo.json
# A file changed this shortly before it was read may change again without its times telling (FAT counts in 2 s).
FRESH_NS = 2_000_000_000
FRESH = "fresh"  # stands for the fingerprint of such a file, and equals none


@dataclass(frozen=True, slots=True, kw_only=True)
class MediaFile:
    """One file to be an item."""

    path: str  # absolute; bytes that are not UTF-8 as surrogates, as Python's os has them
    modality: ItemKind
    fingerprint: str
    size_bytes: int = 0
    caption_path: str | None = None
    sidecar_path: str | None = None
    beside: str = ""  # fingerprints of the caption's and the sidecar's file


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """A file that was left out, or whose caption was, and why."""

    path: str
    reason: str


@dataclass(slots=True)
class Scan:
    """All that a walk found."""

    files: list[MediaFile] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    ignored: int = 0  # files of other kinds
    roots: set[str] = field(default_factory=set)  # what was walked; items below and not seen are gone
    devices: dict[str, int] = field(default_factory=dict)  # on which the roots lie
    shallow: dict[str, set[str]] = field(default_factory=dict)  # roots whose own files alone were met: their folders
    unseen: set[str] = field(default_factory=set)  # folders and files that could not be looked at

    def covers(self, path: str) -> bool:
        """Whether the walk would have met this path, had it been there."""
        root = nearest(path, self.roots)
        if root is None or nearest(path, self.unseen) is not None:
            return False
        return root not in self.shallow or nearest(path, self.shallow[root]) is None


def scan_media(roots: Collection[str], *, shallow: bool = False) -> Scan:
    """Walk files and folders, given as `paths.named` has them; one that lies in another is walked once, by itself.

    Links inside a folder are not followed: what they lead to may be asked for too, and they may lead in circles. Hidden
    files and folders (a leading dot) and collections are passed over.
    """
    scan = Scan()
    seen: set[str] = set()
    for path in roots:
        try:
            status = os.stat(path)
        except OSError as error:
            scan.problems.append(Problem(path=path, reason=_reason(error)))
            continue
        scan.roots.add(path)
        scan.devices[path] = status.st_dev
        if stat.S_ISDIR(status.st_mode):
            if shallow:
                scan.shallow[path] = set()
            _walk(path, scan, seen, apart=roots)
        else:
            _take_one(path, scan, seen)
    scan.files.sort(key=lambda file: (file.modality, os.fsencode(file.path)))
    return scan


def fingerprint(status: os.stat_result) -> str:
    """Tell one state of a file from another without reading it.

    The time of the last status change is part of it: a changed file with a forged modification time is noticed too.
    """
    return f"{status.st_size}-{status.st_mtime_ns}-{status.st_ctime_ns}-{status.st_ino}"


def lasting_fingerprint(path: str) -> str:
    """Fingerprint that will tell any later change, or `FRESH` if the file is too fresh for that."""
    try:
        status = os.lstat(path)
    except OSError:
        return FRESH
    is_fresh = time.time_ns() - max(status.st_mtime_ns, status.st_ctime_ns) < FRESH_NS
    return FRESH if is_fresh else fingerprint(status)


def fingerprint_beside(paths: Sequence[str | None], fingerprint_at: Callable[[str], str]) -> str:
    """Tell one state of a file's caption and sidecar from another; empty if there is neither."""
    return "+".join(fingerprint_at(path) if path else "" for path in paths) if any(paths) else ""


def _walk(root: str, scan: Scan, seen: set[str], apart: Container[str]) -> None:
    folders = [root]
    while folders:
        folder = folders.pop()
        try:
            with os.scandir(folder) as listing:
                entries = {entry.name: entry for entry in listing}
        except OSError as error:
            scan.problems.append(Problem(path=folder, reason=_reason(error)))
            scan.unseen.add(folder)
            continue
        if DATABASE in entries and "vectors" in entries:
            continue  # a collection
        # Only what will be taken can have a caption: a text beside a link is an item of its own.
        with_captions = {
            _stem(entry.name)
            for entry in entries.values()
            if _modality(entry.name) in ("image", "audio", "video")
            and not entry.is_symlink()
            and not entry.name.startswith(".")
        }
        sidecars, others = set(), []
        for entry in entries.values():
            if entry.name.startswith("."):
                continue
            if entry.is_symlink():
                if _modality(entry.name) or os.path.isdir(entry.path):
                    scan.problems.append(Problem(path=entry.path, reason="a symbolic link, not followed"))
            elif entry.is_dir():
                if root in scan.shallow:
                    scan.shallow[root].add(entry.path)
                elif entry.path not in apart:
                    folders.append(entry.path)
            elif _modality(entry.name) is None:
                others.append(entry.name)
            elif not (_is_caption_name(entry.name) and _stem(entry.name) in with_captions):
                found = _beside(entry.name, entries)
                sidecars.add(found[1])
                caption, sidecar = (os.path.join(folder, name) if name else None for name in found)
                _take(entry.path, caption, sidecar, scan, seen)
        scan.ignored += sum(name not in sidecars for name in others)


def _take_one(path: str, scan: Scan, seen: set[str]) -> None:
    """Take a file that was named itself, not found in a folder."""
    name = os.path.basename(path)
    if _modality(name) is None:
        known = " ".join(SUFFIXES)
        scan.problems.append(Problem(path=path, reason=f"not a kind of file that is indexed ({known})"))
        return
    stem = os.path.join(os.path.dirname(path), _stem(name))
    if _is_caption_name(name):
        for suffix, modality in SUFFIXES.items():
            if modality != "text" and os.path.lexists(stem + suffix):
                scan.problems.append(
                    Problem(path=path, reason=f"the caption of {_stem(name) + suffix}: name that file")
                )
                return
    _take(path, *_beside(path, _Present()), scan, seen)


class _Present:
    """All paths that there are."""

    def __contains__(self, path: object) -> bool:
        return os.path.lexists(str(path))


def _beside(name: str, present: Container[str]) -> tuple[str | None, str | None]:
    """Names of a file's caption and sidecar, where there are such."""
    stem = _stem(name)
    caption = next((stem + suffix for suffix in _CAPTION_SPELLINGS if stem + suffix in present), None)
    sidecar = next((base + SIDECAR_SUFFIX for base in (name, stem) if base + SIDECAR_SUFFIX in present), None)
    return (None if _modality(name) == "text" else caption), sidecar


def _take(path: str, caption_path: str | None, sidecar_path: str | None, scan: Scan, seen: set[str]) -> None:
    if path in seen:
        return
    seen.add(path)
    modality = _modality(os.path.basename(path))
    assert modality is not None
    try:
        status = os.lstat(path)
    except OSError as error:
        scan.problems.append(Problem(path=path, reason=_reason(error)))
        if not isinstance(error, FileNotFoundError):
            scan.unseen.add(path)
        return
    if not stat.S_ISREG(status.st_mode):
        scan.problems.append(Problem(path=path, reason="not a regular file"))
        return
    scan.files.append(
        MediaFile(
            path=path,
            modality=modality,
            fingerprint=fingerprint(status),
            size_bytes=status.st_size,
            caption_path=caption_path,
            sidecar_path=sidecar_path,
            beside=fingerprint_beside((caption_path, sidecar_path), _fingerprint_at),
        )
    )


def _fingerprint_at(path: str) -> str:
    try:
        return fingerprint(os.lstat(path))
    except OSError:
        return ""


_CAPTION_SPELLINGS = (CAPTION_SUFFIX, CAPTION_SUFFIX.upper())


def _stem(name: str) -> str:
    return os.path.splitext(name)[0]


def _modality(name: str) -> ItemKind | None:
    return SUFFIXES.get(os.path.splitext(name)[1].lower())


def _is_caption_name(name: str) -> bool:
    return name.lower().endswith(CAPTION_SUFFIX)


def _reason(error: OSError) -> str:
    if isinstance(error, FileNotFoundError):
        return "no such file or folder"
    if isinstance(error, PermissionError):
        return "permission denied"
    return error.strerror or type(error).__name__
