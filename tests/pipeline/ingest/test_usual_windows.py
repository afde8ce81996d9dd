"""Sounds of more than a minute have windows where nobody has said otherwise, also those that were there before."""

from pathlib import Path
from typing import Any

import pytest

from trivium.pipeline.collection import Collection
from trivium.pipeline.ingest.windows import USUAL_SECONDS, window_seconds


@pytest.mark.parametrize(
    ("asked", "seconds", "expected"),
    [(None, 60.0, None), (None, 60.1, USUAL_SECONDS), (0.0, 600.0, None), (5.0, 600.0, 5.0), (5.0, 2.0, 5.0)],
)
def test_window_seconds(asked: float | None, seconds: float, expected: float | None) -> None:
    assert window_seconds(asked, seconds) == expected


@pytest.fixture
def sounds(tmp_path: Path, sound: Any) -> Path:
    sound(tmp_path / "sounds" / "long.wav", 220, seconds=75.0)
    sound(tmp_path / "sounds" / "short.wav", 880, seconds=59.0)
    return tmp_path / "sounds"


@pytest.fixture
def windowed(space: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A space whose sounds have windows: each one's vector is that of its number."""
    encoder = type(space.encoder("audio"))

    def blocks(self: Any, sound: Any) -> Any:
        yield self.prepare(sound)

    def embed_windows(self: Any, blocks: Any, seconds: Any) -> Any:
        (block,) = blocks
        return self.embed([block, *(block[: 1 + place] for place in range(len(seconds)))])

    monkeypatch.setattr(encoder, "blocks", blocks)
    monkeypatch.setattr(encoder, "embed_windows", embed_windows)
    return space


def parts(collection: Collection, path: Path) -> int:
    item = collection._existing().item_at(str(path))
    assert item is not None
    return len(item.contents) - 1


def test_long_sounds_have_windows(tmp_path: Path, sounds: Path, windowed: Any) -> None:
    collection = Collection.open(tmp_path / "c", space=windowed)
    assert collection.add(sounds).windowed == 0  # new ones are not told of
    assert parts(collection, sounds / "long.wav") >= 7
    assert parts(collection, sounds / "short.wav") == 0
    assert collection.add(sounds).unchanged == 2
    (hit,) = [hit for hit in collection.search(audio=str(sounds / "long.wav")) if hit.path.endswith("long.wav")]
    assert hit.matched in ("content", "window")


def test_none_if_that_is_asked_and_it_stays_so(tmp_path: Path, sounds: Path, windowed: Any) -> None:
    collection = Collection.open(tmp_path / "c", space=windowed)
    collection.add(sounds, windows=0)
    assert parts(collection, sounds / "long.wav") == 0
    collection.add(sounds)
    assert parts(collection, sounds / "long.wav") == 0


def test_sounds_of_before_get_them_once(tmp_path: Path, sounds: Path, windowed: Any) -> None:
    """Those that are long are encoded again, the others looked at; then both are known."""
    collection = Collection.open(tmp_path / "c", space=windowed)
    collection.add(sounds, windows=0)
    db = collection._existing().db
    db.execute("DELETE FROM setting")  # as format 2 had it
    db.execute("UPDATE content SET seconds = NULL")
    windowed.calls.clear()
    summary = collection.add(sounds)
    assert (summary.windowed, summary.changed, summary.unchanged) == (1, 1, 1)
    assert parts(collection, sounds / "long.wav") >= 7
    assert collection.add(sounds).unchanged == 2
    assert not collection._existing().unmeasured_sounds()
