"""Hits of a space that knows what is relevant: ranked by it over all modalities, with the cosines that they have."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from trivium.encoders.base import MODALITIES, Modality
from trivium.pipeline.collection import Collection
from trivium.pipeline.search.query import QueryError, QueryPart, asked_with
from trivium.pipeline.space.relevance import LogOdds, Relevance

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
def test_any_k_is_a_prefix_of_all(known: Collection, k: int) -> None:
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
    before = {hit.path: hit for hit in known.search(text="something", k=1000)}
    names = ("red.png", "note.md", "low.wav")
    for name in names:
        (media / f"other-{name}").write_bytes((media / name).read_bytes())
    (media / "other-red.txt").write_text((media / "red.txt").read_text())
    known.add(media)
    after = {hit.path: hit for hit in known.search(text="something", k=1000)}
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
