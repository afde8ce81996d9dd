"""Index files: made when they are due, never before, and searches are right at every moment in between."""

import contextlib
import hashlib
import itertools
import threading
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from trivium.encoders.base import Modality, Space, Vectors, unit_rows
from trivium.indexes import Wish, build_index
from trivium.pipeline.records import ContentKey, IndexFile, NewItem
from trivium.pipeline.search import indexing
from trivium.pipeline.search.indexing import Indexer
from trivium.pipeline.search.retrieval import Retrieval
from trivium.pipeline.store.filters import Filter
from trivium.pipeline.store.store import Store
from trivium.pipeline.store.writer import writing
from trivium.pipeline.upkeep.compaction import compact

SPACE = Space(name="s", dim=16, revision="r")
FEWEST = 200


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(indexing, "FEWEST", FEWEST)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.create(tmp_path / "c", SPACE, source="s")


def vectors_of(numbers: Iterable[int], modality: Modality = "image") -> Vectors:
    seed = {"text": 1, "image": 2, "audio": 3}[modality]
    return unit_rows(np.stack([np.random.default_rng([seed, number]).normal(size=SPACE.dim) for number in numbers]))


def add(store: Store, numbers: range, modality: Modality = "image", *, wish: Wish | None = None) -> None:
    """What a run does: begin what is due, commit, finish."""
    with writing(store) as writer:
        if wish is not None:
            writer.set_wish(asdict(wish))
        indexer = Indexer(writer)
        indexer.start()
        keys = [ContentKey(modality, hashlib.sha256(f"{modality} {number}".encode()).digest()) for number in numbers]
        items = [
            NewItem(path=f"/m/{modality}/{number:05}", modality=modality, fingerprint="f", contents={"content": key})
            for number, key in zip(numbers, keys, strict=True)
        ]
        with contextlib.closing(store.lookup()) as known:
            new = [key not in known for key in keys]
        writer.commit(items, list(itertools.compress(keys, new)), vectors_of(numbers, modality)[new])
        indexer.finish()


def file_of(store: Store, modality: Modality = "image") -> IndexFile:
    return store.index_files()[modality]


def check_search(store: Store, expected: Iterable[int], *, tolerance: float = 2e-3) -> None:
    """All items, best first, as comparing all by hand gives them."""
    numbers = list(expected)
    target = vectors_of([99_999])
    hits = Retrieval(store).search(target, k=len(numbers) + 10, filter=Filter(only="image"))[0]
    scores = (vectors_of(numbers) @ target[0]).astype(np.float64)
    best = {f"/m/image/{number:05}": score for number, score in zip(numbers, scores, strict=True)}
    assert {hit.path for hit in hits} == best.keys()
    np.testing.assert_allclose([hit.score for hit in hits], [best[hit.path] for hit in hits], atol=tolerance)


def test_few_vectors_have_no_file(store: Store) -> None:
    add(store, range(FEWEST - 1))
    assert store.index_files() == {}
    check_search(store, range(FEWEST - 1))


def test_many_have_one_and_it_says_why(store: Store) -> None:
    add(store, range(30), "text")
    add(store, range(FEWEST))
    file = file_of(store)
    assert (file.kind, file.vectors) == ("flat", FEWEST)
    assert file.report["reason"].startswith("flat: 200 x 16 takes about")
    assert file.report["recall"] == {"text": 1.0, "image": 1.0}  # queries of each modality that there is
    assert file.report["queries"]["text"] == 30
    check_search(store, range(FEWEST))


def test_what_is_newer_is_searched_and_nothing_rebuilt(store: Store) -> None:
    add(store, range(FEWEST))
    before = file_of(store)
    add(store, range(FEWEST, FEWEST + 100))
    assert file_of(store) == before
    check_search(store, range(FEWEST + 100))


def test_a_long_tail_is_added_and_nothing_trained_anew(store: Store) -> None:
    add(store, range(2000), wish=Wish(kind="ivf-sq8", recall=0.5))
    first = file_of(store)
    add(store, range(2000, 2190))
    assert file_of(store) == first
    add(store, range(2190, 2300))
    grown = file_of(store)
    assert (grown.vectors, grown.report["reason"]) == (2300, "ivf-sq8: grown")
    assert grown.name != first.name
    assert [path.name for path in (store.folder / "index").iterdir()] == [grown.name]
    add(store, range(2300, 2310))
    assert file_of(store) == grown
    check_search(store, range(2310), tolerance=0.05)  # the codes of 16 numbers are coarse


