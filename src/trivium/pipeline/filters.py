r"""Filters on items, as conditions of SQL: by modality, by path, and by an expression over captions and metadata.

**Paths.** Several patterns are alternatives. ``*`` (crosses folders), ``?`` and ``[...]`` stand for characters; case
counts. A pattern matches at any depth (``*.jpg``, ``holiday/*``) unless it begins with ``/``, ``~``, ``./`` or ``../``.
One without such signs names a file or a folder, and one that ends in ``/`` a folder; a folder matches all that lies
below it. ``[[]`` is a bracket that means itself.

**Expressions.** ``year >= 2020 and (place = münchen or tags contains "the sea") and not has draft``

- A comparison is ``field = value`` (or ``== != < <= > >=``), ``field contains value``, ``field in (a, b)``,
  ``field not in (a, b)`` or ``has field``. ``not`` binds tighter than ``and``, ``and`` tighter than ``or``; these words
  may be in capitals. At most 10,000 characters, nested 50 deep, 1,000 values in a list.
- A field is ``path``, ``name`` (of the file, without its folder), ``modality``, ``caption``, else a key of the
  metadata: as it is, or between backticks when it has odd characters. Capitals count. ``metadata.path`` and
  `` `path` `` are the metadata's own key "path".
- A value is a word (letters, digits, ``-_.:/+``) or text in single or double quotes, in which ``\\`` is a backslash,
  ``\"`` and ``\'`` are quotes, ``\n`` is a line's end and ``\t`` a tab. A word that looks like a number is one, quoted
  text never is.
- A written number compares as a number with stored numbers and with stored text that is one (``007``, as tables have
  it). All else compares as text: a stored number as it is written, true and false as those words. So dates such as
  2024-05-01 are in order.
- Texts are the same when only capitals differ, in any script, or the way in which accents are composed.
- ``contains`` looks for a part of the text.
- A list matches if one of its entries does; ``contains`` then wants a whole entry, ``!=`` and ``not in`` that none
  matches.
- What is missing (or null) matches nothing, not ``!=`` nor ``not in`` either; ``not (year = 2020)`` is true of it.
"""

import fnmatch
import functools
import glob
import json
import os
import re
import sqlite3
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NoReturn, TypeAlias

from trivium.pipeline.records import ITEM_KINDS, ItemKind

MAX_LENGTH = 10_000  # characters of an expression
MAX_DEPTH = 50
MAX_VALUES = 1_000  # in one list
MAX_PATTERNS = 1_000
MAX_PATTERN_LENGTH = 4_096  # as Linux has it for paths

SqlValue: TypeAlias = str | bytes | int | float | None


class FilterError(ValueError):
    """A filter that cannot be understood; a second and a third line may point at the place."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Which items are wanted: those that meet every condition given. One that exists is valid.

    Raises:
        FilterError: If a part cannot be understood.
    """

    only: ItemKind | None = None
    paths: tuple[str, ...] = ()  # patterns; ~ and ./ are resolved when the filter is made
    where: str | None = None

    def __post_init__(self) -> None:
        if self.only is not None and self.only not in ITEM_KINDS:
            raise FilterError(f"only must be one of {', '.join(ITEM_KINDS)}, got {self.only!r}")
        if isinstance(self.paths, str):
            raise FilterError(f"paths must be a tuple of patterns, got the text {self.paths!r}")
        if len(self.paths) > MAX_PATTERNS:
            raise FilterError(f"{len(self.paths):,} path patterns are given, at most {MAX_PATTERNS:,} are taken")
        object.__setattr__(self, "paths", tuple(_resolved(pattern) for pattern in self.paths))
        if self.where is not None:
            _parse(self.where)

    @property
    def is_empty(self) -> bool:
        """Whether every item meets it."""
        return self.only is None and not self.paths and self.where is None

    @property
    def metadata_keys(self) -> frozenset[str]:
        """The metadata keys that the expression asks for: a key that no item has may be a slip of the pen."""
        return frozenset() if self.where is None else frozenset(_keys(_parse(self.where)))

    def sql(self) -> tuple[str, list[SqlValue]]:
        """Return a condition over the table ``item AS i``, never NULL, and its parameters in order.

        The connection needs `register_functions`.
        """
        parts: list[_Sql] = []
        if self.only is not None:
            parts.append(_Sql("i.modality = ?", (self.only,)))
        if self.paths:
            parts.append(_joined("OR", [_path_condition(pattern) for pattern in self.paths]))
        if self.where is not None:
            parts.append(_compiled(_parse(self.where), negated=False))
        condition = _joined("AND", parts) if parts else _Sql("1")
        return f"({condition.text})", list(condition.parameters)


