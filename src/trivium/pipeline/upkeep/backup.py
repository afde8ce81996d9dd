"""Backups: a snapshot of a collection in a folder of its own, and the way back.

A backup is itself a collection: it can be verified and searched where it lies. Thumbnails are not part of it: they are
made again from the media. Both ways a draft is made and checked in
a folder beside the place it is for, and gets its name when it is whole; until then what is there stays as it is.
"""

import contextlib
import json
import os
import shutil
import sqlite3
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from trivium.encoders.files.folders import exchange
from trivium.encoders.files.reading import open_regular
from trivium.encoders.files.writing import sync_folder, write_durably
from trivium.pipeline.progress import Progress
from trivium.pipeline.store.database import LOCK, LOCK_HOLDER, CollectionError, CollectionLockedError
from trivium.pipeline.store.database_file import CHECKSUM, DATABASE, Checksum, change_counter, read_checksum
from trivium.pipeline.store.locking import writer_lock
from trivium.pipeline.store.shards import FOLDER as VECTORS
from trivium.pipeline.store.store import INDEX
from trivium.pipeline.store.thumbnails import FOLDER as THUMBNAILS
from trivium.pipeline.store.thumbnails import is_own_folder
from trivium.pipeline.store.writer import is_own_file
from trivium.pipeline.upkeep.findings import reason
from trivium.pipeline.upkeep.snapshot import Snapshot, take_snapshot

