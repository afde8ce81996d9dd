"""A copy of one generation of a collection, made while a writer may be at work, each byte of it compared with its hash.

The database is copied first, in one read transaction, which takes a moment; then the files that it names, while nobody
waits. They are written once, but a compaction may delete one before its turn comes: then the database is copied again,
and what is new; what has been copied stays. The last attempt copies while its transaction lasts, so that writers wait:
however busy they are, it ends.

The copy's bytes are its own. Hard links and shared extents (`cp --reflink`, `copy_file_range`) would cost nothing, and
rot with the original.
"""

import contextlib
import os
import shutil
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from trivium.encoders.files.reading import open_regular
from trivium.encoders.files.writing import open_own, sync_folder, write_durably
from trivium.pipeline.progress import Progress
from trivium.pipeline.records import IndexFile
from trivium.pipeline.store.database import CollectionError, open_database
from trivium.pipeline.store.database_file import (
    CHECKSUM,
    DATABASE,
    change_counter,
    database_sha256,
    read_checksum,
    write_checksum,
)
from trivium.pipeline.store.index_seal import is_sealed, is_untouched, moved_state
from trivium.pipeline.store.shards import FOLDER as VECTORS
from trivium.pipeline.store.store import INDEX, Store
from trivium.pipeline.upkeep.database_check import check_database
from trivium.pipeline.upkeep.findings import Report

ATTEMPTS = 4


@dataclass(slots=True, kw_only=True)
class Snapshot:
    """What was copied."""

    generation: int = 0
    files: int = 0  # named by the database
    bytes_copied: int = 0
    bytes_kept: int = 0  # of files that an earlier copy had
    notes: list[str] = field(default_factory=list)  # what is worth knowing, and no damage


@dataclass(frozen=True, slots=True)
class _File:
    """A file that the database names."""

    part: str
    name: str
    size: int
    sha256: str
    state: str = ""  # of an index file


def take_snapshot(
    source: Path, target: Path, *, earlier: Path | None = None, progress: Progress | None = None
) -> Snapshot:
    """Copy a collection as it is in one generation.

    Args:
        source: The collection.
        target: A folder for the copy; of an interrupted copy in it, what is whole is kept.
        earlier: A copy that was made before: files that are whole there are linked instead of copied. It is to be
            deleted afterwards, so that each file has one place again.
        progress: Told while files are read.

    Raises:
        CollectionError: If there is no collection, it is damaged, or the copy would not fit on the disk.
        OSError: If a disk is full or fails.
        sqlite3.Error: If the database cannot be copied.
    """
    for folder in (target, target / VECTORS, target / INDEX):
        folder.mkdir(mode=0o700, exist_ok=True)
    copier = _Copier(source, target, earlier, Report(source, progress))
    with contextlib.closing(Store(source)) as store:
        for attempt in range(1, ATTEMPTS + 1):
            with store.reading():
                copier.copy_database(store)
                if attempt == ATTEMPTS:
                    copier.copy_files(is_last=True)
            if attempt == ATTEMPTS or copier.copy_files():
                break
    return copier.finished()


