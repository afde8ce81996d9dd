"""`trivium bench`: what is measured, on which files, and that nothing is written; not how fast anything is."""

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trivium.encoders.base import Encoder, Prepared, Space, Vectors, unit_rows
from trivium.encoders.decoding.pictures import decode_image
from trivium.encoders.decoding.sounds import decode_audio
from trivium.encoders.engine import THIS_PROCESS, StageStats, Stats
from trivium.encoders.machine import usable_cores
from trivium.pipeline.bench import media as bench_media
from trivium.pipeline.bench import stages as bench_stages
from trivium.pipeline.bench.media import evenly, made_files, own_files
from trivium.pipeline.bench.stages import (
    LONG_SOUND,
    Accuracy,
    Measured,
    NothingReadyError,
    Ready,
    _give_up,
    compare,
    measure,
    rates_by_batch,
)
from trivium.pipeline.cli import benching as bench_module
from trivium.pipeline.cli.benching import Report, as_json, print_report
from trivium.pipeline.cli.main import main
from trivium.pipeline.collection import Collection
from trivium.pipeline.ingest.contents import LoadedContents, WindowedSound
from trivium.pipeline.store.database import CollectionError


def names(files: Sequence[str]) -> list[str]:
    return sorted(Path(path).name for path in files)


def hashes(folder: Path) -> dict[str, str]:
    return {
        str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.rglob("*")) if path.is_file()
    }


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    folder = tmp_path / "scratch"
    folder.mkdir()
    return folder


@pytest.fixture
def folder(tmp_path: Path, media: Path, space) -> Path:
    with Collection.open(tmp_path / "collection", space=space) as collection:
        collection.add(media)
    return tmp_path / "collection"


def test_files_of_a_folder_and_their_captions(media: Path, scratch: Path) -> None:
    files = own_files([str(media)], scratch=scratch)
    assert names(files["image"]) == ["blue.jpg", "green.webp", "red.png"]
    assert names(files["audio"]) == ["high.ogg", "low.wav"]
    assert names(files["text"]) == ["high.txt", "note.md", "poem.txt", "red.txt"]


def test_files_of_a_collection_and_its_captions(folder: Path, scratch: Path) -> None:
    files = own_files([str(folder)], scratch=scratch)
    assert names(files["image"]) == ["blue.jpg", "green.webp", "red.png"]
    texts = sorted(Path(path).read_text() for path in files["text"])
    assert texts == [
        "# Shopping\nmilk and bread\n",
        "A high tone.",
        "A red sign.",
        "Roses are red,\nviolets are blue.\n",
    ]


def test_what_is_named_twice_is_taken_once(folder: Path, media: Path, scratch: Path) -> None:
    files = own_files([str(media), str(media / "red.png"), str(folder)], scratch=scratch)
    assert len(files["image"]) == 3


def test_files_that_are_not_there(tmp_path: Path, scratch: Path) -> None:
    with pytest.raises(CollectionError, match="no such file, folder or collection: gone"):
        own_files(["gone"], scratch=scratch)
    (tmp_path / "empty").mkdir()
    with pytest.raises(CollectionError, match="no texts, pictures, sounds or videos in"):
        own_files([str(tmp_path / "empty")], scratch=scratch)


@given(st.integers(0, 300), st.integers(1, 50))
def test_evenly_takes_as_many_as_it_may_in_order(count: int, most: int) -> None:
    numbers = [f"{number:03}" for number in range(count)]
    chosen = evenly(numbers, most)
    assert len(chosen) == min(count, most)
    assert list(chosen) == sorted(set(chosen))
    if len(chosen) > 1:
        assert (chosen[0], chosen[-1]) == (numbers[0], numbers[-1])