MARK = "backup.json"  # in a backup: of which collection, and of which state
MARK_BYTES = 1 << 16
_DRAFT, _OLD = "draft", "old"
_OWN_NAMES = {
    *(DATABASE, f"{DATABASE}-journal", CHECKSUM, f".{CHECKSUM}.new", MARK, f".{MARK}.new", LOCK, LOCK_HOLDER),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Restoration:
    """What `restore` did."""

    snapshot: Snapshot
    moved_to: Path | None  # where the collection lies now that was there


def backup(folder: Path, target: Path, *, replace: bool = False, progress: Progress | None = None) -> Snapshot:
    """Copy one generation of a collection, while a writer may be at work.

    Args:
        folder: The collection.
        target: A folder that does not exist yet, or is empty.
        replace: ``target`` may be an earlier backup of this collection, which nobody has written to since; it is
            replaced when the new one is whole. Files that are whole there are not copied again.
        progress: Told while files are read.

    Returns:
        What was copied. An index file that is damaged is left out, with a note.

    Raises:
        CollectionLockedError: If another process makes a backup there.
        CollectionError: If there is no collection, it is damaged, ``target`` is something else, or a disk is full or
            fails. What was at ``target`` is as it was.
    """
    folder, target = _places(folder, target)
    _earlier_at(target, folder, replace=replace)  # refused before anything is made
    with _plain_errors(folder, target), _draft_beside(target) as draft:
        earlier = _earlier_at(target, folder, replace=replace)
        snapshot = take_snapshot(folder, draft, earlier=earlier, progress=progress)
        _write_mark(draft, folder, snapshot)
        _name(draft, target, aside=draft.with_name(_OLD))
    return snapshot


def restore(source: Path, folder: Path, *, progress: Progress | None = None) -> Restoration:
    """Make a collection of a backup; a collection that is there is moved aside, not deleted.

    Args:
        source: A backup, or any whole collection. Each byte is compared with its hash before anything is changed.
        folder: Where the collection is to be: nothing, an empty folder, or a collection, however damaged.
        progress: Told while files are read.

    Raises:
        CollectionLockedError: If another process is writing to the collection that is there, or restores it.
        CollectionError: If the backup is damaged, ``folder`` is something else, or a disk is full or fails. What was at
            ``folder`` is as it was.
    """
    source, folder = _places(source, folder)
    if not os.path.lexists(source / DATABASE):
        raise CollectionError(f"{source} is no backup: it has no {DATABASE}")
    if not (_is_vacant(folder) or os.path.lexists(folder / DATABASE) or (folder / VECTORS).is_dir()):
        raise CollectionError(f"{folder} is there already, and is no collection: name a folder that does not exist yet")
    moved = None if _is_vacant(folder) else _free_name(folder)
    with _plain_errors(source, folder), _draft_beside(folder) as draft:
        snapshot = take_snapshot(source, draft, progress=progress)
        _name(draft, folder, aside=moved)
    return Restoration(snapshot=snapshot, moved_to=moved)


def _places(source: Path, target: Path) -> tuple[Path, Path]:
    source, target = Path(os.path.realpath(source)), Path(os.path.realpath(target))
    if source.is_relative_to(target) or target.is_relative_to(source):
        raise CollectionError(f"{source} and {target} lie within each other: name a folder elsewhere")
    if not target.parent.is_dir():
        raise CollectionError(f"there is no folder {target.parent}: make it, or connect the disk that it is on")
    return source, target


def _is_vacant(place: Path) -> bool:
    """Whether nothing is there, or an empty folder."""
    if not os.path.lexists(place):
        return True
    try:
        return place.is_dir() and not os.listdir(place)
    except OSError as error:
        raise CollectionError(f"cannot read {place}: {reason(error)}") from error


@contextlib.contextmanager
def _plain_errors(source: Path, target: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, sqlite3.Error) as error:
        raise CollectionError(
            f"cannot copy {source} to {target} ({error}): what was there before is kept; see to the disk, try again"
        ) from error


@contextlib.contextmanager
def _draft_beside(target: Path) -> Iterator[Path]:
    """Yield a folder on the same file system, for one process at a time; it is gone afterwards.

    What a kill or Ctrl-C leaves of it, the next run goes on with.
    """
    room = target.with_name(f".{target.name}.trivium-draft")
    with contextlib.suppress(FileExistsError):
        room.mkdir(mode=0o700)
    # It is gone on with, or deleted: so only what a run of ours may have left, whoever put it there.
    if room.is_symlink() or not room.is_dir() or _foreign_in_room(room):
        raise CollectionError(f"{room} is in the way, and is none of Trivium's: move it away")
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(writer_lock(room))
        except CollectionLockedError:
            raise
        except CollectionError:  # the disk is full
            with contextlib.suppress(OSError):
                (room / LOCK).unlink(missing_ok=True)
                room.rmdir()
            raise
        draft, old = room / _DRAFT, room / _OLD
        if old.is_dir() and not os.path.lexists(target):  # a run was killed while it exchanged them
            old.rename(target)
        shutil.rmtree(old, ignore_errors=True)
        try:
            yield draft
        except Exception:
            shutil.rmtree(room, ignore_errors=True)
            raise
        shutil.rmtree(room, ignore_errors=True)


def _foreign_in_room(room: Path) -> str | None:
    with os.scandir(room) as entries:
        for entry in entries:
            if entry.name in (_DRAFT, _OLD) and entry.is_dir(follow_symlinks=False):
                if (foreign := _foreign_in(Path(entry.path))) is not None:
                    return foreign
            elif entry.name not in (LOCK, LOCK_HOLDER) or not entry.is_file(follow_symlinks=False):
                return entry.path
    return None


def _foreign_in(folder: Path) -> str | None:
    """Name something in a folder that no backup has: a file of another name, a link, a folder of somebody else's."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name in (VECTORS, INDEX) and entry.is_dir(follow_symlinks=False):
                with os.scandir(entry.path) as files:
                    for file in files:
                        if not is_own_file(entry.name, file.name) or not file.is_file(follow_symlinks=False):
                            return file.path
            elif entry.name == THUMBNAILS and entry.is_dir(follow_symlinks=False):  # of pages made of the backup
                if not is_own_folder(Path(entry.path)):
                    return entry.path
            elif entry.name not in _OWN_NAMES or not entry.is_file(follow_symlinks=False):
                return entry.path
    return None


def _name(draft: Path, target: Path, *, aside: Path | None) -> None:
    """Give a draft that is whole its name; what has the name gets the one of ``aside``."""
    sync_folder(draft)
    sync_folder(draft.parent)
    if aside is None or _is_vacant(target):
        draft.rename(target)
    else:
        with writer_lock(target):
            draft.rename(aside)
            if not exchange(aside, target):
                aside.rename(draft)
                target.rename(aside)
                draft.rename(target)
            (aside / LOCK_HOLDER).unlink(missing_ok=True)  # ours
            sync_folder(aside.parent)
    sync_folder(target.parent)


def _free_name(folder: Path) -> Path:
    now = time.strftime("%Y%m%d-%H%M%S")
    names = (f"{folder.name}.before-restore-{now}{suffix}" for suffix in ("", *(f"-{n}" for n in range(2, 100))))
    return next(path for path in map(folder.with_name, names) if not os.path.lexists(path))


def _write_mark(draft: Path, folder: Path, snapshot: Snapshot) -> None:
    recorded = read_checksum(draft)
    assert recorded is not None
    told = {
        "collection": str(folder),
        "generation": snapshot.generation,
        "made": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "database": recorded.sha256,
    }
    write_durably(draft / MARK, lambda write: write((json.dumps(told, indent=1) + "\n").encode()))


def _earlier_at(target: Path, folder: Path, *, replace: bool) -> Path | None:
    """Return the earlier backup of a collection that is to be replaced, None if nothing is there.

    Raises:
        CollectionError: If something else is there, or it is not to be replaced, or holds what the collection has not.
    """
    if _is_vacant(target):
        return None
    elsewhere = "name a folder that does not exist yet"
    try:
        with open_regular(target / MARK) as file:
            told = json.loads(file.read(MARK_BYTES))
        of, sha256 = str(told["collection"]), str(told["database"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise CollectionError(f"{target} is there already, and is no backup of {folder}: {elsewhere}") from error
    if not replace:
        raise CollectionError(f"{target} is a backup already: replace it with --replace, or {elsewhere}")
    if of != str(folder):
        raise CollectionError(f"{target} is a backup of {of}, not of {folder}: {elsewhere}")
    try:
        recorded = read_checksum(target)
        is_as_made = recorded == Checksum(change_counter(target)[0], sha256)
    except (OSError, ValueError):
        is_as_made = False
    if not is_as_made:
        raise CollectionError(f"{target} was written to since it was made, or is damaged: move it away, or {elsewhere}")
    if foreign := _foreign_in(target):
        raise CollectionError(f"{foreign} is none of the backup's, and would be lost: move it away, or {elsewhere}")
    return target
