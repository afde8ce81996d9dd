"""What a collection records of each file, and what a search gets back."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from trivium.encoders.base import Modality

Role = Literal["content", "caption"]  # which of an item's vectors; later also windows of a sound, passages of a text


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredItem:
    """What is recorded of one file."""

    id: int
    path: str
    modality: Modality
    fingerprint: str
    caption_fingerprint: str
    caption: str | None
    contents: Mapping[str, str]  # role -> content key of the vector


@dataclass(frozen=True, slots=True, kw_only=True)
class NewItem:
    """An item to be recorded; every content it names must be stored or come in the same batch."""

    path: str
    modality: Modality
    fingerprint: str
    caption_fingerprint: str
    caption: str | None
    contents: Mapping[Role, str]
    renamed_from: int | None = None  # id of the item that had the same content at a path that is gone


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """An item that one of the searched vectors belongs to."""

    vector: int
    path: str
    modality: Modality
    caption: str | None
    role: Role
