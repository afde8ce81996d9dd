"""Which items are copies of one another, so that a search shows one of them: equal files, and near-equal pictures.

A picture is near another if its hash (`encoders.image.looks`) is within `COPY_BITS` and its vector at all like the
other's, or if both are a little further away: then the vectors must be closer. What each lets through alone is no copy.
Measured by benchmarks/near_duplicates.py (docs/benchmarks.md, "Near-equal pictures").

A video is near another if both last as long and show the same all the way: each picture of the one has a near one in
the other at its time. Sounds and texts are folded only if they are equal, byte by byte.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple, TypeAlias, get_args

import numpy as np

from trivium.encoders.base import PLAIN_LOOKS, Vectors, unit_rows
from trivium.pipeline.records import ItemKind
from trivium.pipeline.store.store import Store

Fold: TypeAlias = Literal["same", "near", "none"]
FOLDS: tuple[Fold, ...] = get_args(Fold)
COPY_BITS, COPY_COSINE = 6, 0.5  # of 64 bits: encoded again, or scaled
EDITED_BITS, EDITED_COSINE = 16, 0.85  # cut at the edges, or touched up
LENGTH_SECONDS, LENGTH_SHARE = 0.5, 0.01  # by how much the lengths of near videos may differ
# Encoders set key frames where they like: a picture may be met as much later in a copy, where the scene still lasts.
APART_SECONDS = 10.5
MATCHED_SHARE = 0.9  # of the pictures of each video
_BITS = (1 << 64) - 1


class Whole(NamedTuple):
    """What an item is as a whole."""

    content: int
    kind: ItemKind
    looks: int | None  # of a picture, if it is known


class Likeness:
    """Tells near items of one generation of a store; call it inside `Store.reading`."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._vectors: dict[int, Vectors] = {}
        self._videos: dict[int, tuple[float | None, list[tuple[float, int, int | None]]]] = {}

    def is_near(self, one: Whole, other: Whole) -> bool:
        """Whether one of them is as good as a copy of the other."""
        if one.content == other.content:
            return True
        if one.kind != other.kind:
            return False
        if one.kind == "image":
            return self._pictures(one.content, one.looks, other.content, other.looks)
        return one.kind == "video" and self._are_near_videos(one.content, other.content)

    def _pictures(self, one: int, looks: int | None, other: int, other_looks: int | None) -> bool:
        if looks is None or other_looks is None or PLAIN_LOOKS in (looks, other_looks):
            return False
        bits = ((looks ^ other_looks) & _BITS).bit_count()
        if bits > EDITED_BITS:
            return False
        cosine = float(self._vector(one) @ self._vector(other))
        return cosine >= least_cosine(bits)

    def _are_near_videos(self, one: int, other: int) -> bool:
        (length, frames), (other_length, other_frames) = self._video(one), self._video(other)
        if length is None or other_length is None:
            return False
        if abs(length - other_length) > max(LENGTH_SECONDS, LENGTH_SHARE * length):
            return False
        return self._show(frames, other_frames) and self._show(other_frames, frames)

    def _show(
        self, frames: Sequence[tuple[float, int, int | None]], others: Sequence[tuple[float, int, int | None]]
    ) -> bool:
        """Whether the pictures of a video are in another, at their times."""
        missing = len(frames) * (1 - MATCHED_SHARE)
        for seconds, content, looks in frames:
            near = (other for other in others if abs(other[0] - seconds) <= APART_SECONDS)
            if not any(self._pictures(content, looks, *other[1:]) for other in near):
                missing -= 1
                if missing < 0:
                    return False
        return bool(frames)

    def _video(self, content: int) -> tuple[float | None, list[tuple[float, int, int | None]]]:
        if content not in self._videos:
            self._videos[content] = self._store.video_frames(content)
        return self._videos[content]

    def _vector(self, content: int) -> Vectors:
        if content not in self._vectors:
            locations = self._store.locations_of("image", np.array([content]))
            _, found = self._store.source(locations).all()
            zero = np.zeros((1, self._store.space.dim), np.float32)
            self._vectors[content] = unit_rows(found.astype(np.float32) if len(found) else zero)[0]
        return self._vectors[content]


def least_cosine(bits: int) -> float:
    """Return how like their vectors must be for pictures whose hashes are so far apart, at most `EDITED_BITS`."""
    return COPY_COSINE if bits <= COPY_BITS else EDITED_COSINE


class Folded:
    """The items that were found for one query, each with the copies of it that it stands for."""

    def __init__(self, fold: Fold, likeness: Likeness) -> None:
        self._fold = fold
        self._likeness = likeness
        self.seen: set[int] = set()  # items
        self._known: set[int] = set()  # own contents of those
        self._leaders: dict[int, Whole] = {}  # by item
        self._contents: dict[int, list[int]] = {}  # by leading item: the own contents of all that it stands for

    @property
    def folds(self) -> bool:
        """Whether any item may stand for others."""
        return self._fold != "none"

    def is_new(self, item: int, whole: Whole) -> bool:
        """Take an item in, best first; tell whether it stands for itself."""
        self.seen.add(item)
        if self._fold != "none" and whole.content in self._known:
            return False
        self._known.add(whole.content)
        if self._fold == "near":
            for leader, other in self._leaders.items():
                if self._likeness.is_near(whole, other):
                    self._contents[leader].append(whole.content)
                    return False
        self._leaders[item] = whole
        self._contents[item] = [whole.content]
        return True

    def contents_of(self, leader: int) -> list[int]:
        """Return the own contents of all that an item stands for."""
        return self._contents[leader]