class _Copier:
    """Copies into one folder, in several attempts."""

    def __init__(self, source: Path, target: Path, earlier: Path | None, report: Report) -> None:
        self._source, self._target, self._earlier = source, target, earlier
        self._report = report
        self._snapshot = Snapshot()
        self._whole: set[_File] = set()  # in the copy
        self._damaged: set[_File] = set()  # index files that are left out, strangers' too
        self._named: list[_File] = []
        self._unchecked = ""

    def copy_database(self, store: Store) -> None:
        """Copy the database, inside of a transaction that reads it."""
        self._snapshot.generation = store.generation
        database = self._target / DATABASE
        for left in (database, database.with_name(f"{DATABASE}-journal"), self._target / CHECKSUM):
            left.unlink(missing_ok=True)  # by an attempt before
        self._require_room((self._source / DATABASE).stat().st_size)
        os.close(open_own(str(database), os.O_WRONLY))
        try:
            with contextlib.closing(sqlite3.connect(database, isolation_level=None)) as copy:
                copy.execute("PRAGMA journal_mode = OFF")  # half a copy is of no use to anybody
                copy.execute("PRAGMA synchronous = OFF")  # synced when it is whole
                store.db.backup(copy)
        except sqlite3.Error as error:
            raise CollectionError(
                f"cannot copy {self._source / DATABASE} to {database} ({error}): see to the disks, then try again"
            ) from error
        self._unchecked = self._compare_with_checksum()

    def copy_files(self, *, is_last: bool = False) -> bool:
        """Copy the files that the copied database names; return whether all of them were there.

        Raises:
            CollectionError: If the database or a shard is damaged, or if this ``is_last`` and a shard is missing.
        """
        self._named = list(self._files())
        self._remove_unnamed()
        missing = [file for file in self._named if file not in self._whole | self._damaged]
        self._require_room(sum(file.size for file in missing if not self._may_be_kept(file)))
        self._report.bytes_done = sum(file.size for file in self._whole)
        self._report.bytes_to_do = sum(file.size for file in self._named)
        gone = 0
        for file in missing:
            try:
                if not self._keep(file):
                    self._copy(file)
            except FileNotFoundError as error:
                if not is_last:
                    gone += 1
                elif file.part == INDEX:
                    self._report.pass_over(file.size)
                    self._leave_out(file, "is missing")
                else:
                    raise self._damage(file, "is missing") from error
        return not gone

    def finished(self) -> Snapshot:
        """Make the copied database one of the copied files, and sync it."""
        whole = [file for file in self._named if file in self._whole]
        with contextlib.closing(open_database(self._target)) as db:
            db.execute("BEGIN IMMEDIATE")
            for file in self._named:
                if file in self._damaged:
                    db.execute("DELETE FROM index_file WHERE name = ?", (file.name,))
                elif file.part == INDEX:  # so that the copy's files are known by their times, and not hashed
                    state = moved_state(self._target / INDEX / file.name, file.state)
                    db.execute("UPDATE index_file SET state = ? WHERE name = ?", (state, file.name))
            db.execute("COMMIT")
        _sync_file(self._target / DATABASE)
        sync_folder(self._target)
        write_checksum(self._target)
        self._snapshot.files = len(whole) + 1
        self._snapshot.bytes_copied += (self._target / DATABASE).stat().st_size
        if self._unchecked:
            self._snapshot.notes.append(self._unchecked)
        return self._snapshot

    def _files(self) -> Iterator[_File]:
        report = Report(self._target)
        manifest = check_database(report, writable=True)
        if manifest is None or report.findings:
            what = report.findings[0].what if report.findings else "it cannot be read"
            raise CollectionError(f"{self._source / DATABASE} is damaged: {what}. {self._remedy}")
        for shard in manifest.shards:
            yield _File(VECTORS, shard.name, shard.size, shard.sha256)
        for index in manifest.index_files:
            file = _File(INDEX, index.name, index.size, index.sha256, index.state)
            if file not in self._damaged and not self._may_be_trusted(index):
                self._leave_out(file, "was not made here by this Trivium")
            yield file

    def _may_be_trusted(self, file: IndexFile) -> bool:
        """Whether a copy of an index file may be recorded as made here."""
        try:
            return is_untouched(self._source / INDEX / file.name, file) or is_sealed(file)
        except OSError:  # told when it is copied
            return True

    def _remove_unnamed(self) -> None:
        """Delete what an attempt before has copied, and this one does not name."""
        self._whole &= set(self._named)
        for part in (VECTORS, INDEX):
            named = {file.name for file in self._named if file.part == part}
            for path in (self._target / part).iterdir():
                if path.name not in named:
                    path.unlink()

    def _may_be_kept(self, file: _File) -> bool:
        places = [self._target, self._earlier] if self._earlier is not None and file.part == VECTORS else [self._target]
        return any((place / file.part / file.name).is_file() for place in places)

    def _keep(self, file: _File) -> bool:
        """Take a file that a killed run has copied, or that the earlier copy has, if its bytes are right."""
        path = self._target / file.part / file.name
        if path.exists():
            if self._is_whole(path, file):
                self._whole.add(file)
                return True
            path.unlink()
        # An index file is known by its times, which a link changes.
        if self._earlier is None or file.part == INDEX or not (self._earlier / file.part / file.name).is_file():
            return False
        kept = self._earlier / file.part / file.name
        if os.stat(self._source / file.part / file.name, follow_symlinks=False).st_size != file.size:
            raise self._damage(file, "is damaged: it has another size than was written")
        if not self._is_whole(kept, file):
            self._snapshot.notes.append(f"{kept} was damaged and was copied anew: the disk may be failing")
            return False
        try:
            os.link(kept, path)
        except OSError:  # this file system has no links
            return False
        sync_folder(path.parent)
        self._snapshot.bytes_kept += file.size
        self._whole.add(file)
        return True

    def _is_whole(self, path: Path, file: _File) -> bool:
        if path.stat().st_size != file.size:
            return False
        done = self._report.bytes_done
        with open_regular(path) as opened:
            is_whole = self._report.sha256(opened) == file.sha256
        if not is_whole:
            self._report.bytes_done = done
        return is_whole

    def _copy(self, file: _File) -> None:
        path = self._target / file.part / file.name
        with open_regular(self._source / file.part / file.name) as opened:
            written = write_durably(path, lambda write: [write(piece) for piece in self._report.pieces(opened)])
        if (written.size, written.sha256) == (file.size, file.sha256):
            self._snapshot.bytes_copied += file.size
            self._whole.add(file)
            return
        path.unlink()
        if file.part == VECTORS:
            raise self._damage(file, "is damaged: its bytes are not those that were written")
        self._leave_out(file, "is damaged")

    def _leave_out(self, file: _File, what: str) -> None:
        self._damaged.add(file)
        self._snapshot.notes.append(
            f"{self._source / file.part / file.name} {what}, and was left out: `trivium rebuild` makes it anew from "
            "the stored vectors"
        )

    def _damage(self, file: _File, what: str) -> CollectionError:
        return CollectionError(f"{self._source / file.part / file.name} {what}. {self._remedy}")

    @property
    def _remedy(self) -> str:
        return (
            f"Nothing was copied. `trivium verify --read-data {self._source}` tells all that is wrong; restore an "
            "earlier backup with `trivium restore`, or delete the collection and index again; your media are untouched"
        )

    def _compare_with_checksum(self) -> str:
        """Compare the database with its checksum, inside of a transaction that reads it; say if that cannot be done."""
        database = self._source / DATABASE
        try:
            recorded = read_checksum(self._source)
        except ValueError:
            recorded = None
        changes, _ = change_counter(self._source)
        if recorded is not None and recorded.changes == changes:
            if database_sha256(self._source) != recorded.sha256:
                raise CollectionError(
                    f"{database} is damaged: its bytes are not those that were written. {self._remedy}"
                )
            return ""
        return (
            f"{database} has no checksum of its present state (a writer is at work, or was killed): its structure was "
            "checked, not what is stored in it"
        )

    def _require_room(self, size: int) -> None:
        free = shutil.disk_usage(self._target).free
        if size > free:
            raise CollectionError(
                f"no room for a copy of {self._source} at {self._target.parent.parent}: it takes {size:,} bytes, "
                f"{free:,} are free; name a place on another disk, or make room"
            )


def _sync_file(path: Path) -> None:
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
