r"""Expressions over captions and metadata: their grammar, and reading them to a tree.

``year >= 2020 and (place = münchen or tags contains "the sea") and not has draft``

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

import functools
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NoReturn, TypeAlias

Operator: TypeAlias = Literal["AND", "OR"]


class FilterError(ValueError):
    """A filter that cannot be understood; a second and a third line may point at the place."""


MAX_LENGTH = 10_000  # characters of an expression
MAX_DEPTH = 50
MAX_VALUES = 1_000  # in one list
ITEM_FIELDS = ("path", "name", "modality", "caption")  # of every item; all else are keys of the metadata


@dataclass(frozen=True, slots=True)
class Value:
    """What a field is compared with."""

    text: str
    is_number: bool


@dataclass(frozen=True, slots=True)
class Comparison:
    """One field and what is asked of it."""

    field: str
    is_key: bool  # of the metadata, else a field of every item
    operator: Literal["=", "<", "<=", ">", ">=", "contains", "has"]
    values: tuple[Value, ...] = ()  # one; with "=" alternatives; with "has" none


@dataclass(frozen=True, slots=True)
class Not:
    """What must not hold."""

    part: "Node"


@dataclass(frozen=True, slots=True)
class Group:
    """Parts of which all must hold, or one."""

    operator: Operator
    parts: tuple["Node", ...]


Node: TypeAlias = Comparison | Not | Group


def keys_of(node: Node) -> Iterator[str]:
    """Yield the metadata's keys that an expression asks for."""
    if isinstance(node, Comparison):
        yield from (node.field,) if node.is_key else ()
    else:
        for part in (node.part,) if isinstance(node, Not) else node.parts:
            yield from keys_of(part)


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

    def read(self) -> Node:
        node = self._alternatives(0)
        if self._is("sign", ")"):
            self._refuse("this parenthesis closes none")
        if not self._is("end"):
            self._refuse("expected 'and', 'or' or the end, text of several words needs quotes")
        return node

    def _alternatives(self, depth: int) -> Node:
        parts = [self._conditions(depth)]
        while self._take("keyword", "or"):
            parts.append(self._conditions(depth))
        return parts[0] if len(parts) == 1 else Group("OR", tuple(parts))

    def _conditions(self, depth: int) -> Node:
        parts = [self._condition(depth)]
        while self._take("keyword", "and"):
            parts.append(self._condition(depth))
        return parts[0] if len(parts) == 1 else Group("AND", tuple(parts))

    def _condition(self, depth: int) -> Node:
        start = self._at
        if depth > MAX_DEPTH:
            self._refuse(f"nested deeper than {MAX_DEPTH}")
        if self._take("keyword", "not"):
            return Not(self._condition(depth + 1))
        if self._take("sign", "("):
            node = self._alternatives(depth + 1)
            if not self._take("sign", ")"):
                if self._is("end"):
                    self._refuse("this parenthesis is not closed", at=start)
                self._refuse("expected 'and', 'or' or ')', text of several words needs quotes")
            return node
        if self._take("keyword", "has"):
            return Comparison(*self._field("a field after 'has'"), "has")
        return self._comparison()

    def _comparison(self) -> Node:
        field, is_key = self._field("a field")
        present = Comparison(field, is_key, "has")
        if self._take("keyword", "not"):
            if not self._is("keyword", "in"):
                self._refuse("expected 'in' after 'not'")
            among = self._comparison_with(field, is_key)
            return Group("AND", (present, Not(among)))
        if self._is("sign", "!="):
            return Group("AND", (present, Not(self._comparison_with(field, is_key))))
        return self._comparison_with(field, is_key)

    def _comparison_with(self, field: str, is_key: bool) -> Comparison:
        for sign, operator in _OPERATORS.items():
            if self._take("sign", sign) or self._take("keyword", sign):
                values = self._list() if sign == "in" else (self._value(),)
                return Comparison(field, is_key, operator, values)
        self._refuse(f"expected a comparison ({' '.join(_OPERATORS)}) after {_shown(repr(field))}")

    def _field(self, expected: str) -> tuple[str, bool]:
        token = self._tokens[self._at]
        if token.kind == "text":
            self._refuse(f"expected {expected}, an odd name goes between `backticks`")
        if token.kind not in ("word", "key") or not token.text:
            self._refuse(f"expected {expected}")
        self._at += 1
        if token.kind == "word" and token.text in ITEM_FIELDS:
            return token.text, False
        key = token.text.removeprefix("metadata.") if token.kind == "word" else token.text
        return _SURROGATE.sub("\ufffd", key) or token.text, True  # as metadata are stored

    def _list(self) -> tuple[Value, ...]:
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

    def _value(self) -> Value:
        token = self._tokens[self._at]
        if token.kind not in ("word", "text"):
            self._refuse(f"expected a value after '{self._tokens[self._at - 1].text}'")
        self._at += 1
        return Value(token.text, token.kind == "word" and _NUMBER.fullmatch(token.text) is not None)

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
def parse(written: str) -> Node:
    """Read an expression, or raise `FilterError` that points at the place."""
    if len(written) > MAX_LENGTH:
        raise FilterError(f"where: the expression has {len(written):,} characters, at most {MAX_LENGTH:,} are taken")
    if not written.strip():
        raise FilterError("where: the expression is empty")
    return _Parser(_NO_BYTE.sub("\ufffd", written)).read()


def _fail(reason: str, written: str, place: int) -> NoReturn:
    """Show the expression on one line, or what is around the place, and a caret below it."""
    start, end = max(0, place - 60), place + 40
    before = ("…" if start else "") + _shown(written[start:place])
    after = _shown(written[place:end].rstrip()) + ("…" if len(written) > end else "")
    raise FilterError(f"where: {reason}\n{before}{after}\n{' ' * _width(before)}^")


def _shown(text: str) -> str:
    return "".join(character if character.isprintable() else " " if character.isspace() else "?" for character in text)


def _width(text: str) -> int:
    """Columns of a terminal."""
    wide = sum(unicodedata.east_asian_width(character) in "WF" for character in text)
    return len(text) + wide - sum(bool(unicodedata.combining(character)) for character in text)
