"""What loading a file counts: each stage its own work."""

import re
import shutil
import sqlite3
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from assets import ASSETS
from trivium.encoders.files.reading import open_file
from trivium.encoders.sandbox.pool import DecodeSandbox
from trivium.pipeline.cli.terminal import clock, place_of
from trivium.pipeline.collection import Collection
from trivium.pipeline.ingest import contents, loading, scanning
from trivium.pipeline.ingest.contents import Claims, loading_stats
from trivium.pipeline.ingest.loading import Loader
from trivium.pipeline.records import Part, part_key
from trivium.pipeline.space.joint import space_folders
from trivium.pipeline.store.database_file import DATABASE
from trivium.pipeline.store.store import Store
from trivium.pipeline.upkeep.verification import verify

PREPARE_SECONDS = 0.03


def test_pictures_of_a_video_are_prepared_and_not_decoded(space: Any, tmp_path: Path, reference, monkeypatch) -> None:
    pytest.importorskip("av", reason="PyAV comes with the extra 'video'")
    path = tmp_path / "v.mp4"
    path.write_bytes(reference("videos").video(scenes=[("red", 2.0), ("green", 2.0), ("blue", 2.0)], sound="aac"))
    encoder_class = type(space.encoder("image"))
    prepare = encoder_class.prepare

    def slow_prepare(encoder: Any, item: Any) -> Any:
        time.sleep(PREPARE_SECONDS)
        return prepare(encoder, item)

    monkeypatch.setattr(encoder_class, "prepare", slow_prepare)
    monkeypatch.setattr(encoder_class, "blocks", lambda *_: iter(()))
    with DecodeSandbox(1) as sandbox:
        stats = loading_stats(sandbox)
        loaded = Loader(space, sandbox, Claims(()), stats=stats).contents("video", open_file(path))
        stats.end()
    pictures = len(loaded.prepared)
    decode, preparing = stats.stage("decode"), stats.stage("prepare")
    assert pictures >= 3
    assert preparing.busy_seconds >= pictures * PREPARE_SECONDS
    assert decode.busy_seconds + preparing.busy_seconds <= stats.seconds  # nothing is counted twice
    assert (decode.items, preparing.items) == (1, 1)
    assert stats.processor_shares() == {} or stats.processor_shares()["decode"] > 0


@given(st.sampled_from(["window", "passage"]), st.integers(0, 10**6), st.integers(1, 10**6))
def test_roles_are_read_back(kind: Any, start: int, length: int) -> None:
    scale = 1 if kind == "passage" else 1000
    part = Part(kind, start / scale, (start + length) / scale)
    assert Part.parse(part.role) == part


@pytest.mark.parametrize(
    "role", ["", "window", "window 1", "frame x", "content 1", "passage 1 2 3", "song", "frame nan"]
)
def test_what_is_no_role(role: str) -> None:
    with pytest.raises(ValueError, match=r"names no part of an item|could not convert"):
        Part.parse(role)


def test_keys_of_parts_differ() -> None:
    keys = {part_key("audio", role, file) for role in ("window 0.000 1.000", "frame 0.000") for file in (b"1", b"2")}
    assert len(keys) == 4


