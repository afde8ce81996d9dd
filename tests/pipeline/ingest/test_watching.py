"""What changes is taken in once it is quiet: real files, real events of the file system."""

import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from trivium.pipeline.collection import Collection
from trivium.pipeline.ingest import watching
from trivium.pipeline.ingest.settings import Summary
from trivium.pipeline.ingest.watching import Changes, is_remote
from trivium.pipeline.store.locking import writer_lock
from trivium.pipeline.store.store import Store

SOON = 20.0  # seconds, on a busy machine; usually it is two or three


@contextmanager
def watched(folder: Path, space, *, poll: bool = False) -> Iterator[tuple[list[Summary], list[str]]]:
    """Watch in a thread, with a `Collection` of its own; at the end it has stopped without an error."""
    told: list[Summary] = []
    notes: list[str] = []
    errors: list[BaseException] = []
    stop, started = threading.Event(), threading.Event()

    def run() -> None:
        try:
            with Collection.open(folder, space=space) as collection:
                collection.watch(told.append, stop=stop, note=notes.append, poll=poll)
        except BaseException as error:
            errors.append(error)

    def spy(*args: object, **kwargs: object) -> Iterator[watching.Watched]:
        for change in real(*args, **kwargs):  # type: ignore[arg-type]
            yield change
            started.set()  # the first, which brings all up to date, is done

    real = watching.watch
    thread = threading.Thread(target=run)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(watching, "watch", spy)
        thread.start()
        assert started.wait(SOON), errors
        try:
            yield told, notes
        finally:
            stop.set()
            thread.join(SOON)
    assert not thread.is_alive()
    assert not errors


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SOON
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def names(folder: Path) -> set[str]:
    return {os.path.basename(path) for path in Store(folder).states()}


def test_files_and_folders_come_change_and_go(collection: Collection, media: Path, space, picture) -> None:
    folder = collection.folder
    with watched(folder, space) as (told, _):
        picture(media / "new.png", "pink")
        until(lambda: [summary.added for summary in told] == [1])
        # A folder that is moved in is one event; renamed, two; deleted, some.
        picture(media.parent / "aside" / "in.png", "brown")
        shutil.move(media.parent / "aside", media / "moved")
        until(lambda: [summary.added for summary in told] == [1, 1])
        time.sleep(1)  # the folder above is listed too
        (media / "moved").rename(media / "again")
        until(lambda: len(told) == 3)
        assert (told[-1].renamed, told[-1].removed) == (1, 0)
        assert str(media / "again" / "in.png") in Store(folder).states()
        shutil.rmtree(media / "again")
        until(lambda: "in.png" not in names(folder))
        (media / "red.txt").write_text("A stop sign.")  # a caption
        until(lambda: any(item.caption == "A stop sign." for item in Store(folder).items()))
    assert len(names(folder)) == 8


def test_a_file_that_is_being_written_is_waited_for(collection: Collection, media: Path, space, picture) -> None:
    data = picture(media.parent / "whole.png", "pink").read_bytes()
    with watched(collection.folder, space) as (told, _), (media / "slow.png").open("wb") as file:
        for piece in (data[:50], data[50:60], data[60:]):
            file.write(piece)
            file.flush()
            time.sleep(1.0)
        until(lambda: "slow.png" in names(collection.folder))
    assert [(summary.added, summary.skipped) for summary in told] == [(1, [])]


def test_what_is_hidden_or_the_collection_s_own_wakes_nobody(tmp_path: Path, media: Path, space, picture) -> None:
    folder = media / "c"
    Collection.open(folder, space=space).add(media)
    with watched(folder, space) as (told, _):
        (media / ".hidden.png").write_bytes(b"no picture")
        picture(media / "new.png", "pink")
        until(lambda: len(told) == 1)
        generation = Store(folder).generation
        time.sleep(3)
        assert (Store(folder).generation, len(told)) == (generation, 1)


def test_another_writer_is_waited_for(collection: Collection, media: Path, space, picture) -> None:
    with watched(collection.folder, space) as (_, notes):
        with writer_lock(collection.folder):
            picture(media / "new.png", "pink")
            until(lambda: any("waiting" in note for note in notes))
            assert "new.png" not in names(collection.folder)
        until(lambda: "new.png" in names(collection.folder))
    assert sum("waiting" in note for note in notes) == 1


def test_a_disk_that_comes_back(collection: Collection, media: Path, space, picture, monkeypatch) -> None:
    monkeypatch.setattr(watching, "ROOTS_SECONDS", 0.5)
    collection.add(media)
    media.rename(media.parent / "away")
    with watched(collection.folder, space) as (_, notes):
        assert notes == ["nothing that is watched is there: waiting for it"]
        picture(media.parent / "away" / "new.png", "pink")
        (media.parent / "away").rename(media)
        until(lambda: "new.png" in names(collection.folder))
    assert len(names(collection.folder)) == 8


def test_where_there_are_no_events_it_looks(collection: Collection, media: Path, space, picture, monkeypatch) -> None:
    monkeypatch.setattr(watching, "POLL_MS", 500)
    with watched(collection.folder, space, poll=True) as _:
        picture(media / "new.png", "pink")
        until(lambda: "new.png" in names(collection.folder))


def test_too_many_folders_are_told_and_looked_at(
    collection: Collection, media: Path, space, picture, monkeypatch
) -> None:
    import watchfiles

    real = watchfiles.watch

    def limited(*args: object, force_polling: bool, **kwargs: object) -> Iterator[object]:
        if not force_polling:
            raise OSError("OS file watch limit reached.")
        return iter(real(*args, force_polling=True, **kwargs))  # type: ignore[arg-type]

    monkeypatch.setattr(watchfiles, "watch", limited)
    monkeypatch.setattr(watching, "POLL_MS", 500)
    with watched(collection.folder, space) as (_, notes):
        picture(media / "new.png", "pink")
        until(lambda: "new.png" in names(collection.folder))
    assert "OS file watch limit reached" in notes[0]
    assert "sysctl fs.inotify.max_user_watches" in notes[0]


def test_changes_wait_for_quiet_in_their_folder(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    changes = Changes(lambda _: True)
    changes.add(str(tmp_path / "a" / "x.png"), 10.0)
    changes.add(str(tmp_path / "b" / "y.png"), 11.0)
    changes.add(str(tmp_path / "gone" / "deep" / "z.png"), 10.0)
    assert changes.due(11.9) == ([], [])
    assert changes.due(12.0) == ([], [str(tmp_path), str(tmp_path / "a")])
    changes.add(str(tmp_path / "b"), 12.0)
    assert changes.due(13.0) == ([], [str(tmp_path / "b")])
    assert changes.due(14.0) == ([str(tmp_path / "b")], [str(tmp_path)])


def test_network_disks_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not is_remote(str(tmp_path))
    monkeypatch.setattr(watching, "REMOTE", frozenset({"proc"}))
    assert is_remote("/proc/self")
