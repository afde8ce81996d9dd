"""Nothing that comes from outside gets through unescaped: to a terminal, a page, or Markdown."""

import ast
import io
import os
import re
import shutil
import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing
from functools import cache
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import trivium
from trivium.pipeline import collection as collection_module
from trivium.pipeline.align.card import model_card
from trivium.pipeline.cli import terminal
from trivium.pipeline.cli.pages.html import STYLE
from trivium.pipeline.escaping import Html, code, code_block, joined, markdown_table, markup, plain, printable
from trivium.pipeline.store.database_file import DATABASE, write_checksum
from trivium.pipeline.store.store import Store
from trivium.pipeline.store.writer import writing

PIPELINE = Path(trivium.__file__).parent / "pipeline"
# Breaks out of an attribute, of a tag, of rich's markup, of a line, of a cell, and turns the rest of the line around.
PAYLOAD = '"><script>alert(1)</script>[link=x]\x1b]0;owned\x07\x1b[31m\nFAKE line\r`|\u202e'
TAGS = {"html", "head", "meta", "title", "style", "body", "h1", "h2", "p", "ol", "li", "div", "img", "audio", "video"}
TAGS |= {"b", "span", "br", "small", "a", "blockquote"}


class Parsed(HTMLParser):
    """The tags, the names of the attributes and the text of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.text += data


# How it is done: so that the next field cannot be forgotten


@cache
def modules() -> list[tuple[str, ast.Module]]:
    return [
        (str(path.relative_to(PIPELINE.parent)), ast.parse(path.read_text(encoding="utf-8")))
        for path in sorted(PIPELINE.parent.rglob("*.py"))
    ]


def test_only_one_module_prints() -> None:
    printing = set()
    for name, module in modules():
        for node in ast.walk(module):
            is_print = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
            is_console = isinstance(node, ast.ImportFrom) and node.module == "rich.console"
            is_write = isinstance(node, ast.Attribute) and ast.unparse(node) in ("sys.stdout.write", "sys.stderr.write")
            if is_print or is_console or is_write:
                printing.add(name)
    # The others where it cannot be had: nothing could be imported (escaped), a signal came (a constant).
    assert printing == {"pipeline/cli/terminal.py", "pipeline/cli/main.py", "pipeline/cli/ends.py"}


def test_what_is_logged_is_printable() -> None:
    logged = 0
    for name, module in modules():
        for node in ast.walk(module):
            if isinstance(node, ast.Call) and re.match(r"log(ger)?\.\w+$", ast.unparse(node.func)):
                logged += 1
                given = [ast.unparse(argument) for argument in node.args[1:]]
                assert all(text.startswith("printable(") for text in given), f"{name}, line {node.lineno}"
    assert logged > 2


def test_html_is_made_by_templates_only() -> None:
    for name, module in modules():
        shown = [node for node in ast.walk(module) if isinstance(node, ast.FunctionDef) and node.name == "__repr__"]
        passed = {id(inner) for function in shown for inner in ast.walk(function)}
        for node in ast.walk(module):
            if isinstance(node, ast.JoinedStr) and id(node) not in passed:
                words = "".join(str(part.value) for part in node.values if isinstance(part, ast.Constant))
                assert not re.search(r"(?<!\?P)</?[a-z]+[ >]", words), (
                    f"{name}, line {node.lineno}: HTML in an f-string"
                )
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "Html" and name != "pipeline/escaping.py":
                assert ast.unparse(node.args[0]) in ("POLICY", "STYLE") or isinstance(node.args[0], ast.Constant), name


# What each of them does

TEXTS = st.text(st.characters(codec=None) | st.sampled_from("\\`*_[]<>|&~$#!\"'\n\r\x1b"), max_size=40)


@settings(deadline=None)
@given(text=TEXTS)
def test_printable_is_one_line_without_controls(text: str) -> None:
    shown = printable(text)
    assert shown.isprintable()
    assert printable(shown) == shown
    assert not text.isprintable() or shown == text


@settings(deadline=None)
@given(text=TEXTS)
def test_a_field_of_html_is_text_and_nothing_else(text: str) -> None:
    page = markup('<p class="{field}">{field}</p>', field=text)
    found = Parsed(page)
    assert (found.tags, found.attributes, found.text) == (["p"], [("class", printable(text))], printable(text))
    assert Parsed(markup("<b>{inner}</b>", inner=page)).tags == ["b", "p"]


def test_markup_of_numbers() -> None:
    assert markup("<b>{score:.3f}</b> {share:.0%}", score=0.5, share=0.25) == "<b>0.500</b> 25%"
    with pytest.raises(TypeError, match="only HTML can be joined to HTML"):
        joined([Html("<b>"), "<b>"])  # type: ignore[list-item]


@settings(deadline=None)
@given(text=TEXTS)
@example("__a__")
@example("\\[x](http://y)")
@example("$a$ &lt; ~~b~~ `c` **d** <e> f|g")
def test_a_field_of_markdown_is_text_and_nothing_else(text: str) -> None:
    from markdown_it import MarkdownIt

    reader = MarkdownIt("commonmark").enable(["table", "strikethrough"])
    (_, paragraph, _) = reader.parse(f"a {plain(text)} z")
    assert paragraph.children is not None
    assert {child.type for child in paragraph.children} == {"text"}
    assert paragraph.children[0].content == f"a {printable(text)} z"
    cells = [token for token in reader.parse("\n".join(markdown_table(("x", "y"), [(text, 7)]))) if token.children]
    assert [cell.content for cell in cells[:2]] == ["x", "y"]
    assert {child.type for cell in cells for child in cell.children or ()} == {"text"}
    assert cells[-1].content == "7"
    (inline,) = [token for token in reader.parse(f"a {code(text or 'x')} z") if token.children]
    assert [child.type for child in inline.children or ()] == ["text", "code_inline", "text"]


def test_card_of_a_space() -> None:
    from markdown_it import MarkdownIt

    record = {
        "backbones": {"text": PAYLOAD, "image": "[x](http://y)"},
        "kept": [],
        "method": PAYLOAD,
        "tables": [{"name": "`a`|b|<i>c</i>", "rows": 1, "refused": 0, "weight": 1.0}],
        "pairs": {PAYLOAD: {"trained": 1, "held_out": 0}},
        "recall": {PAYLOAD: {"R@1": 0.5, "R@5": 0.5, "R@10": 0.5}},
        "closed_form_recall": {},
        "best_epoch": None,
    }
    card = model_card(f"# {PAYLOAD}", record, has_curve=False)
    require_harmless(card)
    tokens = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(card)
    kinds = {child.type for token in tokens for child in token.children or ()}
    assert kinds == {"text", "code_inline"}  # the code is ours
    assert [token.type for token in tokens].count("th_open") == 3 + 4 + 3 + 6


@settings(deadline=None)
@given(lines=st.lists(TEXTS))
def test_no_line_ends_a_block_of_code(lines: list[str]) -> None:
    from markdown_it import MarkdownIt

    (block,) = MarkdownIt("commonmark").parse("\n".join(code_block(lines)))
    assert block.type == "fence"
    assert block.content == "".join(f"{printable(line)}\n" for line in lines)


def test_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.say(PAYLOAD, 7)
    terminal.say_cells([(PAYLOAD, "b")])
    terminal.say_table(terminal.ShownTable({"a": {}, "b": {}}, [(PAYLOAD, "[bold]x[/bold]")]), title=PAYLOAD)
    terminal.announce(PAYLOAD)
    terminal.fail(ValueError(PAYLOAD), 1)
    terminal.print_problems([PAYLOAD])
    with terminal.progress_bars() as show:
        show(PAYLOAD, 1, 1)
    printed = capsys.readouterr()
    require_harmless(printed.out, printed.err)
    assert "[bold]x[/bold]" in printed.out
    assert len(printed.out.splitlines()) >= 6


# From a database that somebody else has made


def require_harmless(*printed: str) -> None:
    for text in printed:
        assert {letter for letter in text if not letter.isprintable()} <= {"\n", "\t"}
        assert not [line for line in text.splitlines() if line.lstrip().startswith("FAKE")]


QUICK = [
    ["info", "C"],
    ["search", "C", "x", "--html", "PAGE", "-k", "50"],
    ["search", "C", "x", "--only", "image"],
    ["shell", "C"],
    ["verify", "C", "--read-data", "--media"],
    ["backup", "C", "BACKUP"],
]
SLOW = [
    ["info", "C", "--json"],
    ["search", "C", "x", "--json"],
    ["search", "C", "x", "--where", "year > 1 or caption contains a"],
    ["search", "C", "x", "--explain", "EXPLANATIONS", "--html", "PAGE", "--explain-hits", "2"],
    ["verify", "C", "--json"],
    ["restore", "C", "RESTORED"],
    ["export", "C", "EXPORT.npy"],
    ["bench", "C", "--seconds", "1"],
    ["migrate", "C", "--space", "other"],
    ["index", "C", "MEDIA", "--stats"],
    ["rebuild", "C", "--index", "flat"],
    ["compact", "C"],
    ["remove", "C", "MEDIA"],
]
# What `info`, `search`, `shell` and `verify` show as it is.
SHOWN = {"space.name", "space.revision", "index_file.modality", "index_file.kind", "index_file.report", "page"}
SHOWN |= {"item.path", "item.modality", "item.caption", "root.path", "root.settings", "skipped.path", "skipped.reason"}
SHOWN |= {"item.metadata"}
JSON = {
    "report": '{"reason": P, "notes": [P, P], "recall": {P: 0.5}, "queries": {P: 3}, "milliseconds": 1}',
    "wish": '{"kind": P, P: 1}',
    "metadata": '{P: P, "year": P}',
    "tabled": "{P: P}",
    "own": "{P: P}",
    "settings": '{"metadata": [P], P: P}',
    "passed": "{P: 1}",
}
COLUMNS = [
    *("space.name", "space.revision", "space.source", "collection.wish", "content.modality", "shard.name"),
    *("shard.sha256", "vector.modality", "item.path", "item.modality", "item.fingerprint", "item.beside"),
    *("item.caption", "item.metadata", "item.tabled", "embedding.role", "index_file.modality", "index_file.name"),
    *("index_file.sha256", "index_file.state", "index_file.kind", "index_file.report", "setting.name", "setting.value"),
    *("item.own", "root.path", "root.settings", "root.passed", "skipped.path", "skipped.reason"),
]


@pytest.fixture
def indexed(tmp_path: Path, media: Path, space, make_space, monkeypatch: pytest.MonkeyPatch, run) -> Path:
    monkeypatch.setattr(
        collection_module, "load_space", lambda name, **_: make_space("2") if str(name).endswith("other") else space
    )
    (media / "table.csv").write_text("path,year\nred.png,2020\n")
    arguments = ["--metadata", str(media / "table.csv"), "--index", "flat", "--device", "cpu"]
    assert run("index", str(tmp_path / "c"), str(media), *arguments)[0] == 0
    with closing(Store(tmp_path / "c")) as store, writing(store) as writer:
        writer.set_windows(0.5)
        writer.set_skipped([str(media)], {str(media / "bad.png"): "damaged"})
        with writer.transaction():
            store.db.execute("UPDATE item SET own = '{}'")
    return tmp_path / "c"


def test_all_columns_of_text_are_filled(indexed: Path) -> None:
    with closing(sqlite3.connect(indexed / DATABASE)) as db:
        tables = [row[0] for row in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        columns = [
            f"{table}.{name}"
            for table in tables
            if not table.startswith("sqlite_")
            for _, name, kind, *_ in db.execute(f"PRAGMA table_info({table})")
            if kind in ("TEXT", "") or name == "path"
        ]
        for column in columns:
            table, name = column.split(".")
            assert db.execute(f"SELECT count({name}) FROM {table}").fetchone() > (0,), column
    assert sorted(columns) == sorted(COLUMNS)


def hostile(folder: Path, column: str) -> None:
    """Fill a column with the payload; where values are unique, with a number behind it."""
    table, name = column.split(".")
    with closing(sqlite3.connect(folder / DATABASE, isolation_level=None)) as db:
        db.execute("PRAGMA ignore_check_constraints = ON")
        quoted = '"' + "".join(f"\\u{ord(c):04x}" for c in PAYLOAD) + '"'
        if name in JSON:
            db.execute(f"UPDATE {table} SET {name} = ?", (JSON[name].replace("P", quoted),))
            return
        unique = column in ("shard.name", "item.path", "index_file.name", "content.modality")
        for number, (row, *_) in enumerate(_keys(db, table)):
            value = f"/{PAYLOAD}{number}.png" if name == "path" else f"{PAYLOAD}{number}" if unique else PAYLOAD
            db.execute(
                f"UPDATE OR IGNORE {table} SET {name} = ? WHERE {row}",
                (os.fsencode(value) if name == "path" else value,),
            )
    write_checksum(folder)


def _keys(db: sqlite3.Connection, table: str) -> list[tuple[str]]:
    if table == "embedding":
        rows = db.execute("SELECT item, role FROM embedding").fetchall()
        return [(f"item = {item} AND role = '{role}'",) for item, role in rows]
    if table == "vector":
        rows = db.execute("SELECT space, content FROM vector").fetchall()
        return [(f"space = {space} AND content = {content}",) for space, content in rows]
    if table in ("root", "skipped"):
        return [(f"path = x'{path.hex()}'",) for (path,) in db.execute(f"SELECT path FROM {table}").fetchall()]
    return [(f"rowid = {row}",) for (row,) in db.execute(f"SELECT rowid FROM {table}").fetchall()]


@pytest.mark.parametrize("commands", [QUICK, pytest.param(SLOW, marks=pytest.mark.slow)], ids=["quick", "slow"])
def test_hostile_columns(
    commands: list[list[str]],
    indexed: Path,
    media: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    run: Callable[..., tuple[int, str, str]],
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    page = tmp_path / "out.html"
    words = {"MEDIA": str(media), "PAGE": str(page), "EXPLANATIONS": str(tmp_path / "why")}
    words |= {"BACKUP": str(tmp_path / "b"), "RESTORED": str(tmp_path / "r"), "EXPORT.npy": str(tmp_path / "e.npy")}
    monkeypatch.setenv("TERM", "dumb")
    shown: set[str] = set()
    for column in COLUMNS:
        bad, copy = tmp_path / "bad", tmp_path / "copy"
        shutil.rmtree(bad, ignore_errors=True)
        shutil.copytree(indexed, bad)
        hostile(bad, column)
        for command in commands:
            shutil.rmtree(copy, ignore_errors=True)
            shutil.copytree(bad, copy)
            page.unlink(missing_ok=True)
            monkeypatch.setattr("sys.stdin", io.StringIO("x\n:info\n:help\nx --where 'year > 1'\n"))
            is_terminal = "--only" not in command and "--json" not in command
            monkeypatch.setattr(sys.stdout, "isatty", lambda is_terminal=is_terminal: is_terminal)
            try:
                _, out, err = run(*(str(copy) if word == "C" else words.get(word, word) for word in command))
            except Exception:  # what malformed values do is tested elsewhere; here it is what was said before
                out, err = capsys.readouterr()
            require_harmless(out, err, *caplog.messages)
            shown |= {column} if "alert(1)" in out + err else set()
            if page.exists():
                found = Parsed(page.read_text(encoding="utf-8"))
                assert set(found.tags) <= TAGS, column
                assert not [name for name, _ in found.attributes if name.startswith("on") or "<" in name], column
                require_harmless(found.text.replace(STYLE, ""))
                shown |= {"page"} if "alert(1)" in found.text else set()
    assert shown >= (SHOWN if commands is QUICK else {"page", "item.path"})
