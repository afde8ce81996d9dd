"""What expressions are in SQL. No text of the user's is ever part of it: all goes by parameters.

SQLite calls functions of ours: its own lower() knows ASCII only, and takes broken bytes for one another.
"""

import functools
import json
import os
import sqlite3
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from trivium.pipeline.paths import names_of
from trivium.pipeline.store.filters.expression import Comparison, Group, Node, Not, Operator, Value

SqlValue: TypeAlias = str | bytes | int | float | None


@dataclass(frozen=True, slots=True)
class Sql:
    """A condition and its parameters."""

    text: str
    parameters: tuple[SqlValue, ...] = ()
    operator: Operator | None = None  # the outermost, unless parentheses are around
    depth: int = 0  # of parentheses around AND and OR


def joined(operator: Operator, parts: Sequence[Sql]) -> Sql:
    """Join in a form that SQLite takes: its parser's stack has 100 places, and its trees are 1,000 deep at most.

    So parentheses stand only where they must, what is nested deepest comes first, where an open parenthesis takes one
    place of the stack instead of three, and long chains are joined from short ones.
    """
    # An AND within an OR needs none. One in its like does, or long chains would come about.
    parts = [
        _enclosed(part) if part.operator and (part.operator, operator) != ("AND", "OR") else part for part in parts
    ]
    deepest, *rest = sorted(parts, key=lambda part: -part.depth)
    while len(rest) > 8:
        rest = [_enclosed(_chained(operator, rest[start : start + 8])) for start in range(0, len(rest), 8)]
    return _chained(operator, [deepest, *rest])


def _chained(operator: Operator, parts: Sequence[Sql]) -> Sql:
    if len(parts) == 1:
        return parts[0]
    return Sql(
        f" {operator} ".join(part.text for part in parts),
        tuple(parameter for part in parts for parameter in part.parameters),
        operator,
        max(part.depth for part in parts),
    )


def _enclosed(part: Sql) -> Sql:
    return Sql(f"({part.text})", part.parameters, None, part.depth + 1)


def compiled(node: Node, *, negated: bool) -> Sql:
    """Return the condition of an expression, never NULL, or of its opposite."""
    if isinstance(node, Not):
        return compiled(node.part, negated=not negated)
    if isinstance(node, Group):
        # A "not" moves inwards: no comparison is ever NULL, so that is the same.
        operator: Operator = "AND" if (node.operator == "AND") != negated else "OR"
        return joined(operator, [compiled(part, negated=negated) for part in node.parts])
    condition = _on_metadata(node) if node.is_key else _on_item(node)
    return Sql(f"NOT {condition.text}", condition.parameters) if negated else condition


@dataclass(frozen=True, slots=True)
class _Column:
    """Where a stored value is: as a number or text, folded, and whether it is a number or looks like one."""

    value: str
    folded: str
    is_number: str


# A comparison with a REAL turns text that is a number, and no other, into one; other text is above all numbers.
_LIKE_A_NUMBER = "{} <= CAST(9e999 AS REAL)"
_ITEM_COLUMNS = {
    field: _Column(value=text, folded=f"trivium_fold({column})", is_number=_LIKE_A_NUMBER.format(text))
    for field, column, text in (
        ("path", "i.path", "CAST(i.path AS TEXT)"),
        ("name", "trivium_name(i.path)", "CAST(trivium_name(i.path) AS TEXT)"),
        ("modality", "i.modality", "i.modality"),
        ("caption", "i.caption", "i.caption"),
    )
}
_METADATA_COLUMN = _Column(  # of json_each, which gives true and false as 1 and 0
    value="entry.value",
    folded="trivium_fold(iif(entry.type IN ('true', 'false'), entry.type, entry.value))",
    is_number=f"entry.type NOT IN ('true', 'false') AND {_LIKE_A_NUMBER.format('entry.value')}",
)


def _on_item(comparison: Comparison) -> Sql:
    column = _ITEM_COLUMNS[comparison.field]
    if comparison.field == "path" and comparison.operator == "=":
        comparison = replace(comparison, values=_with_names(comparison.values))
    if comparison.operator == "has":
        return Sql(f"({column.value} IS NOT NULL)")
    condition = _contains(column, comparison) if comparison.operator == "contains" else _compares(column, comparison)
    return Sql(f"ifnull({condition.text}, 0)", condition.parameters)


