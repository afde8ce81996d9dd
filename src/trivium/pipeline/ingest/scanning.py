"""Finding the media: walks files and folders, pairs each file with its caption and sidecar. Reads no content."""

import os
import re
import stat
import time
from collections import Counter
from collections.abc import Callable, Collection, Container, Mapping, Sequence
from dataclasses import dataclass, field

from trivium.encoders.base import DecodeError
from trivium.pipeline.ingest.excludes import IGNORE_FILE, Excludes, read_ignore_file
from trivium.pipeline.records import ItemKind
from trivium.pipeline.store.database_file import DATABASE
from trivium.pipeline.store.roots import nearest
from trivium.pipeline.suffixes import SUFFIXES, kind_of_name, missing_extra, suffix_of, why_not

CAPTION_SUFFIX = ".txt"  # photo.jpg.txt, else photo.txt
SIDECAR_SUFFIX = ".json"  # metadata: photo.jpg.json, else photo.json, else as Google Takeout names it
TAKEOUT = ".supplemental-metadata"  # photo.jpg.supplemental-metadata.json, cut anywhere where names are long
TAKEOUT_CUTS = range(51, 45, -1)  # characters that are left of a long name, without its suffix
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
    passed: Counter[str] = field(default_factory=Counter)  # files that are not taken, by suffix: see `why_passed`
    passed_below: dict[str, Counter[str]] = field(default_factory=dict)  # the same for each root that is a folder
    excluded: dict[str, str] = field(default_factory=dict)  # files and folders that are left out, with the pattern
    roots: set[str] = field(default_factory=set)  # what was walked; items below and not seen are gone
    devices: dict[str, int] = field(default_factory=dict)  # on which the roots lie
    shallow: dict[str, set[str]] = field(default_factory=dict)  # roots whose own files alone were met: their folders
    unseen: set[str] = field(default_factory=set)  # what could not be looked at, or not be decoded here

    def covers(self, path: str) -> bool:
        """Whether the walk would have met this path, had it been there."""
        root = nearest(path, self.roots)
        if root is None or nearest(path, self.unseen) is not None:
            return False
        return root not in self.shallow or nearest(path, self.shallow[root]) is None

    def excluded_by(self, path: str) -> str | None:
        """Return the pattern by which a path, or a folder that it lies in, was left out; None if it was not."""
        above = nearest(path, self.excluded)
        return None if above is None else self.excluded[above]


def scan_media(
    roots: Collection[str],
    *,
    shallow: bool = False,
    excludes: Mapping[str, Excludes] | None = None,
) -> Scan:
    """Walk files and folders, given as `paths.named` has them; one that lies in another is walked once, by itself.

    Links inside a folder are not followed: what they lead to may be asked for too, and they may lead in circles.
    Collections are passed over, and what is excluded is left out, by ``excludes`` of each root, else what usually is;
    not what is asked for by its own name.
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
            before = scan.passed.copy()
            _walk(path, scan, seen, (excludes or {}).get(path) or Excludes.of_root(path), apart=roots)
            scan.passed_below[path] = scan.passed - before
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


def _walk(root: str, scan: Scan, seen: set[str], excludes: Excludes, apart: Container[str]) -> None:
    folders = [(root, excludes)]
    while folders:
        folder, excludes = folders.pop()
        try:
            with os.scandir(folder) as listing:
                entries = {entry.name: entry for entry in listing}
        except OSError as error:
            scan.problems.append(Problem(path=folder, reason=_reason(error)))
            scan.unseen.add(folder)
            continue
        if DATABASE in entries and "vectors" in entries:
            continue  # a collection
        if IGNORE_FILE in entries:
            del entries[IGNORE_FILE]
            try:
                excludes = _within(folder, excludes, scan)
            except DecodeError as error:
                reason = f"{error}; the folder is not looked at, for what must not be indexed is not known"
                scan.problems.append(Problem(path=os.path.join(folder, IGNORE_FILE), reason=reason))
                scan.unseen.add(folder)
                continue
        entries = _not_excluded(entries, excludes, scan)
        captions, sidecars, others = set(), set(), []
        names = _Names(entries)
        # Texts last: those are left out that are captions of what was taken; one beside a link is an item.
        for entry in sorted(entries.values(), key=lambda entry: _is_caption_name(entry.name)):
            if entry.is_symlink():
                if kind_of_name(entry.name) or os.path.isdir(entry.path):
                    scan.problems.append(Problem(path=entry.path, reason="a symbolic link, not followed"))
            elif entry.is_dir():
                if root in scan.shallow:
                    scan.shallow[root].add(entry.path)
                elif entry.path not in apart:
                    folders.append((entry.path, excludes))
            elif kind_of_name(entry.name) is None:
                others.append(entry.name)
            elif entry.name not in captions:
                found = _beside(entry.name, names)
                captions.add(found[0])
                sidecars.add(found[1])
                caption, sidecar = (os.path.join(folder, name) if name else None for name in found)
                _take(entry.path, caption, sidecar, scan, seen)
        scan.passed.update(suffix_of(name) for name in others if name not in sidecars)


def _within(folder: str, excludes: Excludes, scan: Scan) -> Excludes:
    """Return what is left out in a folder that has a file which says so."""
    path = os.path.join(folder, IGNORE_FILE)
    patterns, problems = read_ignore_file(path)
    scan.problems += [Problem(path=path, reason=problem) for problem in problems]
    return excludes.within(folder, patterns)


def _not_excluded(
    entries: Mapping[str, "os.DirEntry[str]"], excludes: Excludes, scan: Scan
) -> dict[str, "os.DirEntry[str]"]:
    kept = {}
    for name, entry in entries.items():
        if (pattern := excludes.pattern_of(entry)) is None:
            kept[name] = entry
        else:
            scan.excluded[entry.path] = pattern
    return kept


def _take_one(path: str, scan: Scan, seen: set[str]) -> None:
    """Take a file that was named itself, not found in a folder."""
    name = os.path.basename(path)
    if (reason := why_not(suffix_of(name))) is not None:
        scan.problems.append(Problem(path=path, reason=reason))
        scan.unseen.add(path)
        return
    present = _Present()
    if _is_caption_name(name):
        stem = _stem(path)
        media = [stem, *(stem + suffix for suffix in SUFFIXES)]
        for other in media:
            if kind_of_name(other) not in (None, "text") and other in present and _beside(other, present)[0] == path:
                reason = f"the caption of {os.path.basename(other)}: name that file"
                scan.problems.append(Problem(path=path, reason=reason))
                return
    _take(path, *_beside(path, present), scan, seen)


class _Present:
    """All paths that there are."""

    def __contains__(self, path: object) -> bool:
        return os.path.lexists(str(path))

    def names(self, beside: str) -> list[str]:
        folder = os.path.dirname(beside)
        return [os.path.join(folder, name) for name in os.listdir(folder)]


class _Names:
    """The names in a folder."""

    def __init__(self, names: Collection[str]) -> None:
        self._names = names
        # Most folders have no such sidecars, and need not be asked for each of their possible names.
        self.has_takeout = any(_TAKEOUT_NAME.search(name) for name in names)

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def names(self, _: str) -> Collection[str]:
        return self._names


def _beside(name: str, present: "_Names | _Present") -> tuple[str | None, str | None]:
    """Names of a file's caption and sidecar, where there are such."""
    bases = (name, _stem(name))
    captions = (base + suffix for base in bases for suffix in _CAPTION_SPELLINGS)
    caption = None if kind_of_name(name) == "text" else next((found for found in captions if found in present), None)
    sidecar = next((base + SIDECAR_SUFFIX for base in bases if base + SIDECAR_SUFFIX in present), None)
    return caption, sidecar or _takeout_sidecar(name, present)


