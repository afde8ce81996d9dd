"""Is a collection whole? Its structure, its files' sizes and hashes, and the media it was made of.

It works on what is left of a collection, however damaged: each thing that is wrong becomes a finding. Damage is what
cannot be made anew from the rest; all else is a note. No file is loaded whole or mapped (a failing disk under a mapped
file kills the process), and FAISS never sees one.
"""

import contextlib
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from trivium.encoders.files.reading import CHUNK_BYTES, open_regular
from trivium.pipeline.ingest.scanning import fingerprint
from trivium.pipeline.progress import Progress
from trivium.pipeline.records import IndexFile
from trivium.pipeline.store.database import DAMAGED, CollectionError, CollectionLockedError, what_is_missing
from trivium.pipeline.store.database_file import DATABASE, DatabaseFileError
from trivium.pipeline.store.index_seal import is_sealed, is_untouched
from trivium.pipeline.store.locking import writer_lock
from trivium.pipeline.store.shards import FOLDER as VECTORS
from trivium.pipeline.store.shards import Shard
from trivium.pipeline.store.store import INDEX
from trivium.pipeline.store.writer import is_own_file
from trivium.pipeline.upkeep.database_check import (
    Manifest,
    changes,
    check_checksum,
    check_database,
    connect_to_check,
    tell_unreadable,
)
from trivium.pipeline.upkeep.findings import Finding, Report, other_bytes, reason

LENGTH_TOLERANCE = 1e-2  # of a unit vector; half precision moves a length by less than 1e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """What `verify` found."""

    findings: list[Finding]
    files: int  # looked at
    bytes_read: int  # and hashed

    @property
    def is_sound(self) -> bool:
        """Whether nothing is damaged; there may be notes."""
        return not any(finding.is_damage for finding in self.findings)


def verify(
    folder: Path,
    *,
    read_data: bool = False,
    media: bool = False,
    part: tuple[int, int] | None = None,
    progress: Progress | None = None,
) -> Verification:
    """Check a collection, while nobody writes to it.

    An interrupted write is rolled back, as each opening does. Nothing else is changed, but for one thing: an index file
    whose bytes have changed under unchanged times, so that searches trust it, has its times changed.

    Args:
        folder: The collection.
        read_data: Hash the collection's files, and look at each vector. Else what is stored in the tables and in the
            files is taken for what was written, as long as it fits together.
        media: Hash the indexed files too.
        part: ``(1, 7)``: of all files, only those of the first of seven parts are hashed, about a seventh of the bytes
            where files are many; seven runs, up to ``(7, 7)``, hash everything, also if the collection changes between
            them. Structure, sizes and the database are checked each time.
        progress: Told while files are read.

    Raises:
        CollectionLockedError: If another process is writing to it.
        CollectionError: If there is no collection, or no way to look at it.
        ValueError: If there is no such part.
    """
    if part is not None and not 1 <= part[0] <= part[1]:
        raise ValueError(f"part must be (1, n) to (n, n), got {part}")
    try:
        if not os.path.lexists(folder / DATABASE) and not (folder / VECTORS).is_dir():
            raise CollectionError(what_is_missing(folder))
        os.listdir(folder)
    except OSError as error:
        raise CollectionError(f"cannot read {folder}: {reason(error)}") from error
    report = Report(folder, progress, part=part)
    with contextlib.ExitStack() as stack:
        is_locked = _lock(stack, folder)
        before = changes(folder)
        manifest = check_database(report, writable=is_locked)
        if manifest is not None:
            if read_data:
                report.bytes_to_do += (folder / DATABASE).stat().st_size
                report.bytes_to_do += sum(shard.size for shard in manifest.shards if report.is_due(shard.name))
                report.bytes_to_do += sum(file.size for file in manifest.index_files if report.is_due(file.name))
            if media:
                report.bytes_to_do += media_bytes(report)
            check_checksum(report, read_data=read_data)
            _check_shards(report, manifest, read_data=read_data)
            _check_index_files(report, manifest, read_data=read_data)
            if media:
                check_media(report)
        if not is_locked and changes(folder) != before:
            raise CollectionLockedError(f"{folder} was written to while it was verified: verify it again")
    return Verification(findings=report.findings, files=report.files, bytes_read=report.bytes_read)


def _lock(stack: contextlib.ExitStack, folder: Path) -> bool:
    """Keep writers out for as long as ``stack`` lasts; return whether that was possible."""
    try:
        stack.enter_context(writer_lock(folder))
    except CollectionLockedError:
        raise
    except CollectionError:  # not ours to write to, or the disk is full: it can be looked at all the same
        return False
    return True


