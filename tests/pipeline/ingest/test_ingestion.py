"""What a run takes in, leaves out and drops, and that nothing is encoded twice."""

import os
import shutil
import sqlite3
import struct
import threading
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

from trivium.encoders.devices import PLAIN
from trivium.encoders.image.backbone import ImageBackbone
from trivium.encoders.image.fit import Fit
from trivium.encoders.image.on_gpu import DevicePictures, jpeg_decoder
from trivium.encoders.networks.torch_runtime import TorchNetwork
from trivium.fusion.projections.plain import IdentityProjection
from trivium.pipeline.collection import Collection
from trivium.pipeline.ingest import beside, contents, ingestion, scanning, sources
from trivium.pipeline.ingest.scanning import scan_media
from trivium.pipeline.ingest.settings import Summary
from trivium.pipeline.space.projections import ProjectedEncoder
from trivium.pipeline.store.database import CollectionError, CollectionLockedError
from trivium.pipeline.store.store import Store
from trivium.pipeline.store.writer import writing
from trivium.pipeline.upkeep.verification import verify


def names(collection: Collection) -> set[str]:
    return {os.path.basename(path) for path in Store(collection.folder).states()}


def reasons(summary: Summary) -> dict[str, str]:
    return {os.path.basename(problem.path): problem.reason for problem in summary.skipped}


def test_first_run_takes_all_media_and_no_captions_as_items(tmp_path: Path, media: Path, space) -> None:
    collection = Collection.open(tmp_path / "new", space=space)
    summary = collection.add(media)
    assert names(collection) == {"red.png", "blue.jpg", "green.webp", "low.wav", "high.ogg", "note.md", "poem.txt"}
    assert (summary.added, summary.indexed, summary.unchanged, summary.removed) == (7, 7, 0, 0)
    assert summary.ignored == 1  # the XMP file
    assert summary.skipped == []
    assert summary.encoded == {"text": 4, "image": 3, "audio": 2}  # two texts, two captions
    assert collection.info().items == {"audio": 2, "image": 3, "text": 2}
    assert collection.info().vectors == 9


def test_second_run_encodes_nothing(collection: Collection, media: Path, space) -> None:
    before = collection.info().generation
    summary = collection.add(media)
    assert (summary.unchanged, summary.indexed, summary.removed) == (7, 0, 0)
    assert space.calls == []
    assert collection.info().generation == before


def test_second_run_reads_nothing_once_files_are_old(
    collection: Collection, media: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scanning, "FRESH_NS", 0)
    collection.add(media)  # records lasting fingerprints

    def unreachable(*_: object, **__: object) -> bytes:
        raise AssertionError("an unchanged file was read")

    monkeypatch.setattr(beside, "read_file", unreachable)
    assert collection.add(media).unchanged == 7


def test_changed_content_is_encoded_again(collection: Collection, media: Path, space, picture) -> None:
    picture(media / "red.png", "orange")
    summary = collection.add(media)
    assert (summary.changed, summary.unchanged) == (1, 6)
    assert space.calls == ["image"]


def test_change_with_forged_times_is_noticed(collection: Collection, media: Path, space) -> None:
    path = media / "poem.txt"
    status = path.stat()
    path.write_text("Roses are old,\nviolets are blue.\n")  # same length
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert collection.add(media).changed == 1
    assert space.calls == ["text"]


def test_touched_file_is_unchanged(collection: Collection, media: Path, space) -> None:
    os.utime(media / "red.png", (1, 1))
    summary = collection.add(media)
    assert (summary.unchanged, summary.changed) == (7, 0)
    assert space.calls == []


def test_rename_costs_no_encoding(collection: Collection, media: Path, space) -> None:
    (media / "blue.jpg").rename(media / "deep" / "azure.jpg")
    summary = collection.add(media)
    assert (summary.renamed, summary.added, summary.removed) == (1, 0, 0)
    assert space.calls == []
    assert "azure.jpg" in names(collection)
    assert "blue.jpg" not in names(collection)


