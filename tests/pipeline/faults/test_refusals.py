"""What is said when a collection cannot be read just now, which is no damage."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from trivium.pipeline.store import database
from trivium.pipeline.store.database import CollectionError
from trivium.pipeline.store.database_file import DATABASE
from trivium.pipeline.store.store import Store


@pytest.fixture
def folder(groups: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(database, "BUSY_SECONDS", 0)
    Store.create(tmp_path / "c", groups.SPACE, source="groups").close()
    return tmp_path / "c"


@pytest.fixture
def other(folder: Path) -> Iterator[sqlite3.Connection]:
    """A program that may keep the database to itself."""
    with closing(sqlite3.connect(folder / DATABASE, isolation_level=None)) as connection:
        yield connection


def test_collection_that_another_keeps_to_itself_is_not_called_damaged(folder: Path, other: sqlite3.Connection) -> None:
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(CollectionError, match=r"cannot read .*collection\.db \(database is locked\).* try again"):
        Store(folder)
    other.execute("ROLLBACK")
    Store(folder)


def test_search_that_waited_too_long_is_a_plain_error(folder: Path, other: sqlite3.Connection) -> None:
    store = Store(folder)
    other.execute("BEGIN EXCLUSIVE")
    with (
        pytest.raises(CollectionError, match=r"cannot read .*/c/collection.db \(database is locked\)"),
        store.reading(),
    ):
        store.generation  # noqa: B018
    other.execute("ROLLBACK")
    with store.reading():
        assert store.generation == 0


def test_database_without_its_tables_is_damaged(folder: Path, other: sqlite3.Connection) -> None:
    other.execute("DROP TABLE collection")
    with pytest.raises(CollectionError, match=r"is damaged \(it has no table collection\)"):
        Store(folder)