def register_functions(db: sqlite3.Connection) -> None:
    """Give a connection the functions that the conditions call."""
    db.create_function("trivium_fold", 1, _folded, deterministic=True)
    db.create_function("trivium_name", 1, os.path.basename, deterministic=True)
    db.create_function("trivium_glob", 2, _matches, deterministic=True)
    db.create_function("trivium_entry", 2, _entry, deterministic=True)


# Functions that SQLite calls. SQLite's own lower() and GLOB know ASCII only, and take broken bytes for one another.


def _folded(value: str | bytes | float | None) -> bytes | None:
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


def _matches(path: bytes, pattern: bytes) -> bool:
    return _matcher(pattern).match(os.fsdecode(path)) is not None


@functools.lru_cache(maxsize=MAX_PATTERNS)
def _matcher(pattern: bytes) -> re.Pattern[str]:
    return re.compile(fnmatch.translate(os.fsdecode(pattern)))  # its stars never backtrack: no pattern takes for ever


def _entry(metadata: str | None, key: str) -> str | None:
    """For keys that no JSON path of every SQLite can name: the value alone, under a name that it can."""
    if metadata is None or json.dumps(key, ensure_ascii=False) not in metadata:
        return None
    entries = json.loads(metadata)
    return json.dumps({"value": entries[key]}, ensure_ascii=False) if key in entries else None


# Pieces of SQL. No text of the user's is ever part of one: all goes by parameters.


_Operator: TypeAlias = Literal["AND", "OR"]


@dataclass(frozen=True, slots=True)
class _Sql:
    text: str
    parameters: tuple[SqlValue, ...] = ()
    operator: _Operator | None = None  # the outermost, unless parentheses are around
    depth: int = 0  # of parentheses around AND and OR


def _joined(operator: _Operator, parts: Sequence[_Sql]) -> _Sql:
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


def _chained(operator: _Operator, parts: Sequence[_Sql]) -> _Sql:
    if len(parts) == 1:
        return parts[0]
    return _Sql(
        f" {operator} ".join(part.text for part in parts),
        tuple(parameter for part in parts for parameter in part.parameters),
        operator,
        max(part.depth for part in parts),
    )


def _enclosed(part: _Sql) -> _Sql:
    return _Sql(f"({part.text})", part.parameters, None, part.depth + 1)


_MAGIC = re.compile(r"[*?[]")
_ESCAPED = re.compile(r"\[([*?[])\]")


def _resolved(pattern: str) -> str:
    """Check a pattern and make ``~/x`` and ``./x`` absolute."""
    if not pattern:
        raise FilterError("a path pattern is empty")
    if len(pattern) > MAX_PATTERN_LENGTH:
        raise FilterError(f"a path pattern has {len(pattern):,} characters, at most {MAX_PATTERN_LENGTH:,} are taken")
    try:
        os.fsencode(pattern)
    except UnicodeEncodeError as error:
        raise FilterError(f"the path pattern {pattern!r} has a character that no path can have") from error
    first, slash, rest = pattern.partition("/")
    if first.startswith("~"):
        pattern = glob.escape(os.path.expanduser(first)) + slash + rest
    elif first in (".", ".."):
        pattern = os.path.join(glob.escape(os.getcwd()), pattern)
    if pattern.startswith("/"):
        return os.path.normpath(pattern).rstrip("/") + ("/" if pattern.endswith("/") else "")
    return pattern


def _path_condition(pattern: str) -> _Sql:
    absolute, folder = pattern.startswith("/"), pattern.endswith("/")
    plain = _ESCAPED.sub("", pattern)
    if not _MAGIC.search(plain):  # the name of a file or a folder
        name = os.fsencode(_ESCAPED.sub(r"\1", pattern).rstrip("/"))
        if absolute:
            below = _Sql("i.path >= ? AND i.path < ?", (name + b"/", name + b"0"), "AND")  # 0 comes after /
            return below if folder else _joined("OR", [_Sql("i.path = ?", (name,)), below])
        below = _Sql("instr(i.path, ?) > 0", (b"/" + name + b"/",))
        return below if folder else _joined("OR", [_ends_with(b"/" + name), below])
    if pattern[0] == "*" and not _MAGIC.search(pattern, 1) and "/" not in pattern:
        return _ends_with(os.fsencode(pattern[1:]))  # *.jpg, the usual one, without a call for every item
    whole = os.fsencode(pattern if absolute else f"*/{pattern}") + (b"*" if folder else b"")
    matching = _Sql("trivium_glob(i.path, ?)", (whole,))
    if not absolute:
        return matching
    start = os.fsencode(_MAGIC.split(pattern, maxsplit=1)[0]).rstrip(b"\xff")
    return _joined("AND", [_Sql("i.path >= ?", (start,)), _Sql("i.path < ?", (_after(start),)), matching])


