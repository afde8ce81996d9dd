"""Filters: what they match, against a slow obvious evaluator; what they refuse, and where; what gets into the SQL."""

import dataclasses
import fnmatch
import json
import operator
import os
import re
import sqlite3
import unicodedata
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from trivium.pipeline.store.filters import Filter, FilterError, register_functions
from trivium.pipeline.store.filters.expression import MAX_LENGTH, MAX_VALUES


@dataclass(frozen=True)
class Item:
    path: bytes
    modality: str = "image"
    caption: str | None = None
    metadata: dict[str, Any] | None = None


def open_items(items: Sequence[Item]) -> sqlite3.Connection:
    db = sqlite3.connect(":memory:")
    register_functions(db)
    db.execute(
        "CREATE TABLE item (id INTEGER PRIMARY KEY, path BLOB NOT NULL UNIQUE, modality TEXT NOT NULL, "
        "caption TEXT, metadata TEXT)"
    )
    for at, item in enumerate(items):
        metadata = None if item.metadata is None else json.dumps(item.metadata, ensure_ascii=False, sort_keys=True)
        db.execute("INSERT INTO item VALUES (?, ?, ?, ?, ?)", (at, item.path, item.modality, item.caption, metadata))
    return db


def found(items: Sequence[Item], wanted: Filter) -> list[int]:
    """Which of the items a filter matches, by their places."""
    condition, parameters = wanted.sql()
    with closing(open_items(items)) as db:
        rows = db.execute(
            f"SELECT i.id, {condition}, NOT {condition} FROM item AS i ORDER BY i.id", parameters * 2
        ).fetchall()
    assert all(matches + fails == 1 for _, matches, fails in rows)  # 0 or 1, never NULL
    return [at for at, matches, _ in rows if matches]


def matches(metadata: dict[str, Any] | None, where: str, **fields: Any) -> bool:
    return found([Item(b"/m/a.jpg", metadata=metadata, **fields)], Filter(where=where)) == [0]


# The slow obvious evaluator.


@dataclass(frozen=True)
class Value:
    text: str
    quoted: bool


@dataclass(frozen=True)
class Comparison:
    field: str
    is_key: bool
    operator: str
    values: tuple[Value, ...] = ()


@dataclass(frozen=True)
class Not:
    part: Any


@dataclass(frozen=True)
class Group:
    word: str
    parts: tuple[Any, ...]


