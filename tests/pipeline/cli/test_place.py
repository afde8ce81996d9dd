"""Where a hit is, as people are told: times, the words of a passage, and what stands for them when the file changed."""

import dataclasses
import os
from pathlib import Path
from typing import Any

import pytest

from trivium.pipeline.cli import place
from trivium.pipeline.cli.place import clock, excerpt_of, place_of
from trivium.pipeline.cli.terminal import print_hits
from trivium.pipeline.ingest.scanning import fingerprint
from trivium.pipeline.search.retrieval import Hit

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
    monkeypatch.setattr(place, "MAX_FILE_BYTES", 10)
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
