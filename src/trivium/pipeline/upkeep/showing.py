"""Thumbnails of what is to be shown: as they are kept, and made again where they are lost or were never made."""

import contextlib
import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path

from trivium.encoders.base import DecodeError
from trivium.encoders.files.reading import OpenedFile
from trivium.encoders.image.looks import THUMBNAIL_SIDE, small_picture, thumbnail
from trivium.encoders.sandbox.heads import MAX_HELD_BYTES, decodable
from trivium.encoders.sandbox.pool import DecodeSandbox
from trivium.pipeline.ingest.sources import open_media
from trivium.pipeline.records import ContentKey, Part
from trivium.pipeline.store.store import Store
from trivium.pipeline.store.thumbnails import read_thumbnail, write_thumbnail


def thumbnails(store: Store, places: Mapping[str, float | None], *, sandbox: DecodeSandbox) -> dict[str, bytes]:
    """Return the thumbnails of items, by path; those of videos are not made again, which would decode them whole.

    Args:
        store: The collection.
        places: Paths, each with the seconds of a video's picture, None for its first one.
        sandbox: Where files are decoded.
    """
    found: dict[str, bytes] = {}
    for path, seconds in places.items():
        item = store.item_at(path)
        if item is None or item.modality not in ("image", "video"):
            continue
        key = item.contents.get("content") if item.modality == "image" else _frame(item.contents, seconds)
        if key is None:
            continue
        data = read_thumbnail(store.folder, key.sha256)
        if data is None and item.modality == "image":
            with contextlib.suppress(DecodeError, OSError, MemoryError):
                data = _made_again(path, key.sha256, sandbox)
                if store.keeps_thumbnails:  # a collection that cannot be written to has them for this page only
                    with contextlib.suppress(OSError):
                        write_thumbnail(store.folder, key.sha256, data)
        if data is not None:
            found[path] = data
    return found


def small_pictures(files: Iterable[str], *, sandbox: DecodeSandbox) -> dict[str, bytes]:
    """Return thumbnails of pictures, but of those that cannot be shown."""
    found: dict[str, bytes] = {}
    for file in files:
        with contextlib.suppress(DecodeError, OSError, MemoryError), decodable("image", Path(file)) as source:
            found[file] = thumbnail(small_picture(sandbox.decode("image", source, side=THUMBNAIL_SIDE)))
    return found


def as_indexed(file: OpenedFile, sha256: bytes) -> bytes | int:
    """Return a file's bytes, or of a large one its descriptor, for the sandbox.

    Raises:
        DecodeError: If it is not what was indexed.
    """
    data = file.read() if file.size <= MAX_HELD_BYTES else None
    if (file.sha256() if data is None else hashlib.sha256(data).digest()) != sha256:
        raise DecodeError("the file has changed since it was indexed: index it again first")
    return file.descriptor if data is None else data


def _frame(contents: Mapping[str, ContentKey], seconds: float | None) -> ContentKey | None:
    parts = sorted((part.start or 0.0, role) for role in contents if (part := Part.parse(role)).kind == "frame")
    wanted = [role for start, role in parts if seconds is None or start == seconds]
    return contents[wanted[0]] if wanted else None


def _made_again(path: str, sha256: bytes, sandbox: DecodeSandbox) -> bytes:
    with open_media(path, "image", sandbox.limits) as file:
        source = as_indexed(file, sha256)
        return thumbnail(small_picture(sandbox.decode("image", source, side=THUMBNAIL_SIDE)))