NUMBER = r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?"
COMPARE = {
    "=": operator.eq,
    "==": operator.eq,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def same(text: str) -> bytes:
    text = unicodedata.normalize("NFC", unicodedata.normalize("NFD", text).casefold())
    return text.encode("utf-8", "surrogateescape")


def as_text(stored: Any) -> str:
    return stored if isinstance(stored, str) else json.dumps(stored)


def as_number(stored: Any) -> float | None:
    if isinstance(stored, bool):
        return None
    if isinstance(stored, str):
        stripped = stored.strip(" \t\n\v\f\r")
        return float(stripped) if re.fullmatch(NUMBER, stripped) else None
    return float(stored)


def compares(stored: Any, sign: str, value: Value) -> bool:
    number = None if value.quoted or not re.fullmatch(NUMBER, value.text) else float(value.text)
    if number is not None and (other := as_number(stored)) is not None:
        return bool(COMPARE[sign](other, number))
    return bool(COMPARE[sign](same(as_text(stored)), same(value.text)))


def stored_of(item: Item, field: str, is_key: bool) -> Any:
    if is_key:
        return (item.metadata or {}).get(field)
    path = item.path.decode("utf-8", "surrogateescape")
    return {"path": path, "name": path.rsplit("/", 1)[-1], "modality": item.modality, "caption": item.caption}[field]


def holds(item: Item, node: Any) -> bool:
    if isinstance(node, Not):
        return not holds(item, node.part)
    if isinstance(node, Group):
        return (all if node.word == "and" else any)(holds(item, part) for part in node.parts)
    stored = stored_of(item, node.field, node.is_key)
    if stored is None:
        return False
    entries = stored if isinstance(stored, list) else [stored]
    match node.operator:
        case "has":
            return True
        case "contains" if isinstance(stored, list):
            return any(compares(entry, "=", node.values[0]) for entry in entries)
        case "contains":
            return same(node.values[0].text) in same(as_text(stored))
        case "in":
            return any(compares(entry, "=", value) for entry in entries for value in node.values)
        case "!=" | "not in":
            return not any(compares(entry, "=", value) for entry in entries for value in node.values)
    return any(compares(entry, node.operator, node.values[0]) for entry in entries)


def written_value(value: Value) -> str:
    if not value.quoted:
        return value.text
    escaped = value.text.replace("\\", "\\\\").replace("\n", "\\n")
    return "'" + escaped.replace("'", "\\'") + "'" if '"' in value.text else '"' + escaped + '"'


def written_field(field: str, is_key: bool) -> str:
    if not is_key:
        return field
    if field in ("path", "name", "modality", "caption"):
        return f"metadata.{field}"
    if re.fullmatch(r"[\w.]+", field) and field != "and" and not field.startswith("metadata."):
        return field
    return "`" + field.replace("\\", "\\\\").replace("`", "\\`") + "`"


def written(node: Any, outer: str = "") -> str:
    """The expression as a user writes it, with as few parentheses as there may be."""
    if isinstance(node, Not):
        return f"NOT {written(node.part, 'not')}"
    if isinstance(node, Group):
        inside = f" {node.word} ".join(written(part, node.word) for part in node.parts)
        return inside if (node.word, outer) in (("and", ""), ("or", ""), ("and", "or")) else f"({inside})"
    field = written_field(node.field, node.is_key)
    match node.operator:
        case "has":
            return f"Has {field}"
        case "in" | "not in":
            return f"{field} {node.operator}({', '.join(map(written_value, node.values))})"
        case "contains":
            return f"{field} contains {written_value(node.values[0])}"
    return f"{field}{node.operator}{written_value(node.values[0])}"


TEXTS = [
    *("", "dog", "Dog", "a dog", "d", "ß", "straße", "STRASSE", "ss", "s", "\u212a", "k", "K", "ﬁ", "FI", "İ", "i"),
    *("\u00e9", "e\u0301", "E\u0301", "e", "Σ", "ς", "\u1f80", "\u03b1\u0345\u0313", "日本", "٣", "😀"),
    *("7", "07", " 7 ", "7.0", "7.", ".5", "+7", "1e1", "1e", "-2", "7\n", "7x", "0x7", "inf", "nan", "1_0", "\u00a07"),
    *("2024-05-01", "2024-06", "2024", "true", "TRUE", "false", "null", "not", "and"),
    *("%", "_", "*", "[a]", "'", '"', "`", "\\", "a\"b'c`d\\e", "'); DROP TABLE item; --", "a\nb", "\x7f"),
]
KEYS = [
    *("a", "b", "year", "path", "name", "Name", "metadata.path", "a b", "0", "$", "$.a", "exif.model", "a[0]", "#"),
    *(
        "]",
        'q"',
        '"',
        "'",
        "\\",
        "\\u0061",
        'x"].y',
        "`",
        "ключ",
        "e\u0301",
        "tab\t",
        "line\n",
        "\u00a0",
        "value",
        "and",
    ),
]
PATHS = [
    *(
        b"/m/a.jpg",
        b"/m/Dog/7",
        b"/m/dog/B.png",
        b"/m/\xff\xfe.png",
        b"/\xff/\xfe",
        b"/m/\xc3\xa9.jpg",
        b"/m/e\xcc\x81.jpg",
    ),
    *(
        b"/m/\xe9.jpg",
        b"/m/\xc3",
        b"/m/\xa9\xc3\xa9",
        b"/m/a\nb",
        b"/dog.d/x y",
        b"/m/[a].jpg",
        b"/m/*.jpg",
        b"/s/\xc3\x9f",
    ),
]
WORDS = [text for text in TEXTS if re.fullmatch(r"[\w.+-]+", text) and text not in ("not", "and")]

quarters = st.integers(-12, 44).map(lambda n: n / 4)
scalars = st.one_of(
    st.sampled_from(TEXTS), st.integers(-3, 11), quarters, st.booleans(), st.sampled_from([2024, 10**15])
)
stored_values = st.one_of(scalars, st.none(), st.lists(st.sampled_from(TEXTS), max_size=3))
items = st.builds(
    Item,
    path=st.sampled_from(PATHS),
    modality=st.sampled_from(["image", "audio", "text"]),
    caption=st.one_of(st.none(), st.sampled_from(TEXTS)),
    metadata=st.one_of(st.none(), st.dictionaries(st.sampled_from(KEYS), stored_values, max_size=6)),
)
values = st.one_of(
    st.builds(Value, st.sampled_from(TEXTS), st.just(True)),
    st.builds(Value, st.sampled_from(WORDS), st.just(False)),
    st.builds(Value, st.one_of(st.integers(-3, 11), quarters).map(str), st.booleans()),
)
fields = st.one_of(
    st.tuples(st.sampled_from(KEYS), st.just(True)),
    st.tuples(st.sampled_from(["path", "name", "modality", "caption"]), st.just(False)),
)


@st.composite
def comparisons(draw: st.DrawFn) -> Comparison:
    field, is_key = draw(fields)
    sign = draw(st.sampled_from([*COMPARE, "!=", "contains", "in", "not in", "has"]))
    some = draw(st.lists(values, min_size=1, max_size=3)) if sign.endswith("in") else [draw(values)]
    return Comparison(field, is_key, sign, () if sign == "has" else tuple(some))


nodes = st.recursive(
    comparisons(),
    lambda inner: st.one_of(
        st.builds(Not, inner),
        st.builds(Group, st.sampled_from(["and", "or"]), st.lists(inner, min_size=2, max_size=4).map(tuple)),
    ),
    max_leaves=12,
)


@settings(max_examples=250, deadline=None)
@given(st.lists(items, min_size=1, max_size=8, unique_by=lambda item: item.path), nodes)
def test_expressions_match_what_the_slow_evaluator_matches(some: list[Item], node: Any) -> None:
    where = written(node)
    assert found(some, Filter(where=where)) == [at for at, item in enumerate(some) if holds(item, node)], where


@settings(max_examples=40, deadline=None)
@given(fields, st.sampled_from([*COMPARE, "!=", "contains", "in"]), values)
def test_one_comparison_with_everything(field: tuple[str, bool], sign: str, value: Value) -> None:
    """Every stored text, number, truth and list against the same comparison: pairs that random items rarely have."""
    stored = [*TEXTS, *range(-3, 12), 0.25, 7.0, 2024, True, False, None, [], *([text] for text in TEXTS), ["x", "dog"]]
    some = [Item(path) for path in PATHS]
    some += [Item(f"/n/{at}".encode(), metadata={field[0]: one}) for at, one in enumerate(stored)]
    some += [Item(f"/c/{at}".encode(), caption=text) for at, text in enumerate(TEXTS)]
    node = Comparison(*field, sign, (value,))
    assert found(some, Filter(where=written(node))) == [at for at, item in enumerate(some) if holds(item, node)]


# The meaning, by example.


@pytest.mark.parametrize(
    ("metadata", "where", "expected"),
    [
        # numbers
        ({"year": 2021}, "year >= 2020", True),
        ({"year": "2021"}, "year >= 2020", True),
        ({"n": "9"}, "n < 10", True),  # as text it is not
        ({"n": "9"}, 'n < "10"', False),
        ({"n": "007"}, "n = 7", True),
        ({"n": "007"}, 'n = "7"', False),
        ({"n": 7}, "n = 7.0", True),
        ({"n": 2.5}, "n = 2.50", True),
        ({"n": 0.137}, "n = 0.137", True),
        ({"n": 1e22}, "n = 1e22", True),
        ({"n": 9007199254740993}, "n = 9007199254740993", True),
        ({"n": 9007199254740993}, "n = 9007199254740992", False),
        ({"n": -5}, "n=-5", True),
        ({"n": 0}, "n = ٣", False),  # no digit of SQLite's
        ({"n": "7.0"}, "n in (1, '7.0')", True),
        ({"n": "7.0"}, "n in (1, '7')", False),
        ({"n": 5}, 'n = "5"', True),  # a number as text is as it is written
        ({"n": 400}, "n contains 40", True),
        ({"iso": "auto"}, "iso = 100", False),
        # dates
        ({"date": "2024-05-01"}, "date >= 2024-04-30 and date < 2024-06", True),
        ({"date": "2024-05-01"}, "date >= 2024", True),
        # truths
        ({"fine": True}, "fine = true", True),
        ({"fine": "True"}, "fine = true", True),
        ({"fine": False}, "fine != TRUE", True),
        ({"fine": True}, "fine = 1", False),
        ({"fine": True}, "fine > 0 and fine < 2", False),
        # capitals and accents
        ({"place": "MÜNCHEN"}, "place = münchen", True),
        ({"place": "Mu\u0308nchen"}, "place contains MÜN", True),
        ({"place": "Munchen"}, "place = münchen", False),
        ({"place": "x" * 200 + "Ü"}, "place contains xü", True),
        ({"street": "Hauptstraße"}, "street contains STRASSE", True),
        # lists
        ({"tags": ["Dog", "sea"]}, "tags contains dog", True),
        ({"tags": ["dogs"]}, "tags contains dog", False),
        ({"tags": "dogs"}, "tags contains dog", True),
        ({"tags": ["dog", "sea"]}, "tags = sea", True),
        ({"tags": ["dog", "sea"]}, "tags != sea", False),
        ({"tags": ["dog", "sea"]}, "tags in (cat, SEA)", True),
        ({"tags": ["dog", "sea"]}, "tags not in (cat, bird)", True),
        ({"tags": ["1", "12"]}, "tags > 11", True),
        ({"tags": []}, "has tags and tags != x and not tags = x", True),
        # what is missing
        ({}, "x = 1", False),
        ({}, "x != 1", False),
        ({}, "x not in (1)", False),
        ({}, "not (x = 1)", True),
        ({}, "not x in (1)", True),
        ({"x": None}, "has x or x != 1 or x contains ''", False),
        (None, "x = 1 or x != 1 or has x", False),
        ({"x": ""}, "has x and x = '' and x contains ''", True),
        # precedence and words
        ({"a": 1}, "a = 1 or a = 1 and a = 2", True),
        ({"a": 1}, "(a = 1 or a = 1) and a = 2", False),
        ({"a": 1}, "not a = 2 and a = 1", True),
        ({"a": 1}, "not not a = 1", True),
        ({"a": 1}, "  HAS a AND NOT a IN (2,3) Or a CONTAINS x ", True),
        ({"and": 1, "Has": 2}, "`and` = 1 and `Has` = 2", True),
        ({"a": "and"}, "a = 'AND'", True),
        ({"a": "x/y:z-1.0_b+c"}, "a = x/y:z-1.0_b+c", True),
        ({"a": 'say "hi"'}, r'a = "say \"hi\""', True),
        ({"a": "it's"}, r"a = 'it\'s' and a = " '"it\'s"', True),
        ({"a": "b\\c\td\ne"}, r"a = 'b\\c\td\ne'", True),
        # names
        ({"path": "x", "name": 1}, "metadata.path = x and metadata.name = 1 and `path` = x and path != x", True),
        ({"metadata.path": "x"}, "`metadata.path` = x and metadata.metadata.path = x and not has metadata.path", True),
        ({"Path": "x"}, "Path = x", True),
        ({"Year": 1}, "year = 1", False),
        ({"focal length": 50}, "`focal length` >= 50", True),
        ({"a`b": 1}, r"`a\`b` = 1", True),
        ({"2020": 1}, "2020 = 1", True),
        ({"größe": 1, "размер": 2}, "größe = 1 and размер = 2", True),
        ({"a.b": 1}, "a.b = 1", True),
        ({"a": {"b": 1}}, "a.b = 1", False),
    ],
)
def test_meaning(metadata: dict[str, Any] | None, where: str, expected: bool) -> None:
    assert matches(metadata, where) is expected


def test_fields_of_every_item() -> None:
    item = Item(b"/media/Holiday/IMG_7.JPG", caption="Two dogs by the Sea")
    for where in (
        "path = /media/holiday/img_7.jpg",
        "path contains holiday/",
        "name = img_7.jpg and name != holiday",
        "name contains _7 and not name contains holiday",
        "modality = IMAGE and modality in (image, audio)",
        "caption contains dogs and caption contains 'the sea' and has caption",
        "has path and has name and has modality",
    ):
        assert found([item], Filter(where=where)) == [0], where
    assert found([Item(b"/a")], Filter(where="has caption or caption != x or caption contains ''")) == []
    assert found([Item(b"/a", caption="")], Filter(where="has caption and caption = ''")) == [0]
    assert found([Item(b"/m/7"), Item(b"/m/07"), Item(b"/m/8")], Filter(where="name = 7")) == [0, 1]


def test_paths_that_are_not_utf8() -> None:
    some = [Item(path) for path in (b"/m/\xff\xfe.png", b"/m/\xfe\xff.png", b"/m/\xc3\xa9.png", b"/m/e\xcc\x81.png")]
    assert found(some, Filter(where=f"name = '{os.fsdecode(some[0].path[3:])}'")) == [0]
    assert found(some, Filter(where="name contains '\udcfe'")) == [0, 1]
    assert found(some, Filter(where="name = 'É.PNG'")) == [2, 3]
    assert found(some, Filter(where="path contains .png")) == [0, 1, 2, 3]
    assert found(some, Filter(where="name < a")) == []
    assert found(some, Filter(where="`\udcfe` = '\ud800' or has `\udc00`")) == []
    assert found(some, Filter(paths=("*\udcff\udcfe.png",))) == [0]
    assert found(some, Filter(paths=("\udcff?.*",))) == [0]
    assert found(some, Filter(paths=("?.png",))) == [2, 3]
    assert found(some, Filter(paths=("/m/\udcff*", "/m/é*"))) == [0, 2, 3]


def test_entries_of_hostile_names() -> None:
    metadata = {key: f"value {at}" for at, key in enumerate(KEYS)}
    for at, key in enumerate(KEYS):
        field = "`" + key.replace("\\", "\\\\").replace("`", "\\`") + "`"
        assert matches(metadata, f"{field} = 'value {at}' and has {field}"), key
        assert matches({key: ["x", f"{at}"]}, f"{field} contains {at}"), key
        rest = {other: value for other, value in metadata.items() if other != key}
        assert not matches(rest, f"{field} contains value or has {field}"), key


def test_metadata_keys() -> None:
    wanted = Filter(where="a = 1 and not (`b c` in (2) or has metadata.path) and path contains x and name != caption")
    assert wanted.metadata_keys == {"a", "b c", "path"}
    assert Filter(only="image").metadata_keys == frozenset()


# Paths.


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.jpg", "/m/a.jpg /m/holiday/b.jpg /m/holiday/B.JPG /m/holiday/old/c.jpg /m/album.jpg/d.jpg"),
        ("*.JPG", "/m/a.jpg /m/holiday/b.jpg /m/holiday/B.JPG /m/holiday/old/c.jpg /m/album.jpg/d.jpg"),
        ("a.jpg", "/m/a.jpg"),
        ("?.jpg", "/m/a.jpg /m/holiday/b.jpg /m/holiday/B.JPG /m/holiday/old/c.jpg /m/album.jpg/d.jpg"),
        ("[ab].jpg", "/m/a.jpg /m/holiday/b.jpg /m/holiday/B.JPG"),
        ("[!ab].jpg", "/m/holiday/old/c.jpg /m/album.jpg/d.jpg"),
        ("[a-c].jpg", "/m/a.jpg /m/holiday/b.jpg /m/holiday/B.JPG /m/holiday/old/c.jpg"),
        ("holiday/*", "/m/holiday/b.jpg /m/holiday/B.JPG /m/holiday/old/c.jpg"),
        ("holiday/", "/m/holiday/b.jpg /m/holiday/B.JPG /m/holiday/old/c.jpg"),
        ("holiday", "/m/holiday/b.jpg /m/holiday/B.JPG /m/holiday/old/c.jpg"),
        ("holiday/old", "/m/holiday/old/c.jpg"),
        ("hol*y/", "/m/holiday/b.jpg /m/holiday/B.JPG /m/holiday/old/c.jpg"),
        ("oliday/", ""),
        ("holid", ""),
        ("Holiday/", "/m/holiday/b.jpg /m/holiday/B.JPG /m/holiday/old/c.jpg"),
        ("b.jpg", "/m/holiday/b.jpg"),
        ("B.jpg", "/m/holiday/b.jpg /m/holiday/B.JPG"),
        ("/M/Holiday/*.JPG", "/m/holiday/b.jpg /m/holiday/B.JPG /m/holiday/old/c.jpg"),
        ("/m/holiday", "/m/holiday/b.jpg /m/holiday/B.JPG /m/holiday/old/c.jpg"),
        ("/m/holiday/", "/m/holiday/b.jpg /m/holiday/B.JPG /m/holiday/old/c.jpg"),
        ("/m//x/../holiday/./old", "/m/holiday/old/c.jpg"),
        ("/m/a.jpg", "/m/a.jpg"),
        ("/m/a.jpg/", ""),
        ("/a.jpg", ""),
        ("/*.jpg", "/m/a.jpg /m/holiday/b.jpg /m/holiday/B.JPG /m/holiday/old/c.jpg /m/album.jpg/d.jpg"),
        ("/m/h*/c.jpg", "/m/holiday/old/c.jpg"),
        ("/m/?.jpg", "/m/a.jpg"),
        ("album.jpg", "/m/album.jpg/d.jpg"),
        ("/m/[[]x] 'y'/", "/m/[x] 'y'/e.png"),
        ("[[]x] 'y'/e.png", "/m/[x] 'y'/e.png"),
        ("/m/[x]*", ""),
        ("*[[]x]*", "/m/[x] 'y'/e.png"),
        ("[*]", "/m/*"),
        ("*", "ALL"),
        ("/", "ALL"),
        ("/*", "ALL"),
        ("*/", "ALL"),
        ("m", "ALL"),
        ("x\0", ""),
    ],
)
def test_patterns(pattern: str, expected: str) -> None:
    paths = ["/m/a.jpg", "/m/holiday/b.jpg", "/m/holiday/B.JPG", "/m/holiday/old/c.jpg", "/m/album.jpg/d.jpg"]
    paths += ["/m/[x] 'y'/e.png", "/m/*", "/m/holidays.txt", "/m/holiday0", "/m/holiday-/x"]
    chosen = [paths[at] for at in found([Item(path.encode()) for path in paths], Filter(paths=(pattern,)))]
    wanted = paths if expected == "ALL" else [path for path in paths if f"{path} " in f"{expected} "]
    assert chosen == wanted