def _check_shards(report: Report, manifest: Manifest, *, read_data: bool) -> None:
    folder = report.folder / VECTORS
    if manifest.shards and not folder.is_dir():
        report.damage(folder, f"the folder is missing, with {len(manifest.shards):,} files of vectors")
        report.pass_over(sum(s.size for s in manifest.shards if read_data and report.is_due(s.name)))
        return
    for shard in manifest.shards:
        path = folder / shard.name
        read, reads = report.bytes_read, read_data and report.is_due(shard.name)
        try:
            size = path.stat().st_size
            report.files += 1
            if size != shard.size:
                report.damage(path, f"it has {size:,} bytes, {shard.size:,} were written")
            elif not path.is_file():
                report.damage(path, "it is no regular file")
            elif reads:
                _read_shard(report, path, shard, manifest.dims.get(shard.name))
        except FileNotFoundError:
            report.damage(path, "it is missing")
        except OSError as error:
            report.damage(path, f"it cannot be read ({reason(error)})")
        if reads and report.bytes_read == read:
            report.pass_over(shard.size)
    _note_strays(report, folder, {shard.name for shard in manifest.shards})


def _read_shard(report: Report, path: Path, shard: Shard, dim: int | None) -> None:
    """Hash a shard of the right size and, on the way, look at its vectors, if their width is known."""
    digest = hashlib.sha256()
    header, row_bytes = (CHUNK_BYTES, 1) if dim is None else (shard.size - shard.rows * dim * 2, dim * 2)
    rows_at_once = max(1, CHUNK_BYTES // row_bytes)
    bad, first_bad, row = 0, 0, 0
    with open_regular(path) as file:
        for number, piece in enumerate(report.pieces(file, first=header, others=rows_at_once * row_bytes)):
            digest.update(piece)
            if number and dim is not None:
                rows = np.frombuffer(piece[: len(piece) // row_bytes * row_bytes], np.float16).reshape(-1, dim)
                with np.errstate(all="ignore"):  # of numbers that are none
                    lengths = np.linalg.norm(rows.astype(np.float32), axis=1)
                wrong = np.flatnonzero(~(np.abs(lengths - 1) <= LENGTH_TOLERANCE))  # NaN is wrong too
                if len(wrong) and not bad:
                    first_bad = row + int(wrong[0])
                bad += len(wrong)
                row += len(rows)
    if digest.hexdigest() != shard.sha256:
        report.damage(
            path, f"its bytes are not those that were written: {other_bytes(digest.hexdigest(), shard.sha256)}"
        )
    elif bad:
        report.damage(
            path, f"{bad:,} of its {shard.rows:,} vectors are not finite or not of length 1, first in row {first_bad}"
        )


def _check_index_files(report: Report, manifest: Manifest, *, read_data: bool) -> None:
    """Check what is derived: nothing about it is damage."""
    folder = report.folder / INDEX
    for file in manifest.index_files:
        path = folder / file.name
        read, reads = report.bytes_read, read_data and report.is_due(file.name)
        problem = _index_problem(report, path, file, read_data=reads)
        if reads and report.bytes_read == read:
            report.pass_over(file.size)
        expected = manifest.vectors_through[file.name]
        if problem is None and (file.through > manifest.newest or file.vectors != expected):
            problem = (
                f"it is recorded with {file.vectors:,} vectors, of all contents up to {file.through:,}; the collection "
                f"has {expected:,} of these, and its last content is {manifest.newest:,}"
            )
        if problem is not None:
            report.note(path, problem, "`trivium rebuild` makes it anew from the stored vectors")
    _note_strays(report, folder, {file.name for file in manifest.index_files})


def _index_problem(report: Report, path: Path, file: IndexFile, *, read_data: bool) -> str | None:
    unused = "searches do without it and compare all vectors"
    try:
        size, is_touched = path.stat().st_size, not is_untouched(path, file)
        report.files += 1
        if size != file.size:
            return f"it has {size:,} bytes, {file.size:,} were written; {unused}"
        if not path.is_file():
            return f"it is no regular file; {unused}"
        if read_data:
            with open_regular(path) as opened:
                found = report.sha256(opened)
            if found == file.sha256:
                return None if is_sealed(file) or not is_touched else f"{_STRANGE}: {unused}"
            problem = f"its bytes are not those that were written: {other_bytes(found, file.sha256)}"
            return f"{problem}; {unused if is_touched else _distrust(path)}"
        if is_touched and not is_sealed(file):
            return f"{_STRANGE}: {unused}"
        if is_touched:
            return "it was copied, touched or changed since it was written, so that each opening hashes it first"
    except FileNotFoundError:
        return f"it is missing; {unused}"
    except OSError as error:
        return f"it cannot be read ({reason(error)}); {unused}"
    return None


_STRANGE = "it was not made here by this Trivium (but elsewhere, or by an older one), and FAISS trusts what it reads"


def _distrust(path: Path) -> str:
    """Change a damaged file's times, by which searches know it for the one that was written."""
    trusted = "its times are as they were, so that searches have used it"
    try:
        status = path.stat()
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    except OSError as error:
        return f"{trusted}, and go on to do so ({reason(error)})"
    return f"{trusted}; now its times are others, and they do without it"


def _note_strays(report: Report, folder: Path, named: set[str]) -> None:
    if folder.is_symlink():
        report.note(folder, "it is a link: nothing can be written to the collection", "put the folder itself here")
        return
    try:
        with os.scandir(folder) as entries:
            strays = sorted((entry for entry in entries if entry.name not in named), key=lambda entry: entry.name)
    except FileNotFoundError:
        return  # the next writer makes it
    except OSError as error:
        report.note(folder, f"it cannot be listed ({reason(error)})", "see that it is a folder, and yours")
        return
    for entry in strays:
        if not is_own_file(folder.name, entry.name) or entry.is_dir(follow_symlinks=False):
            report.note(
                entry.path, "it is none of the collection's", "Trivium leaves it alone; move it where it belongs"
            )
        else:
            report.note(
                entry.path,
                "a file that the collection does not name (a writer was killed?)",
                "leave it: the next command that writes to the collection deletes it; move it away to keep it",
            )


ITEMS_AT_ONCE = 1000


def media_bytes(report: Report) -> int:
    """How much there is to be hashed, as far as recorded sizes tell."""
    try:
        with contextlib.closing(connect_to_check(report.folder, writable=False)) as db:
            db.create_function("trivium_is_due", 1, lambda path: isinstance(path, bytes) and report.is_due(path))
            rows = "FROM item" if report.part is None else "FROM item WHERE trivium_is_due(path)"
            (size,) = db.execute(f"SELECT coalesce(sum({_SIZE}), 0) {rows}").fetchone()
    except (*DAMAGED, DatabaseFileError, OSError):  # told when the items are read
        return 0
    return int(size)


def check_media(report: Report) -> None:
    """Hash the indexed files.

    Raises:
        CollectionLockedError: If another program keeps the database to itself.
    """
    try:
        with contextlib.closing(connect_to_check(report.folder, writable=False)) as db:
            last = -(2**63)
            # Page by page: where writers are not kept out, a statement that stays open would hold them up.
            while rows := db.execute(
                f"SELECT i.id, i.path, i.fingerprint, lower(hex(c.sha256)), {_SIZE} FROM item i "
                "LEFT JOIN embedding e ON e.item = i.id AND e.role = 'content' LEFT JOIN content c ON c.id = e.content "
                f"WHERE i.id > ? ORDER BY i.id LIMIT {ITEMS_AT_ONCE}",
                (last,),
            ).fetchall():
                last = rows[-1][0]
                for id_, path, recorded, sha256, size in rows:
                    read, is_due = report.bytes_read, not isinstance(path, bytes) or report.is_due(path)
                    if isinstance(path, bytes) and b"\0" not in path:
                        _check_file(report, os.fsdecode(path), recorded=str(recorded), sha256=sha256, reads=is_due)
                    else:
                        report.damage(report.folder / DATABASE, f"the path of its item {id_} makes no sense: {path!r}")
                    if is_due and report.bytes_read == read:
                        report.pass_over(size)
    except (*DAMAGED, DatabaseFileError) as error:
        tell_unreadable(report, error, writable=False)


# A fingerprint begins with the size; the cast takes the digits up to the first other character.
_SIZE = "max(0, CAST(fingerprint AS INTEGER))"


def _check_file(report: Report, path: str, *, recorded: str, sha256: str, reads: bool) -> None:
    # A file that changed shortly before it was read, or was read elsewhere, has no fingerprint but a word.
    has_fingerprint = recorded[:1].isdigit()
    try:
        before = fingerprint(os.lstat(path))
        report.files += 1
        if has_fingerprint and before != recorded:
            report.note(path, "it was changed or touched since it was indexed", "index it again")
            return
        if not reads:
            return
        with open_regular(path) as file:
            found = report.sha256(file)
        was_changed = fingerprint(os.lstat(path)) != before
    except (FileNotFoundError, NotADirectoryError):
        report.note(path, "it is missing", "if it was moved or deleted, index its folder again")
    except PermissionError as error:
        report.note(path, f"it cannot be read ({reason(error)})", "see to its permissions")
    except OSError as error:
        report.damage(path, f"it cannot be read ({reason(error)})", "see to the disk, restore the file from a backup")
    else:
        if found == sha256:
            return
        if has_fingerprint and not was_changed:
            report.damage(
                path,
                f"the disk has changed its bytes: {other_bytes(found, sha256)}, and its times are as they were",
                "restore the file from a backup; if it is as it should be, touch it and index it again",
            )
        else:
            report.note(path, f"it was changed since it was indexed: {other_bytes(found, sha256)}", "index it again")