def test_made_files_are_sound_and_the_same_each_time(scratch: Path, tmp_path: Path, space, monkeypatch) -> None:
    for name, few in {"MADE_TEXTS": 30, "MADE_PICTURES": 2, "MADE_SOUNDS": 2}.items():
        monkeypatch.setattr(bench_media, name, few)
    files = made_files(space, scratch=scratch)
    assert {modality: len(paths) for modality, paths in files.items()} == {"text": 30, "image": 2, "audio": 2}
    texts = [Path(path).read_text() for path in files["text"]]
    assert len(set(texts)) == 30
    assert max(len(text.split()) for text in texts) > 5
    assert all(decode_image(Path(path).read_bytes()).size == (640, 480) for path in files["image"])
    assert all(len(decode_audio(Path(path).read_bytes())[0]) == 5 * 44_100 for path in files["audio"])
    again = tmp_path / "again"
    again.mkdir()
    made_files(space, scratch=again)
    assert list(hashes(scratch).values()) == list(hashes(again).values())


def test_a_space_without_sounds_has_none_made(scratch: Path, make_space: Callable[..., Any]) -> None:
    assert set(made_files(make_space("1", ("image",)), scratch=scratch)) == {"image"}


def test_stages_floor_and_what_is_left_out(space, media: Path, scratch: Path) -> None:
    (media / "bad.jpg").write_text("no picture")
    files = own_files([str(media)], scratch=scratch)
    measured = measure(space, "image", files["image"], seconds=0.4)
    assert names(measured.ready.files) == ["blue.jpg", "green.webp", "red.png"]
    assert [Path(path).name for path in measured.ready.left_out] == ["bad.jpg"]
    assert measured.ready.mean_size == pytest.approx(32 * 24 / 1e6)
    assert measured.vectors_done == measured.files_done
    stages = {stage.name: stage.items for stage in measured.stats.stages}
    assert set(stages) == {"read", "decode", "prepare", "encode"}
    assert set(stages.values()) == {measured.files_done}  # the same file, met again, is encoded again
    assert measured.files_done > 3
    assert set(measured.floor_by_batch) == {1, 3}
    assert measured.floor == pytest.approx(max(measured.floor_by_batch.values()))
    assert measured.rate == measured.files_done / measured.stats.seconds


def test_nothing_that_can_be_encoded(space, tmp_path: Path) -> None:
    bad = tmp_path / "bad.jpg"
    bad.write_text("no picture")
    with pytest.raises(NothingReadyError, match=r"the first, .*bad\.jpg: not a picture"):
        measure(space, "image", [str(bad)], seconds=0.1)


def test_sizes(space, media: Path, scratch: Path) -> None:
    files = own_files([str(media)], scratch=scratch)
    texts, sounds = (measure(space, kind, files[kind], seconds=0.1) for kind in ("text", "audio"))
    assert texts.ready.mean_size == np.mean([len(Path(path).read_text()) for path in files["text"]])
    assert sounds.ready.mean_size == pytest.approx(0.2, rel=0.02)


@pytest.fixture
def video(tmp_path: Path, reference) -> Path:
    pytest.importorskip("av", reason="PyAV comes with the extra 'video'")
    path = tmp_path / "videos" / "v.mp4"
    path.parent.mkdir()
    path.write_bytes(reference("videos").video(scenes=[("red", 2.0), ("green", 2.0)], sound="aac"))
    return path


def test_videos_are_measured_with_their_sound(space, video: Path, scratch: Path, monkeypatch) -> None:
    encoded_windows = []

    def embed_windows(encoder: Any, blocks: Any, seconds: Sequence[Any]) -> Vectors:
        encoded_windows.append(encoder.modality)
        return np.ones((1 + len(seconds), encoder.space.dim), np.float32)

    encoder_class = type(space.encoder("audio"))
    monkeypatch.setattr(encoder_class, "blocks", lambda _, sound: iter([sound[0]]))
    monkeypatch.setattr(encoder_class, "embed_windows", embed_windows)
    (video.parent / "bad.mp4").write_text("no video")
    files = own_files([str(video.parent)], scratch=scratch)
    measured = measure(space, "video", files["video"], seconds=0.5)
    assert (names(measured.ready.files), names(list(measured.ready.left_out))) == (["v.mp4"], ["bad.mp4"])
    pictures = len(measured.ready.inputs)
    assert pictures >= 2
    assert measured.vectors_done == measured.files_done * pictures  # by the pictures' network
    assert encoded_windows == ["audio"] * measured.files_done
    assert measured.ready.mean_size == video.stat().st_size / 1e6
    assert {stage.name: stage.items for stage in measured.stats.stages} == dict.fromkeys(
        ("read", "decode", "prepare", "encode"), measured.files_done
    )