def path_matches(path: str, pattern: str) -> bool:
    """The slow obvious way; patterns have no escapes."""
    names = [path] if pattern.startswith("/") else [path[at + 1 :] for at, sign in enumerate(path) if sign == "/"]
    if pattern.startswith("/"):
        pattern = os.path.normpath(pattern).rstrip("/") + "/" * pattern.endswith("/")
    folder = pattern.endswith("/")
    if any(sign in pattern for sign in "*?["):
        return any(fnmatch.fnmatchcase(name, pattern + "*" * folder) for name in names)
    pattern = pattern.rstrip("/")
    return any(name.startswith(f"{pattern}/") or (name == pattern and not folder) for name in names)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.lists(st.text("ab*é\udcff", min_size=1, max_size=3), min_size=1, max_size=3), min_size=1, max_size=8),
    st.lists(st.text("aab//**??é\udcff![-]", min_size=1, max_size=7), min_size=1, max_size=3),
)
@example([["a"], ["b"]], ["/"])
@example([["a", "\udcffb"], ["b"]], ["/a/\udcff*", "//a"])
def test_patterns_match_what_the_slow_way_matches(parts: list[list[str]], patterns: list[str]) -> None:
    patterns = [re.sub(r"\[[*?[]\]", "", pattern) or "a" for pattern in patterns]
    patterns = [re.sub(r"/+", "/", pattern) for pattern in patterns]
    paths = sorted({"/" + "/".join(one) for one in parts})
    wanted = [at for at, path in enumerate(paths) if any(path_matches(path, pattern) for pattern in patterns)]
    assert found([Item(os.fsencode(path)) for path in paths], Filter(paths=tuple(patterns))) == wanted