def _ends_with(end: bytes) -> _Sql:
    return _Sql("substr(i.path, ?) = ?", (-len(end), end)) if end else _Sql("1")


def _after(start: bytes) -> bytes:
    """Return the first bytes that come after all that begin so: with it, SQLite can use the order of paths."""
    return start[:-1] + bytes([start[-1] + 1])


# The expression: its tree, and what that is in SQL.


@dataclass(frozen=True, slots=True)
class _Value:
    text: str
    is_number: bool


@dataclass(frozen=True, slots=True)
class _Comparison:
    field: str
    is_key: bool  # of the metadata, else a field of every item
    operator: Literal["=", "<", "<=", ">", ">=", "contains", "has"]
    values: tuple[_Value, ...] = ()  # one; with "=" alternatives; with "has" none


@dataclass(frozen=True, slots=True)
class _Not:
    part: "_Node"


@dataclass(frozen=True, slots=True)
class _Group:
    operator: _Operator
    parts: tuple["_Node", ...]


_Node: TypeAlias = _Comparison | _Not | _Group


def _keys(node: _Node) -> Iterator[str]:
    if isinstance(node, _Comparison):
        yield from (node.field,) if node.is_key else ()
    else:
        for part in (node.part,) if isinstance(node, _Not) else node.parts:
            yield from _keys(part)


def _compiled(node: _Node, *, negated: bool) -> _Sql:
    if isinstance(node, _Not):
        return _compiled(node.part, negated=not negated)
    if isinstance(node, _Group):
        # A "not" moves inwards: no comparison is ever NULL, so that is the same.
        operator: _Operator = "AND" if (node.operator == "AND") != negated else "OR"
        return _joined(operator, [_compiled(part, negated=negated) for part in node.parts])
    condition = _on_metadata(node) if node.is_key else _on_item(node)
    return _Sql(f"NOT {condition.text}", condition.parameters) if negated else condition


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


def _on_item(comparison: _Comparison) -> _Sql:
    column = _ITEM_COLUMNS[comparison.field]
    if comparison.operator == "has":
        return _Sql(f"({column.value} IS NOT NULL)")
    condition = _contains(column, comparison) if comparison.operator == "contains" else _compares(column, comparison)
    return _Sql(f"ifnull({condition.text}, 0)", condition.parameters)


def _on_metadata(comparison: _Comparison) -> _Sql:
    key = comparison.field
    document, where = _Sql("i.metadata"), f'$."{key}"'
    if not key.isprintable() or '"' in key or "\\" in key:
        document, where = _Sql("trivium_entry(i.metadata, ?)", (key,)), "$.value"
    place = (*document.parameters, where)
    if comparison.operator == "has":
        return _Sql(f"ifnull(json_type({document.text}, ?) <> 'null', 0)", place)
    condition = _compares(_METADATA_COLUMN, comparison)
    if comparison.operator == "contains":
        part = _contains(_METADATA_COLUMN, comparison)
        condition = _Sql(  # the key is a number within lists only
            f"iif(typeof(entry.key) = 'integer', {condition.text}, {part.text})",
            (*condition.parameters, *part.parameters),
        )
    # One row for a single value, one for every entry of a list, none where nothing is.
    return _Sql(
        f"EXISTS (SELECT 1 FROM json_each({document.text}, ?) AS entry WHERE {condition.text})",
        (*place, *condition.parameters),
    )


def _contains(column: _Column, comparison: _Comparison) -> _Sql:
    return _Sql(f"instr({column.folded}, ?) > 0", (_folded(comparison.values[0].text),))


def _compares(column: _Column, comparison: _Comparison) -> _Sql:
    """As numbers where both are, else as text; "contains" as "="."""
    numbers = [value.text for value in comparison.values if value.is_number]
    words = [_folded(value.text) for value in comparison.values if not value.is_number]
    as_text = _any_of(column.folded, comparison.operator, "?", [_folded(value.text) for value in comparison.values])
    if not numbers:
        return as_text
    # SQLite reads both numbers from their digits: so they are rounded alike.
    as_number = _any_of(f"CAST({column.value} AS NUMERIC)", comparison.operator, "CAST(? AS NUMERIC)", numbers)
    if words:
        as_number = _joined("OR", [as_number, _any_of(column.folded, comparison.operator, "?", words)])
    return _Sql(
        f"CASE WHEN {column.is_number} THEN {as_number.text} ELSE {as_text.text} END",
        (*as_number.parameters, *as_text.parameters),
    )


