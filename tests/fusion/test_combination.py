"""Combining the parts of a query: a unit vector that depends on nothing but the parts and their proportions."""

from random import Random

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from numpy.typing import NDArray

from trivium.encoders.base import unit_rows
from trivium.fusion.combination import unit_means, weighted_sum

Parts = tuple[NDArray[np.float32], list[float]]


@st.composite
def parts(draw: st.DrawFn) -> Parts:
    """One to five unit vectors of width 4 whose sum is no near-zero, with weights in quarters, some negative."""
    count = draw(st.integers(1, 5))
    quarters = st.integers(-8, 8).map(lambda number: number / 4)
    rows = draw(st.lists(st.lists(quarters, min_size=4, max_size=4), min_size=count, max_size=count))
    vectors = unit_rows(np.array(rows, np.float32))
    weights = draw(st.lists(quarters, min_size=count, max_size=count))
    assume(np.linalg.norm(np.array(weights) @ vectors) > 0.05)
    return vectors, weights


@given(parts())
def test_length_and_direction(made: Parts) -> None:
    vectors, weights = made
    found = weighted_sum(vectors, weights)
    assert found.shape == (4,)
    assert found.dtype == np.float32
    total = np.zeros(4)
    for vector, weight in zip(vectors, weights, strict=True):
        total += weight * vector.astype(np.float64)
    assert_allclose(found, total / np.sqrt((total * total).sum()), atol=1e-6)


@given(parts(), st.randoms(use_true_random=False))
def test_order_does_not_matter(made: Parts, random: Random) -> None:
    vectors, weights = made
    order = list(range(len(weights)))
    random.shuffle(order)
    shuffled = weighted_sum(vectors[order], [weights[place] for place in order])
    assert_allclose(shuffled, weighted_sum(vectors, weights), atol=1e-6)


@given(parts(), st.sampled_from([0.25, 3.0, 1000.0, 1e9]))
def test_scale_does_not_matter(made: Parts, scale: float) -> None:
    vectors, weights = made
    scaled = weighted_sum(vectors, [scale * weight for weight in weights])
    assert_allclose(scaled, weighted_sum(vectors, weights), atol=1e-6)


@pytest.mark.parametrize("scale", [1e-5, 1e-30, 1e200])
def test_very_small_and_very_large_weights(scale: float) -> None:
    vectors = np.eye(2, dtype=np.float32)
    assert_allclose(weighted_sum(vectors, [scale, scale]), [np.sqrt(0.5)] * 2, atol=1e-6)


def test_one_part_is_itself() -> None:
    vector = np.array([[0.6, 0.8]], np.float32)
    assert_allclose(weighted_sum(vector, [2.0]), vector[0], atol=1e-6)
    assert_allclose(weighted_sum(vector, [-1.0]), -vector[0], atol=1e-6)


@pytest.mark.parametrize("weights", [[1.0, -1.0], [0.0, 0.0], [1e6, -1e6]])
def test_parts_that_cancel(weights: list[float]) -> None:
    vectors = unit_rows(np.array([[1, 2, 3], [1, 2, 3]], np.float32))
    with pytest.raises(ValueError, match=r"cancel out \(weights .*\): nothing is left"):
        weighted_sum(vectors, weights)


def test_opposite_vectors_cancel() -> None:
    vectors = unit_rows(np.array([[1, 2, 3], [-1, -2, -3]], np.float32))
    with pytest.raises(ValueError, match="cancel out"):
        weighted_sum(vectors, [1.0, 1.0])


@pytest.mark.parametrize(("count", "weights"), [(2, [1.0]), (1, [1.0, 1.0]), (0, [])])
def test_as_many_weights_as_vectors(count: int, weights: list[float]) -> None:
    vectors = np.ones((count, 1), np.float32)
    with pytest.raises(ValueError, match=f"at least one, got {len(weights)} and {count}"):
        weighted_sum(vectors, weights)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_weights_must_be_finite(bad: float) -> None:
    with pytest.raises(ValueError, match=r"weights must be finite, got \[1.0, (nan|inf)\]"):
        weighted_sum(np.eye(2, dtype=np.float32), [1.0, bad])


def test_unit_means_as_by_hand() -> None:
    random = np.random.default_rng(0)
    some, others = random.normal(size=(3, 4)).astype(np.float32), random.normal(size=(2, 4)).astype(np.float32)
    parts = [(np.array([0, 1, 3]), some), (np.array([3, 0]), others)]
    found = unit_means(parts, count=5, dim=4)
    sums = [some[0] + others[1], some[1], None, some[2] + others[0], None]
    for row, total in zip(found, sums, strict=True):
        assert_allclose(row, np.zeros(4) if total is None else total / np.sqrt(float(total @ total)), atol=1e-6)


def test_unit_means_of_many_rows_are_those_of_few() -> None:
    vectors = np.random.default_rng(1).normal(size=(2_500, 3)).astype(np.float32)
    found = unit_means([(np.arange(2_500), vectors), (np.arange(2_500), vectors[::-1])], count=2_500, dim=3)
    for start in (0, 1_024, 2_499):
        rows = [(np.array([0]), vectors[[start]]), (np.array([0]), vectors[[2_499 - start]])]
        assert_allclose(found[start], unit_means(rows, count=1, dim=3)[0], atol=1e-6)
    assert unit_means([], count=0, dim=3).shape == (0, 3)
