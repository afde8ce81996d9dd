"""Which files of a collection are copies of one another, and what they take: told, never deleted.

Equal files have equal hashes. Near-equal pictures are chosen by their hashes first (`indexes.codes`, all with all, as
that takes seconds for 100,000), and only those are compared by their vectors. A group is one picture and what is near
*it*: a chain of small changes, at whose ends are different pictures, does not become one group.
"""

import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from trivium.encoders.base import PLAIN_LOOKS, DecodeError, unit_rows
from trivium.encoders.machine import usable_cores
from trivium.encoders.sandbox.pool import DecodeSandbox
from trivium.encoders.sandbox.streams import SoundStream
from trivium.indexes.codes import near_codes
from trivium.pipeline.ingest.contents import reason_of
from trivium.pipeline.ingest.ingestion import look_at
from trivium.pipeline.ingest.scanning import Problem
from trivium.pipeline.ingest.sources import open_media
from trivium.pipeline.progress import Progress
from trivium.pipeline.records import ContentKey, ItemKind, Part, StoredItem, Traits
from trivium.pipeline.search.folding import (
    COPY_BITS,
    COPY_COSINE,
    EDITED_BITS,
    EDITED_COSINE,
    LENGTH_SECONDS,
    LENGTH_SHARE,
    Likeness,
    Whole,
)
from trivium.pipeline.store.store import Store
from trivium.pipeline.store.writer import writing
from trivium.pipeline.upkeep.showing import as_indexed

LOOKED_TOGETHER = 64  # files whose hashes are recorded at a time


@dataclass(frozen=True, slots=True)
class DuplicateFile:
    """One of a group."""

    path: str
    size_bytes: int | None  # None if it is not there
    frees_bytes: int  # if it were deleted: none of a link, or of a second name of the same file


@dataclass(frozen=True, slots=True)
class DuplicateGroup:
    """Files that are copies of one another, the largest first."""

    kind: ItemKind
    is_equal: bool  # byte by byte; else they look the same
    files: tuple[DuplicateFile, ...]

    @property
    def freed_bytes(self) -> int:
        """Bytes that all but the first take."""
        return sum(file.frees_bytes for file in self.files[1:])


@dataclass(slots=True)
class Duplicates:
    """What was found, with most to be freed first, and what could not be compared."""

    groups: list[DuplicateGroup] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    @property
    def freed_bytes(self) -> int:
        """Bytes that all but the first file of each group take."""
        return sum(group.freed_bytes for group in self.groups)


def find_duplicates(store: Store, *, near: bool = False, progress: Progress | None = None) -> Duplicates:
    """List the groups of equal files, or of files that are equal or look the same.

    Args:
        store: The collection.
        near: Pictures and videos that look the same too (`search.folding`). Hashes that are missing, as in collections
            of before format 3, are made of the files first, and kept.
        progress: Told meanwhile: files looked at, files to look at.

    Raises:
        CollectionLockedError: If hashes are missing, and another process is writing.
        CollectionError: If the collection is damaged.
    """
    found = Duplicates()
    if near:
        found.problems = _make_looks(store, progress)
    with store.reading():
        groups = _near_groups(store) if near else []
        grouped = {content for group in groups for content in group}
        groups += [[content] for content in store.equal_contents() if content not in grouped]
        items = store.items_of(content for group in groups for content in group)
        for group in groups:
            files: list[tuple[str, ItemKind]] = [
                (path, kind) for content in group for _, path, kind in items.get(content, ())
            ]
            if len(files) > 1:
                found.groups.append(_group(files, is_equal=len(group) == 1))
    found.groups.sort(key=lambda group: (-group.freed_bytes, group.files[0].path))
    return found


def _group(files: Sequence[tuple[str, ItemKind]], *, is_equal: bool) -> DuplicateGroup:
    seen: set[tuple[int, int]] = set()
    told = []
    statuses = [(path, _status(path)) for path, _ in files]
    for path, status in sorted(statuses, key=lambda each: (-1 if each[1] is None else -each[1].st_size, each[0])):
        if status is None:
            told.append(DuplicateFile(path, None, 0))
            continue
        file = status.st_dev, status.st_ino
        is_own = stat.S_ISREG(status.st_mode) and file not in seen
        seen.add(file)
        told.append(DuplicateFile(path, status.st_size, status.st_size if is_own else 0))
    return DuplicateGroup(files[0][1], is_equal, tuple(told))


def _status(path: str) -> os.stat_result | None:
    try:
        return os.lstat(path)
    except OSError:
        return None


# Pictures and videos that look the same


def _near_groups(store: Store) -> list[list[int]]:
    """Return groups of at least two contents, each near the first."""
    return [*_near_pictures(store), *_near_videos(store)]


