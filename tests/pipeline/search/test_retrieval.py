"""Hits: items, each once, best first, exactly k of them, whatever the filter."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trivium.encoders.base import Modality, unit_rows
from trivium.pipeline.collection import Collection
from trivium.pipeline.records import ContentKey, NewItem, Part
from trivium.pipeline.search.query import QueryError
from trivium.pipeline.search.retrieval import Retrieval
from trivium.pipeline.search.vectors import VectorSearch
from trivium.pipeline.store.filters import Filter
from trivium.pipeline.store.store import Store
from trivium.pipeline.store.writer import writing


def best_by_hand(collection: Collection, space, media: Path, query: str) -> dict[str, float]:
    """Score of each item's best vector, worked out without index or store."""
    (vector,) = space.encode("text", [query])
    named: dict[str, list[tuple[Modality, Any]]] = {
        "red.png": [("image", media / "red.png"), ("text", "A red sign.")],
        "blue.jpg": [("image", media / "blue.jpg")],
        "green.webp": [("image", media / "deep" / "green.webp")],
        "low.wav": [("audio", media / "low.wav")],
        "high.ogg": [("audio", media / "deep" / "high.ogg"), ("text", "A high tone.")],
        "note.md": [("text", (media / "note.md").read_text())],
        "poem.txt": [("text", (media / "poem.txt").read_text())],
    }
    return {
        name: max(float(space.encode(modality, [item])[0] @ vector) for modality, item in vectors)
        for name, vectors in named.items()
    }


def test_hits_are_all_items_once_best_first_with_the_best_vector(collection: Collection, space, media: Path) -> None:
    hits = collection.search(text="something", k=100)
    expected = best_by_hand(collection, space, media, "something")
    assert {os.path.basename(hit.path): hit.score for hit in hits} == pytest.approx(
        expected, abs=1e-3
    )  # stored in half precision
    scores = [hit.score for hit in hits]
    assert scores == sorted(scores, reverse=True)


@pytest.mark.parametrize("k", [1, 2, 3, 7, 8, 1000])
def test_any_k_is_a_prefix_of_all(collection: Collection, k: int) -> None:
    everything = collection.search(text="something", k=1000)
    assert collection.search(text="something", k=k) == everything[:k]


@pytest.mark.parametrize(("only", "count"), [("image", 3), ("audio", 2), ("text", 2)])
def test_filter_gives_k_hits_whenever_they_exist(collection: Collection, only, count: int) -> None:
    everything = collection.search(text="something", k=1000)
    for k in (1, 2, 5):
        expected = [hit for hit in everything if hit.modality == only][:k]
        assert collection.search(text="something", k=k, only=only) == expected
        assert len(expected) == min(k, count)


def test_many_copies_do_not_crowd_out_the_filter(tmp_path: Path, space, picture) -> None:
    """Items that share one vector, and items with two, are counted as items."""
    for number in range(20):
        picture(tmp_path / "m" / f"{number}.png", "red")
        (tmp_path / "m" / f"{number}.txt").write_text("the same caption")
    (tmp_path / "m" / "a.md").write_text("the same caption")
    collection = Collection.open(tmp_path / "c", space=space)
    collection.add(tmp_path / "m")
    assert len(collection.search(text="the same caption", k=15)) == 15
    assert len(collection.search(text="the same caption", k=100)) == 21
    (hit,) = collection.search(text="the same caption", k=3, only="text")
    assert hit.path.endswith("a.md")


@pytest.mark.parametrize("k", [0, -1])
def test_k_below_one(collection: Collection, k: int) -> None:
    with pytest.raises(QueryError, match=f"k must be at least 1, got {k}"):
        collection.search(text="x", k=k)


def test_removed_items_are_not_found(collection: Collection, media: Path) -> None:
    assert collection.remove([media / "deep"]) == 2
    assert len(collection.search(text="something", k=10)) == 5
    assert collection.remove([media / "deep"]) == 0
    assert collection.add(media).added == 2


def test_scores_are_cosines(collection: Collection) -> None:
    scores = np.array([hit.score for hit in collection.search(text="something", k=10)])
    assert (np.abs(scores) <= 1 + 1e-6).all()


def test_reader_follows_a_writer(collection: Collection, media: Path, picture, space) -> None:
    reader = Collection.open(collection.folder, space=space)
    assert len(reader.search(text="x", k=100)) == 7
    picture(media / "new.png", "white")
    collection.add(media)
    assert len(reader.search(text="x", k=100)) == 8


PASSAGES = 4_000


