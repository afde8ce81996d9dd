"""What names and patterns of paths are in SQL. No text of the user's is ever part of it: all goes by parameters.

Several patterns are alternatives. ``*`` (crosses folders), ``?`` and ``[...]`` stand for characters. A pattern matches
at any depth (``*.jpg``, ``holiday/*``) unless it begins with ``/``, ``~``, ``./`` or ``../``, or has a ``..`` in it.
One without such signs names a file or a folder, and one that ends in ``/`` a folder; a folder matches all that lies
below it. ``[[]`` is a bracket that means itself.

Patterns fold capitals and the composition of accents, as the file systems of cameras and of macOS do: ``*.jpg`` is
``IMG_1.JPG`` too. Names mean what is named exactly so; only where nothing is, what is so but for these.

SQLite calls functions of ours: its own lower() and GLOB know ASCII only, and take broken bytes for one another.
"""

import fnmatch
import functools
import glob
import os
import re
import sqlite3
import unicodedata

from trivium.pipeline.paths import named, names_of
from trivium.pipeline.store.filters import conditions
from trivium.pipeline.store.filters.conditions import Sql, folded, joined
from trivium.pipeline.store.filters.expression import FilterError

MAX_PATTERNS = 1_000
MAX_PATTERN_LENGTH = 4_096  # as Linux has it for paths
_MAGIC = re.compile(r"[*?[]")
_ESCAPED = re.compile(r"\[([*?[])\]")


def resolved(pattern: str) -> tuple[str, ...]:
    """Check a pattern, and return it as the names of items are: absolute unless it matches at any depth.

    There are two where links lead elsewhere than the pattern says: see `paths.names_of`.

    Raises:
        FilterError: If it is empty, too long, or no path can be so.
    """
    if not pattern:
        raise FilterError("a path pattern is empty")
    if len(pattern) > MAX_PATTERN_LENGTH:
        raise FilterError(f"a path pattern has {len(pattern):,} characters, at most {MAX_PATTERN_LENGTH:,} are taken")
    try:
        os.fsencode(pattern)
    except UnicodeEncodeError as error:
        raise FilterError(f"the path pattern {pattern!r} has a character that no path can have") from error
    first, slash, rest = pattern.partition("/")
    if first.startswith("~"):
        try:
            pattern = glob.escape(os.path.expanduser(first)) + slash + rest
        except ValueError as error:  # a NUL
            raise FilterError(f"the path pattern {pattern!r} names no user") from error
    elif first == "." or ".." in pattern.split("/"):
        pattern = os.path.join(glob.escape(os.getcwd()), pattern)
    if "\0" in pattern:
        return (pattern,)  # no file has such a name
    if pattern.startswith("/"):
        return _followed(pattern)
    return (pattern, *_here(pattern))


def path_condition(pattern: str) -> Sql:
    """Return the condition of a pattern that is `resolved`."""
    absolute, folder = pattern.startswith("/"), pattern.endswith("/")
    if not _has_magic(pattern):
        return _named(_plain(pattern).rstrip("/"), absolute=absolute, folder=folder, folds_case=True)
    if pattern[0] == "*" and not _MAGIC.search(pattern, 1) and "/" not in pattern and pattern.isascii():
        end = pattern[1:].lower()  # *.jpg, the usual one, without a call of ours for every item
        return Sql("lower(substr(i.path, ?)) = ?", (-len(end), end)) if end else Sql("1")
    whole = os.fsencode(pattern if absolute else f"*/{pattern}") + (b"*" if folder else b"")
    matching = Sql("trivium_glob(i.path, ?)", (whole,))
    if not absolute:
        return matching
    start, _ = _split(pattern)  # with it, SQLite can use the order of paths
    return joined("AND", [_named(start.rstrip("/"), absolute=True, folder=True, folds_case=True), matching])


def conditions_of(path: str, *, or_pattern: bool) -> list[Sql]:
    """Return the conditions of what is to be forgotten; the first that an item meets is the one that counts.

    A path is the name of a file or a folder, from the current folder on, whatever signs it has, and in capitals or not
    as the user wrote it. Only where neither an item nor a file is named so, one with signs may be a pattern.

    Raises:
        FilterError: If it cannot be a pattern.
        ValueError: If it is empty, or has a NUL.
    """
    found = [
        _named(name.rstrip("/"), absolute=True, folder=path.endswith("/"), folds_case=False) for name in names_of(path)
    ]
    if or_pattern and _has_magic(path) and not os.path.lexists(path):
        found.append(joined("OR", [path_condition(pattern) for pattern in resolved(path)]))
    return found


