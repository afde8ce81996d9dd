"""What the terminal shows of a run: which stage limits it."""

import io
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from trivium.encoders import engine
from trivium.encoders.engine import THIS_PROCESS, StageStats, Stats
from trivium.pipeline import collection as collection_module
from trivium.pipeline.cli import upkeep
from trivium.pipeline.cli.main import main
from trivium.pipeline.cli.terminal import limit_of, print_problems, print_stats, progress_bars
from trivium.pipeline.collection import Collection
from trivium.pipeline.progress import Bars
from trivium.pipeline.records import ItemKind


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
