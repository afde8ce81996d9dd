"""Pieces of SQL, and how they are joined. No text of the user's is ever part of one: all goes by parameters."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

SqlValue: TypeAlias = str | bytes | int | float | None
Operator: TypeAlias = Literal["AND", "OR"]


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