def test_home_and_the_current_folder(monkeypatch, tmp_path) -> None:
    here = tmp_path / "[here]"
    here.mkdir()
    monkeypatch.setenv("HOME", str(here))
    monkeypatch.chdir(here)
    some = [
        Item(os.fsencode(path)) for path in (here / "a.jpg", here / "x" / "b.jpg", tmp_path / "c.jpg", "/m/~/a.jpg")
    ]
    for pattern, expected in {
        "~": [0, 1],
        "~/*.jpg": [0, 1],
        "~/x": [1],
        ".": [0, 1],
        "./a*": [0],
        "./x/": [1],
        "../c.jpg": [2],
        "../*": [0, 1, 2],
        "~nobody-has-this-name/x": [],
        "*/~/*": [3],
    }.items():
        assert found(some, Filter(paths=(pattern,))) == expected, pattern
    wanted = Filter(paths=("./a*",))
    monkeypatch.chdir(tmp_path)
    assert found(some, wanted) == [0]  # resolved when it was made
    assert wanted != Filter(paths=("./a*",))


def test_a_folder_is_found_by_the_index_of_paths() -> None:
    with closing(open_items([Item(b"/m/holiday/x1"), Item(b"/n/y")])) as db:
        db.create_function("trivium_is_named", 5, None)  # is called for others only where nothing is named so
        db.create_function("trivium_is_named", 5, lambda *_: 1 / 0)
        for pattern in ("/m/holiday", "/m/holiday/", "/m/holiday/x?"):
            condition, parameters = Filter(paths=(pattern,)).sql()
            sql = f"SELECT i.id FROM item AS i WHERE {condition}"
            assert db.execute(sql, parameters).fetchall() == [(0,)]
            plan = db.execute(f"EXPLAIN QUERY PLAN {sql}", parameters).fetchall()
            assert not [row for row in plan if row[1] == 0 and row[3].startswith("SCAN i")], plan


