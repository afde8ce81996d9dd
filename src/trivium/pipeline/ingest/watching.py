"""Keeping a collection up to date: what the file system tells of, looked at again when it has become quiet there."""

import contextlib
import os
import stat
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

from trivium.pipeline.ingest.ingestion import ingest
from trivium.pipeline.ingest.settings import IngestSettings, Summary
from trivium.pipeline.paths import named
from trivium.pipeline.progress import Bars
from trivium.pipeline.space.joint import JointSpace
from trivium.pipeline.store.database import CollectionLockedError
from trivium.pipeline.store.store import Store

QUIET_SECONDS = 2.0  # a file that is being written fires at each flush, and FAT counts in 2 s
TICK_MS = 500
ROOTS_SECONDS = 10.0  # so often it is looked whether disks came, went or were exchanged
POLL_MS = 5_000  # where there are no events
BUSY_SECONDS = 2.0  # another process writes
# File systems whose changes by other machines fire no event here (mountinfo's names).
REMOTE = frozenset({"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "glusterfs", "lustre", "fuse.sshfs"})


def keep_up_to_date(
    store: Store,
    space: JointSpace,
    told: Callable[[Summary], None],
    *,
    stop: threading.Event,
    poll: bool = False,
    note: Callable[[str], None] | None = None,
    progress: Bars | None = None,
) -> None:
    """Do what `Collection.watch` says.

    Raises:
        CollectionError: If the collection is damaged, or cannot be written to.
    """
    note = note or (lambda _: None)
    for change in watch(lambda: list(store.roots()), apart=str(store.folder), poll=poll, stop=stop):
        if change.note:
            note(change.note)
        steps: list[tuple[Sequence[str] | None, bool]] = [(None, False)] if change.everything else []
        steps += [(change.walked, False)] if change.walked else []
        steps += [(change.listed, True)] if change.listed else []
        for media, shallow in steps:
            settings = IngestSettings(shallow=shallow, progress=progress)
            summary = _when_free(partial(ingest, store, space, media, settings), stop, note)
            if summary is not None and (summary.indexed or summary.renamed or summary.removed or summary.vanished):
                told(summary)


def _when_free(update: Callable[[], Summary], stop: threading.Event, note: Callable[[str], None]) -> Summary | None:
    """Update as soon as no other process writes; None if it was stopped meanwhile."""
    is_told = False
    while not stop.is_set():
        try:
            return update()
        except CollectionLockedError as error:
            if not is_told:
                note(f"{error}: waiting")
                is_told = True
            stop.wait(BUSY_SECONDS)
    return None


@dataclass(slots=True)
class Changes:
    """Paths at which something changed, until it is quiet in their folders."""

    inside: Callable[[str], bool]  # whether a path is looked at at all
    _times: dict[str, float] = field(default_factory=dict)  # by folder: of the last change
    _paths: dict[str, set[str]] = field(default_factory=dict)  # by folder

    def add(self, path: str, now: float) -> None:
        """Take in an event."""
        if self.inside(path):
            folder = os.path.dirname(path)
            self._times[folder] = now
            self._paths.setdefault(folder, set()).add(path)

    def due(self, now: float) -> tuple[list[str], list[str]]:
        """Take out what has been quiet: folders to be walked, and folders whose own files are to be looked at."""
        quiet = [folder for folder, last in self._times.items() if now - last >= QUIET_SECONDS]
        walked, listed = set(), set()
        for folder in quiet:
            del self._times[folder]
            walked |= {path for path in self._paths.pop(folder) if _is_folder(path)}
            # A folder that is gone as well is told of by the listing of the one above.
            while not _is_folder(folder) and folder != os.path.dirname(folder):
                folder = os.path.dirname(folder)
            listed.add(folder)
        return sorted(walked), sorted(listed)


@dataclass(frozen=True, slots=True)
class Watched:
    """Something to be done for a collection that is watched."""

    everything: bool = False  # its roots, whatever they are
    walked: Sequence[str] = ()
    listed: Sequence[str] = ()
    note: str = ""  # what its owner should know


def watch(
    roots: Callable[[], Sequence[str]], *, apart: str, stop: threading.Event, poll: bool = False
) -> Iterator[Watched]:
    """Yield what is to be looked at again, as things change; what changes meanwhile is told of afterwards.

    Args:
        roots: Gives what is to be watched now; files and folders.
        apart: A folder whose changes are passed over: the collection's own.
        poll: Look at all files every 5 seconds, where the file system tells of nothing; network disks are found out.
        stop: Ends it within a second.
    """
    while not stop.is_set():
        paths = list(roots())
        states = _states(paths)
        present = [path for path in paths if states[path] is not None]
        if not poll and (remote := [path for path in present if is_remote(path)]):
            yield Watched(note=f"{remote[0]} is a network disk, which tells of no changes: looked at every 5 seconds")
            poll = True
        if not present:
            yield Watched(note="nothing that is watched is there: waiting for it")
            while not stop.wait(1) and _states(roots()) == states:
                pass
            continue
        try:
            yield from _events(roots, present, states, apart, poll, stop)
        except OSError as error:
            if poll:
                raise
            yield Watched(
                note=f"{error}: files are looked at every 5 seconds instead. To watch so many folders, raise the "
                "limit: `sysctl fs.inotify.max_user_watches=1048576`"
            )
            poll = True


def _events(
    roots: Callable[[], Sequence[str]],
    present: Sequence[str],
    states: dict[str, tuple[int, int] | None],
    apart: str,
    poll: bool,
    stop: threading.Event,
) -> Iterator[Watched]:
    """Yield changes until the roots are others, or lie on other disks."""
    import watchfiles

    inside = _inside(present, apart)
    changes = Changes(inside)
    found = watchfiles.watch(
        *present,
        watch_filter=None,
        debounce=TICK_MS,
        rust_timeout=TICK_MS,
        yield_on_timeout=True,
        stop_event=stop,
        force_polling=poll,
        poll_delay_ms=POLL_MS,
        raise_interrupt=True,
        ignore_permission_denied=True,
    )
    with contextlib.closing(found):
        events = next(found, set())  # from now on nothing is missed
        yield Watched(everything=True)
        looked = time.monotonic()
        while not stop.is_set():
            now = time.monotonic()
            for _, path in events:
                changes.add(path, now)
            walked, listed = changes.due(now)
            if walked or listed:
                yield Watched(walked=walked, listed=listed)
            if now - looked >= ROOTS_SECONDS:
                looked = now
                if _states(roots()) != states:
                    return
            events = next(found, set())


def _inside(roots: Sequence[str], apart: str) -> Callable[[str], bool]:
    """Return what says whether a path is looked at: no hidden one, and none of the collection's own."""
    folders = [root.rstrip("/") + "/" for root in roots]

    def inside(path: str) -> bool:
        if path == apart or path.startswith(apart.rstrip("/") + "/"):
            return False
        below = max((folder for folder in folders if path.startswith(folder)), key=len, default=None)
        if below is None:
            return path in roots
        return not any(part.startswith(".") for part in path[len(below) :].split("/"))

    return inside


def _states(paths: Sequence[str]) -> dict[str, tuple[int, int] | None]:
    """Return what tells a disk that came, went or was exchanged: device and inode of each path that is there."""
    states: dict[str, tuple[int, int] | None] = {}
    for path in paths:
        try:
            status = os.stat(path)
        except OSError:
            states[path] = None
        else:
            # A file is replaced when it is saved; a folder stays.
            states[path] = (status.st_dev, status.st_ino if stat.S_ISDIR(status.st_mode) else 0)
    return states


def _is_folder(path: str) -> bool:
    return os.path.isdir(path) and not os.path.islink(path)


def is_remote(path: str) -> bool:
    """Whether a path lies on a network disk, as far as this machine says; where it does not, no."""
    try:
        with open("/proc/self/mountinfo", "rb") as table:
            lines = table.read().splitlines()
    except OSError:
        return False
    mounts = {}
    for line in lines:
        fields, _, rest = line.partition(b" - ")
        point = fields.split()[4].replace(b"\\040", b" ").replace(b"\\011", b"\t").replace(b"\\134", b"\\")
        mounts[os.fsdecode(point)] = rest.split()[0].decode("ascii", "replace")
    folder = named(path)
    while folder not in mounts and folder != os.path.dirname(folder):
        folder = os.path.dirname(folder)
    return mounts.get(folder) in REMOTE