def _with_names(values: Sequence[Value]) -> tuple[Value, ...]:
    """Return paths as they are written, and as collections name them."""
    paths = [os.path.expanduser(value.text) for value in values if value.text and "\0" not in value.text]
    return (*values, *(Value(name, is_number=False) for path in paths for name in names_of(path)))


def _on_metadata(comparison: Comparison) -> Sql:
    key = comparison.field
    document, where = Sql("i.metadata"), f'$."{key}"'
    if not key.isprintable() or '"' in key or "\\" in key:
        document, where = Sql("trivium_entry(i.metadata, ?)", (key,)), "$.value"
    place = (*document.parameters, where)
    if comparison.operator == "has":
        return Sql(f"ifnull(json_type({document.text}, ?) <> 'null', 0)", place)
    condition = _compares(_METADATA_COLUMN, comparison)
    if comparison.operator == "contains":
        part = _contains(_METADATA_COLUMN, comparison)
        condition = Sql(  # the key is a number within lists only
            f"iif(typeof(entry.key) = 'integer', {condition.text}, {part.text})",
            (*condition.parameters, *part.parameters),
        )
    # One row for a single value, one for every entry of a list, none where nothing is.
    return Sql(
        f"EXISTS (SELECT 1 FROM json_each({document.text}, ?) AS entry WHERE {condition.text})",
        (*place, *condition.parameters),
    )


def _contains(column: _Column, comparison: Comparison) -> Sql:
    return Sql(f"instr({column.folded}, ?) > 0", (folded(comparison.values[0].text),))


def _compares(column: _Column, comparison: Comparison) -> Sql:
    """As numbers where both are, else as text; "contains" as "="."""
    numbers = [value.text for value in comparison.values if value.is_number]
    words = [folded(value.text) for value in comparison.values if not value.is_number]
    as_text = _any_of(column.folded, comparison.operator, "?", [folded(value.text) for value in comparison.values])
    if not numbers:
        return as_text
    # SQLite reads both numbers from their digits: so they are rounded alike.
    as_number = _any_of(f"CAST({column.value} AS NUMERIC)", comparison.operator, "CAST(? AS NUMERIC)", numbers)
    if words:
        as_number = joined("OR", [as_number, _any_of(column.folded, comparison.operator, "?", words)])
    return Sql(
        f"CASE WHEN {column.is_number} THEN {as_number.text} ELSE {as_text.text} END",
        (*as_number.parameters, *as_text.parameters),
    )


def _any_of(left: str, operator: str, right: str, values: Sequence[SqlValue]) -> Sql:
    if operator in ("=", "contains"):
        return Sql(f"{left} IN ({', '.join([right] * len(values))})", tuple(values))
    return Sql(f"{left} {operator} {right}", tuple(values))


def register_functions(db: sqlite3.Connection) -> None:
    """Give a connection the functions that the conditions call."""
    db.create_function("trivium_fold", 1, folded, deterministic=True)
    db.create_function("trivium_name", 1, os.path.basename, deterministic=True)
    db.create_function("trivium_entry", 2, _entry, deterministic=True)


def folded(value: str | bytes | float | None) -> bytes | None:
    """Texts that are the same but for capitals and the composition of accents give the same bytes.

    Bytes, because text need not be valid UTF-8 (paths), and because SQLite and we then agree on their order.
    """
    if value is None:
        return None
    if isinstance(value, bytes):
        if value.isascii():
            return value.lower()
        text = value.decode("utf-8", "surrogateescape")
    else:
        text = str(value)
        if text.isascii():
            return text.lower().encode()
    return _composed(text) if len(text) <= 100 else _composed.__wrapped__(text)


@functools.lru_cache(maxsize=4_096)  # the same few names stand in the metadata of many items
def _composed(text: str) -> bytes:
    folded = unicodedata.normalize("NFD", text).casefold()
    return unicodedata.normalize("NFC", folded).encode("utf-8", "surrogateescape")


def _entry(metadata: str | None, key: str) -> str | None:
    """For keys that no JSON path of every SQLite can name: the value alone, under a name that it can."""
    if metadata is None or json.dumps(key, ensure_ascii=False) not in metadata:
        return None
    entries = json.loads(metadata)
    return json.dumps({"value": entries[key]}, ensure_ascii=False) if key in entries else None
