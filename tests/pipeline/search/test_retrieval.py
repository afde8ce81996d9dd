"""Hits: items, each once, best first, exactly k of them, whatever the filter."""

import math
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trivium.encoders.base import MODALITIES, Modality, unit_rows
from trivium.pipeline.collection import Collection
from trivium.pipeline.records import ContentKey, NewItem, Part
from trivium.pipeline.search.query import QueryError, QueryPart, asked_with
from trivium.pipeline.search.retrieval import Retrieval
from trivium.pipeline.search.vectors import VectorSearch
from trivium.pipeline.space.relevance import LogOdds, Relevance
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
    assert len(collection.search(text="the same caption", k=15, fold="none")) == 15
    assert len(collection.search(text="the same caption", k=100, fold="none")) == 21
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
    (hits,) = retrieval.search(one, k=k, fold="none")
    expected = best_of_items(with_a_long_text, one[0])
    assert [hit.path for hit in hits] == [path for path, _ in expected[:k]]
    np.testing.assert_allclose([hit.score for hit in hits], [score for _, score in expected[:k]], atol=1e-6)
    assert {hit.matched for hit in hits if hit.path in ("/long.txt", "/copy.txt")} == {"passage"}
    assert all(hit.matched == "caption" for hit in hits if hit.path == "/00.txt")
    assert len(fetched) <= 4
    assert sum(fetched) <= 16 * k  # not thousands
    fetched.clear()
    retrieval.search(one, k=k, fold="none")
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
        (hits,) = retrieval.search(one, k=6, filter=filter, fold="none")
        assert [hit.path for hit in hits] == wanted[:6]


def test_many_queries_at_once_beside_thousands_of_parts(with_a_long_text: Store, space) -> None:
    queries = unit_rows(np.random.default_rng(1).normal(size=(9, space.space.dim)))
    queries[::3] = np.eye(space.space.dim)[0]
    retrieval = Retrieval(with_a_long_text)
    for query, hits in zip(queries, retrieval.search(queries, k=5, fold="none"), strict=True):
        assert [hit.path for hit in hits] == [path for path, _ in best_of_items(with_a_long_text, query)[:5]]


OFFSETS: dict[Modality, float] = {"text": -3.0, "image": 1.0, "audio": -1.0}
SLOPES: dict[Modality, float] = {"text": 8.0, "image": 2.0, "audio": 5.0}
KNOWN = Relevance(
    {
        (query, matched): LogOdds(offset=OFFSETS[matched], slope=SLOPES[matched], size=-0.5)
        for query in MODALITIES
        for matched in MODALITIES
    }
)
VECTORS: dict[Modality, int] = {"text": 4, "image": 3, "audio": 2}  # of the collection, captions among the texts


@pytest.fixture
def plain(collection: Collection) -> list[Any]:
    return collection.search(text="something", k=1000)


@pytest.fixture
def known(collection: Collection, plain: list[Any], monkeypatch: pytest.MonkeyPatch) -> Collection:
    monkeypatch.setattr(collection.space, "relevance", KNOWN, raising=False)
    return collection


def expected(hit: Any) -> float:
    matched: Modality = "text" if hit.matched == "caption" else hit.modality
    log_odds = OFFSETS[matched] + SLOPES[matched] * hit.score - 0.5 * math.log(VECTORS[matched])
    return 1 / (1 + math.exp(-log_odds))


def test_probabilities_and_cosines(known: Collection) -> None:
    hits = known.search(text="something", k=1000)
    assert len(hits) == 7
    for hit in hits:
        assert hit.relevance == pytest.approx(expected(hit), abs=1e-4)
    said = [hit.relevance or 0.0 for hit in hits]
    assert said == sorted(said, reverse=True)


def test_without_captions_only_the_order_changes(known: Collection, plain: list[Any]) -> None:
    """Items with one vector each keep their cosine."""
    before = {hit.path: hit.score for hit in plain if hit.caption is None or hit.modality == "text"}
    after = {hit.path: hit.score for hit in known.search(text="something", k=1000)}
    assert len(before) >= 4
    for path, score in before.items():
        assert after[path] == pytest.approx(score, abs=1e-5)


@pytest.mark.parametrize("k", [1, 2, 3, 6, 7])
def test_any_k_of_relevant_hits_is_a_prefix_of_all(known: Collection, k: int) -> None:
    everything = known.search(text="something", k=1000)
    found = known.search(text="something", k=k)
    assert [hit.path for hit in found] == [hit.path for hit in everything[:k]]


def test_what_is_hardly_relevant_is_left_out(known: Collection) -> None:
    everything = known.search(text="something", k=1000)
    least = everything[3].relevance
    assert known.search(text="something", k=1000, min_relevance=least) == everything[:4]
    assert known.search(text="something", k=1000, min_relevance=1.0) == []
    assert known.search_many(text=["something", "else"], k=7, min_relevance=0.0)[0] == everything


def test_one_modality_that_is_not_known_makes_it_a_list_by_score(
    collection: Collection, plain: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    of_pair = {two: odds for two, odds in KNOWN.of_pair.items() if two != ("text", "audio")}
    monkeypatch.setattr(collection.space, "relevance", Relevance(of_pair), raising=False)
    assert collection.search(text="something", k=1000) == plain
    assert all(hit.relevance is not None for hit in collection.search(text="something", only="image"))
    with pytest.raises(QueryError, match="cannot tell what is relevant"):
        collection.search(text="something", min_relevance=0.1)


def test_fewer_vectors_searched_make_a_hit_likelier(known: Collection, media: Path) -> None:
    everything = {hit.path: hit for hit in known.search(text="something", k=7)}
    (hit,) = known.search(text="something", paths=[str(media / "blue.jpg")])
    assert (hit.relevance or 0.0) > (everything[hit.path].relevance or 0.0)
    assert replace(hit, relevance=None).score == pytest.approx(everything[hit.path].score, abs=1e-5)


def test_items_that_share_a_content_share_its_score_and_relevance(known: Collection, media: Path) -> None:
    before = {hit.path: hit for hit in known.search(text="something", k=1000, fold="none")}
    names = ("red.png", "note.md", "low.wav")
    for name in names:
        (media / f"other-{name}").write_bytes((media / name).read_bytes())
    (media / "other-red.txt").write_text((media / "red.txt").read_text())
    known.add(media)
    after = {hit.path: hit for hit in known.search(text="something", k=1000, fold="none")}
    assert len(after) == len(before) + 3
    for name in names:
        one, other = after[str(media / name)], after[str(media / f"other-{name}")]
        assert (one.score, one.relevance) == (other.score, other.relevance)
        assert one.score == pytest.approx(before[one.path].score, abs=1e-5)
        assert one.relevance == pytest.approx(expected(one), abs=1e-4)


def test_the_heaviest_part_says_what_is_asked_with() -> None:
    parts = [QueryPart(modality="text", item="x"), QueryPart(modality="image", item="y", weight=2)]
    assert asked_with(parts) == "image"
    assert asked_with([QueryPart(modality="audio", item="x", weight=-1), parts[0]]) == "text"