def test_a_video_that_would_take_too_long_is_told(space, video: Path, monkeypatch) -> None:
    monkeypatch.setattr(bench_stages, "MOST_VIDEO_BYTES", 1000)
    with pytest.raises(NothingReadyError, match=r"v\.mp4: larger than 0 MiB: measuring with it would take too long"):
        measure(space, "video", [str(video)], seconds=0.1)


def test_long_sounds_are_left_out_and_told(space, media: Path, monkeypatch) -> None:
    """What is read as it is encoded has nothing that is ready for the network."""
    load = bench_stages._load

    def load_some(space: Any, kind: Any, path: str, *rest: Any) -> LoadedContents:
        if Path(path).name == "low.wav":
            return LoadedContents(sounds=[WindowedSound(iter([]), [], [])])
        return load(space, kind, path, *rest)

    monkeypatch.setattr(bench_stages, "_load", load_some)
    sounds = [str(media / "low.wav"), str(media / "deep" / "high.ogg")]
    measured = measure(space, "audio", sounds, seconds=0.2)
    assert measured.ready.left_out == {sounds[0]: LONG_SOUND}
    assert measured.ready.files == sounds[1:]


class Table(Encoder):
    """An encoder whose inputs are numbers of rows of a table."""

    modality = "text"
    space = Space(name="", dim=4, revision="")

    def __init__(self, rows: Vectors) -> None:
        self.rows = rows
        self.batches: list[int] = []

    def prepare(self, item: Any, /) -> Prepared:
        return np.array(item)

    def embed(self, batch: Sequence[Prepared], /) -> Vectors:
        self.batches.append(len(batch))
        return np.stack([self.rows[int(row)] for row in batch])


def ready_of(count: int) -> Ready:
    inputs = [np.array(row) for row in range(count)]
    return Ready(files=["x"] * count, inputs=inputs, left_out={}, mean_size=1.0)


def test_the_same_vectors_have_nothing_to_compare() -> None:
    rows = unit_rows(np.random.default_rng(0).normal(size=(40, 4)))
    assert compare(Table(rows), Table(rows.copy()), ready_of(40), seconds=0.01) is None


def test_accuracy_is_what_the_plain_way_says() -> None:
    random = np.random.default_rng(0)
    theirs = unit_rows(random.normal(size=(40, 4)))
    ours = unit_rows(theirs + random.normal(0, 0.05, theirs.shape))
    found = compare(Table(ours), Table(theirs), ready_of(40), seconds=0.01)
    assert found is not None
    cosines = [float(a @ b) for a, b in zip(ours, theirs, strict=True)]
    kept = []
    for row in range(40):
        nearest = [
            set(sorted((other for other in range(40) if other != row), key=lambda o: -float(rows[row] @ rows[o]))[:10])
            for rows in (ours, theirs)
        ]
        kept.append(len(nearest[0] & nearest[1]) / 10)
    assert found.mean_cosine == pytest.approx(np.mean(cosines), abs=1e-6)
    assert found.least_cosine == pytest.approx(min(cosines), abs=1e-6)
    assert found.neighbours_kept == pytest.approx(np.mean(kept))
    assert 0 < found.neighbours_kept < 1
    assert found.among == 40


