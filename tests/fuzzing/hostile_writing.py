"""What people write, and what is made of it: filters, lines of the shell, words of a query."""

import contextlib
import io
import random
import sqlite3
import sys
from pathlib import Path
from typing import Any

from trivium.pipeline.cli.options import UsageError, filter_of
from trivium.pipeline.cli.query_words import parse_line
from trivium.pipeline.search.query import QueryError, parse_part
from trivium.pipeline.store.filters import Filter, FilterError, register_functions

CASES: Any = sys.modules["__main__"]
PIECES = [
    "year", "caption", "path", "kind", "modality", "name", ">=", "<=", "=", "==", "!=", "<", ">", "in", "not", "and",
    "or",
    "contains", "starts", "ends", "with", "has", "is", "(", ")", ",", "[", "]", '"', "'", "\\", "2020", "-1",
    "1e999", "0x1",
    "1_000", "9" * 400, "true", "null", "nan", "'red'", '"a b"', '"\\"', "\0", "\ud800", "\udcff", "\u202e", "é",
    "e\u0301",
    "ß", "İ", "\U0001f600", "*", "?", "**", "/", "//", "..", "~", "~root", "a.b", "a..b", '"a"."b"', "--", ";",
    "DROP TABLE",
    "\n", "\t", "\x1b", "%", "_", "a" * 3_000, "((((((((((", "not not not", "$", "@", "tags", "year in (1, 2, 'x')",
]  # fmt: skip
OPTIONS = [
    "--only", "image", "--only=video", "--where", "year >= 2019", "--path", "*.png", "--path=[", "-k", "5", "-k0", "-k",
    "--min-relevance", "0.5", "nan", "--image", "x.png", "--audio=x", "--text", "2:beach", "-0.5:crowd", "-red",
    "image:x.png",
    "1e999:x", "-:x", ":", ":help", "--json", "--html", "x.html", "--explain", "--explain-hits",
    "99999999999999999999", "--",
    "--unknown", "-x", "@file", "%(prog)s", "--help", "-h", "~/x", "~nobody/x", "\0", "\ud800",
]  # fmt: skip


def sentence(rng: random.Random, pieces: list[str]) -> str:
    words = [rng.choice(pieces) for _ in range(rng.choice((1, 2, 3, 3, 3, 5, 8, 13, 200)))]
    return rng.choice((" ", " ", " ", "", "\t")).join(words)


class HostileFilters:
    """Expressions and patterns, compiled and asked of items."""

    documented = (FilterError,)

    def __init__(self, scratch: Path) -> None:
        self.watched: list[Path] = []
        self._db = sqlite3.connect(":memory:")
        register_functions(self._db)
        self._db.execute("CREATE TABLE item (id INTEGER PRIMARY KEY, path BLOB, modality, caption, metadata, tabled)")
        rows = [
            (b"/m/red.png", "image", "A red sign", '{"camera":"Pocket","year":2019,"tags":["sea","sky"]}'),
            (b"/m/odd-\xff.png", "image", None, None),
            (b"/m/a.md", "text", "caf\u00e9", '{"year":"2019","draft":true,"seconds":0.5,"a.b":null}'),
        ]
        self._db.executemany("INSERT INTO item (path, modality, caption, metadata) VALUES (?, ?, ?, ?)", rows)

    def restore(self) -> None:
        """See `cases.Target`."""

    def case(self, rng: random.Random, number: int) -> Any:
        where = sentence(rng, PIECES) if rng.random() < 0.8 else None
        paths = tuple(sentence(rng, PIECES) for _ in range(rng.randrange(3)))
        only: Any = rng.choice((None, None, "image", "video", "odour", ""))
        return CASES.Case([repr((only, paths, where))[:300]], [("filter", lambda: self._ask(only, paths, where))])

    def _ask(self, only: Any, paths: tuple[str, ...], where: str | None) -> None:
        made = Filter(only=only, paths=paths, where=where)
        assert isinstance(made.metadata_keys, frozenset)
        if not made.is_empty:
            condition, values = made.sql()
            self._db.execute(f"SELECT i.id FROM item i WHERE {condition}", values).fetchall()


class HostileLines:
    """Lines of the shell."""

    documented = (UsageError, QueryError, FilterError)

    def __init__(self, scratch: Path) -> None:
        self.watched = [scratch / "outside"]
        (scratch / "outside").mkdir()

    def restore(self) -> None:
        """See `cases.Target`."""

    def case(self, rng: random.Random, number: int) -> Any:
        line = sentence(rng, OPTIONS if rng.random() < 0.6 else [*OPTIONS, *PIECES])
        return CASES.Case([repr(line)[:300]], [("line", lambda: self._read(line))])

    def _read(self, line: str) -> None:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            options = parse_line(line)
            for text in (*options.texts, *options.text):
                parse_part("text", text)
            filter_of(options).sql()
        if printed.getvalue():
            raise CASES.LeakError(f"printed: {printed.getvalue()[:80]}")


TARGETS = {"filters": HostileFilters, "lines": HostileLines}