def test_rename_across_folders_indexed_apart(tmp_path: Path, collection: Collection, media: Path, space) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (media / "blue.jpg").rename(other / "blue.jpg")
    summary = collection.add(other)
    assert (summary.renamed, summary.added) == (1, 0)
    assert space.calls == []
    assert len(collection) == 7


def test_equal_files_are_looked_at_once(tmp_path: Path, space, monkeypatch: pytest.MonkeyPatch) -> None:
    """8,000 links of one content took 55 s: each new one was compared with all that were there."""
    looked: list[str] = []
    real = ingestion._is_gone

    def noted(path: str) -> bool:
        looked.append(path)
        return real(path)

    monkeypatch.setattr(ingestion, "_is_gone", noted)
    count = 40
    for folder in ("one", "two", "three"):
        (tmp_path / folder).mkdir()
        for number in range(count):
            (tmp_path / folder / f"{number}.md").write_text("the same")
    with Collection.open(tmp_path / "c", space=space) as collection:
        assert collection.add(tmp_path / "one").added == count
        assert looked == []
        assert collection.add(tmp_path / "two").added == count
        assert len(looked) == count
        (tmp_path / "one").rename(tmp_path / "four")
        looked.clear()
        summary = collection.add([tmp_path / "three", tmp_path / "four"])
        assert (summary.renamed, summary.added) == (count, count)
        assert len(looked) <= 2 * count
        assert len(collection) == 3 * count
        assert space.calls == ["text"]


def test_rename_over_another_item(collection: Collection, media: Path, space) -> None:
    (media / "poem.txt").replace(media / "note.md")
    summary = collection.add(media)
    assert space.calls == []
    assert summary.changed + summary.renamed == 1
    assert len(collection) == 6


def test_swapped_names(collection: Collection, media: Path, space) -> None:
    a, b = media / "poem.txt", media / "note.md"
    a.rename(media / "aside")
    b.rename(a)
    (media / "aside").rename(b)
    assert collection.add(media).changed == 2
    assert space.calls == []
    assert len(collection) == 7


def test_copy_is_an_item_of_its_own_without_encoding(collection: Collection, media: Path, space) -> None:
    shutil.copy(media / "blue.jpg", media / "copy.jpg")
    summary = collection.add(media)
    assert summary.added == 1
    assert space.calls == []
    hits = collection.search(image=media / "blue.jpg", k=2, fold="none")
    assert {os.path.basename(hit.path) for hit in hits} == {"blue.jpg", "copy.jpg"}
    assert hits[0].score == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("batch_files", [1, 2, 64])
def test_copies_in_one_run_are_encoded_once(tmp_path: Path, space, picture, monkeypatch, batch_files: int) -> None:
    monkeypatch.setattr(contents, "BATCH_FILES", {**contents.BATCH_FILES, "image": batch_files})
    for name in ("a.png", "b.png", "c.png"):
        picture(tmp_path / "media" / name, "red")
    summary = Collection.open(tmp_path / "c", space=space).add(tmp_path / "media")
    assert summary.added == 3
    assert space.calls == ["image"]


def test_gone_files_are_dropped_and_come_back_for_free(collection: Collection, media: Path, space, tmp_path) -> None:
    shutil.move(media / "deep", tmp_path / "away")
    summary = collection.add(media)
    assert summary.removed == 2
    assert "high.ogg" not in names(collection)
    shutil.move(tmp_path / "away", media / "deep")
    assert collection.add(media).added == 2
    assert space.calls == []


def test_what_lies_elsewhere_stays(tmp_path: Path, collection: Collection, picture) -> None:
    picture(tmp_path / "other" / "x.png", "pink")
    summary = collection.add(tmp_path / "other")
    assert (summary.added, summary.removed) == (1, 0)
    assert len(collection) == 8


def test_missing_argument_drops_nothing(collection: Collection, media: Path, tmp_path: Path) -> None:
    shutil.move(media, tmp_path / "unplugged")
    summary = collection.add(media)
    assert reasons(summary) == {"media": "no such file or folder"}
    assert len(collection) == 7


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_unreadable_folder_keeps_its_items(collection: Collection, media: Path) -> None:
    (media / "deep").chmod(0)
    try:
        summary = collection.add(media)
    finally:
        (media / "deep").chmod(0o700)
    assert reasons(summary) == {"deep": "permission denied"}
    assert len(collection) == 7


