"""What the terminal shows of a run: which stage limits it."""

import dataclasses
import io
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from trivium.encoders import engine
from trivium.encoders.engine import THIS_PROCESS, StageStats, Stats
from trivium.pipeline import collection as collection_module
from trivium.pipeline.cli import terminal, upkeep
from trivium.pipeline.cli.main import main
from trivium.pipeline.cli.terminal import (
    clock,
    excerpt_of,
    limit_of,
    place_of,
    print_hits,
    print_problems,
    print_stats,
    progress_bars,
)
from trivium.pipeline.collection import Collection
from trivium.pipeline.ingest.scanning import fingerprint
from trivium.pipeline.progress import Bars
from trivium.pipeline.records import ItemKind
from trivium.pipeline.search.retrieval import Hit


def stats_of(*stages: StageStats, seconds: float = 10.0, used: float = 0.0, decoding: float = 0.0) -> Stats:
    """Stats of a run that took so long, and so much of the processor's time."""
    stats = Stats(helpers={"decode": lambda: 0.0})
    stats.stages += stages
    stats._used_before = {THIS_PROCESS: 0.0, "decode": 0.0}
    stats._used_at_end = {THIS_PROCESS: used, "decode": decoding}
    stats._ended = stats._started + seconds
    return stats


DECODING = StageStats("decode", workers=2, items=100, busy_seconds=12.0)
ENCODING = StageStats("encode", workers=1, items=96, busy_seconds=9.3, queued=12)
WRITING = StageStats("write", workers=1, items=96, busy_seconds=0.5)


def test_limit_is_the_stage_whose_workers_are_busiest() -> None:
    assert limit_of(stats_of(DECODING, ENCODING, WRITING)) == "limited by encode: 93% busy, queue 12"


def test_workers_share_their_work() -> None:
    """12 s of two workers are 60 % of 10 s; 12 s of one would be all of it."""
    alone = StageStats("decode", workers=1, items=100, busy_seconds=12.0)
    assert limit_of(stats_of(alone, ENCODING)) == "limited by decode: 100% busy, queue 0"


def test_no_stage_limits_nothing() -> None:
    assert limit_of(Stats()) == ""


def test_table_of_stages(capsys: pytest.CaptureFixture[str]) -> None:
    print_stats({"image": stats_of(DECODING, ENCODING, WRITING)})
    head, *rows = capsys.readouterr().out.splitlines()
    assert head.split() == ["stage", "items", "items/s", "workers", "busy", "cpu"]
    assert [row.split() for row in rows] == [
        ["image", "decode", "100", "10.0", "2", "60%", "0%"],
        ["image", "encode", "96", "9.6", "1", "93%", "0%", "<-", "limits"],
        ["image", "write", "96", "9.6", "1", "5%", "0%"],
    ]


@pytest.fixture
def two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "usable_cores", lambda: 2)


USE = "the processor is fully used: encode takes 62% of it, decode 35%"


def test_a_processor_that_is_fully_used_is_the_limit(two_cores, capsys: pytest.CaptureFixture[str]) -> None:
    """Decoding and encoding share the cores: neither's workers tell that."""
    stats = stats_of(DECODING, ENCODING, WRITING, used=12.4, decoding=7.0)
    assert limit_of(stats) == USE
    print_stats({"image": stats})
    _, *rows = capsys.readouterr().out.splitlines()
    assert [row.split() for row in rows[:3]] == [
        ["image", "decode", "100", "10.0", "2", "60%", "35%"],
        ["image", "encode", "96", "9.6", "1", "93%", "62%"],
        ["image", "write", "96", "9.6", "1", "5%", "0%"],
    ]
    assert rows[3:] == [f"image   {USE}"]


def test_a_processor_with_time_to_spare_is_none(two_cores) -> None:
    assert limit_of(stats_of(DECODING, ENCODING, used=11.0, decoding=6.0)).startswith("limited by encode: 93% busy")


def test_table_where_the_system_tells_no_processor_time(capsys: pytest.CaptureFixture[str]) -> None:
    stats = stats_of(ENCODING)
    stats._used_at_end = {THIS_PROCESS: 1.0, "decode": None}
    print_stats({"image": stats})
    assert capsys.readouterr().out.splitlines()[1].split() == "image encode 96 9.6 1 93% <- limits".split()


