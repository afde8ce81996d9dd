"""Collections that somebody else has made: each is a copy of one sound collection with one to three changes."""

import contextlib
import io
import os
import random
import shutil
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from trivium.encoders.base import DecodeError, WeightsError, unit_rows
from trivium.pipeline.cli.main import main
from trivium.pipeline.cli.pages import hits as hits_page
from trivium.pipeline.collection import Collection
from trivium.pipeline.ingest import scanning
from trivium.pipeline.records import ITEM_KINDS, ContentKey, NewItem, content_key, part_key
from trivium.pipeline.search import indexing
from trivium.pipeline.search.indexing import build_index_file
from trivium.pipeline.search.query import QueryError
from trivium.pipeline.space.config import SpaceError
from trivium.pipeline.store.database import CollectionError
from trivium.pipeline.store.filters import FilterError
from trivium.pipeline.store.store import Store
from trivium.pipeline.store.writer import writing
from trivium.pipeline.tables.metadata import MetadataError
from trivium.pipeline.tables.reading import TableError
from trivium.pipeline.upkeep.verification import verify

CASES: Any = sys.modules["__main__"]
CHANGES = CASES.load_beside("database_changes").CHANGES
STUB = CASES.load_beside("../pipeline/conftest")
DIM = STUB.DIM


