"""Are the indexed files as they were? Told from bytes, where the file system says that nobody has touched them."""

import contextlib
import os

from trivium.encoders.files.durable import open_regular
from trivium.pipeline.ingest.scanning import fingerprint
from trivium.pipeline.store.database import DAMAGED
from trivium.pipeline.store.database_file import DATABASE, DatabaseFileError
from trivium.pipeline.upkeep.database_check import connect_to_check, tell_unreadable
from trivium.pipeline.upkeep.findings import Report, other_bytes, reason

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
