"""What a collection records of each file, and what a search gets back."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from trivium.encoders.base import Modality

Role = Literal["content", "caption"]  # which of an item's vectors; later also windows of a sound, passages of a text


class ContentKey(NamedTuple):
    """What a vector belongs to: the same bytes are never encoded twice in one space, whatever files hold them."""

    modality: Modality
    sha256: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemState:
    """What tells an unchanged item."""

    id: int
    fingerprint: str
    beside: str
    has_caption: bool
    embeds_caption: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredItem:
    """What is recorded of one file."""

    id: int
    path: str
    modality: Modality
    fingerprint: str
    beside: str
    caption: str | None
    metadata: str | None  # JSON, see `metadata.decode`
    tabled: str | None
    contents: Mapping[str, ContentKey]  # by role


@dataclass(frozen=True, slots=True, kw_only=True)
class NewItem:
    """An item to be recorded; every content it names must be stored or come in the same batch."""

    path: str
    modality: Modality
    fingerprint: str
    contents: Mapping[Role, ContentKey]
    beside: str = ""
    caption: str | None = None
    metadata: str | None = None
    tabled: str | None = None
    renamed_from: int | None = None  # id of the item that had the same content at a path that is gone


class Match(NamedTuple):
    """An item that one of the searched contents belongs to; a tuple, because every search makes some."""

    content: int
    item: int
    path: str
    modality: Modality
    caption: str | None
    metadata: str | None
    role: Role


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
