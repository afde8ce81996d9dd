"""Taking in vectors that were made elsewhere: our own exports, or tables that other programs made.

The rows of an item may come in any chunk of the file, the content's before the caption's. An item is as its rows say: a
column that the file lacks leaves what the collection has, an empty cell clears it. A vector that is known stays as it
is stored. What has been taken in carries a fingerprint that no file has, so the next `trivium index` over the media
reads each file, finds its content known, and encodes nothing.
"""

import contextlib
import hashlib
import os
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trivium.encoders.base import DecodeError
from trivium.encoders.sandbox.limits import limits_of
from trivium.pipeline.ingest.sources import open_media
from trivium.pipeline.paths import named
from trivium.pipeline.progress import Progress
from trivium.pipeline.records import ContentKey, ItemKind, NewItem, Part, Role, StoredItem, modality_of, part_key
from trivium.pipeline.search.indexing import Examples, Indexer
from trivium.pipeline.store.database import CollectionError
from trivium.pipeline.store.store import Store
from trivium.pipeline.store.writer import Writer, writing
from trivium.pipeline.upkeep.vector_files import AnyVectors, VectorFile, VectorRow, open_vectors
from trivium.pipeline.upkeep.vector_rows import CheckedRow, RowError, checked_row, unit_vectors

MAX_PROBLEMS = 1_000  # that are listed; the others are counted
IMPORTED = "imported"  # stands for the fingerprint of a file, and equals none


@dataclass(frozen=True, slots=True, kw_only=True)
class RowProblem:
    """A row that was left out, and why."""

    row: int  # from 1
    reason: str


@dataclass(slots=True, kw_only=True)
class Imported:
    """What an import did."""

    rows: int = 0  # that were read
    added: int = 0  # items
    updated: int = 0  # items whose contents, caption or metadata changed
    unchanged: int = 0  # items
    vectors: int = 0  # that were new to the collection
    known: int = 0  # rows whose content had a vector already, which stays
    problems: list[RowProblem] = field(default_factory=list)
    problem_count: int = 0  # also of those that are not listed


def import_vectors(
    store: Store,
    source: Path,
    *,
    assume_space: bool = False,
    positions: bool = False,
    examples: Examples | None = None,
    progress: Progress | None = None,
) -> Imported:
    """Add the items of a file with their vectors, batch by batch; what is there already is not doubled.

    A content is known by ``sha256`` if the row has it, else by the hash of the file, else by that of path and vector.

    Args:
        store: The collection.
        source: ``.parquet`` with the columns path, modality and vector (list of floats), and optionally role, caption,
            metadata (JSON), sha256; or ``.npy`` (n, d) beside a ``.jsonl`` with the same keys but vector; or an export.
            Relative paths are relative to its folder.
        assume_space: The file names no space, and its vectors are of the collection's: they are scaled to length 1.
        positions: Keep where items were made, if metadata that are not an export's say so.
        examples: Gives queries of modalities that the collection has few vectors of, to measure a new index with.
        progress: Called as ``progress(rows_done, rows_to_do)``.

    Returns:
        Counts, and rows that were left out with the reason.

    Raises:
        CollectionError: If the file cannot be read, is damaged, is of another space or width, or names no space and
            none is assumed; nothing is taken in then. Also if the collection is damaged, or the disk is full or fails.
        CollectionLockedError: If another process is writing.
    """
    with open_vectors(source) as file:
        _require_same_space(store, file, source, assume_space=assume_space)
        file.verify()
        with writing(store) as writer, contextlib.closing(_SeenRows()) as seen:
            is_export = file.space is not None
            form = _Form(folder=named(source.parent), is_export=is_export, keeps_positions=positions or is_export)
            run = _Import(writer, seen, form)
            for rows, vectors in file.chunks(dim=store.space.dim):
                run.take(rows, vectors)
                if progress is not None:
                    progress(run.done.rows, file.count)
            Indexer(writer, examples=examples).finish()
    return run.done


def _require_same_space(store: Store, file: VectorFile, source: Path, *, assume_space: bool) -> None:
    own = store.space
    if file.space is None and not assume_space:
        raise CollectionError(
            f"cannot import {source}: it names no space, and vectors of different spaces do not compare. If they were "
            f"made with {own}, say so (--assume-space)"
        )
    if file.space is not None and file.space != own:
        raise CollectionError(
            f"cannot import {source}: its vectors are of space {file.space}, those of {store.folder} are of {own}; "
            "vectors of different spaces do not compare"
        )
    if file.dim is not None and file.dim != own.dim:
        raise CollectionError(
            f"cannot import {source}: its vectors have {file.dim:,} numbers, those of space {own} have {own.dim:,}"
        )


class _SeenRows:
    """Paths and roles of this import, in a temporary file that SQLite keeps: there may be many millions."""

    def __init__(self) -> None:
        self._db = sqlite3.connect("", isolation_level=None)
        self._db.execute("CREATE TABLE seen (path BLOB, role TEXT, PRIMARY KEY (path, role)) WITHOUT ROWID")
        self._db.execute("BEGIN")  # never committed: nothing of it is to outlast the import

    def is_new(self, path: bytes, role: Role) -> bool:
        return self._db.execute("INSERT OR IGNORE INTO seen VALUES (?, ?)", (path, role)).rowcount == 1

    def has(self, path: bytes) -> bool:
        return self._db.execute("SELECT 1 FROM seen WHERE path = ?", (path,)).fetchone() is not None

    def close(self) -> None:
        self._db.close()


