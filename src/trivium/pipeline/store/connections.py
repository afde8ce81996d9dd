"""Connections to one database: one for each thread that asks, so that no thread waits for another's statement.

SQLite takes a connection from several threads, but then their transactions are one, and a search would see half of
what an `add` commits.
"""

import threading
import weakref
from pathlib import Path

from trivium.pipeline.store.database import CollectionError, Connection, moved, open_database
from trivium.pipeline.store.database_file import DATABASE, acquire, release
from trivium.pipeline.store.filters import register_functions


class Connections:
    """What threads reach a collection's database by; a thread's connection is closed when the thread ends."""

    def __init__(self, folder: Path) -> None:
        """Open the database for this thread.

        Raises:
            CollectionError: As `open_database` does.
        """
        self._folder = folder
        # Nothing else holds one for long: what a thread has of a `threading.local` goes with it, in whatever thread.
        self._of_thread = threading.local()
        self._all: weakref.WeakSet[Connection] = weakref.WeakSet()
        self._lock = threading.Lock()  # over the set and the word below
        self._is_stopped = False
        first = self._opened()
        assert first.file is not None
        # Kept until the last connection is gone: another file would get its number else, and be taken for it.
        self._file = acquire(folder / DATABASE)
        self._release = weakref.finalize(self, release, self._file)
        if first.file != self._file:
            raise moved(folder)

    @property
    def own(self) -> Connection:
        """The connection of the calling thread.

        Raises:
            CollectionError: If they were closed, or another collection was put in the place of this one.
        """
        found: Connection | None = getattr(self._of_thread, "connection", None)
        if self._is_stopped:
            raise closed(self._folder)
        return self._opened() if found is None else found

    def stop(self) -> None:
        """Give no thread a connection any more; what threads do with theirs goes on until they ask again."""
        with self._lock:
            self._is_stopped = True

    def close(self) -> None:
        """Close all connections; no thread may be using one, but for asking for it."""
        self.stop()
        with self._lock:
            connections = list(self._all)
            self._all.clear()
        for connection in connections:
            connection.close()
        self._release()

    def _opened(self) -> Connection:
        connection = open_database(self._folder, any_thread=True)  # closed by any thread, used by one
        try:
            register_functions(connection)
            if connection.file != getattr(self, "_file", connection.file):
                raise moved(self._folder)
            with self._lock:
                if self._is_stopped:
                    raise closed(self._folder)
                self._all.add(connection)
        except BaseException:
            connection.close()
            raise
        self._of_thread.connection = connection
        return connection


def closed(folder: Path) -> CollectionError:
    """Say that a collection was closed by its user."""
    return CollectionError(f"{folder} is closed: open the collection again (`Collection.open`)")
