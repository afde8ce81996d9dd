"""Functions that SQLite calls: its own lower() and GLOB know ASCII only, and take broken bytes for one another."""

import fnmatch
import functools
import json
import os
import re
import sqlite3
import unicodedata

from trivium.pipeline.store.filters.paths import MAX_PATTERNS


def register_functions(db: sqlite3.Connection) -> None:
    """Give a connection the functions that the conditions call."""
    db.create_function("trivium_fold", 1, folded, deterministic=True)
    db.create_function("trivium_name", 1, os.path.basename, deterministic=True)
    db.create_function("trivium_glob", 2, _matches, deterministic=True)
    db.create_function("trivium_entry", 2, _entry, deterministic=True)


def folded(value: str | bytes | float | None) -> bytes | None:
    """Texts that are the same but for capitals and the composition of accents give the same bytes.

    Bytes, because text need not be valid UTF-8 (paths), and because SQLite and we then agree on their order.
    """
    if value is None:
        return None
    if isinstance(value, bytes):
        if value.isascii():
            return value.lower()
        text = value.decode("utf-8", "surrogateescape")
    else:
        text = str(value)
        if text.isascii():
            return text.lower().encode()
    return _composed(text) if len(text) <= 100 else _composed.__wrapped__(text)


@functools.lru_cache(maxsize=4_096)  # the same few names stand in the metadata of many items
def _composed(text: str) -> bytes:
    folded = unicodedata.normalize("NFD", text).casefold()
    return unicodedata.normalize("NFC", folded).encode("utf-8", "surrogateescape")


def _matches(path: bytes, pattern: bytes) -> bool:
    return _matcher(pattern).match(os.fsdecode(path)) is not None


@functools.lru_cache(maxsize=MAX_PATTERNS)
def _matcher(pattern: bytes) -> re.Pattern[str]:
    return re.compile(fnmatch.translate(os.fsdecode(pattern)))  # its stars never backtrack: no pattern takes for ever


def _entry(metadata: str | None, key: str) -> str | None:
    """For keys that no JSON path of every SQLite can name: the value alone, under a name that it can."""
    if metadata is None or json.dumps(key, ensure_ascii=False) not in metadata:
        return None
    entries = json.loads(metadata)
    return json.dumps({"value": entries[key]}, ensure_ascii=False) if key in entries else None
