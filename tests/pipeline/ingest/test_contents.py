"""A file with thousands of vectors is encoded and committed in portions: a stop keeps them, and memory is bounded."""

import re
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trivium.encoders.base import Modality, Passage, Vectors
from trivium.encoders.files import stopping
from trivium.encoders.files.reading import OpenedFile
from trivium.pipeline.cli.main import main
from trivium.pipeline.collection import Collection
from trivium.pipeline.ingest import contents as contents_module
from trivium.pipeline.ingest import loading, sources
from trivium.pipeline.ingest.contents import LoadedContents, portions_of
from trivium.pipeline.records import ContentKey, content_key
from trivium.pipeline.space.joint import JointSpace

MOST = 10
WORDS = 45  # a vector each, beside the text's own


@dataclass(frozen=True)
class File:
    name: int
    contents: LoadedContents


@given(st.lists(st.tuples(st.integers(0, 25), st.booleans()), max_size=12))
def test_portions_hold_all_in_order(files: list[tuple[int, bool]]) -> None:
    batch = []
    for name, (count, has_mean) in enumerate(files):
        keys = [content_key("text", f"{name} {n}".encode()) for n in range(count)]
        means: dict[ContentKey, Sequence[ContentKey]] = {content_key("image", b"%d" % name): keys} if has_mean else {}
        batch.append(File(name, LoadedContents(prepared={key: np.empty(0) for key in keys}, means=means)))
    keys = [key for file in batch for key in file.contents.prepared]
    found = list(portions_of(batch, most=MOST))
    assert [key for portion in found for file in portion for key in file.contents.prepared] == keys
    assert [file.name for portion in found for file in portion if isinstance(file, File)] == list(range(len(files)))
    for portion in found:
        size = sum(len(file.contents.prepared) for file in portion)
        assert size <= MOST or (len(portion) == 1 and portion[0].contents.means)