def _any_of(left: str, operator: str, right: str, values: Sequence[SqlValue]) -> _Sql:
    if operator in ("=", "contains"):
        return _Sql(f"{left} IN ({', '.join([right] * len(values))})", tuple(values))
    return _Sql(f"{left} {operator} {right}", tuple(values))


# The expression: reading it.

_TOKEN = re.compile(
    r"""(?P<space>\s+)
    | (?P<sign>==|!=|<=|>=|[=<>(),])
    | (?P<text>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')
    | (?P<key>`(?:[^`\\]|\\.)*`)
    | (?P<word>(?:[A-Za-z0-9_.:/+-]|[^\x00-\x7f\s“”„‘‚])+)""",
    re.VERBOSE | re.DOTALL,
)
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)
_ESCAPES = {"n": "\n", "t": "\t", "\\": "\\", '"': '"', "'": "'", "`": "`"}
_KEYWORDS = {"and", "or", "not", "in", "contains", "has"}
_OPERATORS: dict[str, Literal["=", "<", "<=", ">", ">=", "contains"]] = {
    "=": "=", "==": "=", "!=": "=", "<": "<", "<=": "<=", ">": ">", ">=": ">=", "contains": "contains", "in": "=",
}  # fmt: skip
_SURROGATE = re.compile("[\ud800-\udfff]")  # not text: no key has it
_NO_BYTE = re.compile("[\ud800-\udc7f\udd00-\udfff]")  # those that do not even stand for a byte of a path


@dataclass(frozen=True, slots=True)
class _Token:
    kind: Literal["sign", "text", "key", "word", "keyword", "end"]
    text: str
    start: int


def _tokens(written: str) -> Iterator[_Token]:
    start = 0
    while start < len(written):
        match = _TOKEN.match(written, start)
        if match is None and written[start] in "\"'`":
            _fail("this quote is not closed", written, start)
        if match is None:
            _fail(f"'{_shown(written[start])}' has no meaning here, text with such signs needs quotes", written, start)
        text = match.group()
        if match["word"]:
            is_keyword = text.lower() in _KEYWORDS
            yield _Token("keyword", text.lower(), start) if is_keyword else _Token("word", text, start)
        elif match["text"]:
            yield _Token("text", _unquoted(text, written, start), start)
        elif match["key"]:
            yield _Token("key", _unquoted(text, written, start), start)
        elif not match["space"]:
            yield _Token("sign", text, start)
        start = match.end()
    yield _Token("end", "", len(written.rstrip()))


def _unquoted(quoted: str, written: str, start: int) -> str:
    def meant(escape: re.Match[str]) -> str:
        if escape[1] not in _ESCAPES:
            _fail(
                f"'{_shown(escape[0])}' has no meaning, a backslash is written \\\\",
                written,
                start + 1 + escape.start(),
            )
        return _ESCAPES[escape[1]]

    return re.sub(r"\\(.)", meant, quoted[1:-1], flags=re.DOTALL)


