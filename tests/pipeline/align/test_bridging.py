"""Pairs of pictures and sounds whose texts say nearly the same."""

import numpy as np
import pytest

from trivium.pipeline.align.bridging import LEAST_COSINE, pseudo_pairs
from trivium.pipeline.align.pairs import Pairs, Two

EAST, NORTH = np.array([1.0, 0.0]), np.array([0.0, 1.0])
NEARLY_EAST = np.array([0.95, np.sqrt(1 - 0.95**2)])
TEXTS = np.stack([EAST, NEARLY_EAST, NORTH, 3 * NORTH]).astype(np.float32)


def pairs(*rows: tuple[int, int], held_out: int | None = None) -> Pairs:
    array = np.array(rows, np.int64)
    return Pairs(rows=array, weights=np.ones(len(array)), is_held_out=np.arange(len(array)) == held_out)


def test_items_of_like_texts_belong_together() -> None:
    given: dict[Two, Pairs] = {
        ("text", "image"): pairs((0, 10), (0, 11), (2, 12)),
        ("text", "audio"): pairs((1, 20), (3, 21)),
    }
    found = pseudo_pairs(given, TEXTS, share=0.5)
    assert set(found) == {("image", "audio")}
    made = found["image", "audio"]
    assert {tuple(row) for row in made.rows.tolist()} == {(10, 20), (11, 20), (12, 21)}
    assert not made.is_held_out.any()
    assert made.weights.sum() == pytest.approx(0.5 * 2)  # of the two pairs of text and sound
    weight = {tuple(row): float(value) for row, value in zip(made.rows.tolist(), made.weights, strict=True)}
    assert weight[10, 20] == weight[11, 20]
    assert weight[10, 20] / weight[12, 21] == pytest.approx(0.95, abs=1e-4)


def test_only_what_is_alike() -> None:
    assert 0 < LEAST_COSINE < 1
    given: dict[Two, Pairs] = {("text", "image"): pairs((0, 10)), ("text", "audio"): pairs((2, 20))}
    assert pseudo_pairs(given, TEXTS, share=1.0) == {}


def test_pairs_that_tables_have_are_enough() -> None:
    given: dict[Two, Pairs] = {
        ("text", "image"): pairs((0, 10)),
        ("text", "audio"): pairs((0, 20)),
        ("image", "audio"): pairs((10, 20)),
    }
    assert pseudo_pairs(given, TEXTS, share=1.0) == {}


def test_nothing_is_made_of_what_is_held_out() -> None:
    given: dict[Two, Pairs] = {
        ("text", "image"): pairs((0, 10), (2, 12), held_out=0),
        ("text", "audio"): pairs((0, 20), (2, 21)),
    }
    made = pseudo_pairs(given, TEXTS, share=1.0)["image", "audio"]
    assert made.rows.tolist() == [[12, 21]]


def test_the_limit_keeps_the_most_alike() -> None:
    given: dict[Two, Pairs] = {
        ("text", "image"): pairs((0, 10), (2, 12)),
        ("text", "audio"): pairs((1, 20), (3, 21)),
    }
    assert pseudo_pairs(given, TEXTS, share=1.0, limit=1)["image", "audio"].rows.tolist() == [[12, 21]]


def test_two_modalities_have_no_third() -> None:
    assert pseudo_pairs({("text", "image"): pairs((0, 10))}, TEXTS, share=1.0) == {}