def test_neighbours_of_too_few() -> None:
    rows = unit_rows(np.random.default_rng(0).normal(size=(19, 4)))
    found = compare(Table(rows), Table(unit_rows(rows + 0.01)), ready_of(19), seconds=0.01)
    assert found is not None
    assert math.isnan(found.neighbours_kept)


def test_batches_are_of_the_sizes_that_are_told() -> None:
    encoder = Table(np.zeros((100, 4), np.float32))
    rates = rates_by_batch(encoder, ready_of(100).inputs, seconds=0.05)
    assert list(rates) == [1, 8, 64, 100]
    assert set(encoder.batches) == {1, 8, 4, 64, 36, 100}  # and what is left at the end of the inputs


def test_a_batch_that_would_take_too_long_is_not_tried() -> None:
    class Slow(Table):
        def embed(self, batch: Sequence[Prepared], /) -> Vectors:
            for _ in batch:
                sum(range(20_000))
            return super().embed(batch)

    encoder = Slow(np.zeros((2000, 4), np.float32))
    rates_by_batch(encoder, ready_of(2000).inputs, seconds=0.02)
    assert 1024 not in encoder.batches


def test_sounds_that_are_read_later_are_let_go() -> None:
    """A generator that has not begun would not run its end."""
    ended = []

    def blocks() -> Iterator[Prepared]:
        try:
            yield np.zeros(1)
        finally:
            ended.append(True)

    sounds = [WindowedSound(blocks(), [], []), WindowedSound([np.zeros(1)], [], [])]
    _give_up(LoadedContents(sounds=sounds))
    assert ended == [True]


@pytest.fixture
def stub(space, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(bench_module, "load_space", lambda *_, **__: space)
    return space


def test_one_object_and_nothing_written(folder: Path, media: Path, stub, capsys) -> None:
    before = hashes(folder)
    times = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    status = main(["bench", str(folder), "--seconds", "0.6", "--device", "cpu", "--json"])
    told = json.loads(capsys.readouterr().out)
    assert status == 0
    assert hashes(folder) == before
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == times
    assert (told["media"], told["precision"], told["devices"], told["accuracy"]) == ("own", "float32", ["cpu"], {})
    assert set(told["modalities"]) == {"text", "image", "audio"}
    picture = told["modalities"]["image"]
    assert [stage["name"] for stage in picture["stages"]] == ["read", "decode", "prepare", "encode"]
    assert picture["limited_by"] in ("read", "decode", "prepare", "encode", "processor")
    assert picture["files"] == 3
    assert picture["share_of_floor"] == pytest.approx(
        picture["files_per_second"] / picture["floor_files_per_second"], rel=0.01
    )
    assert min(told["gemm_gflops"], told["peak_mib"], told["cores"]) > 0


def test_int8_is_compared_with_float32(folder: Path, stub, capsys) -> None:
    assert main(["bench", str(folder), "--seconds", "0.3", "--precision", "int8", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["accuracy"] == {"text": None, "image": None, "audio": None}  # the stub is one and the same


def test_media_are_made_where_none_are_given(stub, capsys, monkeypatch) -> None:
    for name in ("MADE_TEXTS", "MADE_PICTURES", "MADE_SOUNDS"):
        monkeypatch.setattr(bench_media, name, 2)
    assert main(["bench", "--seconds", "0.3"]) == 0
    out = capsys.readouterr().out
    assert "the media were made up" in out
    assert "image: a sample of 2 files of 0.307 megapixels" in out


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "inf", "x"])
def test_wrong_usage(capsys, seconds: str) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["bench", "--seconds", seconds])
    assert stopped.value.code == 2
    assert "above 0" in capsys.readouterr().err


def test_media_that_are_not_there(stub, capsys) -> None:
    assert main(["bench", "gone"]) == 1
    assert "no such file, folder or collection: gone" in capsys.readouterr().err


