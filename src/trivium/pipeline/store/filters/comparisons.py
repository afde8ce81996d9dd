"""What an expression is in SQL."""

from collections.abc import Sequence
from dataclasses import dataclass

from trivium.pipeline.store.filters.expression import Comparison, Group, Node, Not
from trivium.pipeline.store.filters.functions import folded
from trivium.pipeline.store.filters.sql import Operator, Sql, SqlValue, joined


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
    if comparison.operator == "has":
        return Sql(f"({column.value} IS NOT NULL)")
    condition = _contains(column, comparison) if comparison.operator == "contains" else _compares(column, comparison)
    return Sql(f"ifnull({condition.text}, 0)", condition.parameters)


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