@pytest.fixture
def with_a_long_text(tmp_path: Path, space) -> Store:
    """A text whose 4,000 passages are nearer to (1, 0, ...) than all else, its copy, and 30 texts with a vector each.

    The first of the 30 has a caption too, which it shares with the long text, nearer than its own vector.
    """
    draw = np.random.default_rng(0)
    one = np.eye(space.space.dim, dtype=np.float32)[0]
    passages = unit_rows(one + 0.05 * draw.normal(size=(PASSAGES, len(one))))
    others = unit_rows(one + 2.0 * draw.normal(size=(30, len(one))))
    roles = {
        Part("passage", 100 * n, 100 * n + 100).role: ContentKey("text", bytes([1, *divmod(n, 256)]))
        for n in range(PASSAGES)
    }
    shared, own = ContentKey("text", b"shared"), [ContentKey("text", b"own %d" % n) for n in range(30)]
    long = {"content": ContentKey("text", b"long"), "caption": shared, **roles}
    caption = unit_rows(one + 0.3 * np.abs(draw.normal(size=(1, len(one)))))
    vectors = np.concatenate([caption, caption, passages, others])
    items = [NewItem(path=f"/{name}.txt", modality="text", fingerprint="", contents=long) for name in ("long", "copy")]
    for number, key in enumerate(own):
        contents = {"content": key, "caption": shared} if number == 0 else {"content": key}
        items.append(NewItem(path=f"/{number:02}.txt", modality="text", fingerprint="", contents=contents))
    store = Store.create(tmp_path / "long", space.space, source="stub")
    with writing(store) as writer:
        writer.commit(items, [long["content"], shared, *roles.values(), *own], vectors)
    return store


@pytest.mark.parametrize("k", [1, 2, 3, 10, 31, 32, 33, 100])
def test_an_item_with_thousands_of_parts_hides_no_other(
    with_a_long_text: Store, space, k: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched: list[int] = []
    search = VectorSearch.search

    def counting(self, queries, *, k: int, **rest):
        fetched.append(k)
        return search(self, queries, k=k, **rest)

    monkeypatch.setattr(VectorSearch, "search", counting)
    one = np.eye(space.space.dim, dtype=np.float32)[:1]
    retrieval = Retrieval(with_a_long_text)
    (hits,) = retrieval.search(one, k=k)
    expected = best_of_items(with_a_long_text, one[0])
    assert [hit.path for hit in hits] == [path for path, _ in expected[:k]]
    np.testing.assert_allclose([hit.score for hit in hits], [score for _, score in expected[:k]], atol=1e-6)
    assert {hit.matched for hit in hits if hit.path in ("/long.txt", "/copy.txt")} == {"passage"}
    assert all(hit.matched == "caption" for hit in hits if hit.path == "/00.txt")
    assert len(fetched) <= 4
    assert sum(fetched) <= 16 * k  # not thousands
    fetched.clear()
    retrieval.search(one, k=k)
    assert fetched[0] <= 2 * k  # and one such query makes no later search dearer


def best_of_items(store: Store, query: np.ndarray) -> list[tuple[str, float]]:
    """Every item with its best vector's score, best first, worked out from the stored vectors."""
    ids, vectors = store.source(store.locations("text")).all()
    scores = dict(zip(ids.tolist(), (vectors.astype(np.float32) @ query).tolist(), strict=True))
    best = {i.path: max(scores[id_] for id_ in store.content_ids(i.contents.values())) for i in store.items()}
    return sorted(best.items(), key=lambda pair: (-pair[1], pair[0]))


def test_a_filter_beside_thousands_of_parts(with_a_long_text: Store, space) -> None:
    one = np.eye(space.space.dim, dtype=np.float32)[:1]
    expected = [path for path, _ in best_of_items(with_a_long_text, one[0])]
    retrieval = Retrieval(with_a_long_text)
    for filter, wanted in (
        (Filter(paths=("/copy.txt", "/0*")), [path for path in expected if path == "/copy.txt" or path[1] == "0"]),
        (Filter(only="text"), expected),
        (Filter(where="name != long.txt"), [path for path in expected if path != "/long.txt"]),
    ):
        (hits,) = retrieval.search(one, k=6, filter=filter)
        assert [hit.path for hit in hits] == wanted[:6]


def test_many_queries_at_once_beside_thousands_of_parts(with_a_long_text: Store, space) -> None:
    queries = unit_rows(np.random.default_rng(1).normal(size=(9, space.space.dim)))
    queries[::3] = np.eye(space.space.dim)[0]
    retrieval = Retrieval(with_a_long_text)
    for query, hits in zip(queries, retrieval.search(queries, k=5), strict=True):
        assert [hit.path for hit in hits] == [path for path, _ in best_of_items(with_a_long_text, query)[:5]]
