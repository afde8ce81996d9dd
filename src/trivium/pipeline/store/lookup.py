"""What is known of contents, answered to any thread while a run writes."""

import os
import threading
from pathlib import Path

from trivium.pipeline.records import ContentKey
from trivium.pipeline.store import rows as column
from trivium.pipeline.store.database import (
    open_database,
)
from trivium.pipeline.store.rows import maybe, read_row, read_rows


class ContentLookup:
    """Which contents have a vector, answered to any thread from a connection of its own."""

    def __init__(self, folder: Path, *, space: int | None = None) -> None:
        self._db = open_database(folder, any_thread=True)
        self._lock = threading.Lock()
        self._sql = "SELECT 1 FROM content c WHERE sha256 = ? AND modality = ?"
        if space is not None:
            self._sql += (
                f" AND EXISTS (SELECT 1 FROM vector v WHERE v.space = {int(space)} AND v.modality = c.modality "
                "AND v.content = c.id)"
            )

    def __contains__(self, content: object) -> bool:
        if not isinstance(content, ContentKey):
            return False
        with self._lock:
            return read_row(self._db, self._sql, content[::-1], columns=(column.whole,)) is not None

    def contents_at(self, path: str) -> dict[str, ContentKey]:
        """Return the contents of the item of a file, by role."""
        sql = (
            "SELECT e.role, c.modality, c.sha256 FROM item i JOIN embedding e ON e.item = i.id "
            "JOIN content c ON c.id = e.content WHERE i.path = ?"
        )
        with self._lock:
            rows = list(
                read_rows(self._db, sql, (os.fsencode(path),), columns=(column.role, column.modality, column.blob))
            )
        return {role: ContentKey(modality, sha256) for role, modality, sha256 in rows}

    def seconds_of(self, content: ContentKey) -> float | None:
        """Return how long a sound or a video is, if that is known."""
        sql = "SELECT seconds FROM content WHERE sha256 = ? AND modality = ?"
        with self._lock:
            row = read_row(self._db, sql, content[::-1], columns=(maybe(column.duration),))
        return None if row is None else row[0]

    def close(self) -> None:
        """Release the database file."""
        with self._lock:
            self._db.close()