def made_report() -> Report:
    stats = Stats(helpers={"decode": lambda: 0.0})
    stats._used_before = {THIS_PROCESS: 0.0, "decode": 0.0}
    stats._used_at_end = {THIS_PROCESS: 5.5 * usable_cores(), "decode": 2.0 * usable_cores()}
    stats.stages += [
        StageStats("encode", 1, items=600, busy_seconds=9.0),
        StageStats("decode", 2, items=600, busy_seconds=5.0),
        StageStats("other", 1),
    ]
    stats._ended = stats._started + 10
    ready = Ready(files=["a", "b"], inputs=[np.zeros(1)] * 2, left_out={"c\n": "no picture"}, mean_size=0.1875)
    measured = Measured(
        kind="image",
        ready=ready,
        stats=stats,
        files_done=600,
        vectors_done=1200,
        replicas=2,
        floor_by_batch={1: 40.0, 2: 80.0},  # 160 vectors a second on both devices are 80 files
        decoder_mib=50.0,
    )
    accuracy = Accuracy(mean_cosine=0.99, least_cosine=0.95, neighbours_kept=float("nan"), among=2, speed=1.9)
    return Report(
        space="'s' (revision 1)",
        devices=["cpu"],
        precision="int8",
        is_made=False,
        gemm_gflops=200.0,
        load=99.0,
        peak_mib=700.0,
        measured={"image": measured},
        accuracy={"image": accuracy, "audio": None},
    )


def test_report_for_people(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    print_report(made_report())
    out = capsys.readouterr().out
    rows = [line.split() for line in out.splitlines()]
    assert ["image", "60", "80/s", "75%", "encode", "40/s", "80/s", "in", "2"] in rows
    assert ["image", "decode", "2", "25%", "20%", "240/s"] in rows
    assert ["image", "encode", "1", "90%", "55%", "66.7/s"] in rows
    assert ["image", "other", "1", "0%", "0%"] in rows
    assert ["image", "0.99000", "0.95000", "too", "few", "of", "2", "1.90x"] in rows
    assert "peak memory 700 MiB, and 50 in each process that decodes" in out
    assert "image: 1 files left out, the first c\\n: no picture" in out
    assert "audio: the vectors are those of float32, this network has no int8" in out
    assert "image: the rest of the cores' time went to decoding" in out
    assert "other programs were at work (load 99.0)" in out
    assert "…" not in out


def test_each_reason_to_leave_files_out_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    report = made_report()
    left_out = {"a": "empty", "b": LONG_SOUND, "c": LONG_SOUND, "d": "no sound", "e": "damaged", "f": "too large"}
    ready = replace(report.measured["image"].ready, left_out=left_out)
    report.measured = {"video": replace(report.measured["image"], kind="video", ready=ready)}
    print_report(report)
    out = capsys.readouterr().out
    assert f"video: 2 files left out, the first b: {LONG_SOUND}" in out
    assert "video: 1 files left out, the first a: empty" in out
    assert "video: 2 files left out for other reasons" in out
    assert "video: alone and share are of the pictures' network" in out
    assert "of 0.188 megabytes" in out
    assert "the rest of the cores' time" not in out


def test_a_processor_that_is_fully_used_is_the_limit() -> None:
    report = made_report()
    measured = report.measured["image"]
    assert as_json(report)["modalities"]["image"]["limited_by"] == "encode"
    measured.stats._used_at_end = {THIS_PROCESS: 7.2 * usable_cores(), "decode": 2.0 * usable_cores()}
    told = as_json(report)["modalities"]["image"]
    assert told["limited_by"] == "processor"
    assert [stage["processor_share"] for stage in told["stages"]] == [0.2, 0.72, 0.0]


def test_report_as_json() -> None:
    told = as_json(made_report())
    assert json.loads(json.dumps(told, allow_nan=False)) is not None
    assert told["accuracy"]["image"]["neighbours_kept"] is None
    assert [stage["name"] for stage in told["modalities"]["image"]["stages"]] == ["decode", "encode", "other"]
    assert told["modalities"]["image"]["stages"][2]["could_do_per_second"] is None