@pytest.fixture
def worded(space: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A space whose texts have a passage for each word, and portions of `MOST` vectors."""
    monkeypatch.setattr(contents_module, "PORTION_VECTORS", {"cpu": MOST, "gpu": MOST})
    return with_words(space)


def with_words(space: Any) -> Any:
    encoder = space.encoder

    def made(modality: Modality, replica: int = 0) -> Any:
        found = encoder(modality, replica)

        def passages(text: str) -> list[Passage]:
            places = [match.span() for match in re.finditer(r"\S+", text)]
            return [Passage(*place, found.prepare(text[slice(*place)])) for place in places]

        found.passages = passages
        return found

    space.encoder = made
    return space


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "long.txt"
    path.write_text(" ".join(f"word{n}" for n in range(WORDS)))
    return path


def contents(folder: Path) -> int:
    with closing(sqlite3.connect(folder / "collection.db")) as db:
        (count,) = db.execute("SELECT count(*) FROM content").fetchone()
    return int(count)


def stop_after(commits: int) -> Callable[..., None]:
    left = iter(range(commits - 1))

    def progress(*_: object) -> None:
        if next(left, None) is None:
            raise KeyboardInterrupt

    return progress


def test_what_was_made_of_a_text_is_kept(tmp_path: Path, text: Path, worded: Any) -> None:
    collection = Collection.open(tmp_path / "c", space=worded)
    with pytest.raises(KeyboardInterrupt):
        collection.add(text, progress=stop_after(3))
    assert contents(tmp_path / "c") == 3 * MOST
    assert len(collection) == 0
    worded.calls.clear()
    assert collection.add(text).added == 1
    assert len(worded.calls) == WORDS + 1 - 3 * MOST
    (hit,) = collection.search(text="word44", k=5)
    assert (hit.matched, hit.stop) == ("passage", len(text.read_text()))


def write_notes(folder: Path, count: int) -> None:
    """Texts whose names come behind that of the long one."""
    for number in range(count):
        (folder / f"note{number}.md").write_text(f"note {number}")


def test_small_files_do_not_wait_for_a_large_one(
    tmp_path: Path, text: Path, worded: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contents_module, "LARGE_BYTES", {"text": 100})
    write_notes(tmp_path, 5)
    told: list[float] = []

    def progress(kind: str, done: float, total: int) -> None:
        assert (kind, total) == ("text", 6)
        told.append(done)
        if 5 < done < 6:
            raise KeyboardInterrupt

    collection = Collection.open(tmp_path / "c", space=worded)
    with pytest.raises(KeyboardInterrupt):
        collection.add([text, tmp_path], progress=progress)
    assert len(collection) == 5
    assert told[-1] == 5 + MOST / (WORDS + 1)
    assert collection.add([text, tmp_path]).added == 1
    assert len(collection) == 6


def test_what_is_done_rises_with_each_portion_of_a_large_text(tmp_path: Path, text: Path, worded: Any) -> None:
    told: list[float] = []
    with Collection.open(tmp_path / "c", space=worded) as collection:
        collection.add(text, progress=lambda _, done, total: told.append(done))
    assert told == pytest.approx([n * MOST / (WORDS + 1) for n in range(1, 5)] + [1])
    assert isinstance(told[-1], int)  # who prints it as a whole number can, but for texts that are cut


@pytest.mark.weights
def test_fifty_notes_are_there_when_a_text_of_4_5_mb_has_begun(tmp_path: Path, weights: object) -> None:
    (tmp_path / "book.txt").write_text("It was a dark and stormy night; the rain fell in torrents. " * 76_300)
    assert (tmp_path / "book.txt").stat().st_size > 4_500_000
    write_notes(tmp_path, 50)
    told: list[float] = []

    def progress(_: str, done: float, total: int) -> None:
        told.append(done)
        if done > 50:
            raise KeyboardInterrupt

    with Collection.open(tmp_path / "c") as collection:
        with pytest.raises(KeyboardInterrupt):
            collection.add(tmp_path, progress=progress)
        assert told[0] == 50
        assert 50 < told[-1] < 51
        assert len(collection) == 50
        assert collection.search(text="note 17", k=1)[0].path == str(tmp_path / "note17.md")


def test_a_migration_that_is_stopped_keeps_it_too(
    tmp_path: Path, text: Path, worded: Any, make_space: Callable[..., Any]
) -> None:
    collection = Collection.open(tmp_path / "c", space=worded)
    collection.add(text)
    newer = with_words(make_space("2"))
    with pytest.raises(KeyboardInterrupt):
        collection.migrate(newer, progress=stop_after(2))
    newer.calls.clear()
    done = collection.migrate(newer)
    assert done.is_done
    assert len(newer.calls) == done.encoded == WORDS + 1 - 2 * MOST


def failing(space: Any, which: str) -> Any:
    """One vector is no number."""
    encoder = space.encoder

    def made(modality: Modality, replica: int = 0) -> Any:
        found = encoder(modality, replica)
        embed = found.embed

        def embed_but_one(batch: Sequence[Any]) -> Vectors:
            rows: Vectors = embed(batch)
            for place, item in enumerate(batch):
                if bytes(item) == which.encode():
                    rows[place] = np.nan
            return rows

        found.embed = embed_but_one
        return found

    space.encoder = made
    return space


def test_one_passage_that_fails_costs_its_text(tmp_path: Path, text: Path, worded: Any) -> None:
    """Also when what follows it is made later: nothing waits for it for ever."""
    summary = Collection.open(tmp_path / "c", space=failing(worded, "word5")).add(text)
    (problem,) = summary.skipped
    assert problem.reason == "the network gave no finite vector for it"
    assert summary.added == 0


def test_in_a_migration_too(tmp_path: Path, text: Path, worded: Any, make_space: Callable[..., Any]) -> None:
    collection = Collection.open(tmp_path / "c", space=worded)
    collection.add(text)
    done = collection.migrate(failing(with_words(make_space("2")), "word5"))
    assert not done.is_done
    assert [problem.reason for problem in done.problems] == ["the network gave no finite vector for it"]


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        (
            {"MAX_DOCUMENT_CHARACTERS": 20},
            "only its first 20 characters are searched: of a text, at most 20 characters",
        ),
        ({"MAX_PASSAGES": WORDS}, None),
        ({"MAX_PASSAGES": 3, "MAX_DOCUMENT_CHARACTERS": 17}, None),
    ],
)
def test_a_text_that_is_cut_is_told(
    tmp_path: Path, text: Path, worded: Any, monkeypatch: pytest.MonkeyPatch, limits: dict[str, int], words: str | None
) -> None:
    text.write_text("word0 word1 word2\n" if words is None else text.read_text())
    for name, value in limits.items():
        monkeypatch.setattr(loading, name, value)
    summary = Collection.open(tmp_path / "c", space=worded).add(text)
    assert summary.added == 1
    assert summary.skipped == []
    told = [note.reason for note in summary.notes]
    assert told == [] if words is None else told[0].startswith(words)


def test_a_text_without_passages_is_told_too(
    tmp_path: Path, text: Path, space: JointSpace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "MAX_DOCUMENT_CHARACTERS", 20)
    (note,) = Collection.open(tmp_path / "c", space=space).add(text).notes
    assert note.path == str(text)
    assert note.reason.startswith("only its first 20 characters are searched")


def test_the_command_tells_it_and_that_is_no_skipped_file(
    tmp_path: Path, text: Path, worded: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(loading, "MAX_PASSAGES", 3)
    found = worded.encoder

    def cut(modality: Modality, replica: int = 0) -> Any:
        made = found(modality, replica)
        passages = made.passages
        made.passages = lambda text: passages(text)[:3]
        return made

    worded.encoder = cut
    monkeypatch.setattr("trivium.pipeline.collection.load_space", lambda *_, **__: worded)
    assert main(["index", str(tmp_path / "c"), str(text), "--strict"]) == 0
    assert f"note on {text}: only its first 17 characters are searched: of a text, at most 3 passages are" in (
        capsys.readouterr().out
    )


def test_large_files_are_looked_at_before_they_are_read(
    tmp_path: Path, space: JointSpace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither read nor hashed, whatever their names say."""

    def refused(*_: object) -> bytes:
        raise AssertionError("it was read")

    media = tmp_path / "media"
    media.mkdir()
    for name in ("photo.jpg", "film.mp4", "sound.wav", "hole.mkv"):
        (media / name).write_bytes(bytes(2000) if name != "hole.mkv" else b"\x1a\x45\xdf\xa3" + bytes(1996))
    with (media / "hole.mkv").open("r+b") as file:
        file.truncate(1 << 40)
    monkeypatch.setattr(loading, "MAX_HELD_BYTES", 1000)
    monkeypatch.setitem(loading_limits(), "video", 1 << 41)
    monkeypatch.setattr(OpenedFile, "sha256", refused)
    monkeypatch.setattr(OpenedFile, "read", refused)
    summary = Collection.open(tmp_path / "c", space=space).add(media)
    told = {Path(problem.path).name: problem.reason for problem in summary.skipped}
    assert told["photo.jpg"] == "not a picture: the content is in no known image format"
    assert told["film.mp4"].startswith("not a video")
    assert told["sound.wav"].startswith("not a sound")
    assert "the rest is a hole" in told["hole.mkv"]


def loading_limits() -> dict[str, int]:
    limits: Any = sources.MAX_FILE_BYTES
    return dict(limits) if not isinstance(limits, dict) else limits


def test_a_large_picture_is_the_same_as_a_small_one(
    tmp_path: Path, media: Path, make_space: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The decoder reads it itself, and it is never held here."""
    held = Collection.open(tmp_path / "held", space=make_space())
    held.add(media)
    monkeypatch.setattr(loading, "MAX_HELD_BYTES", 10)
    unheld = Collection.open(tmp_path / "unheld", space=make_space())
    assert unheld.add(media).skipped == []
    query = str(media / "red.png")
    assert [(hit.path, hit.score) for hit in unheld.search(image=query, k=9)] == [
        (hit.path, hit.score) for hit in held.search(image=query, k=9)
    ]


def test_threads_that_load_hold_little_together(
    tmp_path: Path, media: Path, space: JointSpace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "HELD_TOGETHER_BYTES", 1)  # one file at a time
    assert Collection.open(tmp_path / "c", space=space).add(media).added == 7
    stopping.check()