# The whole.


def test_all_parts_must_hold() -> None:
    some = [
        Item(b"/m/a.jpg", "image", "dog"),
        Item(b"/m/b.jpg", "image", "cat"),
        Item(b"/m/c.wav", "audio", "dog"),
        Item(b"/n/d.jpg", "image", "dog"),
    ]
    assert found(some, Filter()) == [0, 1, 2, 3]
    assert found(some, Filter(only="audio")) == [2]
    assert found(some, Filter(paths=("/n/", "c.*"))) == [2, 3]
    assert found(some, Filter(only="image", paths=("/m/",), where="caption = dog or caption = x")) == [0]
    assert found([], Filter(only="image")) == []


def test_of_several_expressions_all_must_hold() -> None:
    some = [Item(b"/m/a.jpg", "image", "dog"), Item(b"/m/b.jpg", "image", "cat"), Item(b"/m/c.wav", "audio", "dog")]
    assert found(some, Filter(where=["caption = dog", "modality = image"])) == [0]
    assert found(some, Filter(where=("caption = dog or caption = cat", "modality = image or name = x"))) == [0, 1]
    assert found(some, Filter(where=[])) == [0, 1, 2]
    assert Filter(where=[]).is_empty
    assert Filter(where=["a = 1", "has b and a = 2"]).metadata_keys == {"a", "b"}
    assert {Filter(where=["has a"]): 1}[Filter(where=("has a",))] == 1
    with pytest.raises(FilterError, match="this parenthesis closes none"):  # each is an expression by itself
        Filter(where=["caption = x) or (caption = dog", "has caption"])


