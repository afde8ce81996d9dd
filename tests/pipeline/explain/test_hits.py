"""Explanations of hits: the right part of the right file, and a sentence where there is none."""

import dataclasses
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from assets import ASSETS
from trivium.encoders.base import DecodeError, SandboxError, unit_rows
from trivium.encoders.sandbox.pool import DecodeSandbox
from trivium.encoders.sandbox.streams import SoundStream
from trivium.pipeline.collection import Collection
from trivium.pipeline.explain import hits as explanation_items
from trivium.pipeline.explain.drops import Explanation
from trivium.pipeline.explain.hits import CHANGED, TOO_LONG, _stretch
from trivium.pipeline.ingest import scanning
from trivium.pipeline.ingest.scanning import fingerprint
from trivium.pipeline.records import ItemKind
from trivium.pipeline.search.query import QueryPart
from trivium.pipeline.search.retrieval import Hit
from trivium.pipeline.space.config import SpaceError


def hits_of(collection: Collection, name: str, only: ItemKind | None = None) -> Hit:
    """The hit of one file."""
    (hit,) = [hit for hit in collection.search(text="a red sign", k=50, only=only) if Path(hit.path).name == name]
    return hit


def as_content(hit: Hit) -> Hit:
    """The same hit as if the file itself had matched, and not its caption."""
    return dataclasses.replace(hit, matched="content")


def test_a_picture(collection: Collection) -> None:
    hit = hits_of(collection, "blue.jpg")
    told = collection.explain(hit, text="a red sign")
    assert told.reason is None
    assert told.score == pytest.approx(hit.score, abs=1e-3)
    assert told.regions is not None
    assert told.regions.shape == (7, 7)
    assert told.picture is not None
    assert told.picture.shape == (24, 32, 3)
    assert [mark.text for mark in told.query] == ["a", "red", "sign"]
    assert told.words == told.seconds == ()


def test_a_sound(collection: Collection) -> None:
    told = collection.explain(as_content(hits_of(collection, "low.wav")), text="a red sign")
    assert (told.reason, told.regions, told.words) == (None, None, ())
    assert (told.seconds[0].start, told.seconds[-1].stop) == (0, 0.2)


def test_a_text_and_a_caption(collection: Collection) -> None:
    told = collection.explain(hits_of(collection, "poem.txt"), text="a red sign")
    assert [mark.text for mark in told.words] == ["Roses", "are", "red", "violets", "are", "blue"]
    captioned = dataclasses.replace(hits_of(collection, "red.png"), matched="caption")
    told = collection.explain(captioned, text="a red sign")
    assert [mark.text for mark in told.words] == ["A", "red", "sign"]
    assert told.regions is None  # what the picture shows had no part in it
    os.unlink(captioned.path)
    assert collection.explain(captioned, text="a red sign").reason is None  # captions are in the collection


def test_a_passage_is_the_stretch_that_matched(collection: Collection) -> None:
    hit = dataclasses.replace(hits_of(collection, "poem.txt"), matched="passage", start=15.0, stop=27.0)
    told = collection.explain(hit, text="a red sign")
    assert [(mark.text, mark.start, mark.stop) for mark in told.words] == [("violets", 15, 22), ("are", 23, 26)]


def test_several_hits_and_no_hits(collection: Collection) -> None:
    parts = [QueryPart(modality="text", item="a red sign")]
    hits = collection.search(text="a red sign", k=50)
    told = collection.explain_parts(parts, hits)
    assert [one.reason for one in told] == [None] * len(hits)
    assert [one.score for one in told] == pytest.approx([hit.score for hit in hits], abs=1e-3)
    assert collection.explain_parts(parts, []) == []


def test_a_query_by_picture(collection: Collection, media: Path) -> None:
    told = collection.explain(hits_of(collection, "blue.jpg"), image=media / "red.png")
    (mark,) = told.query
    assert (mark.text, mark.part) == (None, 0)
    assert mark.drop == pytest.approx(told.score)


@pytest.mark.parametrize("is_fresh", [False, True])
def test_a_changed_file(
    tmp_path: Path,
    media: Path,
    space: Any,
    is_fresh: bool,
    monkeypatch: pytest.MonkeyPatch,
    picture: Callable[..., Path],
) -> None:
    """A file too fresh to be told by its times is told by its content."""
    if not is_fresh:
        monkeypatch.setattr(scanning, "FRESH_NS", 0)
    made = Collection.open(tmp_path / "c", space=space)
    made.add(media)
    hit = hits_of(made, "blue.jpg")
    assert (hit.fingerprint == fingerprint(os.lstat(hit.path))) is not is_fresh
    assert made.explain(hit, text="x").reason is None
    picture(Path(hit.path), "green")
    assert made.explain(hit, text="x").reason == CHANGED
    os.unlink(hit.path)
    assert made.explain(hit, text="x").reason == "the file is gone"