@pytest.mark.parametrize(("seconds", "written"), [(0, "00:00"), (83.9, "01:23"), (3723, "1:02:03")])
def test_times_are_written_as_players_do(seconds: float, written: str) -> None:
    assert clock(seconds) == written


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sound that beeps for 12 s and then crows; a long text that comes to whales late."""
    folder = tmp_path_factory.mktemp("parts")
    crow, rate_hz = soundfile.read(ASSETS / "crow.ogg", dtype="float32", always_2d=True)
    crow = np.tile(crow.mean(axis=1), 20)[: 8 * rate_hz]
    t = np.arange(12 * rate_hz) / rate_hz
    soundfile.write(folder / "both.wav", np.concatenate([0.2 * np.sin(2 * np.pi * 440 * t), crow]), rate_hz)
    soundfile.write(folder / "short.wav", 0.2 * np.sin(2 * np.pi * 300 * t[:rate_hz]), rate_hz)
    filler = "The committee met again and discussed the budget of the coming year at some length. " * 40
    (folder / "minutes.txt").write_text(filler + "A blue whale swam slowly under the old wooden boat. " * 3 + filler)
    (folder / "note.txt").write_text("Milk, bread, two lemons.")
    return folder


@pytest.fixture
def collection(weights: dict[str, Path], tmp_path: Path) -> Collection:
    return Collection.open(tmp_path / "collection")


@pytest.mark.weights
def test_hits_say_where_in_a_sound_and_in_a_text(collection: Collection, media: Path) -> None:
    summary = collection.add(media, windows=4)
    assert summary.skipped == []
    assert (summary.added, summary.encoded["audio"]) == (4, 2 + 9)
    (hit, *_) = collection.search(audio=ASSETS / "crow.ogg", only="audio", k=5)
    assert (Path(hit.path).name, hit.matched) == ("both.wav", "window")
    assert hit.start is not None
    assert hit.start >= 10
    assert place_of(hit) in ("at 00:10", "at 00:12", "at 00:14", "at 00:16")
    (hit, *_) = collection.search(text="a whale in the ocean", only="text")
    text = (media / "minutes.txt").read_text()
    assert hit.matched == "passage"
    assert "whale" in text[int(hit.start or 0) : int(hit.stop or 0)]
    assert len({hit.path for hit in collection.search(text="whale", k=10)}) == 4  # each item once


@pytest.mark.weights
def test_windows_hold_until_they_are_changed(collection: Collection, media: Path, tmp_path: Path) -> None:
    work = tmp_path / "work"
    shutil.copytree(media, work)

    def roles() -> list[str]:
        items = {Path(item.path).name: item.contents for item in Store(collection.folder).items()}
        return sorted(role for role in items["both.wav"])

    collection.add(work)
    assert roles() == ["content"]
    assert collection.add(work, windows=10).changed == 1  # the short one has none
    assert roles() == ["content", "window 0.000 10.000", "window 10.000 20.000", "window 5.000 15.000"]
    shutil.copy(work / "both.wav", work / "copy.wav")
    summary = collection.add(work)  # as before, and what a copy's windows sound like is known
    assert (summary.added, summary.unchanged, summary.encoded["audio"]) == (1, 4, 0)
    assert collection.add(work, windows=10).unchanged == 5
    assert collection.add(work, windows=0).changed == 2
    assert roles() == ["content"]
    with pytest.raises(ValueError, match=r"windows must be 0 or at least 0.1 seconds, got 0.01"):
        collection.add(work, windows=0.01)


@pytest.mark.weights
def test_the_vector_of_a_sound_does_not_depend_on_its_windows(
    collection: Collection, media: Path, tmp_path: Path
) -> None:
    def own(folder: Path) -> np.ndarray:
        store = Store(folder)
        (id_,) = store.content_ids([next(i for i in store.items() if i.path.endswith("both.wav")).contents["content"]])
        ids, vectors = store.source(store.locations("audio")).all()
        return np.asarray(vectors[ids.tolist().index(id_)], np.float32)

    collection.add(media, windows=3)
    with Collection.open(tmp_path / "plain") as plain:
        plain.add(media)
    np.testing.assert_allclose(own(collection.folder), own(tmp_path / "plain"), atol=2e-3)  # float16 in the shards


@pytest.mark.weights
def test_old_windows_stay_until_windows_are_asked_for(
    collection: Collection, media: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once they followed each other: what is stored is searched as it is, and never half made anew."""
    work = tmp_path / "work"
    shutil.copytree(media, work)

    def roles(name: str = "both.wav") -> list[str]:
        items = {Path(item.path).name: item.contents for item in Store(collection.folder).items()}
        return sorted(role for role in items[name] if role != "content")

    monkeypatch.setattr(scanning, "FRESH_NS", -1)  # else what was written just now is read again
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loading, "windows_of", lambda duration, seconds, **_: [(0.0, 10.0), (10.0, round(duration, 3))])
        collection.add(work / "both.wav", windows=10)
    with sqlite3.connect(collection.folder / DATABASE) as db:  # as such a collection has it
        assert db.execute("DELETE FROM setting WHERE name = 'windows_overlap'").rowcount == 1
    db.close()
    assert collection.add(work / "both.wav").unchanged == 1
    shutil.copy(work / "both.wav", work / "copy.wav")
    assert collection.add(work / "copy.wav").added == 1
    assert roles() == ["window 0.000 10.000", "window 10.000 20.000"]
    assert roles("copy.wav") == ["window 0.000 10.000", "window 10.000 20.000", "window 5.000 15.000"]
    assert verify(collection.folder).is_sound
    assert collection.add(work, windows=10).changed == 1
    assert roles() == roles("copy.wav")
    assert collection.add(work, windows=10).changed == 0