class HostileDatabases:
    """The target."""

    documented = (
        CollectionError, QueryError, FilterError, SpaceError, MetadataError, TableError, WeightsError, DecodeError,
    )  # fmt: skip

    def __init__(self, scratch: Path) -> None:
        scanning.FRESH_NS = 0
        indexing.FEWEST = 4
        self._folder = scratch / "inside" / "c"
        self._outside = scratch / "outside"
        self._template = scratch / "template"
        self._media = scratch / "media"
        self._media.mkdir()
        self.restore()
        for number in range(8):
            (self._media / f"{number}.md").write_text(f"note {number}, a red sign")
        (scratch / "new").mkdir()
        for number in range(2):
            (scratch / "new" / f"{number}.md").write_text(f"new note {number}")
        (scratch / "inside").mkdir()
        self._new = scratch / "new"
        self.watched = [self._outside, self._media, self._new, self._template]
        os.environ["HOME"] = os.environ["TRIVIUM_CACHE"] = str(self._outside)
        self._make_template()

    def restore(self) -> None:
        """See `cases.Target`."""
        shutil.rmtree(self._outside, ignore_errors=True)
        (self._outside / "victims").mkdir(parents=True)
        (self._outside / "victim.txt").write_text("mine")
        (self._outside / "victims" / "thesis.npy").write_text("mine too")
        os.chdir(self._outside)

    def _make_template(self) -> None:
        made = Collection.open(self._template, space=STUB.StubSpace())
        made.add(self._media)
        made.close()
        store = Store(self._template)
        rows: list[tuple[str, Any, str | None, str | None]] = [
            ("/m/red.png", "image", "A red sign.", '{"camera":"Pocket","year":2019}'),
            ("/m/blue.jpg", "image", None, '{"tags":["sea","sky"],"year":2021}'),
            ("/m/low.wav", "audio", "A low tone", '{"seconds":0.5}'),
            ("/m/film.mp4", "video", "A film", None),
            ("/m/odd-\udcff.png", "image", None, None),
            *((f"/m/{number}.png", "image", None, None) for number in range(5)),
        ]
        items, keys = [], dict[ContentKey, None]()
        for path, kind, caption, metadata in rows:
            name = path.encode("utf-8", "surrogateescape")
            contents = {"content": content_key("image" if kind == "video" else kind, name)}
            if caption is not None:
                contents["caption"] = content_key("text", caption.encode())
            if kind == "video":
                contents["frame 1.500"] = part_key("image", "frame 1.500", name)
            if kind in ("audio", "video"):
                contents["window 0.000 1.000"] = part_key("audio", "window 0.000 1.000", name)
            keys |= dict.fromkeys(contents.values())
            items.append(
                NewItem(path=path, modality=kind, fingerprint="1-2-3-4", contents=contents, caption=caption,
                        metadata=metadata, tabled=metadata)
            )  # fmt: skip
        vectors = unit_rows(np.random.default_rng(0).normal(size=(len(keys), DIM)))
        with writing(store) as writer:
            writer.commit(items, list(keys), vectors)
            writer.set_windows(1.0)
            build_index_file(writer, "image", kind="flat")
        gone = store.item_at("/m/blue.jpg")
        assert gone is not None
        with writing(store) as writer:
            writer.remove([gone.id])
        store.close()

    def case(self, rng: random.Random, number: int) -> Any:
        shutil.rmtree(self._folder, ignore_errors=True)
        for left in (self._folder.parent).iterdir():
            left.unlink()
        shutil.copytree(self._template, self._folder)
        recipe: list[str] = []
        for _ in range(rng.choice((1, 1, 1, 2, 3))):
            change = rng.choices(list(CHANGES), list(CHANGES.values()))[0]
            # The second change may meet what the first has left.
            with contextlib.suppress(sqlite3.Error, OSError, UnicodeError, LookupError, TypeError):
                recipe.append(change(self._folder, rng))
        return CASES.Case(recipe, self._operations(rng))

    def _operations(self, rng: random.Random) -> list[tuple[str, Callable[[], object]]]:
        reads: list[tuple[str, Callable[[], object]]] = [
            ("info", self._of(lambda c: c.info())),
            ("search", self._of(self._search)),
            ("search where", self._of(lambda c: c.search(text="red", where="year >= 2019 and caption contains red"))),
            ("search only", self._of(lambda c: c.search(text="red", only=rng.choice(ITEM_KINDS), paths=["*.png"]))),
            ("search vectors", self._of(lambda c: c.search_vectors(np.eye(DIM, dtype=np.float32)[:2], k=50))),
            ("metadata keys", self._of(lambda c: c.metadata_keys())),
            ("explain", self._of(lambda c: c.explain_parts([], c.search(text="red", k=1)))),
            ("export", self._of(lambda c: c.export(self._folder.parent / "out.npy", overwrite=True))),
            ("verify", lambda: verify(self._folder, read_data=rng.random() < 0.7, media=rng.random() < 0.5)),
            ("trivium info", lambda: _command("info", str(self._folder))),
            ("trivium info --json", lambda: _command("info", str(self._folder), "--json")),
            ("trivium verify", lambda: _command("verify", "--read-data", str(self._folder))),
            ("repr", self._of(repr)),
        ]  # fmt: skip
        writes: list[tuple[str, Callable[[], object]]] = [
            ("add", self._of(lambda c: c.add([self._media, self._new]))),
            ("remove", self._of(lambda c: c.remove(["/m/red.png", str(self._media / "1.md")]))),
            ("compact", self._of(lambda c: c.compact())),
            ("rebuild", self._of(lambda c: c.rebuild())),
            ("migrate", self._of(lambda c: c.migrate(STUB.StubSpace("2"), drop_missing=rng.random() < 0.5))),
        ]
        rng.shuffle(reads)
        rng.shuffle(writes)
        # A few of each: the first of them sees the collection as the stranger made it.
        chosen = [*reads[:5], *writes[:3]]
        if rng.random() < 0.3:
            rng.shuffle(chosen)
        return chosen

    def _of(self, act: Callable[[Collection], object]) -> Callable[[], object]:
        def run() -> object:
            with Collection.open(self._folder, space=STUB.StubSpace()) as opened:
                return act(opened)

        return run

    def _search(self, opened: Collection) -> None:
        hits = opened.search(text="red", k=30)
        if "<script>alert" in hits_page.render_page(
            "x", [("x", hits)], target=self._folder.parent / "x.html", note="x"
        ):
            raise CASES.LeakError("unescaped in the page")


def _command(*arguments: str) -> None:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        main([*arguments])
    printed = out.getvalue() + err.getvalue()
    if raw := sorted({c for c in printed if (ord(c) < 32 and c not in "\n\r") or ord(c) == 127}):
        raise CASES.LeakError(f"raw control characters printed by {arguments[0]}: {raw}")
    printed.encode()  # a lone surrogate ends a terminal's output


TARGETS = {"databases": HostileDatabases}
