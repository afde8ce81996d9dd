"""Rows of a database that may be damaged or a stranger's: each value is of the type that it should be, or it is told.

SQLite keeps any type in any column, and a flipped bit or a hostile hand makes use of it. What reads a collection asks
for rows here, so that wrong ones end as one message with the file's name, not as an error of whatever meets them first.
"""

import json
import math
import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from trivium.encoders.base import MODALITIES, Modality
from trivium.pipeline.records import ITEM_KINDS, ItemKind, Part
from trivium.pipeline.store.database import DAMAGED, Connection, damage, failure

Column = Callable[[Any], Any]
SHOWN_CHARACTERS = 80  # of a value in a message
MAX_PATH_BYTES = 1 << 16
MAX_DIM = 1 << 16  # as of a space's folder


class MalformedError(ValueError):
    """A value that no Trivium has written there."""

    def __init__(self, value: object, wanted: str) -> None:
        shown = repr(value)
        super().__init__(f"{shown[:SHOWN_CHARACTERS]}{'...' if len(shown) > SHOWN_CHARACTERS else ''} is no {wanted}")


def read_rows(
    db: Connection, sql: str, parameters: Sequence[Any] = (), *, columns: Sequence[Column]
) -> Iterator[tuple[Any, ...]]:
    """Yield the rows of a query, each value as its column's function gives it.

    Raises:
        CollectionError: If SQLite cannot read them, or a value is not of its column.
    """
    try:
        cursor = db.execute(sql, parameters)
        for row in cursor:
            try:
                values = tuple([column(value) for column, value in zip(columns, row, strict=True)])
            except MalformedError as error:
                raise damage(db.database, _where(cursor, columns, row, error)) from error
            yield values
    except DAMAGED as error:
        raise failure(db.database, error) from error


def _where(cursor: sqlite3.Cursor, columns: Sequence[Column], row: Sequence[Any], error: MalformedError) -> str:
    """Say what is wrong with a row, and in which column."""
    for (name, *_), column, value in zip(cursor.description, columns, row, strict=True):
        try:
            column(value)
        except MalformedError:
            return f"in its column '{name}', {error}"
    return str(error)


def read_row(
    db: Connection, sql: str, parameters: Sequence[Any] = (), *, columns: Sequence[Column]
) -> tuple[Any, ...] | None:
    """Return the first row of a query, None if it has none; see `read_rows`."""
    return next(read_rows(db, sql, parameters, columns=columns), None)


def read_numbers(db: Connection, sql: str, parameters: Sequence[Any] = (), *, width: int) -> NDArray[np.int64]:
    """Return the whole numbers that a query gives, shape (n, width); there may be millions.

    Raises:
        CollectionError: If SQLite cannot read them, or some are none.
    """
    try:
        table: Any = np.fromiter(db.execute(sql, parameters), np.dtype((np.int64, width)))
    except DAMAGED as error:
        raise failure(db.database, error) from error
    except (TypeError, ValueError, OverflowError) as error:
        raise damage(db.database, f"where numbers should be is something else: {error}") from error
    numbers: NDArray[np.int64] = table.reshape(-1, width)
    return numbers


def whole(value: Any) -> int:
    """Take a whole number."""
    if type(value) is not int:
        raise MalformedError(value, "whole number")
    return value


def count(value: Any) -> int:
    """Take a whole number that is not negative."""
    if type(value) is not int or value < 0:
        raise MalformedError(value, "count")
    return value


def width(value: Any) -> int:
    """Take the width of a space's vectors."""
    if type(value) is not int or not 1 <= value <= MAX_DIM:
        raise MalformedError(value, "width of a vector")
    return value


def duration(value: Any) -> float:
    """Take a time in seconds, which may be 0."""
    if not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise MalformedError(value, "number of seconds")
    return float(value)


def text(value: Any) -> str:
    """Take a text."""
    if type(value) is not str:
        raise MalformedError(value, "text")
    return value


def blob(value: Any) -> bytes:
    """Take bytes."""
    if type(value) is not bytes:
        raise MalformedError(value, "sequence of bytes")
    return value


def path(value: Any) -> str:
    """Take the path of a file, as Python's os has it."""
    if type(value) is not bytes or not value.startswith(b"/") or b"\0" in value or len(value) > MAX_PATH_BYTES:
        raise MalformedError(value, "path of a file")
    return os.fsdecode(value)


def file_name(value: Any) -> str:
    """Take the name of a file in a folder of the collection, and of nothing outside of it."""
    if not is_file_name(value):
        raise MalformedError(value, "name of a file")
    return cast(str, value)


def is_file_name(value: Any) -> bool:
    """Whether this can be the name of a file in a folder."""
    return isinstance(value, str) and value not in ("", ".", "..") and "/" not in value and "\0" not in value


def modality(value: Any) -> Modality:
    """Take the name of a modality."""
    if value not in MODALITIES:
        raise MalformedError(value, "modality")
    return cast(Modality, value)


def kind(value: Any) -> ItemKind:
    """Take the name of a kind of item."""
    if value not in ITEM_KINDS:
        raise MalformedError(value, "kind of item")
    return cast(ItemKind, value)


def role(value: Any) -> str:
    """Take the name of a part of an item."""
    try:
        Part.parse(text(value))
    except ValueError:
        raise MalformedError(value, "part of an item") from None
    return cast(str, value)


def json_object(value: Any) -> dict[str, Any]:
    """Take the JSON of an object."""
    try:
        parsed = json.loads(text(value))
    except (ValueError, RecursionError):
        raise MalformedError(value, "JSON") from None
    if not isinstance(parsed, dict):
        raise MalformedError(value, "object in JSON")
    return parsed


def index_report(value: Any) -> dict[str, Any]:
    """Take the JSON of what is told of an index file: its wish, why it is so, and what was measured."""
    report = json_object(value)
    recall, queries, notes = report.get("recall") or {}, report.get("queries") or {}, report.get("notes") or []
    is_sound = (
        isinstance(report.get("wish") or {}, dict)
        and isinstance(report.get("reason") or "", str)
        and isinstance(notes, list)
        and all(isinstance(note, str) for note in notes)
        and _is_of_numbers(recall)
        and _is_of_numbers(queries)
        and recall.keys() <= queries.keys()
        and isinstance(report.get("milliseconds", None if recall else 0), int | float)
    )
    if not is_sound:
        raise MalformedError(value, "report of an index file")
    return report


def _is_of_numbers(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(number, int | float) for number in value.values())


def maybe(column: Column) -> Column:
    """Take nothing too."""
    return lambda value: None if value is None else column(value)
