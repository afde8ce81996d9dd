"""Filters on items, as conditions of SQL: by modality, by path, and by an expression over captions and metadata."""

import glob
import os
from collections.abc import Sequence
from dataclasses import dataclass

from trivium.encoders.several import listed, path_of
from trivium.pipeline.records import ITEM_KINDS, ItemKind
from trivium.pipeline.store.filters.conditions import Sql, SqlValue, compiled, joined
from trivium.pipeline.store.filters.expression import FilterError, keys_of, parse
from trivium.pipeline.store.filters.patterns import MAX_PATTERNS, path_condition, resolved


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Which items are wanted: those that meet every condition given. One that exists is valid.

    Raises:
        FilterError: If a part cannot be understood.
    """

    only: ItemKind | None = None
    paths: tuple[str, ...] = ()  # patterns, one or several, names as os.PathLike; resolved when the filter is made
    where: str | Sequence[str] | None = None  # an expression, or several, which must all hold

    def __post_init__(self) -> None:
        if self.only is not None and self.only not in ITEM_KINDS:
            raise FilterError(f"only must be one of {', '.join(ITEM_KINDS)}, got {self.only!r}")
        patterns = [_pattern(path) for path in listed(self.paths, "paths")]
        if len(patterns) > MAX_PATTERNS:
            raise FilterError(f"{len(patterns):,} path patterns are given, at most {MAX_PATTERNS:,} are taken")
        resolutions = [resolved(pattern) for pattern in patterns]
        object.__setattr__(self, "paths", tuple(dict.fromkeys(one for found in resolutions for one in found)))
        if not isinstance(self.where, str | None):
            object.__setattr__(self, "where", tuple(self.where))
        for expression in self.expressions:
            parse(expression)

    @property
    def is_empty(self) -> bool:
        """Whether every item meets it."""
        return self.only is None and not self.paths and not self.expressions

    @property
    def expressions(self) -> tuple[str, ...]:
        """The expressions, which must all hold."""
        if self.where is None:
            return ()
        return (self.where,) if isinstance(self.where, str) else tuple(self.where)

    @property
    def metadata_keys(self) -> frozenset[str]:
        """The metadata keys that are asked for: a key that no item has may be a slip of the pen."""
        return frozenset(key for expression in self.expressions for key in keys_of(parse(expression)))

    def sql(self) -> tuple[str, list[SqlValue]]:
        """Return a condition over the table ``item AS i``, never NULL, and its parameters in order.

        The connection needs `register_functions`.
        """
        parts: list[Sql] = []
        if self.only is not None:
            parts.append(Sql("i.modality = ?", (self.only,)))
        if self.paths:
            parts.append(joined("OR", [path_condition(pattern) for pattern in self.paths]))
        parts += [compiled(parse(expression), negated=False) for expression in self.expressions]
        condition = joined("AND", parts) if parts else Sql("1")
        return f"({condition.text})", list(condition.parameters)


def _pattern(path: object) -> str:
    """Return a text as it is; an `os.PathLike` is a name, from the current folder on, whatever signs it has."""
    if isinstance(path, str):
        return path
    if isinstance(path, os.PathLike):
        return glob.escape(os.path.abspath(path_of(path, "paths")))
    raise FilterError(f"paths must be a pattern or several, got the {type(path).__name__} {path!r:.80}")
