"""Migration: the old space serves until the last vector of the new one is there, whatever happens in between."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trivium.encoders.base import DecodeError, Modality, Vectors, unit_rows
from trivium.pipeline.collection import Collection
from trivium.pipeline.ingest import contents
from trivium.pipeline.search.indexing import Indexer
from trivium.pipeline.search.retrieval import Hit, Retrieval
from trivium.pipeline.space.config import SpaceError
from trivium.pipeline.store.database import CollectionError, CollectionLockedError
from trivium.pipeline.store.locking import writer_lock
from trivium.pipeline.store.store import Store
from trivium.pipeline.store.writer import Writer, writing
from trivium.pipeline.upkeep.compaction import compact
from trivium.pipeline.upkeep.migration import migrate

DIM = 16
QUERIES = unit_rows(np.random.default_rng(3).normal(size=(3, DIM)))
MakeSpace = Callable[..., Any]


class Stopped(BaseException):
    """As a kill."""


@pytest.fixture
def store(collection: Collection, monkeypatch: pytest.MonkeyPatch) -> Store:
    """7 items with 9 vectors: 4 of texts (2 of them captions), 3 of pictures, 2 of sounds; batches of 2."""
    monkeypatch.setattr(contents, "BATCH_FILES", {"text": 2, "image": 2, "audio": 2})
    return Store(collection.folder)


@pytest.fixture
def newer(make_space: MakeSpace) -> Any:
    """The next revision of the space, whose vectors are others."""
    return turned(make_space("2"))


def turned(space: Any) -> Any:
    encoder = space.encoder

    def turned_encoder(modality: Modality, replica: int = 0) -> Any:
        made = encoder(modality, replica)
        embed = made.embed
        made.embed = lambda batch: np.roll(embed(batch), 1, axis=1)
        return made

    space.encoder = turned_encoder
    return space


def hits(store: Store, queries: Vectors = QUERIES) -> list[list[Hit]]:
    return Retrieval(store).search(queries, k=50)


def stop_after(batches: int) -> Callable[..., None]:
    left = [batches]

    def progress(modality: Modality, done: int, total: int) -> None:
        left[0] -= 1
        if not left[0]:
            raise Stopped

    return progress


def all_vectors(store: Store, space: int | None = None) -> dict[tuple[str, bytes], np.ndarray]:
    """Vectors by the modality and hash of their content."""
    found = {}
    for modality in ("text", "image", "audio"):
        locations = store.locations(modality, space=space)
        for content, vector in zip(*store.source(locations, dim=DIM).all(), strict=True):
            ((sha256,),) = store.db.execute("SELECT sha256 FROM content WHERE id = ?", (int(content),))
            found[modality, sha256] = vector
    return found


def test_everything_is_encoded_once_and_then_searched(store: Store, newer: Any) -> None:
    old, paths = all_vectors(store), {item.path for item in store.items()}
    told: list[tuple[str, int, int]] = []
    done = migrate(store, newer, progress=lambda *of: told.append(of))
    assert (done.encoded, done.dropped, done.problems, done.is_done) == (9, 0, [], True)
    assert sorted(newer.calls) == ["audio"] * 2 + ["image"] * 3 + ["text"] * 4
    assert told == [("text", 2, 2), ("image", 2, 3), ("image", 3, 3), ("audio", 2, 2)]  # captions with their files
    assert store.space == newer.space
    assert set(store.spaces().values()) == {newer.space}
    new = all_vectors(store)
    assert new.keys() == old.keys()
    for content, vector in new.items():
        np.testing.assert_allclose(vector, np.roll(old[content], 1), atol=1e-3)
    expected = hits(store, np.roll(QUERIES, 1, axis=1))
    assert {hit.path for hit in expected[0]} == paths
    assert [[hit.path for hit in found] for found in hits(Store(store.folder), np.roll(QUERIES, 1, axis=1))] == [
        [hit.path for hit in found] for found in expected
    ]


def test_the_old_vectors_are_gone_from_the_disk(store: Store, newer: Any) -> None:
    with writing(store) as writer:
        writer.set_wish({"kind": "flat"})
        Indexer(writer).rebuild()
    old = all_vectors(store)
    assert migrate(store, newer).is_done
    compact(store)
    files = [file.read_bytes() for file in store.folder.rglob("*") if file.is_file()]
    traces = [vector.astype(kind).tobytes() for vector in old.values() for kind in (np.float16, np.float32)]
    assert [trace for trace in traces if any(trace in data for data in files)] == []
    new = [vector.tobytes() for vector in all_vectors(store).values()]
    assert all(any(trace in data for data in files) for trace in new)  # such traces would be found
    assert set(store.index_files()) == {"text", "image", "audio"}


def test_the_old_space_serves_until_the_last_step(store: Store, newer: Any) -> None:
    reader = Store(store.folder)
    retrieval = Retrieval(reader)
    expected = retrieval.search(QUERIES, k=50)
    answers: list[Any] = []

    def search(kind: str, done: float, total: int) -> None:
        answers.append((reader.space.revision, retrieval.search(QUERIES, k=50), hits(Store(store.folder))))

    migrate(store, newer, progress=search)
    assert answers == [("1", expected, expected)] * 4
    assert reader.space.revision == "2"


@pytest.mark.parametrize("batches", [1, 2, 3, 4])
def test_a_migration_that_was_stopped_goes_on_where_it_was(
    store: Store, newer: Any, make_space: MakeSpace, batches: int
) -> None:
    expected = hits(store)
    with pytest.raises(Stopped):
        migrate(store, newer, progress=stop_after(batches))
    encoded = len(newer.calls)
    for reader in (store, Store(store.folder)):
        assert reader.space.revision == "1"
        assert hits(reader) == expected
    again = turned(make_space("2"))
    done = migrate(Store(store.folder), again)
    assert done.is_done
    assert 9 <= encoded + len(again.calls) <= 9 + 2  # a batch had been encoded ahead, and was not committed
    assert done.encoded == len(again.calls)
    vectors = store.db.execute("SELECT count(*), count(DISTINCT content) FROM vector").fetchone()
    assert vectors == (9, 9)


def test_while_it_is_under_way_items_come_go_and_are_compacted(
    collection: Collection, store: Store, newer: Any, make_space: MakeSpace, media: Path, picture: Any
) -> None:
    with pytest.raises(Stopped):
        migrate(store, newer, progress=stop_after(3))
    picture(media / "yellow.png", "yellow")
    (media / "poem.txt").unlink()
    (media / "blue.jpg").unlink()
    assert collection.add(media).added == 1
    expected = hits(Store(store.folder))
    assert compact(store).vectors_removed == 2
    assert hits(store) == expected
    again = turned(make_space("2"))
    assert migrate(store, again).is_done
    assert {Path(item.path).name for item in store.items()} == {Path(hit.path).name for hit in hits(store)[0]}
    assert len(all_vectors(store)) == 8
    assert store.vector_count() == 8


def test_files_that_are_gone_or_changed_stop_the_last_step(store: Store, newer: Any, media: Path) -> None:
    (media / "blue.jpg").unlink()
    (media / "low.wav").write_bytes(b"something else")
    os.chmod(media / "note.md", 0)
    (media / "poem.txt").unlink()
    os.mkfifo(media / "poem.txt")
    expected = hits(store)
    done = migrate(store, newer)
    reasons = {Path(problem.path).name: problem.reason for problem in done.problems}
    assert "gone" in reasons["blue.jpg"]
    assert reasons["low.wav"] == "the file has changed since it was indexed: index it again first"
    assert reasons["poem.txt"] == "not a regular file"
    if os.geteuid():  # root reads everything
        assert reasons["note.md"] == "permission denied"
    assert not done.is_done
    assert done.dropped == 0
    assert (store.space.revision, hits(store)) == ("1", expected)
    encoded = len(newer.calls)
    done = migrate(store, newer, drop_missing=True)
    assert len(newer.calls) == encoded  # nothing twice
    assert done.is_done
    assert done.dropped == len(done.problems) == len(reasons)
    left = {Path(item.path).name for item in store.items()}
    assert left == {"red.png", "blue.jpg", "green.webp", "low.wav", "high.ogg", "note.md", "poem.txt"} - set(reasons)
    assert {Path(hit.path).name for hit in hits(store)[0]} == left


def test_a_file_that_changed_is_taken_in_after_it_was_indexed_again(
    collection: Collection, store: Store, newer: Any, media: Path
) -> None:
    (media / "poem.txt").write_text("Another poem.")
    assert not migrate(store, newer).is_done
    collection.add(media)
    assert migrate(store, newer).is_done
    assert len(all_vectors(store)) == 9


def test_of_two_files_with_one_content_either_will_do(
    collection: Collection, store: Store, newer: Any, media: Path
) -> None:
    (media / "copy.jpg").write_bytes((media / "blue.jpg").read_bytes())
    collection.add(media)
    (media / "blue.jpg").unlink()
    done = migrate(store, newer)
    assert (done.is_done, done.encoded, done.problems) == (True, 9, [])
    assert len(list(store.items())) == 8


def test_a_caption_needs_no_file(store: Store, newer: Any, media: Path) -> None:
    (media / "red.txt").unlink()
    assert migrate(store, newer).is_done


def test_what_the_new_space_cannot_decode_is_told(store: Store, newer: Any) -> None:
    encoder = newer.encoder

    def refusing(modality: Modality, replica: int = 0) -> Any:
        made = encoder(modality, replica)
        if modality == "image":

            def refuse(item: Any) -> Any:
                if item.shape[0] == 24 and tuple(item[5, 20]) == (255, 0, 0):
                    raise MemoryError
                raise DecodeError("too blue")

            made.prepare = refuse
        return made

    newer.encoder = refusing
    done = migrate(store, newer)
    reasons = {Path(problem.path).name: problem.reason for problem in done.problems}
    assert reasons == {
        "red.png": "too large for this machine's memory",
        "blue.jpg": "too blue",
        "green.webp": "too blue",
    }
    assert not done.is_done


@pytest.mark.parametrize(
    ("modalities", "message"),
    [
        (("text", "image"), r"has encoders for text, image only, the collection has 2 audio files: remove these items"),
        (("image", "audio"), r"1 audio captions and 1 image captions and 2 text files: remove .* --no-captions"),
    ],
)
def test_a_space_without_an_encoder_is_refused_before_anything_is_encoded(
    store: Store, make_space: MakeSpace, modalities: tuple[Modality, ...], message: str
) -> None:
    space = make_space("2", modalities)
    with pytest.raises(SpaceError, match=message):
        migrate(store, space, drop_missing=True)
    assert space.calls == []
    assert len(store.spaces()) == 1
    assert store.generation == Store(store.folder).generation


def test_vectors_of_another_width_are_refused_with_numbers(store: Store, newer: Any) -> None:
    encoder = newer.encoder

    def broken(modality: Modality, replica: int = 0) -> Any:
        made = encoder(modality, replica)
        made.embed = lambda batch: np.ones((len(batch), 9))
        return made

    newer.encoder = broken
    with pytest.raises(ValueError, match=r"the text encoder's vectors .*\(n, 16\), got \(2, 9\)"):
        migrate(store, newer)
    assert len(all_vectors(store)) == 9


def test_the_same_space_is_nothing_to_do(store: Store, space: Any) -> None:
    generation = store.generation
    done = migrate(store, space)
    assert (done.is_done, done.encoded, store.generation) == (True, 0, generation)


def test_a_migration_that_was_begun_can_be_given_up(store: Store, newer: Any, space: Any) -> None:
    expected, old = hits(store), all_vectors(store)
    with pytest.raises(Stopped):
        migrate(store, newer, progress=stop_after(4))
    assert migrate(store, space).is_done
    assert list(store.spaces().values()) == [space.space]
    assert hits(store) == hits(Store(store.folder)) == expected
    assert all_vectors(store).keys() == old.keys()
    assert {shard.name for shard in store.shards().values()} == set(os.listdir(store.folder / "vectors"))


def test_another_space_can_be_chosen_in_the_middle(store: Store, newer: Any, make_space: MakeSpace) -> None:
    with pytest.raises(Stopped):
        migrate(store, newer, progress=stop_after(4))
    third = make_space("3")
    assert migrate(store, third).encoded == 9
    assert list(store.spaces().values()) == [third.space]
    assert len(all_vectors(store)) == 9


def test_vectors_of_removed_items_are_not_left_as_known(
    collection: Collection, store: Store, newer: Any, media: Path
) -> None:
    """They have no vector in the new space: the same file must be encoded when it comes back."""
    poem = (media / "poem.txt").read_bytes()
    collection.remove([media / "poem.txt"])
    assert migrate(store, newer).encoded == 8
    (media / "poem.txt").write_bytes(poem)
    newer.calls.clear()
    with Collection.open(store.folder, space=newer) as moved:
        assert moved.add(media).added == 1
        assert newer.calls == ["text"]
        assert len(moved.search(text="anything", k=50)) == 7


def test_the_index_is_measured_with_the_new_spaces_example_texts(
    store: Store, newer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with writing(store) as writer:
        writer.set_wish({"kind": "hnsw"})
    newer.example_texts = lambda n: ["a dog", "rain"]
    migrate(store, newer)
    report: Any = store.index_files()["image"].report
    assert report["queries"]["text"] == 2


def test_a_full_disk_keeps_what_was_done(store: Store, newer: Any, make_space: MakeSpace) -> None:
    write, left = Writer.write_shard, [2]

    def fail(self: Any, *args: Any, **kwargs: Any) -> Any:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(28, "No space left on device")
        return write(self, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Writer, "write_shard", fail)
        with pytest.raises(CollectionError, match=r"No space left on device.*run again to go on"):
            migrate(store, newer)
    again = turned(make_space("2"))
    assert migrate(store, again).is_done
    assert len(again.calls) == 9 - 4  # two batches of two were committed


def test_the_second_writer_is_refused(store: Store, newer: Any) -> None:
    with writer_lock(store.folder), pytest.raises(CollectionLockedError, match="pid"):
        migrate(store, newer)
