"""Hits: items, each once, best first, exactly k of them, whatever the filter."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trivium.encoders.base import Modality
from trivium.pipeline.collection import Collection
from trivium.pipeline.query import QueryError


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
