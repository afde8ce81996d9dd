"""What a walk leaves out: patterns in git's syntax, of the command line, of `.triviumignore` files, and usual ones.

As git has it: a pattern is relative to its folder, of several that match the last decides, ``!`` takes in again, and
what lies in a folder that is left out is left out with it. Patterns that are given come first, then the file of the
nearest folder, at last the usual ones. Upper and lower case are the same, as cameras and their file systems have it.
"""

import os
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass

from trivium.encoders.base import DecodeError
from trivium.encoders.files.reading import read_file

IGNORE_FILE = ".triviumignore"
MAX_IGNORE_FILE_BYTES = 1 << 20
# What network disks, systems and programs put beside media; hidden files and folders come first, to be told as what
# else they are.
DEFAULTS = (
    *(".*", "._*", ".git", ".Trash*", "\\#recycle", "@eaDir", "$RECYCLE.BIN", "System Volume Information"),
    *("Thumbs.db", "desktop.ini", "*.lrdata", "node_modules", "__MACOSX"),
)
MAX_PATTERNS = 10_000  # of one file
MAX_ANY_DEPTHS = 2  # of `**` in one pattern: a path is tried in so many dimensions
_ONE, _ANY = "[^/]", "[^/]*"  # how pathspec writes `?` and `*`
_ANY_DEPTHS = ("(?:.+/)?", "(?:/.+)?")  # and `**`


class PatternError(ValueError):
    """A pattern that cannot be used."""


@dataclass(frozen=True, slots=True)
class Pattern:
    """One line."""

    text: str
    regex: str  # of a name, or of a path relative to the pattern's folder; of a folder's with a slash at the end
    excludes: bool
    is_of_names: bool  # whatever folder they are in

    @classmethod
    def parse(cls, line: str) -> "Pattern | None":
        """Read a line; None if it is blank or a comment.

        Raises:
            PatternError: If it is no pattern.
        """
        from pathspec.patterns.gitignore.spec import GitIgnoreSpecPattern  # who only searches need not wait for it

        line = unicodedata.normalize("NFC", line)
        try:
            regex, excludes = GitIgnoreSpecPattern.pattern_to_regex(line)
        except ValueError as error:
            raise PatternError(f"no pattern as git has it: '{line}'") from error
        if excludes is None or regex is None:
            if line.strip() and not line.startswith("#"):
                raise PatternError(f"no pattern as git has it: '{line}'")
            return None
        if sum(regex.count(depth) for depth in _ANY_DEPTHS) > MAX_ANY_DEPTHS:
            raise PatternError(f"more than {MAX_ANY_DEPTHS} '**' in one pattern: '{line}'")
        # pathspec's expressions match what is below a path too, which a walk from above does not come to.
        own = f"{_linear(regex)}." if regex.endswith("/") else f"(?:{_linear(regex)})\\Z"
        own = own.replace("(?P<ps_d>/)", "/")
        try:
            _compiled(own)
        except re.error as error:
            raise PatternError(f"no pattern as git has it: '{line}'") from error
        plain = line.removeprefix("!").rstrip()
        return cls(plain.removeprefix("\\"), own, excludes, "/" not in plain.rstrip("/"))


def _linear(regex: str) -> str:
    """Have what stands between two `*` of a name found once, at the first place where it is, which is enough.

    Else a hostile pattern of many `*` takes time without end.
    """
    first, *others = regex.split(_ANY)
    if not others:
        return first
    *between, last = others
    # What ends a name ends the search for it anyway.
    pieces = [f"{_ANY}{piece}" if "/" in piece.replace(_ONE, "") else f"(?>[^/]*?{piece})" for piece in between]
    return "".join([first, *pieces, _ANY, last])