def _takeout_sidecar(path: str, present: "_Names | _Present") -> str | None:
    """Return the name of a file's sidecar as Google Takeout writes it.

    The number of a name that occurs several times, which is before a picture's suffix, is at the end there:
    ``photo(1).jpg`` has ``photo.jpg.supplemental-metadata(1).json``. Long names are cut, of long names of pictures
    even these; such a one is taken only where it can be no other picture's.
    """
    if isinstance(present, _Names) and not present.has_takeout:
        return None
    folder, name = os.path.split(path)
    stem, suffix = os.path.splitext(name)
    number = _NUMBERED.search(stem)
    plain, count = (stem[: number.start()] + suffix, number[0]) if number else (name, "")
    for end in range(len(TAKEOUT), -1, -1):
        if (found := os.path.join(folder, f"{plain}{TAKEOUT[:end]}{count}{SIDECAR_SUFFIX}")) in present:
            return found
    for end in TAKEOUT_CUTS:
        found = os.path.join(folder, f"{plain[:end]}{count}{SIDECAR_SUFFIX}")
        if end < len(plain) and found in present:
            begins = os.path.join(folder, plain[:end])
            alike = (other for other in present.names(path) if other.startswith(begins) and kind_of_name(other))
            return None if any(_stem(other) != _stem(path) for other in alike) else found
    return None


def _take(path: str, caption_path: str | None, sidecar_path: str | None, scan: Scan, seen: set[str]) -> None:
    if path in seen:
        return
    seen.add(path)
    modality = kind_of_name(path)
    assert modality is not None
    if missing_extra(suffix := suffix_of(path)) is not None:
        scan.passed[suffix] += 1
        scan.unseen.add(path)  # what is known of it stays
        return
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


_TAKEOUT_NAME = re.compile(r"\.(s[a-z-]*)?(\(\d+\))?\.json$|\(\d+\)\.json$|.{46}\.json$")
_NUMBERED = re.compile(r"\([1-9]\d*\)$", re.ASCII)
_CAPTION_SPELLINGS = (CAPTION_SUFFIX, CAPTION_SUFFIX.upper())


def _stem(name: str) -> str:
    return os.path.splitext(name)[0]


def _is_caption_name(name: str) -> bool:
    return name.lower().endswith(CAPTION_SUFFIX)


def _reason(error: OSError) -> str:
    if isinstance(error, FileNotFoundError):
        return "no such file or folder"
    if isinstance(error, PermissionError):
        return "permission denied"
    return error.strerror or type(error).__name__