def test_when_most_vectors_are_new_another_kind_is_made_at_once(store: Store, monkeypatch) -> None:
    monkeypatch.setattr(indexing, "needs_rebuild", lambda _kind, then, now, *_: "grown" if now > 2 * then else None)
    add(store, range(FEWEST))
    add(store, range(FEWEST, 3 * FEWEST))
    assert file_of(store).vectors == 3 * FEWEST
    assert file_of(store).report["reason"].startswith("flat: 600 x 16")


def test_another_kind_is_built_in_the_background(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run that notices it does not wait; the next one builds beside its own work, and the old file serves."""
    threads: list[str] = []
    run = indexing.Task.run

    def noted(task: indexing.Task) -> None:
        threads.append(threading.current_thread().name)
        run(task)

    monkeypatch.setattr(indexing.Task, "run", noted)
    add(store, range(FEWEST))
    assert threads == [threading.main_thread().name]
    monkeypatch.setattr(indexing, "needs_rebuild", lambda kind, *_: "another is better" if kind == "flat" else None)
    monkeypatch.setattr(indexing, "build_index", _build_sq8(build_index))
    threads.clear()
    add(store, range(FEWEST, FEWEST + 10))
    assert file_of(store).kind == "sq8"
    assert len(threads) == 1
    assert threads != [threading.main_thread().name]
    assert file_of(store).vectors == FEWEST  # what was there when it began
    check_search(store, range(FEWEST + 10), tolerance=1e-2)


def _build_sq8(build):
    def built(source, *, wish, queries, progress):
        return build(source, wish=Wish(kind="sq8", recall=wish.recall), queries=queries, progress=progress)

    return built


def test_a_failure_in_the_background_is_told(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    add(store, range(FEWEST))
    before = file_of(store)
    monkeypatch.setattr(indexing, "needs_rebuild", lambda *_: "another is better")

    def fail(*_: object, **__: object) -> None:
        raise ValueError("no such luck")

    monkeypatch.setattr(indexing, "build_index", fail)
    add(store, range(FEWEST, FEWEST + 5))  # the old file serves, and the next run tries again
    assert file_of(store) == before
    assert "no better index of image was made (no index of image can be made" in caplog.text
    assert "stored vectors (no such luck): `trivium verify --read-data` tells" in caplog.text
    check_search(store, range(FEWEST + 5))


def test_a_new_wish_is_followed_at_once(store: Store) -> None:
    add(store, range(FEWEST))
    add(store, range(FEWEST, FEWEST + 1), wish=Wish(kind="hnsw"))
    assert (file_of(store).kind, file_of(store).vectors) == ("hnsw", FEWEST + 1)
    add(store, range(FEWEST + 1, FEWEST + 2), wish=Wish(kind="hnsw", recall=0.5))
    assert file_of(store).report["wish"]["recall"] == 0.5
    before = file_of(store)
    add(store, range(FEWEST + 2, FEWEST + 3))
    assert file_of(store) == before


def test_removed_items_never_come_back(store: Store) -> None:
    add(store, range(FEWEST))
    gone = set(range(0, FEWEST, 2))
    with writing(store) as writer:
        ids = [state.id for path, state in store.states().items() if int(path[-5:]) in gone]
        writer.remove(ids)
    left = [number for number in range(FEWEST) if number not in gone]
    check_search(store, left)
    add(store, range(FEWEST, FEWEST + 5))
    check_search(store, [*left, *range(FEWEST, FEWEST + 5)])
    with writing(store) as writer:
        Indexer(writer).rebuild()
    check_search(store, [*left, *range(FEWEST, FEWEST + 5)])
    add(store, range(0, 10))  # back by the front door
    check_search(store, [*range(0, 10), *left[5:], *range(FEWEST, FEWEST + 5)])


@pytest.mark.parametrize("damage", ["flip", "cut", "gone"])
def test_a_damaged_file_is_never_served_and_made_anew(store: Store, damage: str) -> None:
    add(store, range(FEWEST))
    path = store.folder / "index" / file_of(store).name
    data = bytearray(path.read_bytes())
    if damage == "gone":
        path.unlink()
    else:
        data[len(data) // 2] ^= 0x40
        path.write_bytes(data[: len(data) // 2] if damage == "cut" else data)
    check_search(Store(store.folder), range(FEWEST))
    add(store, range(FEWEST, FEWEST + 1))
    assert file_of(store).vectors == FEWEST + 1
    check_search(Store(store.folder), range(FEWEST + 1))


def test_shrunk_below_what_needs_a_file(store: Store) -> None:
    add(store, range(FEWEST))
    with writing(store) as writer:
        writer.remove([state.id for path, state in store.states().items() if int(path[-5:]) >= 10])
    compact(store)
    assert store.index_files() == {}
    assert list((store.folder / "index").iterdir()) == []
    check_search(store, range(10))