class _Level:
    """The patterns of one folder."""

    def __init__(self, folder: str, patterns: Iterable[Pattern]) -> None:
        self._start = len(folder.rstrip(os.sep)) + 1  # of what is relative to it in a path
        self._patterns = [(pattern, _compiled(pattern.regex)) for pattern in reversed(list(patterns))]
        self.names = [pattern.regex for pattern, _ in self._patterns if pattern.excludes and pattern.is_of_names]
        paths = [pattern.regex for pattern, _ in self._patterns if pattern.excludes and not pattern.is_of_names]
        self.paths = _compiled("|".join(paths)) if paths else None

    def may_exclude(self, path: str, end: str) -> bool:
        """Whether a pattern of paths, not only of names, matches an entry."""
        return self.paths is not None and self.paths.search(_folded(path[self._start :] + end)) is not None

    def decision(self, name: str, path: str, end: str) -> Pattern | None:
        """Return the pattern that decides about an entry, if one does."""
        below, name = _folded(path[self._start :] + end), _folded(name + end)
        for pattern, regex in self._patterns:
            if regex.search(name if pattern.is_of_names else below):
                return pattern
        return None


class Excludes:
    """What is left out in a folder, and below it as far as nothing more is said there."""

    def __init__(self, levels: tuple[_Level, ...]) -> None:
        self._levels = levels  # the stronger ones first
        # Nearly all entries match no pattern: one expression tells.
        names = dict.fromkeys(regex for level in levels for regex in level.names)
        self._names = _compiled("|".join(names)) if names else None
        self._with_paths = [level for level in levels if level.paths]

    @classmethod
    def of_root(cls, folder: str, patterns: Iterable[Pattern] = (), *, defaults: bool = True) -> "Excludes":
        """Return what is left out below a folder that is walked."""
        usual = given_patterns(DEFAULTS) if defaults else ()
        return cls((_Level(folder, patterns), _Level(folder, usual)))

    def within(self, folder: str, patterns: Iterable[Pattern]) -> "Excludes":
        """Return the same with what a file in a folder says of that folder."""
        given, *others = self._levels
        return Excludes((given, _Level(folder, patterns), *others))

    def pattern_of(self, entry: "os.DirEntry[str]") -> str | None:
        """Return the pattern by which an entry is left out; None if it is not."""
        name, path = entry.name, entry.path
        end = "/" if entry.is_dir(follow_symlinks=False) else ""
        if self._names is None or not self._names.search(_folded(name + end)):
            if not self._with_paths or not any(level.may_exclude(path, end) for level in self._with_paths):
                return None
        for level in self._levels:
            if (pattern := level.decision(name, path, end)) is not None:
                return pattern.text if pattern.excludes else None
        return None


def given_patterns(lines: Iterable[str]) -> tuple[Pattern, ...]:
    """Read patterns that were given as options.

    Raises:
        PatternError: If one is none, or empty.
    """
    found = []
    for line in lines:
        pattern = Pattern.parse(line)
        if pattern is None:
            raise PatternError(f"an empty pattern or a comment excludes nothing: '{line}'")
        found.append(pattern)
    return tuple(found)


def read_ignore_file(path: str) -> tuple[list[Pattern], list[str]]:
    """Read a folder's file: its patterns, and what is wrong with lines of it.

    Raises:
        DecodeError: If it cannot be read, or is too large.
    """
    data = read_file(path, max_bytes=MAX_IGNORE_FILE_BYTES)
    lines = os.fsdecode(data.removeprefix(b"\xef\xbb\xbf")).splitlines()  # names too may be of any bytes
    if len(lines) > MAX_PATTERNS:
        raise DecodeError(f"{len(lines):,} lines, the limit is {MAX_PATTERNS:,}")
    patterns, problems = [], []
    for number, line in enumerate(lines, 1):
        try:
            pattern = Pattern.parse(line)
        except PatternError as error:
            problems.append(f"line {number} left out: {error}")
            continue
        if pattern is not None:
            patterns.append(pattern)
    return patterns, problems


def _compiled(regex: str) -> "re.Pattern[str]":
    return re.compile(regex, re.IGNORECASE | re.DOTALL)


def _folded(name: str) -> str:
    return name if name.isascii() else unicodedata.normalize("NFC", name)