@pytest.mark.parametrize(
    ("listed", "count", "last"),
    [
        (0, None, None),
        (50, None, "  49"),
        (51, None, "  and 1 more (--json lists all)"),
        (1000, 1200, "  and 1,150 more (--json lists 1,000)"),
    ],
)
def test_problems(listed: int, count: int | None, last: str | None, capsys: pytest.CaptureFixture[str]) -> None:
    print_problems([str(number) for number in range(listed)], count=count)
    lines = capsys.readouterr().out.splitlines()
    assert lines[:50] == [f"  {number}" for number in range(min(listed, 50))]
    assert (lines[-1] if lines else None) == last


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def shown_by(monkeypatch: pytest.MonkeyPatch, stats: dict[str, Stats] | None, *, terminal: io.StringIO) -> str:
    """What indexing three pictures sends to standard error."""
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", terminal)
        for name, value in {"COLUMNS": "80", "TERM": "xterm"}.items():
            patch.setenv(name, value)
        with progress_bars(stats) as show:
            if stats is not None:
                stats["image"] = stats_of(DECODING, ENCODING, WRITING)  # begins later than the bars
            show("image", 96, 30_000)
            time.sleep(0.15)  # a refresh
            show("image index", 1, 2)
    return terminal.getvalue()


def test_bars_say_what_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = shown_by(monkeypatch, {}, terminal=Terminal())
    assert "image: limited by encode: 93% busy, queue 12" in shown
    assert "96/30000" in shown
    last = shown[shown.rindex("30000") :]
    assert "1/2" in last
    assert "limited" not in last  # what is left standing at the end


def test_bars_without_stats(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = shown_by(monkeypatch, None, terminal=Terminal())
    assert "96/30000" in shown
    assert "limited" not in shown


def test_bars_that_nobody_watches_are_printed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = shown_by(monkeypatch, {}, terminal=io.StringIO())
    assert shown.count("96/30000") == 1
    assert "limited" not in shown


def test_add_fills_stats_meanwhile(tmp_path, media, space) -> None:
    stats: dict[ItemKind, Stats] = {}
    seen = []
    with Collection.open(tmp_path / "c", space=space) as collection:
        summary = collection.add(media, stats=stats, progress=lambda kind, *_: seen.append(kind in stats))
    assert seen
    assert all(seen)
    assert summary.stats is stats
    assert stats["image"].stage("encode").items == 3


def test_migration_fills_stats_meanwhile(collection: Collection, make_space) -> None:
    stats: dict[ItemKind, Stats] = {}
    seen = []
    collection.migrate(make_space("2"), stats=stats, progress=lambda kind, *_: seen.append(kind in stats))
    assert seen
    assert all(seen)
    assert {kind: of.stage("write").items for kind, of in stats.items()} == {"text": 2, "image": 3, "audio": 2}
    before = stats["image"].seconds
    time.sleep(0.002)
    assert stats["image"].seconds == before  # the clock stands


def test_a_migration_says_what_limits_it(collection: Collection, make_space, monkeypatch) -> None:
    """As indexing does: its bars are given the stages' counters."""
    told: dict[str, str] = {}

    @contextmanager
    def bars(stats: dict[str, Stats]) -> Iterator[Bars]:
        yield lambda what, *_: told.update({what: limit_of(stats[what])}) if what in stats else None

    monkeypatch.setattr(collection_module, "load_space", lambda *_, **__: make_space("2"))
    monkeypatch.setattr(upkeep, "progress_bars", bars)
    assert main(["migrate", str(collection.folder), "--space", "other", "--device", "cpu"]) == 0
    assert set(told) == {"text", "image", "audio"}
    assert all(told.values())


WORDS = [f"word{number}" for number in range(500)]
TEXT = "\n".join(WORDS)


def hit(path: Path | str, matched: Any = "passage", start: float | None = None, stop: float | None = None) -> Hit:
    known = fingerprint(os.lstat(path)) if os.path.lexists(path) else ""
    return Hit(path=str(path), modality="text", score=0.5, caption="word0", matched=matched, start=start, stop=stop,
               fingerprint=known)  # fmt: skip


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "a.txt").write_text(TEXT)
    return tmp_path / "a.txt"