def test_empty_and_equal_filters() -> None:
    assert Filter().is_empty
    assert Filter().sql() == ("(1)", [])
    for wanted in (Filter(only="text"), Filter(paths=("*",)), Filter(where="has x")):
        assert not wanted.is_empty
        assert wanted == dataclasses.replace(wanted)
        assert {wanted: 1}[dataclasses.replace(wanted)] == 1


HOSTILE = [
    "'); DROP TABLE item; --",
    '" OR 1=1 --',
    "$.a",
    "?",
    "i.path",
    "x' || (SELECT 1)",
    "\0",
    "%",
    "{}",
    "é\ud800\udcff",
]


@settings(max_examples=100, deadline=None)
@given(
    st.one_of(st.sampled_from(HOSTILE), st.text(max_size=20)), st.one_of(st.sampled_from(HOSTILE), st.text(max_size=20))
)
def test_no_text_gets_into_the_sql(value: str, key: str) -> None:
    def condition(value: str, key: str) -> str:
        quoted = [re.sub(r"([\\'`])", r"\\\1", text) for text in (value, key)]
        where = f"`{quoted[1]}` = '{quoted[0]}' or path contains '{quoted[0]}' or x in (1, '{quoted[0]}')"
        wanted = Filter(where=where)
        assert found([Item(b"/a", metadata={"a": 1})], wanted) in ([], [0])  # and it runs
        return wanted.sql()[0].replace("trivium_entry(i.metadata, ?)", "i.metadata")

    assert condition(value, key or "k") == condition("v", "k")