def test_a_touched_file_is_the_same(collection: Collection) -> None:
    hit = hits_of(collection, "blue.jpg")
    os.utime(hit.path, (1, 1))
    assert collection.explain(hit, text="x").reason is None


def test_a_file_that_nothing_is_known_of(space: Any, collection: Collection) -> None:
    """Without a collection to ask, times have to tell."""
    hit = dataclasses.replace(hits_of(collection, "blue.jpg"), fingerprint="imported")
    (told,) = explanation_items.explain(space, [QueryPart(modality="text", item="x")], [hit])
    assert told.reason == CHANGED


def test_files_that_cannot_be_read(collection: Collection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hit = hits_of(collection, "blue.jpg")
    os.rename(hit.path, tmp_path / "moved.jpg")
    os.symlink(tmp_path / "moved.jpg", hit.path)
    assert collection.explain(hit, text="x").reason == "a symbolic link, not followed"
    os.unlink(hit.path)
    os.rename(tmp_path / "moved.jpg", hit.path)
    below = dataclasses.replace(hit, path=f"{hit.path}/x.jpg")
    assert collection.explain(below, text="x").reason == "the file cannot be read: Not a directory"


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (DecodeError("damaged picture"), "damaged picture"),
        (MemoryError(), "too large for this machine's memory"),
        (SandboxError("no worker starts"), "no worker starts"),
    ],
)
def test_what_goes_wrong_fails_no_search(
    collection: Collection, monkeypatch: pytest.MonkeyPatch, error: Exception, reason: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(DecodeSandbox, "decode", fail)
    assert collection.explain(hits_of(collection, "blue.jpg"), text="x").reason == reason


def test_a_space_that_cannot_encode_it_any_more(collection: Collection, space: Any, monkeypatch) -> None:
    encoder = space.encoder

    def texts_only(modality: str, replica: int = 0) -> Any:
        if modality != "text":
            raise SpaceError(f"no encoder for {modality}")
        return encoder(modality, replica)

    hit = hits_of(collection, "blue.jpg")
    monkeypatch.setattr(space, "encoder", texts_only)
    assert collection.explain(hit, text="x").reason == "no encoder for image"


def stream(seconds: float, *, chunk: int = 7) -> SoundStream:
    """Samples that count up, ten a second."""
    samples = np.arange(int(seconds * 10), dtype=np.float32)
    return SoundStream(
        len(samples), 10, 1.0, (samples[start : start + chunk] for start in range(0, len(samples), chunk))
    )


@pytest.mark.parametrize(("start", "stop"), [(0.0, 3.0), (1.25, 4.0), (2.8, 5.6), (9.0, None)])
def test_a_stretch_of_a_stream_is_that_of_the_whole(start: float, stop: float | None) -> None:
    whole = np.arange(100, dtype=np.float32), 10
    taken, rate_hz = _stretch(stream(10), start, stop)
    assert rate_hz == 10
    np.testing.assert_array_equal(taken, _stretch(whole, start, stop)[0])
    assert len(taken) == int(np.ceil((stop or 10.0) * 10)) - int(start * 10)


def test_hours_of_sound_are_not_tried() -> None:
    with pytest.raises(DecodeError, match="more than 10 minutes: index it with --windows"):
        _stretch(stream(601), 0.0, None)
    assert "--windows" in TOO_LONG
    assert len(_stretch(stream(601), 600.0, 601.0)[0]) == 10


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory, reference: Callable[[str], ModuleType]) -> Path:
    """Three scenes of two seconds each, with a tone."""
    pytest.importorskip("av")
    path = tmp_path_factory.mktemp("videos") / "three.mp4"
    scenes = [("red", 2.0), ("green", 2.0), ("blue", 2.0)]
    path.write_bytes(reference("videos").video(scenes=scenes, every_scene=True, sound="aac"))
    return path


def of_video(space: Any, path: Path, **fields: Any) -> Explanation:
    """Explain a hit of a video."""
    known = fingerprint(os.lstat(path))
    hit = Hit(path=os.fspath(path), modality="video", score=0.0, caption=None, fingerprint=known, **fields)
    (told,) = explanation_items.explain(space, [QueryPart(modality="text", item="x")], [hit])
    return told