@pytest.mark.parametrize(
    ("matched", "start", "stop", "told"),
    [
        ("content", None, None, ""),
        ("caption", None, None, ""),
        ("window", 83.9, 88.0, "at 01:23"),
        ("frame", 3723.04, None, "at 1:02:03"),
        ("frame", 0.0, None, "at 00:00"),
        ("passage", 1200.0, 2400.0, "characters 1200 to 2400"),
    ],
)
def test_places(matched: str, start: float | None, stop: float | None, told: str) -> None:
    assert place_of(hit("/nowhere", matched, start, stop)) == told


@pytest.mark.parametrize(("seconds", "written"), [(0, "00:00"), (59.999, "00:59"), (60, "01:00"), (86_399, "23:59:59")])
def test_clock(seconds: float, written: str) -> None:
    assert clock(seconds) == written


def test_an_excerpt_is_how_the_passage_begins(file: Path) -> None:
    start = TEXT.index("word100")
    excerpt = excerpt_of(hit(file, start=start, stop=start + 1200))
    assert excerpt is not None
    assert excerpt.startswith("… word100 word101 ")
    assert excerpt.endswith(" …")
    assert excerpt.strip("… ").split() == WORDS[100 : 100 + len(excerpt.split()) - 2]  # whole words
    assert 200 < len(excerpt) <= 250


def test_an_excerpt_of_the_whole_has_no_dots(file: Path) -> None:
    file.write_text("three  short\n\nwords")
    assert excerpt_of(hit(file, start=0, stop=20)) == "three short words"


def test_an_excerpt_of_one_long_word(file: Path) -> None:
    file.write_text("x" * 1000)
    assert excerpt_of(hit(file, start=0, stop=1000)) == "x" * 240 + " …"


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "cp1252"])
def test_characters_are_counted_as_they_were_decoded(file: Path, encoding: str) -> None:
    file.write_bytes("ä ö ü ß and the rest".encode(encoding))
    assert excerpt_of(hit(file, start=4, stop=7)) == "… ü ß …"


def test_other_parts_have_none(file: Path) -> None:
    assert excerpt_of(hit(file, "content")) is None
    assert excerpt_of(hit(file, "window", 0.0, 5.0)) is None


def test_a_changed_file_is_not_read(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = hit(file, start=800, stop=2000)
    file.write_text("Something else, and longer. " * 100)
    assert excerpt_of(found) is None
    print_hits([found])
    assert capsys.readouterr().out.rstrip().endswith("a.txt characters 800 to 2000")


def test_a_file_too_fresh_to_have_a_fingerprint_is_not_read(file: Path) -> None:
    assert excerpt_of(dataclasses.replace(hit(file, start=0, stop=100), fingerprint="fresh")) is None


def test_files_that_cannot_be_read(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = hit(file, start=0, stop=100)
    monkeypatch.setattr(terminal, "MAX_FILE_BYTES", 10)
    assert excerpt_of(found) is None
    monkeypatch.undo()
    file.unlink()
    assert excerpt_of(found) is None
    (tmp_path / "binary.txt").write_bytes(b"\0\1\2" * 100)
    assert excerpt_of(hit(tmp_path / "binary.txt", start=0, stop=100)) is None
    assert excerpt_of(hit(file.parent, start=0, stop=100)) is None
    os.mkfifo(tmp_path / "pipe.txt")
    assert excerpt_of(hit(tmp_path / "pipe.txt", start=0, stop=100)) is None


def test_lines_show_the_words_in_place_of_the_first_line(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    start = TEXT.index("word100")
    print_hits([hit(file, start=start, stop=start + 30), hit(file, "content")])
    first, second = capsys.readouterr().out.splitlines()
    assert first.split("\t")[2].startswith("… word100")
    assert first.split("\t")[3].endswith("a.txt")
    assert second.split("\t")[2] == "word0"


def test_control_characters_in_an_excerpt_are_shown_as_such(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file.write_text("\x1b[31mred\x07 words of a passage")
    print_hits([hit(file, start=0, stop=31)])
    shown = capsys.readouterr().out
    assert "\x1b" not in shown
    assert "\\x1b[31mred\\x07 words" in shown
