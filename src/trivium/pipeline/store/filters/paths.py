"""Patterns of paths, as conditions.

Several patterns are alternatives. ``*`` (crosses folders), ``?`` and ``[...]`` stand for characters; case
counts. A pattern matches at any depth (``*.jpg``, ``holiday/*``) unless it begins with ``/``, ``~``, ``./`` or ``../``.
One without such signs names a file or a folder, and one that ends in ``/`` a folder; a folder matches all that lies
below it. ``[[]`` is a bracket that means itself.
"""

import glob
import os
import re

from trivium.pipeline.store.filters.error import FilterError
from trivium.pipeline.store.filters.sql import Sql, joined

MAX_PATTERNS = 1_000
MAX_PATTERN_LENGTH = 4_096  # as Linux has it for paths
_MAGIC = re.compile(r"[*?[]")
_ESCAPED = re.compile(r"\[([*?[])\]")


def resolved(pattern: str) -> str:
    """Check a pattern and make ``~/x`` and ``./x`` absolute."""
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
    elif first in (".", ".."):
        pattern = os.path.join(glob.escape(os.getcwd()), pattern)
    if pattern.startswith("/"):
        return os.path.normpath(pattern).rstrip("/") + ("/" if pattern.endswith("/") else "")
    return pattern


def path_condition(pattern: str) -> Sql:
    """Return the condition of a pattern that is `resolved`."""
    absolute, folder = pattern.startswith("/"), pattern.endswith("/")
    plain = _ESCAPED.sub("", pattern)
    if not _MAGIC.search(plain):  # the name of a file or a folder
        name = os.fsencode(_ESCAPED.sub(r"\1", pattern).rstrip("/"))
        if absolute:
            below = Sql("i.path >= ? AND i.path < ?", (name + b"/", name + b"0"), "AND")  # 0 comes after /
            return below if folder else joined("OR", [Sql("i.path = ?", (name,)), below])
        below = Sql("instr(i.path, ?) > 0", (b"/" + name + b"/",))
        return below if folder else joined("OR", [_ends_with(b"/" + name), below])
    if pattern[0] == "*" and not _MAGIC.search(pattern, 1) and "/" not in pattern:
        return _ends_with(os.fsencode(pattern[1:]))  # *.jpg, the usual one, without a call for every item
    whole = os.fsencode(pattern if absolute else f"*/{pattern}") + (b"*" if folder else b"")
    matching = Sql("trivium_glob(i.path, ?)", (whole,))
    if not absolute:
        return matching
    start = os.fsencode(_MAGIC.split(pattern, maxsplit=1)[0]).rstrip(b"\xff")
    return joined("AND", [Sql("i.path >= ?", (start,)), Sql("i.path < ?", (_after(start),)), matching])


def _ends_with(end: bytes) -> Sql:
    return Sql("substr(i.path, ?) = ?", (-len(end), end)) if end else Sql("1")


def _after(start: bytes) -> bytes:
    """Return the first bytes that come after all that begin so: with it, SQLite can use the order of paths."""
    return start[:-1] + bytes([start[-1] + 1])
