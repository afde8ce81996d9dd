"""Where in an item a hit is: a time, or the words of a text."""

import os
from typing import TYPE_CHECKING

from trivium.pipeline.ingest.scanning import fingerprint

if TYPE_CHECKING:
    from trivium.pipeline.search.retrieval import Hit

MAX_CHARACTERS = 240  # of an excerpt
MAX_FILE_BYTES = 64 << 20  # no larger text is indexed


def place_of(hit: "Hit") -> str:
    """Say where in an item a hit is: ``at 01:23``, or which characters of a text; empty if it is the whole."""
    if hit.start is None:
        return ""
    if hit.matched == "passage":
        return f"characters {hit.start:.0f} to {hit.stop:.0f}"
    return f"at {clock(hit.start)}"


def clock(seconds: float) -> str:
    """Write a time as players do: 01:23, or 1:02:03."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes:02}:{rest:02}"


def excerpt_of(hit: "Hit") -> str | None:
    """Return how the passage of a hit begins, on one line; None if it has none, or its file is not as it was."""
    if hit.matched != "passage" or hit.start is None or hit.stop is None:
        return None
    from trivium.encoders.base import DecodeError
    from trivium.encoders.decoding.texts import decode_text
    from trivium.encoders.files.reading import read_file

    try:
        if fingerprint(os.lstat(hit.path)) != hit.fingerprint:
            return None
        start, stop = int(hit.start), int(hit.stop)
        text = decode_text(read_file(hit.path, max_bytes=MAX_FILE_BYTES), most=stop + 1)
    except (OSError, DecodeError):
        return None
    words = " ".join(text[start:stop].split())
    is_cut = stop < len(text)
    if len(words) > MAX_CHARACTERS:
        words, is_cut = words[:MAX_CHARACTERS].rsplit(" ", 1)[0], True
    if not words:
        return None
    return ("… " if start else "") + words + (" …" if is_cut else "")