def _near_pictures(store: Store) -> Iterator[list[int]]:
    contents, looks = store.looks()
    contents, looks = contents[looks != PLAIN_LOOKS], looks[looks != PLAIN_LOOKS]
    if len(contents) < 2:
        return
    codes, code_of = np.unique(looks, return_inverse=True)
    starts, places, bits = near_codes(codes, most_bits=EDITED_BITS)
    order = np.argsort(code_of, kind="stable")
    members = np.split(order, np.cumsum(np.bincount(code_of))[:-1])  # rows by code
    sizes = np.array([len(rows) for rows in members])
    # How many pictures' hashes are near each one's: those with most come first, so that copies gather around them.
    degrees = np.add.reduceat(sizes[places], starts[:-1])[code_of]
    rows = np.flatnonzero(degrees > 1)
    if not len(rows):
        return
    found, stored = store.source(store.locations_of("image", contents[rows])).all()
    row_of = dict(zip(found.tolist(), range(len(found)), strict=True))
    is_taken = np.zeros(len(contents), bool)
    for row in rows[np.lexsort((rows, -degrees[rows]))].tolist():
        if is_taken[row] or int(contents[row]) not in row_of:
            continue
        near = slice(starts[code_of[row]], starts[code_of[row] + 1])
        others = np.concatenate([members[place] for place in places[near]])
        apart = np.repeat(bits[near], sizes[places[near]])
        chosen = ~is_taken[others] & (others != row) & np.isin(contents[others], found)
        others, apart = others[chosen], apart[chosen]
        if not len(others):
            continue
        vectors = unit_rows(
            stored[[row_of[content] for content in contents[[row, *others]].tolist()]].astype(np.float32)
        )
        cosines = vectors[1:] @ vectors[0]
        is_near = cosines >= np.where(apart <= COPY_BITS, COPY_COSINE, EDITED_COSINE)
        if is_near.any():
            group = [row, *others[is_near].tolist()]
            is_taken[group] = True
            yield contents[group].tolist()


def _near_videos(store: Store) -> Iterator[list[int]]:
    """Compare videos with those that are about as long only."""
    likeness = Likeness(store)
    lengths = {video: store.video_frames(video)[0] for video in store.videos()}
    known = sorted((length, video) for video, length in lengths.items() if length is not None)
    taken: set[int] = set()
    for place, (length, video) in enumerate(known):
        if video in taken:
            continue
        group = [video]
        for other_length, other in known[place + 1 :]:
            if other_length - length > max(LENGTH_SECONDS, LENGTH_SHARE * other_length):
                break
            if other not in taken and likeness.is_near(Whole(video, "video", None), Whole(other, "video", None)):
                group.append(other)
        if len(group) > 1:
            taken.update(group)
            yield group


# Hashes that are missing


def _make_looks(store: Store, progress: Progress | None) -> list[Problem]:
    """Look at pictures and videos that have no hash; return those that could not be."""
    items = store.without_looks()
    if not items:
        return []
    problems: list[Problem] = []
    done = 0
    with writing(store) as writer, DecodeSandbox() as sandbox, ThreadPoolExecutor(usable_cores(), "look") as pool:
        look = partial(look_at, keeps_thumbnail=store.keeps_thumbnails)
        for start in range(0, len(items), LOOKED_TOGETHER):
            chosen = [item for id_ in items[start : start + LOOKED_TOGETHER] if (item := store.item(id_)) is not None]
            traits: dict[ContentKey, Traits] = {}
            for known in pool.map(partial(_looked_at, look=look, sandbox=sandbox), chosen):
                if isinstance(known, Problem):
                    problems.append(known)
                else:
                    traits |= known
            writer.set_traits(traits)
            done += len(chosen)
            if progress is not None:
                progress(done, len(items))
    return problems


def _looked_at(
    item: StoredItem, *, look: "partial[Traits]", sandbox: DecodeSandbox
) -> Mapping[ContentKey, Traits] | Problem:
    own = item.contents["content"]
    try:
        with open_media(item.path, item.modality, sandbox.limits) as file:
            source = as_indexed(file, own.sha256)
            if item.modality == "image":
                return {own: look(sandbox.decode("image", source))}
            video = sandbox.video(source, look)
            if isinstance(video.sound, SoundStream):
                video.sound.close()
    except (DecodeError, MemoryError) as error:
        return Problem(path=item.path, reason=f"not compared: {reason_of(error)}")
    roles = [(Part("frame", round(seconds, 3)).role, traits) for seconds, traits in video.frames]
    return {own: Traits(seconds=video.seconds)} | {
        item.contents[role]: traits for role, traits in roles if role in item.contents
    }