def test_caption_change_encodes_the_caption_alone(collection: Collection, media: Path, space) -> None:
    (media / "red.txt").write_text("A stop sign.")
    assert collection.add(media).changed == 1
    assert space.calls == ["text"]
    (hit,) = collection.search(text="A stop sign.", k=1)
    assert (os.path.basename(hit.path), hit.matched, hit.caption) == ("red.png", "caption", "A stop sign.")


def test_caption_added_and_removed(collection: Collection, media: Path, space) -> None:
    (media / "blue.txt").write_text("The sea.")
    assert collection.add(media).changed == 1
    assert collection.search(text="The sea.", k=1)[0].matched == "caption"
    (media / "blue.txt").unlink()
    assert collection.add(media).changed == 1
    assert collection.search(image=media / "blue.jpg", k=1)[0].caption is None


def test_fresh_caption_that_is_removed_is_noticed(collection: Collection, media: Path, monkeypatch) -> None:
    """The picture is old enough for its fingerprint to be kept, the caption is not."""
    real = scanning.lasting_fingerprint
    monkeypatch.setattr(scanning, "FRESH_NS", 0)
    monkeypatch.setattr(
        beside, "lasting_fingerprint", lambda path: scanning.FRESH if path.endswith(".txt") else real(path)
    )
    (media / "blue.txt").write_text("The sea.")
    assert collection.add(media).changed == 1
    (media / "blue.txt").unlink()
    assert collection.add(media).changed == 1
    assert collection.search(image=media / "blue.jpg", k=1)[0].caption is None


def test_without_captions_they_are_shown_but_not_searched(tmp_path: Path, media: Path, space) -> None:
    collection = Collection.open(tmp_path / "c", space=space)
    summary = collection.add(media, captions=False)
    assert summary.encoded == {"text": 2, "image": 3, "audio": 2}
    (hit,) = collection.search(image=media / "red.png", k=1)
    assert (hit.caption, hit.matched) == ("A red sign.", "content")
    space.calls.clear()
    assert collection.add(media, captions=True).changed == 2  # only the captions are encoded
    assert collection.add(media, captions=False).changed == 2
    assert space.calls == ["text", "text"]


def test_broken_caption_is_reported_and_the_item_kept(tmp_path: Path, media: Path, space) -> None:
    (media / "blue.txt").write_bytes(b"\x00\x01\x02")
    collection = Collection.open(tmp_path / "c", space=space)
    summary = collection.add(media)
    assert reasons(summary) == {"blue.txt": "caption left out: not a text: it holds NUL characters"}
    assert "blue.jpg" in names(collection)


