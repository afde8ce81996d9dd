"""What a file says of itself, as metadata of its item and as its caption (docs/metadata.md)."""

import os

from trivium.encoders.decoding.texts import first_line
from trivium.encoders.tags.reading import FileTags
from trivium.pipeline.tables.metadata import Metadata, flatten


def own_metadata(tags: FileTags, *, positions: bool) -> tuple[Metadata, list[str]]:
    """Return what is kept of a file's tags, which a decoder that was taken over may have made up, and what is not.

    Args:
        tags: As the sandbox gives them.
        positions: Keep where it was made.
    """
    left_out: list[str] = []
    return flatten(tags.tags, positions=positions, left_out=left_out), left_out


def own_caption(own: Metadata, path: str) -> str | None:
    """Return what a file says that it shows, else its title; None if that is no more than its name."""
    name = os.path.basename(path)
    for key in ("description", "title"):
        text = own.get(key)
        if isinstance(text, str) and text.casefold() not in (name.casefold(), os.path.splitext(name)[0].casefold()):
            return first_line(text)
    return None