def _followed(pattern: str) -> tuple[str, ...]:
    """Return an absolute pattern with the links of its folders followed, and as it is."""
    start, rest = _split(pattern)
    end = "/" if pattern.endswith("/") else ""
    as_named = os.path.normpath(os.path.join(glob.escape(named(start)), rest)).rstrip("/") + end
    return tuple(dict.fromkeys((as_named, os.path.normpath(pattern).rstrip("/") + end)))


def _here(pattern: str) -> tuple[str, ...]:
    """Return what a name at any depth means in the current folder, if a link there leads elsewhere."""
    if _has_magic(pattern) or not os.path.lexists(_plain(pattern)):
        return ()
    name = named(_plain(pattern))
    end = "/" if pattern.endswith("/") else ""
    return () if f"{name}/".endswith(f"/{_plain(pattern).rstrip('/')}/") else (glob.escape(name) + end,)


def _split(pattern: str) -> tuple[str, str]:
    """Split an absolute pattern into the folder that it names, without escapes, and what begins with a sign."""
    parts = pattern.split("/")
    count = next((at for at, part in enumerate(parts) if _has_magic(part)), len(parts))
    return _plain("/".join(parts[:count])) or "/", "/".join(parts[count:])


def _has_magic(pattern: str) -> bool:
    return _MAGIC.search(_ESCAPED.sub("", pattern)) is not None


def _plain(pattern: str) -> str:
    return _ESCAPED.sub(r"\1", pattern)


def _named(name: str, *, absolute: bool, folder: bool, folds_case: bool) -> Sql:
    """Return the condition of a name: what is named so, else what is so but for composition and perhaps capitals."""
    own = os.fsencode(name)
    if absolute:  # 0 comes after /
        below = Sql("i.path >= ? AND i.path < ?", (own + b"/", own + b"0"), "AND")
        exact = below if folder else joined("OR", [Sql("i.path = ?", (own,)), below])
    else:
        below = Sql("instr(i.path, ?) > 0", (b"/" + own + b"/",))
        end = b"/" + own
        exact = below if folder else joined("OR", [Sql("substr(i.path, ?) = ?", (-len(end), end)), below])
    like = Sql(
        "trivium_is_named(i.path, ?, ?, ?, ?)", (_alike(own, folds_case=folds_case), absolute, folder, folds_case)
    )
    # CROSS JOIN keeps the order: where something is named so, no other path is looked at.
    return Sql(
        f"i.id IN (SELECT i.id FROM item AS i WHERE {exact.text} UNION ALL SELECT i.id FROM "
        f"(SELECT 1 WHERE NOT EXISTS (SELECT 1 FROM item AS i WHERE {exact.text})) CROSS JOIN item AS i "
        f"WHERE {like.text})",
        (*exact.parameters, *exact.parameters, *like.parameters),
    )


def register_functions(db: sqlite3.Connection) -> None:
    """Give a connection the functions that conditions call."""
    conditions.register_functions(db)
    db.create_function("trivium_glob", 2, _matches, deterministic=True)
    db.create_function("trivium_is_named", 5, _is_named, deterministic=True)


def _is_named(path: bytes, name: bytes, absolute: int, folder: int, folds_case: int) -> bool:
    whole = _alike(path, folds_case=bool(folds_case)) + b"/"
    wanted = name + b"/" if absolute else b"/" + name + b"/"
    place = 0 if absolute and whole.startswith(wanted) else -1 if absolute else whole.find(wanted)
    return place >= 0 and not (folder and place + len(wanted) == len(whole))


def _alike(path: bytes, *, folds_case: bool) -> bytes:
    """Return the same bytes for paths that are the same but for the composition of accents, and perhaps capitals."""
    if folds_case:
        return folded(path) or b""
    if path.isascii():
        return path
    text = path.decode("utf-8", "surrogateescape")
    return unicodedata.normalize("NFC", text).encode("utf-8", "surrogateescape")


def _matches(path: bytes, pattern: bytes) -> bool:
    exact, alike = _matchers(pattern)
    if exact.match(os.fsdecode(path)) is not None:
        return True
    return alike.match((folded(path) or b"").decode("utf-8", "surrogateescape")) is not None


@functools.lru_cache(maxsize=MAX_PATTERNS)
def _matchers(pattern: bytes) -> tuple[re.Pattern[str], re.Pattern[str]]:
    """Return what matches as it is and folded; their stars never backtrack: no pattern takes for ever."""
    alike = (folded(pattern) or b"").decode("utf-8", "surrogateescape")
    return re.compile(fnmatch.translate(os.fsdecode(pattern))), re.compile(fnmatch.translate(alike))