@pytest.mark.parametrize(("start", "channel"), [(0.0, 0), (2.0, 1), (4.0, 2)])
def test_the_frame_of_a_video(space: Any, video: Path, start: float, channel: int) -> None:
    told = of_video(space, video, matched="frame", start=start)
    assert told.regions is not None
    assert told.picture is not None
    assert told.picture[-5, -5].argmax() == channel  # of the corner that is not white


def test_the_sound_of_a_video(space: Any, video: Path) -> None:
    told = of_video(space, video, matched="window", start=1.0, stop=5.0)
    assert told.seconds[0].start == 1
    assert told.seconds[-1].stop == pytest.approx(5, abs=1e-3)
    assert len(told.seconds) == 16


def test_a_whole_video_is_told_by_its_pictures(space: Any, video: Path) -> None:
    told = of_video(space, video, matched="content")
    assert {0.0, 2.0, 4.0} <= {mark.start for mark in told.seconds}
    encoder = space.encoder("image")
    with DecodeSandbox(workers=1) as sandbox:
        frames = sandbox.video(video.read_bytes(), encoder.prepare).frames
    members = encoder.embed([prepared for _, prepared in frames])
    query = space.encode("text", ["x"])[0]
    scores = [
        float(unit_rows(rows.mean(axis=0, keepdims=True))[0] @ query)
        for rows in (members, *(np.delete(members, left, axis=0) for left in range(len(members))))
    ]
    assert told.score == pytest.approx(scores[0], abs=1e-5)
    assert [mark.drop for mark in told.seconds] == pytest.approx(scores[0] - np.array(scores[1:]), abs=1e-5)


def test_videos_of_one_picture_or_without_sound(
    space: Any, tmp_path: Path, reference: Callable[[str], ModuleType]
) -> None:
    pytest.importorskip("av")
    path = tmp_path / "one.mp4"
    path.write_bytes(reference("videos").video(scenes=[("red", 0.5)]))
    told = of_video(space, path, matched="content")
    assert (told.reason, told.seconds) == (None, ())
    assert of_video(space, path, matched="window", start=0.0, stop=2.0).reason == CHANGED


def test_no_process_is_left(collection: Collection, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[DecodeSandbox] = []

    class Counted(DecodeSandbox):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            made.append(self)

    monkeypatch.setattr(explanation_items, "DecodeSandbox", Counted)
    collection.explain(hits_of(collection, "blue.jpg"), text="x")
    assert [sandbox.pids for sandbox in made] == [[]]


@pytest.mark.weights
def test_the_real_networks_look_at_what_is_asked_for(weights: dict[str, Path], tmp_path: Path) -> None:
    """Half of the picture shows a teacup, half an airliner: each query's regions lie in its own half."""
    from PIL import Image

    both = Image.new("RGB", (448, 224), "white")
    for left, name in ((0, "teacup.webp"), (224, "airliner.png")):
        with Image.open(ASSETS / name) as image:
            shown = image.convert("RGBA").resize((224, 224))
            both.paste(shown, (left, 0), shown)
    both.save(tmp_path / "both.png")
    shutil.copy(ASSETS / "crow.ogg", tmp_path / "crow.ogg")
    with Collection.open(tmp_path / "c") as collection:
        collection.add([tmp_path / "both.png", tmp_path / "crow.ogg"])
        (hit,) = collection.search(text="a cup", only="image")
        for text, of in (("a cup of tea", 0), ("an airplane", 1)):
            regions = collection.explain(hit, text=text).regions
            assert regions is not None
            warm = np.maximum(regions, 0)
            halves = warm[:, :3].sum(), warm[:, 4:].sum()
            assert halves[of] > 1.5 * halves[1 - of]
        (hit,) = collection.search(text="a crow", only="audio")
        told = collection.explain(hit, text="a crow")
        assert told.reason is None
        assert max(told.query, key=lambda mark: mark.drop).text == "crow"


def test_what_a_clip_does_not_see_is_cold(tiny_clip: Callable[..., str], tmp_path: Path) -> None:
    """It cuts the middle out of a wide picture: what is beyond holds up nothing."""
    from PIL import Image

    noise = np.random.default_rng(0).integers(0, 256, (100, 350, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "wide.png")
    with Collection.open(tmp_path / "c", space=tiny_clip()) as collection:
        collection.add(tmp_path / "wide.png")
        (hit,) = collection.search(text="noise")
        told = collection.explain(hit, text="noise and words")
    assert told.regions is not None
    ends, middle = np.abs(told.regions[:, [0, 6]]), np.abs(told.regions[:, 2:5])
    assert ends.max() < 0.3 * middle.max()
    assert [mark.text for mark in told.query] == ["noise", "and", "words"]