@given(st.sampled_from(HOSTILE[:-1]), st.sampled_from(["{}", "*{}", "/m/{}", "/m/*{}/", "{}/"]))
def test_no_pattern_gets_into_the_sql(text: str, form: str) -> None:
    plain = re.sub(r"[?]", "x", text)
    wanted = Filter(paths=(form.format(plain),))
    assert wanted.sql()[0] == Filter(paths=(form.format("a/b" if "/" in plain else "a"),)).sql()[0]
    assert found([Item(b"/a")], wanted) == []


# What is refused.


@pytest.mark.parametrize(
    ("where", "message"),
    [
        (
            "year >= and caption contains dog",
            "expected a value after '>='\nyear >= and caption contains dog\n        ^",
        ),
        ("year >=", "expected a value after '>='\nyear >=\n       ^"),
        ("year 2020", "expected a comparison (= == != < <= > >= contains in) after 'year'\nyear 2020\n     ^"),
        ("`a b` x", "expected a comparison (= == != < <= > >= contains in) after 'a b'\n`a b` x\n      ^"),
        ("a = big dog", "expected 'and', 'or' or the end, text of several words needs quotes\na = big dog\n        ^"),
        ("a in (big dog)", "expected ',' or ')', text of several words needs quotes\na in (big dog)\n          ^"),
        ("(a = big dog)", "expected 'and', 'or' or ')', text of several words needs quotes\n(a = big dog)\n         ^"),
        ("a = 1 and", "expected a field\na = 1 and\n         ^"),
        ("not", "expected a field\nnot\n   ^"),
        ("= 1", "expected a field\n= 1\n^"),
        ("`` = 1", "expected a field\n`` = 1\n^"),
        ("'a b' = 1", "expected a field, an odd name goes between `backticks`\n'a b' = 1\n^"),
        ("has", "expected a field after 'has'\nhas\n   ^"),
        ("has 'a b'", "expected a field after 'has', an odd name goes between `backticks`\nhas 'a b'\n    ^"),
        ("a not = 1", "expected 'in' after 'not'\na not = 1\n      ^"),
        ("a in 1", "expected '(' after 'in'\na in 1\n     ^"),
        ("a in ()", "expected a value after '('\na in ()\n      ^"),
        ("a in (1,)", "expected a value after ','\na in (1,)\n        ^"),
        ("a in (1", "expected ',' or ')', text of several words needs quotes\na in (1\n       ^"),
        ("a contains `b`", "expected a value after 'contains'\na contains `b`\n           ^"),
        ("b = 1 or (a = 1", "this parenthesis is not closed\nb = 1 or (a = 1\n         ^"),
        ("a = 1)", "this parenthesis closes none\na = 1)\n     ^"),
        ("a = 'dog", "this quote is not closed\na = 'dog\n    ^"),
        ("`a = 1", "this quote is not closed\n`a = 1\n^"),
        (r"a = 'C:\dir'", "'\\d' has no meaning, a backslash is written \\\\\na = 'C:\\dir'\n       ^"),
        ("a = “dog”", "'“' has no meaning here, text with such signs needs quotes\na = “dog”\n    ^"),
        ("a && b", "'&' has no meaning here, text with such signs needs quotes\na && b\n  ^"),
        ("a = *.jpg", "'*' has no meaning here, text with such signs needs quotes\na = *.jpg\n    ^"),
        ("a <> 1", "expected a value after '<'\na <> 1\n   ^"),
        ("日本 = = 1", "expected a value after '='\n日本 = = 1\n       ^"),  # as a terminal shows it
        ("e\u0301 = = 1", "expected a value after '='\ne\u0301 = = 1\n    ^"),
        ("a =\n\x1b= 1", "'?' has no meaning here, text with such signs needs quotes\na = ?= 1\n    ^"),
        ("", "the expression is empty"),
        (" \n", "the expression is empty"),
    ],
)
def test_errors_show_the_place(where: str, message: str) -> None:
    with pytest.raises(FilterError) as error:
        Filter(where=where)
    assert str(error.value) == f"where: {message}"


def test_errors_in_long_expressions_show_what_is_around() -> None:
    with pytest.raises(FilterError) as error:
        Filter(where=" or ".join(["a = 1"] * 50) + " or b = or " + " or ".join(["c = 1"] * 50))
    _, line, caret = str(error.value).split("\n")
    assert line.startswith("…")
    assert line.endswith("…")
    assert len(line) < 110
    assert line[len(caret) - 1 :].startswith("or c = 1 or")


