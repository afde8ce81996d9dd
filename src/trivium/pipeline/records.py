"""What a collection records of each file, and what a search gets back."""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

from trivium.encoders.base import MODALITIES, Modality

ItemKind: TypeAlias = Literal["text", "image", "audio", "video"]  # a video has vectors of pictures and of sounds
ITEM_KINDS: tuple[ItemKind, ...] = get_args(ItemKind)
assert set(MODALITIES) < set(ITEM_KINDS)
Role: TypeAlias = str  # a `Part` as the database names it
PartKind = Literal["content", "caption", "window", "passage", "frame"]
PART_KINDS: tuple[PartKind, ...] = get_args(PartKind)


@dataclass(frozen=True, slots=True)
class Part:
    """Which of an item's vectors: of the whole, of its caption, or of a stretch of it."""

    kind: PartKind
    start: float | None = None  # seconds of a window and a frame, characters of a passage
    stop: float | None = None  # of a window and a passage

    @property
    def role(self) -> str:
        """Return how the database names it."""
        numbers = [number for number in (self.start, self.stop) if number is not None]
        return " ".join([self.kind, *(f"{n:.0f}" if self.kind == "passage" else f"{n:.3f}" for n in numbers)])

    @classmethod
    def parse(cls, role: str) -> "Part":
        """Read what `role` wrote.

        Raises:
            ValueError: If it is no role.
        """
        kind, *numbers = role.split(" ")
        count = {"content": 0, "caption": 0, "frame": 1}.get(kind, 2)
        values = [float(number) for number in numbers]
        if kind not in PART_KINDS or len(values) != count or not all(map(math.isfinite, values)):
            raise ValueError(f"'{role}' names no part of an item")
        return cls(kind, *values)


def is_role(role: object) -> bool:
    """Whether this is how the database names a part of an item."""
    try:
        return isinstance(role, str) and Part.parse(role).role == role
    except ValueError:
        return False


def modality_of(kind: ItemKind, part: Part) -> Modality:
    """Say what a part of an item is to an encoder: a video itself and its frames are pictures, its windows sounds."""
    if part.kind == "caption":
        return "text"
    if kind == "video":
        return "audio" if part.kind == "window" else "image"
    return kind


class ContentKey(NamedTuple):
    """What a vector belongs to: the same bytes are never encoded twice in one space, whatever files hold them."""

    modality: Modality
    sha256: bytes


class Traits(NamedTuple):
    """What is kept of a content beside its vector, as far as it is known."""

    looks: int | None = None  # of a picture: see `encoders.image.looks`
    seconds: float | None = None  # of a sound, or a video as a whole: how long it is
    thumbnail: bytes | None = None  # of a picture: a WebP file


def content_key(modality: Modality, data: bytes) -> ContentKey:
    """Return the key of a file's bytes, or of a caption's."""
    return ContentKey(modality, hashlib.sha256(data).digest())


def part_key(modality: Modality, role: str, file_sha256: bytes) -> ContentKey:
    """Return the key of a part of a file: copies of the file share its parts' vectors too."""
    return content_key(modality, f"{role} of ".encode() + file_sha256)


class ItemState(NamedTuple):
    """What tells an unchanged item."""

    id: int
    fingerprint: str
    beside: str
    has_caption: bool
    embeds_caption: bool
    is_missing: bool  # its file was not there when it was last looked for
    has_own: bool  # whether it is known what the file says of itself


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredItem:
    """What is recorded of one file."""

    id: int
    path: str
    modality: ItemKind
    fingerprint: str
    beside: str
    caption: str | None
    metadata: str | None  # JSON, see `metadata.decode`
    tabled: str | None
    own: str | None
    contents: Mapping[str, ContentKey]  # by role


@dataclass(frozen=True, slots=True, kw_only=True)
class NewItem:
    """An item to be recorded; every content it names must be stored or come in the same batch."""

    path: str
    modality: ItemKind
    fingerprint: str
    contents: Mapping[str, ContentKey]  # by role, see `Part`
    beside: str = ""
    caption: str | None = None
    metadata: str | None = None
    tabled: str | None = None
    own: str | None = None
    renamed_from: int | None = None  # id of the item that had the same content at a path that is gone


class Match(NamedTuple):
    """An item that one of the searched contents belongs to; a tuple, because every search makes some."""

    content: int
    item: int
    path: str
    modality: ItemKind
    caption: str | None
    metadata: str | None
    role: str
    fingerprint: str
    is_missing: bool
    own: int  # content of the item as a whole
    looks: int | None  # of that content


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexFile:
    """A FAISS file as the manifest has it."""

    modality: Modality
    name: str
    size: int
    sha256: str
    state: str
    kind: str
    effort: int | None
    through: int  # it holds every vector of its modality whose content's id is at most this
    vectors: int
    report: Mapping[str, Any]  # why this kind, and what was measured