# With tiny made-up networks


def cut_media(folder: Path, picture: Callable[..., Path], sound: Callable[..., Path]) -> None:
    """A picture without its end marker, one of which two thirds and one of which a third is there, and a cut sound."""
    whole = picture(folder / "whole.jpg", "red", size=(640, 480)).read_bytes()
    (folder / "no-end.jpg").write_bytes(whole[:-2])
    noisy = np.random.default_rng(0).integers(0, 255, (90, 80, 3), dtype=np.uint8)
    Image.fromarray(noisy).save(folder / "noisy.png")
    data = (folder / "noisy.png").read_bytes()
    (folder / "most.png").write_bytes(data[: 2 * len(data) // 3])
    (folder / "little.png").write_bytes(data[: len(data) // 3])
    data = sound(folder / "whole.wav", seconds=2.0).read_bytes()
    (folder / "cut.wav").write_bytes(data[: len(data) // 2])


def test_what_is_there_of_a_cut_file_is_taken_in_with_a_note(
    tmp_path: Path, space: Any, picture: Callable[..., Path], sound: Callable[..., Path]
) -> None:
    cut_media(tmp_path / "media", picture, sound)
    with Collection.open(tmp_path / "c", space=space) as collection:
        summary = collection.add(tmp_path / "media")
        assert collection.info().items == {"image": 4, "audio": 2}
        again = collection.add(tmp_path / "media").notes  # told once; what tags lack is told as often as they are read
        assert [note for note in again if "EXIF" not in note.reason] == []
    notes = {Path(note.path).name: note.reason for note in summary.notes}
    assert re.fullmatch(r"the file is cut off: 6\d % of its rows are there", notes.pop("most.png"))
    assert notes == {
        "no-end.jpg": "the file is cut off behind its last pixel; all of the picture is there",
        "cut.wav": "only the first 1.0 s could be decoded: the header says 32,000 bytes of sound, 15,978 are there",
    }
    ((path, reason),) = [(Path(problem.path).name, problem.reason) for problem in summary.skipped]
    assert path == "little.png"
    assert re.fullmatch(r"damaged picture: truncated, only 3\d % of its rows are there, and more .*", reason)


def test_strict_refuses_what_is_not_all_there(
    tmp_path: Path, space: Any, picture: Callable[..., Path], sound: Callable[..., Path]
) -> None:
    cut_media(tmp_path / "media", picture, sound)
    with Collection.open(tmp_path / "c", space=space) as collection:
        summary = collection.add(tmp_path / "media", strict=True)
    assert sorted(Path(problem.path).name for problem in summary.skipped) == ["cut.wav", "little.png", "most.png"]
    assert [Path(note.path).name for note in summary.notes] == ["no-end.jpg"]  # of which no pixel is missing
    assert summary.added == 4


def test_a_cut_video_is_taken_in_with_a_note(tmp_path: Path, space: Any, reference: Any) -> None:
    pytest.importorskip("av", reason="PyAV comes with the extra 'video'")
    scenes = [("red", 2.0), ("green", 2.0), ("blue", 2.0)]
    data = reference("videos").video(scenes=scenes, codec="mjpeg", pixels="yuvj420p", flags="faststart")
    (tmp_path / "cut.mp4").write_bytes(data[: int(0.6 * len(data))])
    for strict, added in ((True, 0), (False, 1)):
        with Collection.open(tmp_path / "c", space=space) as collection:
            summary = collection.add(tmp_path / "cut.mp4", strict=strict)
        assert (summary.added, len(summary.skipped), len(summary.notes)) == (added, 1 - added, added)
    assert re.match(r"only the first [34]\.\d s of 6\.0 s could be decoded: the header says", summary.notes[0].reason)


def test_more_megapixels_on_request(tmp_path: Path, space: Any, picture: Callable[..., Path]) -> None:
    path = picture(tmp_path / "large.png", size=(2000, 1000))
    with Collection.open(tmp_path / "c", space=space) as collection:
        (problem,) = collection.add(path, max_megapixels=1.9).skipped
        assert problem.reason == (
            "too many pixels: 2000 x 1000, the limit is 1,900,000 "
            "(--max-megapixels or TRIVIUM_MAX_MEGAPIXELS raises it)"
        )
        assert collection.add(path, max_megapixels=2).added == 1
        with pytest.raises(ValueError, match="max_megapixels must be above 0 and at most 4295, got 0"):
            collection.add(path, max_megapixels=0)


def test_copies_in_one_run_are_encoded_once(
    tmp_path: Path, make_space: Callable[..., Any], picture: Callable[..., Path]
) -> None:
    media = tmp_path / "copies"
    for number in range(30):
        picture(media / f"{number:02}.png", ["red", "green", "blue"][number % 3])
    space = make_space()
    with Collection.open(tmp_path / "c", space=space) as collection:
        summary = collection.add(media)
    assert (summary.added, summary.skipped, len(space.calls)) == (30, [], 3)


def test_damaged_copies_are_each_told(
    tmp_path: Path, make_space: Callable[..., Any], picture: Callable[..., Path]
) -> None:
    media = tmp_path / "copies"
    whole = picture(media / "whole.png", "red").read_bytes()
    for number in range(5):
        (media / f"cut{number}.png").write_bytes(whole[:60])
    with Collection.open(tmp_path / "c", space=make_space()) as collection:
        summary = collection.add(media)
    assert summary.added == 1
    assert sorted(Path(problem.path).name for problem in summary.skipped) == [f"cut{number}.png" for number in range(5)]


def test_one_vector_that_is_no_number_costs_one_item(
    tmp_path: Path, make_space: Callable[..., Any], picture: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    media = tmp_path / "media"
    for colour in ("red", "green", "blue"):
        picture(media / f"{colour}.png", colour)
    space = make_space()
    encoder = space.encoder

    def failing(modality: Any, replica: int = 0) -> Any:
        made = encoder(modality, replica)
        embed = made.embed

        def embed_badly(batch: Any) -> Any:
            vectors = embed(batch)
            vectors[[tuple(item[4, 1]) == (0, 0, 255) for item in batch]] = np.nan
            return vectors

        made.embed = embed_badly
        return made

    space.encoder = failing
    with Collection.open(tmp_path / "c", space=space) as collection:
        summary = collection.add(media)
    assert summary.added == 2
    assert [(Path(p.path).name, p.reason) for p in summary.skipped] == [
        ("blue.png", "the network gave no finite vector for it")
    ]


def test_a_batch_too_large_for_memory_is_halved(
    tmp_path: Path, make_space: Callable[..., Any], picture: Callable[..., Path]
) -> None:
    media = tmp_path / "media"
    for number in range(7):
        picture(media / f"{number}.png", (number * 30, 0, 0))
    space = make_space()
    encoder = space.encoder

    def narrow(modality: Any, replica: int = 0) -> Any:
        made = encoder(modality, replica)
        embed = made.embed

        def embed_few(batch: Any) -> Any:
            if len(batch) > 2 or any(item[4, 1, 0] == 150 for item in batch):
                raise MemoryError
            return embed(batch)

        made.embed = embed_few
        return made

    space.encoder = narrow
    with Collection.open(tmp_path / "c", space=space) as collection:
        summary = collection.add(media)
    assert summary.added == 6
    assert [p.reason for p in summary.skipped] == ["too large for this machine's memory"]


def test_several_devices_share_the_work(
    tmp_path: Path, make_space: Callable[..., Any], picture: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    media = tmp_path / "media"
    for number in range(12):
        picture(media / f"{number}.png", (number * 20, 0, 0))
    monkeypatch.setattr(contents, "BATCH_FILES", {**contents.BATCH_FILES, "image": 1})
    space = make_space()
    space._devices = ["cpu", "cpu"]
    used: set[int] = set()
    encoder = space.encoder

    def noted(modality: Any, replica: int = 0) -> Any:
        used.add(replica)
        return encoder(modality, replica)

    space.encoder = noted
    with Collection.open(tmp_path / "c", space=space) as collection:
        assert collection.add(media).added == 12
    assert used == {0, 1}


# Videos


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 s: a strawberry, an airliner and a teacup, 8 s each, and a steady tone."""
    av = pytest.importorskip("av")
    path = tmp_path_factory.mktemp("video") / "three.mp4"
    pictures = []
    for name in ("strawberry.jpg", "airliner.png", "teacup.webp"):
        with Image.open(ASSETS / name) as image:
            pictures.append(np.asarray(image.convert("RGB").resize((320, 240))))
    with av.open(str(path), "w") as file:
        pixels = file.add_stream("mpeg4", rate=10)
        pixels.width, pixels.height, pixels.pix_fmt = 320, 240, "yuv420p"
        tone = file.add_stream("aac", rate=44_100)
        tone.layout = "mono"
        for number in range(240):
            frame = av.VideoFrame.from_ndarray(pictures[number // 80], format="rgb24")
            file.mux(pixels.encode(frame))
        wave = (0.2 * np.sin(2 * np.pi * 440 * np.arange(24 * 44_100) / 44_100)).astype(np.float32)
        for start in range(0, len(wave), 1024):
            samples = av.AudioFrame.from_ndarray(wave[np.newaxis, start : start + 1024], format="fltp", layout="mono")
            samples.sample_rate, samples.pts, samples.time_base = 44_100, start, Fraction(1, 44_100)
            file.mux(tone.encode(samples))
        for stream in (pixels, tone):
            file.mux(stream.encode())
    return path


@pytest.mark.weights
def test_videos_are_found_by_what_they_show_and_when(collection: Collection, video: Path, tmp_path: Path) -> None:
    media = tmp_path / "videos"
    media.mkdir()
    shutil.copy(video, media / "three.mp4")
    shutil.copy(video, media / "copy.mp4")
    shutil.copy(ASSETS / "teacup.webp", media)
    (media / "three.txt").write_text("Breakfast at the airport")
    summary = collection.add(media)
    assert (summary.added, summary.skipped) == (3, [])
    for picture, start in (("airliner.png", 8.0), ("teacup.webp", 16.0), ("strawberry.jpg", 0.0)):
        hits = collection.search(image=ASSETS / picture, only="video", fold="none")
        assert [(Path(hit.path).name, hit.matched) for hit in hits] == [("copy.mp4", "frame"), ("three.mp4", "frame")]
        assert start <= (hits[0].start or 0.0) < start + 8
    assert {hit.modality for hit in collection.search(image=ASSETS / "teacup.webp", only="image")} == {"image"}
    assert collection.search(text="Breakfast at the airport")[0].matched == "caption"
    (windowed, _) = collection.search(audio=(np.sin(np.arange(88_200) / 20), 44_100), only="video", fold="none")
    assert (windowed.modality, windowed.matched) == ("video", "window")
    assert collection.search(audio=ASSETS / "crow.ogg", only="audio") == []  # there are no sounds but those of videos
    again = collection.add(media)
    assert (again.unchanged, sum(again.encoded.values())) == (3, 0)


@pytest.mark.weights
def test_a_damaged_video_is_told(collection: Collection, video: Path, tmp_path: Path) -> None:
    media = tmp_path / "videos"
    media.mkdir()
    data = video.read_bytes()
    (media / "cut.mp4").write_bytes(data[: len(data) // 2])
    (media / "text.mkv").write_text("no video at all")
    shutil.copy(ASSETS / "teacup.webp", media)
    summary = collection.add(media)
    assert summary.added == 1
    assert sorted(Path(problem.path).name for problem in summary.skipped) == ["cut.mp4", "text.mkv"]


@pytest.mark.weights
def test_parts_move_to_another_space(collection: Collection, media: Path, video: Path, tmp_path: Path) -> None:
    work = tmp_path / "work"
    shutil.copytree(media, work)
    shutil.copy(video, work)
    collection.add(work, windows=4)
    before = {item.path: set(item.contents) for item in Store(collection.folder).items()}
    other = tmp_path / "other-space"
    shutil.copytree(space_folders()["trivium-labels"], other)
    config = (other / "space.json").read_text()
    (other / "space.json").write_text(config.replace('"temperature": 2', '"temperature": 3'))
    done = collection.migrate(other)
    assert (done.is_done, done.problems) == (True, [])
    assert {item.path: set(item.contents) for item in Store(collection.folder).items()} == before
    assert done.encoded == Store(collection.folder).vector_count()
    (hit, *_) = collection.search(image=ASSETS / "teacup.webp", only="video")
    assert (hit.matched, 16 <= (hit.start or 0) < 24) == ("frame", True)
    (hit, *_) = collection.search(text="a whale in the ocean", only="text")
    assert hit.matched == "passage"
    exported = tmp_path / "all.npy"
    collection.export(exported)
    with Collection.open(tmp_path / "imported", space=other) as imported:
        imported.import_vectors(exported)
        found = imported.search(image=ASSETS / "teacup.webp", only="video")[0]
    assert (found.path, found.matched, found.start) == (
        str(work / "three.mp4"),
        "frame",
        16.0 + (found.start or 0) % 16,
    )