def test_limits() -> None:
    fits = "a = '" + "x" * (MAX_LENGTH - 6) + "'"
    assert found([Item(b"/m", metadata={"a": "X" * (MAX_LENGTH - 6)})], Filter(where=fits)) == [0]
    with pytest.raises(FilterError, match=r"where: the expression has 10,001 characters, at most 10,000"):
        Filter(where=fits + " ")
    for opening, closing_ in (("(", ")"), ("not ", ""), ("not (", ")")):
        times = 50 // opening.count("(") if "not" not in opening else 50 if opening == "not " else 25
        assert matches({"a": 1}, opening * times + "a = 1" + closing_ * times) is (opening != "not (")
        with pytest.raises(FilterError, match=r"nested deeper than 50\n.*\n +\^"):
            Filter(where=opening * (times + 1) + "a = 1" + closing_ * (times + 1))
    most = ",".join(["x"] * (MAX_VALUES - 1))
    assert matches({"a": "y"}, f"a in ({most},Y)")
    with pytest.raises(FilterError, match=r"more than 1,000 values in this list\n.*\n     \^"):
        Filter(where=f"a in ({most},y,z)")
    for hostile in ("(" * MAX_LENGTH, "not " * 2_500, "'" * 9_999, "\\" * MAX_LENGTH, "a" * MAX_LENGTH):
        with pytest.raises(FilterError, match=r"^where: "):
            Filter(where=hostile)


def spine(depth: int, *, inner: str = "a=1", left: str = "", right: str = "") -> str:
    for level in range(depth):
        word = ("or", "and")[level % 2]
        inner = f"({left.replace('~', word)}{inner}{right.replace('~', word)})"
    return inner


def bush(depth: int, leaf: str) -> str:
    return leaf if depth == 0 else f"({bush(depth - 1, leaf)} {('or', 'and')[depth % 2]} {bush(depth - 1, leaf)})"


@pytest.mark.parametrize(
    "where",
    [
        "a=1" + " or a=1" * 1_428,
        "a=1" + " and a=x" * 1_249,
        " or ".join(["a=1 and b=1"] * 660),
        bush(10, "a=1"),
        bush(4, spine(45, left="b=1 ~ ")),
        spine(50, left="b=1 ~ "),
        spine(50, right=" ~ b=1"),
        spine(50, left="b=1 ~ c=1 ~ ", right=" ~ a in (1,x,'y')"),
        spine(49, left="b=1 and c=1 or d=1 and (e=1 or f=1) and ", right=" and g=1 or h=x"),
        spine(25, left="b=1 ~ not ", right=" ~ c=1"),
        spine(25, left="b=1 or c=1 and not ", right=" or d not in (1,2)"),
        spine(47, left="a=1 or " * 28),
        spine(8, left="a=1 and " * 150),
        spine(40, left="not (b=1 ~ c=1) ~ (d=1 or e=1 and f=1) ~ (d=1 or e=1 and f=1) ~ ", right=" ~ `q\"`='x'"),
    ],
)
def test_sqlite_takes_the_largest_expressions(where: str) -> None:
    """Its parser overflows at 100 open places, and its trees at 1,000; other conditions are around ours."""
    assert len(where) <= MAX_LENGTH
    condition, parameters = Filter(where=where, only="image", paths=("/m/*", "x/")).sql()
    query = (
        f"SELECT i.id FROM item AS i JOIN item AS j ON j.id = i.id WHERE (i.id >= 0 AND (j.id >= 0 AND ({condition})))"
    )
    with closing(open_items([Item(b"/m/a", metadata={"a": 1})])) as db:
        assert db.execute(query, parameters).fetchall() in ([], [(0,)])


def test_no_pattern_takes_for_ever() -> None:
    assert found([Item(b"/" + b"a" * 4_000)], Filter(paths=("*a" * 2_000 + "b",))) == []


def test_what_else_is_refused() -> None:
    with pytest.raises(FilterError, match="only must be one of text, image, audio, video, got 'song'"):
        Filter(only="song")  # type: ignore[arg-type]
    with pytest.raises(FilterError, match=r"paths must be a pattern or several, got the int 7"):
        Filter(paths=(7,))  # type: ignore[arg-type]
    with pytest.raises(FilterError, match="a path pattern is empty"):
        Filter(paths=("*.jpg", ""))
    with pytest.raises(FilterError, match="a path pattern has 4,097 characters, at most 4,096"):
        Filter(paths=("x" * 4_097,))
    with pytest.raises(FilterError, match="1,001 path patterns are given, at most 1,000"):
        Filter(paths=("x",) * 1_001)
    with pytest.raises(FilterError, match=r"'\\ud800' has a character that no path can have"):
        Filter(paths=("\ud800",))
    many = Filter(paths=tuple(f"/m/{at}*/x" for at in range(1_000)))
    assert found([Item(b"/m/999/x"), Item(b"/m/x")], many) == [0]


def test_one_pattern_is_one() -> None:
    assert Filter(paths="*.jpg") == Filter(paths=("*.jpg",))  # type: ignore[arg-type]


def test_lists_of_patterns_become_tuples() -> None:
    wanted = Filter(paths=["*.jpg"])  # type: ignore[arg-type]
    assert hash(wanted) == hash(Filter(paths=("*.jpg",)))


def test_a_home_that_no_user_can_have() -> None:
    with pytest.raises(FilterError, match="names no user"):
        Filter(paths=("~x\0/y",))