class _Parser:
    """Reads the grammar in the module's docstring, from the loosest part to the tightest."""

    def __init__(self, written: str) -> None:
        self._written = written
        self._tokens = list(_tokens(written))
        self._at = 0

    def read(self) -> _Node:
        node = self._alternatives(0)
        if self._is("sign", ")"):
            self._refuse("this parenthesis closes none")
        if not self._is("end"):
            self._refuse("expected 'and', 'or' or the end, text of several words needs quotes")
        return node

    def _alternatives(self, depth: int) -> _Node:
        parts = [self._conditions(depth)]
        while self._take("keyword", "or"):
            parts.append(self._conditions(depth))
        return parts[0] if len(parts) == 1 else _Group("OR", tuple(parts))

    def _conditions(self, depth: int) -> _Node:
        parts = [self._condition(depth)]
        while self._take("keyword", "and"):
            parts.append(self._condition(depth))
        return parts[0] if len(parts) == 1 else _Group("AND", tuple(parts))

    def _condition(self, depth: int) -> _Node:
        start = self._at
        if depth > MAX_DEPTH:
            self._refuse(f"nested deeper than {MAX_DEPTH}")
        if self._take("keyword", "not"):
            return _Not(self._condition(depth + 1))
        if self._take("sign", "("):
            node = self._alternatives(depth + 1)
            if not self._take("sign", ")"):
                if self._is("end"):
                    self._refuse("this parenthesis is not closed", at=start)
                self._refuse("expected 'and', 'or' or ')', text of several words needs quotes")
            return node
        if self._take("keyword", "has"):
            return _Comparison(*self._field("a field after 'has'"), "has")
        return self._comparison()

    def _comparison(self) -> _Node:
        field, is_key = self._field("a field")
        present = _Comparison(field, is_key, "has")
        if self._take("keyword", "not"):
            if not self._is("keyword", "in"):
                self._refuse("expected 'in' after 'not'")
            among = self._comparison_with(field, is_key)
            return _Group("AND", (present, _Not(among)))
        if self._is("sign", "!="):
            return _Group("AND", (present, _Not(self._comparison_with(field, is_key))))
        return self._comparison_with(field, is_key)

    def _comparison_with(self, field: str, is_key: bool) -> _Comparison:
        for sign, operator in _OPERATORS.items():
            if self._take("sign", sign) or self._take("keyword", sign):
                values = self._list() if sign == "in" else (self._value(),)
                return _Comparison(field, is_key, operator, values)
        self._refuse(f"expected a comparison ({' '.join(_OPERATORS)}) after {_shown(repr(field))}")

    def _field(self, expected: str) -> tuple[str, bool]:
        token = self._tokens[self._at]
        if token.kind == "text":
            self._refuse(f"expected {expected}, an odd name goes between `backticks`")
        if token.kind not in ("word", "key") or not token.text:
            self._refuse(f"expected {expected}")
        self._at += 1
        if token.kind == "word" and token.text in _ITEM_COLUMNS:
            return token.text, False
        key = token.text.removeprefix("metadata.") if token.kind == "word" else token.text
        return _SURROGATE.sub("\ufffd", key) or token.text, True  # as metadata are stored

    def _list(self) -> tuple[_Value, ...]:
        start = self._at
        if not self._take("sign", "("):
            self._refuse("expected '(' after 'in'")
        values = [self._value()]
        while self._take("sign", ","):
            values.append(self._value())
            if len(values) > MAX_VALUES:
                self._refuse(f"more than {MAX_VALUES:,} values in this list", at=start)
        if not self._take("sign", ")"):
            self._refuse("expected ',' or ')', text of several words needs quotes")
        return tuple(values)

    def _value(self) -> _Value:
        token = self._tokens[self._at]
        if token.kind not in ("word", "text"):
            self._refuse(f"expected a value after '{self._tokens[self._at - 1].text}'")
        self._at += 1
        return _Value(token.text, token.kind == "word" and _NUMBER.fullmatch(token.text) is not None)

    def _is(self, kind: str, text: str = "") -> bool:
        token = self._tokens[self._at]
        return (token.kind, token.text) == (kind, text)

    def _take(self, kind: str, text: str) -> bool:
        taken = self._is(kind, text)
        self._at += taken
        return taken

    def _refuse(self, reason: str, *, at: int | None = None) -> NoReturn:
        _fail(reason, self._written, self._tokens[self._at if at is None else at].start)


@functools.lru_cache(maxsize=64)
def _parse(written: str) -> _Node:
    if len(written) > MAX_LENGTH:
        raise FilterError(f"--where: the expression has {len(written):,} characters, at most {MAX_LENGTH:,} are taken")
    if not written.strip():
        raise FilterError("--where: the expression is empty")
    return _Parser(_NO_BYTE.sub("\ufffd", written)).read()


def _fail(reason: str, written: str, place: int) -> NoReturn:
    """Show the expression on one line, or what is around the place, and a caret below it."""
    start, end = max(0, place - 60), place + 40
    before = ("…" if start else "") + _shown(written[start:place])
    after = _shown(written[place:end].rstrip()) + ("…" if len(written) > end else "")
    raise FilterError(f"--where: {reason}\n{before}{after}\n{' ' * _width(before)}^")


def _shown(text: str) -> str:
    return "".join(character if character.isprintable() else " " if character.isspace() else "?" for character in text)


def _width(text: str) -> int:
    """Columns of a terminal."""
    wide = sum(unicodedata.east_asian_width(character) in "WF" for character in text)
    return len(text) + wide - sum(bool(unicodedata.combining(character)) for character in text)