@dataclass(slots=True)
class _Draft:
    """An item as it is going to be."""

    before: StoredItem | None
    modality: ItemKind
    contents: dict[Role, ContentKey]
    caption: str | None
    metadata: str | None
    begun_earlier: bool  # counted with an earlier chunk

    @property
    def is_changed(self) -> bool:
        before = self.before
        return before is None or (self.modality, self.contents, self.caption, self.metadata) != (
            before.modality,
            before.contents,
            before.caption,
            before.metadata,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Form:
    """How rows are read."""

    folder: str  # what relative paths are relative to
    is_export: bool  # its vectors have length 1
    keeps_positions: bool


class _Import:
    """One run of `import_vectors`."""

    def __init__(self, writer: Writer, seen: _SeenRows, form: _Form) -> None:
        self.done = Imported()
        self._writer = writer
        self._store = writer.store
        self._seen = seen
        self._form = form

    def take(self, rows: Sequence[VectorRow], vectors: AnyVectors) -> None:
        """Check a chunk of rows with their vectors (n, d), and commit what can be used."""
        units, faults = unit_vectors(vectors, scale=not self._form.is_export)
        drafts: dict[str, _Draft] = {}
        places: dict[ContentKey, int] = {}  # in this chunk, of the first row with that content
        with self._store.reading():  # one lock for all look-ups
            for place, (row, fault) in enumerate(zip(rows, faults, strict=True)):
                self.done.rows += 1
                try:
                    if problem := row.problem or fault:
                        raise RowError(problem)
                    checked = checked_row(row.fields, folder=self._form.folder, positions=self._form.keeps_positions)
                    key = self._add(drafts, checked, units[place])
                except RowError as error:
                    self._refuse(str(error))
                else:
                    self.done.known += key in places or self._is_known(key)
                    places.setdefault(key, place)
            self._count(drafts.values())
            changed = {path: draft for path, draft in drafts.items() if draft.is_changed}
            # Only what an item has: a row may have been followed by one with another caption.
            contents = dict.fromkeys(key for draft in changed.values() for key in draft.contents.values())
            new = [key for key in contents if not self._is_known(key)]
        if changed:
            items = [_new_item(path, draft) for path, draft in changed.items()]
            self._writer.commit(items, new, units[[places[key] for key in new]])
            self.done.vectors += len(new)

    def _is_known(self, key: ContentKey) -> bool:
        return self._store.has_content(key)

    def _count(self, drafts: Iterable[_Draft]) -> None:
        for draft in drafts:
            if not draft.begun_earlier:
                self.done.added += draft.before is None
                self.done.updated += draft.before is not None and draft.is_changed
                self.done.unchanged += not draft.is_changed

    def _add(self, drafts: dict[str, _Draft], row: CheckedRow, vector: NDArray[np.float32]) -> ContentKey:
        """Let a row have its say in its item; return the content that its vector is of."""
        path = os.fsencode(row.path)
        draft = drafts.get(row.path) or self._draft_of(row, path)
        if row.role != "content" and draft.modality != row.modality:
            raise RowError(f"is of modality {row.modality}, but {row.path} is of {draft.modality}")
        caption = row.told["caption"] if "caption" in row.told else draft.caption
        key = self._content_key(row, caption, vector)
        if not self._seen.is_new(path, row.role):
            raise RowError(f"has the path and role ({row.role}) of an earlier row, which counts: {row.path}")
        if row.role == "content" and caption != draft.caption:
            draft.contents.pop("caption", None)  # the vector of another caption
        draft.modality, draft.caption = row.modality, caption
        draft.contents[row.role] = key
        draft.metadata = row.told["metadata"] if "metadata" in row.told else draft.metadata
        drafts[row.path] = draft
        return key

    def _draft_of(self, row: CheckedRow, path: bytes) -> _Draft:
        """Begin with what the collection has of this path."""
        before = self._store.item_at(row.path)
        if before is None:
            if row.role != "content":
                raise RowError(f"is of a {row.role.split()[0]}, and no row before it has the content of {row.path}")
            return _Draft(None, row.modality, {}, None, None, begun_earlier=False)
        contents = dict(before.contents)
        earlier = self._seen.has(path)
        return _Draft(before, before.modality, contents, before.caption, before.metadata, begun_earlier=earlier)

    def _content_key(self, row: CheckedRow, caption: str | None, vector: NDArray[np.float32]) -> ContentKey:
        if row.role == "caption":
            if not caption:
                raise RowError(f"is of a caption, but {row.path} has none")
            sha256 = hashlib.sha256(caption.encode()).digest()
            if row.sha256 not in (None, sha256):
                raise RowError("has a sha256 that is not that of its caption")
            return ContentKey("text", sha256)
        modality = modality_of(row.modality, Part.parse(row.role))
        if row.sha256 is not None:
            return ContentKey(modality, row.sha256)
        try:
            with open_media(row.path, row.modality, limits_of()) as file:
                sha256 = file.sha256()
        except DecodeError:  # there is no such file here; the vector is good all the same
            sha256 = hashlib.sha256(os.fsencode(row.path) + b"\0" + vector.astype("<f2").tobytes()).digest()
        return ContentKey(modality, sha256) if row.role == "content" else part_key(modality, row.role, sha256)

    def _refuse(self, reason: str) -> None:
        self.done.problem_count += 1
        if len(self.done.problems) < MAX_PROBLEMS:
            self.done.problems.append(RowProblem(row=self.done.rows, reason=reason))


def _new_item(path: str, draft: _Draft) -> NewItem:
    return NewItem(
        path=path,
        modality=draft.modality,
        fingerprint=IMPORTED,
        caption=draft.caption,
        metadata=draft.metadata,
        tabled=draft.metadata,  # a table too: what lies beside the file is put over it by the next index run
        contents=draft.contents,
    )
