"""How a run takes files in, and what it tells when it has ended."""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from trivium.encoders.base import Modality
from trivium.encoders.engine import Stats
from trivium.encoders.sandbox.limits import limits_of
from trivium.indexes import Wish
from trivium.pipeline.ingest.excludes import given_patterns
from trivium.pipeline.ingest.scanning import Problem
from trivium.pipeline.progress import Bars
from trivium.pipeline.records import IndexFile, ItemKind
from trivium.pipeline.suffixes import missing_extra, why_passed
from trivium.pipeline.tables.metadata_table import MetadataTable

MIN_WINDOW_SECONDS = 0.1


@dataclass(slots=True)
class Summary:
    """What a run did."""

    added: int = 0
    changed: int = 0
    renamed: int = 0
    unchanged: int = 0
    removed: int = 0
    missing: int = 0  # kept although their files are gone
    vanished: list[Problem] = field(default_factory=list)  # roots of which that is so, and why
    passed: dict[str, "PassedOver"] = field(default_factory=dict)  # files that were not taken, by suffix
    excluded: dict[str, int] = field(default_factory=dict)  # files and folders that were left out, by pattern
    removed_as_excluded: Counter[str] = field(default_factory=Counter)  # of ``removed``, by pattern
    skipped: list[Problem] = field(default_factory=list)
    notes: list[Problem] = field(default_factory=list)  # on files that were taken in: what of them is not searched
    windowed: int = 0  # sounds that were there and are long, and have windows from now on
    encoded: Counter[Modality] = field(default_factory=Counter)  # vectors made, captions counted as text
    indexes: list[IndexFile] = field(default_factory=list)  # made anew
    seconds: dict[str, float] = field(default_factory=dict)  # scan, each kind of file, index
    stats: dict[ItemKind, Stats] = field(default_factory=dict)  # what each stage did, for each kind of file

    @property
    def indexed(self) -> int:
        """Files that were taken in anew, or again because they changed."""
        return self.added + self.changed

    @property
    def ignored(self) -> int:
        """Files that were passed over because of their suffix."""
        return sum(passed.count for passed in self.passed.values())

    @property
    def undecodable(self) -> int:
        """Those of them that an extra of Trivium, which is not installed, would take."""
        return sum(passed.count for passed in self.passed.values() if passed.extra is not None)


@dataclass(frozen=True, slots=True, kw_only=True)
class PassedOver:
    """Files of a suffix that were not taken."""

    count: int
    reason: str
    extra: str | None  # of Trivium that takes them

    @classmethod
    def of(cls, suffix: str, count: int) -> "PassedOver":
        """Say why files of a suffix were not taken."""
        extra = missing_extra(suffix)
        return cls(count=count, reason=why_passed(suffix), extra=None if extra is None else extra.name)


@dataclass(frozen=True, slots=True, kw_only=True)
class IngestSettings:
    """How a run takes files in. Where something is None, it is as before for each root.

    Args:
        captions: Whether captions are encoded as vectors of their items too; they are shown either way.
        tables: Metadata by path, see `said_of`; what a file's own sidecar says comes before them. Of files that none
            names, what tables of earlier runs said stays. They are read again when a root is brought up to date.
        positions: Keep where items were made, as far as a sidecar says so.
        windows: Sounds get a vector for each stretch of so many seconds too, 0 for none; where nothing was ever
            given as `windows.window_seconds` has it.
        strict: Refuse files of which only a part can be decoded; else that is taken in, with a note.
        max_megapixels: The largest picture that is decoded; see `limits_of`.
        exclude: Patterns in git's syntax of what is left out below folders; stronger than their `.triviumignore` files.
        default_excludes: Whether hidden files, and what systems put beside media, are left out.
        thumbnails: Keep small copies of pictures, to be shown on pages; as before if not given.
        wish: What to ask of the index from now on.
        drop_missing: Forget items whose files are gone, also where a whole root seems to have vanished.
        shallow: Look at the files of folders, and not at the folders in them.
        progress: Told after each batch: the kind of file, files done, files to do. A large text is committed in
            portions: while it is, files done have a fraction, which is its part so far.
        index_progress: Told while an index file is made: the modality, vectors done, vectors to do.
        stats: Filled while it runs with what each stage does, for each kind of file; empty at the start.

    Raises:
        ValueError: If ``windows`` is below 0.1 and not 0, or ``max_megapixels`` out of range.
    """

    captions: bool | None = None
    tables: Sequence[MetadataTable] | None = None
    positions: bool | None = None
    windows: float | None = None
    strict: bool = False
    max_megapixels: float | None = None
    exclude: Sequence[str] | None = None
    default_excludes: bool | None = None
    thumbnails: bool | None = None
    wish: Wish | None = None
    drop_missing: bool = False
    shallow: bool = False
    progress: Bars | None = None
    index_progress: Bars | None = None
    stats: dict[ItemKind, Stats] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.windows and not MIN_WINDOW_SECONDS <= self.windows < float("inf"):
            raise ValueError(f"windows must be 0 or at least {MIN_WINDOW_SECONDS} seconds, got {self.windows}")
        limits_of(self.max_megapixels)
        given_patterns(self.exclude or ())

    @property
    def of_roots(self) -> dict[str, Any]:
        """What is asked of the roots, to be kept with them: see `RootSettings`."""
        tables = None if self.tables is None else tuple(os.path.abspath(table.path) for table in self.tables)
        given = {
            **{"captions": self.captions, "positions": self.positions, "metadata": tables},
            "exclude": None if self.exclude is None else tuple(self.exclude),
            "default_excludes": self.default_excludes,
        }
        return {name: value for name, value in given.items() if value is not None}