def test_one_bad_file_costs_one_file(tmp_path: Path, media: Path, space) -> None:
    """Every kind of bad file at once: each is named with its reason, and all good ones are in."""
    bad = media / "bad"
    bad.mkdir()
    whole = {path.suffix: path.read_bytes() for path in [media / "red.png", media / "blue.jpg", media / "low.wav"]}
    for suffix, data in whole.items():
        (bad / f"truncated{suffix}").write_bytes(data[: len(data) // 2])
        (bad / f"empty{suffix}").write_bytes(b"")
    (bad / "hollow.txt").write_bytes(b"")
    (bad / "blank.md").write_text(" \n \n")
    (bad / "text.jpg").write_text("I am a text, not a picture.")
    header = b"IHDR" + struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    (bad / "huge.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunk + struct.pack(">I", 99) + b"IDAT")
    (bad / "stump.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunk)
    ten_hours = 36_000 * 44_100 * 2
    wave = b"WAVEfmt " + struct.pack("<IHHIIHH", 16, 1, 1, 44_100, 88_200, 2, 16) + b"data"
    sizes = struct.pack("<I", ten_hours + 36), struct.pack("<I", ten_hours)
    (bad / "long.wav").write_bytes(b"RIFF" + sizes[0] + wave + sizes[1])
    soundfile.write(bad / "nan.wav", np.array([0, np.nan, 1], np.float32), 8000, subtype="FLOAT")
    os.mkfifo(bad / "pipe.png")
    (bad / "loop").symlink_to(bad)
    (bad / "link.png").symlink_to(media / "red.png")
    (bad / "dangling.jpg").symlink_to(bad / "nothing")
    collection = Collection.open(tmp_path / "c", space=space)
    summary = collection.add(media, strict=True)
    said = reasons(summary)
    expected = {
        "truncated.png": "damaged picture", "truncated.jpg": "damaged picture", "truncated.wav": "truncated",
        "empty.png": "empty", "empty.jpg": "empty", "empty.wav": "empty", "hollow.txt": "empty", "blank.md": "empty",
        "text.jpg": "not a picture", "stump.png": "begins as PNG", "long.wav": "truncated",
        "nan.wav": "NaN", "pipe.png": "not a regular file", "loop": "symbolic link", "link.png": "symbolic link",
        "dangling.jpg": "symbolic link", "huge.png": "too many pixels: 50000 x 50000, the limit is 100,000,000",
    }  # fmt: skip
    assert said.keys() == expected.keys()
    for name, words in expected.items():
        assert words in said[name], (name, said[name])
    assert len(collection) == 7
    assert len(collection.search(text="anything", k=100)) == 7


def test_the_caption_of_a_picture_that_failed_is_an_orphan_until_another_has_it(
    tmp_path: Path, space, picture, monkeypatch
) -> None:
    """Its vector came in the same batch, and is not made again."""
    media = tmp_path / "media"
    for name, colour in {"bad": "red", "good": "blue"}.items():
        picture(media / f"{name}.png", colour)
        (media / f"{name}.txt").write_text("a shared caption")
    encoder_class = type(space.encoder("image"))
    embed = encoder_class.embed
    collection = Collection.open(tmp_path / "c", space=space)
    with monkeypatch.context() as patch:
        patch.setattr(
            encoder_class, "embed", lambda e, batch: embed(e, batch) * (np.nan if e.modality == "image" else 1)
        )
        assert reasons(collection.add(media / "bad.png")) == {"bad.png": "the network gave no finite vector for it"}
    store = Store(collection.folder)
    assert len(store.orphans()) == 1
    assert verify(collection.folder).findings == []
    space.calls.clear()
    collection.add(media / "good.png")
    assert space.calls == ["image"]
    assert len(store.orphans()) == 0


def test_too_large_files_are_not_read(tmp_path: Path, media: Path, space, monkeypatch) -> None:
    monkeypatch.setattr(sources, "MAX_FILE_BYTES", {"text": 30, "image": 1 << 20, "audio": 1 << 20})
    monkeypatch.setattr(beside, "MAX_CAPTION_FILE_BYTES", 5)
    summary = Collection.open(tmp_path / "c", space=space).add(media)
    assert reasons(summary) == {
        "poem.txt": "too large: 33 bytes, the limit is 30",
        "red.txt": "caption left out: too large: 33 bytes, the limit is 5",
        "high.txt": "caption left out: too large: 12 bytes, the limit is 5",
    }


def test_small_and_strange_but_good(tmp_path: Path, space, picture, sound) -> None:
    folder = tmp_path / "media"
    picture(folder / "tiny.png", size=(1, 1))
    picture(folder / "two\nlines.png", "teal")
    picture(folder / "UPPER.PNG", "olive")
    raw = os.fsencode(folder) + b"/caf\xe9.jpg"  # not UTF-8
    Image.new("RGB", (9, 9), "navy").save(folder / "x.jpg")
    os.rename(folder / "x.jpg", raw)
    soundfile.write(folder / "silence.wav", np.zeros(4000, np.float32), 8000)
    collection = Collection.open(tmp_path / "c", space=space)
    assert collection.add(folder).skipped == []
    assert len(collection) == 5
    (hit,) = collection.search(image=os.fsdecode(raw), k=1)
    assert os.fsencode(hit.path) == raw
    assert collection.add(folder).unchanged == 5
    assert collection.remove([os.fsdecode(raw)]) == 1


def test_file_that_vanishes_while_indexing(tmp_path: Path, media: Path, space, monkeypatch) -> None:
    real = scan_media

    def scan_then_delete(paths, **settings):
        scan = real(paths, **settings)
        (media / "blue.jpg").unlink()
        return scan

    monkeypatch.setattr(ingestion, "scan_media", scan_then_delete)
    collection = Collection.open(tmp_path / "c", space=space)
    summary = collection.add(media)
    assert "is gone" in reasons(summary)["blue.jpg"]
    assert len(collection) == 6


def test_file_that_becomes_damaged_is_dropped(collection: Collection, media: Path) -> None:
    (media / "red.png").write_bytes((media / "red.png").read_bytes()[:60])
    summary = collection.add(media)
    assert summary.removed == 1
    assert "damaged" in reasons(summary)["red.png"]
    assert "red.png" not in names(collection)


def test_text_beside_a_link_is_an_item(tmp_path: Path, media: Path, space) -> None:
    (media / "linked.png").symlink_to(media / "red.png")
    (media / "linked.txt").write_text("Not the caption of anything that is indexed.")
    collection = Collection.open(tmp_path / "c", space=space)
    assert reasons(collection.add(media)) == {"linked.png": "a symbolic link, not followed"}
    assert "linked.txt" in names(collection)


def test_file_that_cannot_be_looked_at_keeps_its_vectors(collection: Collection, media: Path, monkeypatch) -> None:
    real = os.lstat

    def broken_disk(path, **rest):
        if os.fspath(path).endswith("blue.jpg"):
            raise OSError(5, "Input/output error")
        return real(path, **rest)

    monkeypatch.setattr(os, "lstat", broken_disk)
    summary = collection.add(media)
    assert reasons(summary) == {"blue.jpg": "Input/output error"}
    assert summary.removed == 0
    assert "blue.jpg" in names(collection)


def test_empty_folder(tmp_path: Path, space) -> None:
    (tmp_path / "media").mkdir()
    collection = Collection.open(tmp_path / "c", space=space)
    summary = collection.add(tmp_path / "media")
    assert (summary.indexed, summary.skipped) == (0, [])
    assert collection.search(text="anything") == []
    assert collection.info().items == {}


def test_collection_inside_its_media_is_not_indexed(media: Path, space) -> None:
    collection = Collection.open(media / "index", space=space)
    collection.add(media)
    summary = collection.add(media)
    assert (summary.unchanged, summary.added, summary.skipped) == (7, 0, [])


def test_modality_without_encoder_is_reported(tmp_path: Path, media: Path, make_space) -> None:
    collection = Collection.open(tmp_path / "c", space=make_space(modalities=("text", "image")))
    summary = collection.add(media)
    assert "no encoder for audio" in reasons(summary)["low.wav"]
    assert len(collection) == 5


def test_another_space_is_refused_with_both_names(collection: Collection, media: Path, make_space) -> None:
    with pytest.raises(CollectionError, match=r"'stub' \(revision 1\).*'stub' \(revision 2\)"):
        Collection.open(collection.folder, space=make_space(revision="2"))


def test_second_writer_is_refused_with_the_pid(collection: Collection, media: Path) -> None:
    with (
        writing(Store(collection.folder)),
        pytest.raises(CollectionLockedError, match=rf"pid {os.getpid()}"),
    ):
        collection.add(media)
    assert collection.add(media).unchanged == 7  # the lock is free again


def test_interrupted_run_keeps_what_was_committed(tmp_path: Path, media: Path, space) -> None:
    collection = Collection.open(tmp_path / "c", space=space)

    def interrupt(modality: str, done: float, total: int) -> None:
        if modality == "image":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        collection.add(media, progress=interrupt)
    reopened = Collection.open(tmp_path / "c", space=space)
    assert len(reopened) == 5  # texts and pictures
    assert len(reopened.search(text="anything", k=10)) == 5
    space.calls.clear()
    assert reopened.add(media).added == 2
    assert space.calls == ["audio", "audio", "text"]


def test_progress_is_told(tmp_path: Path, media: Path, space) -> None:
    told: list[tuple[str, int, int]] = []
    Collection.open(tmp_path / "c", space=space).add(media, progress=lambda *step: told.append(step))
    assert told == [("text", 2, 2), ("image", 3, 3), ("audio", 2, 2)]


def test_reader_sees_whole_batches_while_a_writer_works(tmp_path: Path, space, picture) -> None:
    for number in range(150):
        picture(tmp_path / "media" / f"{number:03}.png", f"#{number:06x}")
    seen: list[int] = []
    stop = threading.Event()
    Collection.open(tmp_path / "c", space=space).add(tmp_path / "media" / "000.png")

    def read() -> None:
        with Collection.open(tmp_path / "c", space=space) as reader:
            while not stop.is_set():
                seen.append(len(reader.search(text="x", k=1000)))
                time.sleep(0.001)

    thread = threading.Thread(target=read)
    thread.start()
    try:
        Collection.open(tmp_path / "c", space=space).add(tmp_path / "media")
    finally:
        stop.set()
        thread.join()
    assert set(seen) <= {1, 64, 65, 128, 129, 150}, sorted(set(seen))  # commits of 64 files
    assert seen == sorted(seen)


def test_database_has_no_dangling_rows(collection: Collection, media: Path, picture) -> None:
    picture(media / "red.png", "black")
    (media / "low.wav").unlink()
    collection.add(media)
    with sqlite3.connect(collection.folder / "collection.db") as db:
        assert db.execute("PRAGMA foreign_key_check").fetchall() == []
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    db.close()


def test_batches_of_any_size_give_the_same_collection(
    tmp_path: Path, media: Path, make_space: Callable[..., object], monkeypatch: pytest.MonkeyPatch
) -> None:
    results = []
    for size in (1, 2, 100):
        monkeypatch.setattr(contents, "BATCH_FILES", dict.fromkeys(("text", "image", "audio"), size))
        collection = Collection.open(tmp_path / f"c{size}", space=make_space())  # type: ignore[arg-type]
        collection.add(media)
        results.append([(hit.path, round(hit.score, 6)) for hit in collection.search(text="x", k=20)])
    assert results[0] == results[1] == results[2]


class Averages(torch.nn.Module):
    """A network of pictures of 8 x 8: what 16 of their pixels are."""

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor]:
        return (pixels.flatten(1)[:, :16].float() + 1,)


@pytest.mark.filterwarnings("ignore:.*decoding and encoding capabilities of TorchVision:DeprecationWarning")
def test_a_device_that_decodes_refuses_one_file(
    tmp_path: Path, make_space, picture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with TRIVIUM_GPU_PICTURES=jpeg; the device is torch's CPU. What it cannot decode costs nothing else."""
    fit = Fit(side=8, mode="squash")
    pictures = DevicePictures(fit, "cpu", decode=jpeg_decoder("cpu"))
    backbone = ImageBackbone(
        TorchNetwork(Averages(), device=PLAIN), fit, dim=16, heads={}, layers={}, on_device=pictures
    )
    space = make_space()
    encoder = ProjectedEncoder(space.space, backbone, IdentityProjection())
    monkeypatch.setattr(space, "encoder", lambda *_: encoder)
    folder = tmp_path / "pictures"
    for number in range(6):
        picture(folder / f"{number}.jpg", "red", size=(20 + number, 20))
    picture(folder / "6.png", "blue")
    data = bytearray((folder / "3.jpg").read_bytes())
    tables = data.index(b"\xff\xc4") + 5
    data[tables : tables + 16] = b"\xff" * 16  # numbers of codes, more than there can be
    (folder / "3.jpg").write_bytes(data)
    assert encoder.takes_file(bytes(data))
    collection = Collection.open(tmp_path / "collection", space=space)
    summary = collection.add(folder)
    assert list(reasons(summary)) == ["3.jpg"]
    assert reasons(summary)["3.jpg"].startswith("damaged picture: ")
    assert names(collection) == {"0.jpg", "1.jpg", "2.jpg", "4.jpg", "5.jpg", "6.png"}
    assert os.path.basename(collection.search(image=folder / "6.png")[0].path) == "6.png"
