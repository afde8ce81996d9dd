"""Figures on score matrices: against slow references that try every order of equal scores, and by their properties."""

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from trivium.pipeline.evaluation.metrics import (
    Ranks,
    bootstrap_interval,
    confusion_matrix,
    ndcg,
    ranks_of_best,
    wilson_interval,
)

# Few different scores, so that many tie; quarters are exact in float32.
levels = st.integers(-2, 2).map(lambda number: number / 4)


@st.composite
def queries(draw):
    """Scores (q, m), and for each query which items are right, at least one."""
    items, count = draw(st.integers(1, 5)), draw(st.integers(1, 4))
    scores = draw(st.lists(st.lists(levels, min_size=items, max_size=items), min_size=count, max_size=count))
    right = draw(st.lists(st.sets(st.integers(0, items - 1), min_size=1), min_size=count, max_size=count))
    return np.array(scores, np.float32), right


def pairs(right):
    found = [(row, column) for row, columns in enumerate(right) for column in sorted(columns)]
    return np.array([row for row, _ in found], np.int64), np.array([column for _, column in found], np.int64)


@given(queries())
def test_ranks_are_the_mean_over_all_orders_of_ties(reference, asked) -> None:
    scores, right = asked
    slow = reference("retrieval_figures")
    ranks = ranks_of_best(scores, *pairs(right))
    expected = [slow.expected_rank(row.tolist(), columns) for row, columns in zip(scores, right, strict=True)]
    np.testing.assert_allclose(ranks.expected(), expected, rtol=1e-12)
    for k in (1, 2, 5, 10):
        found = [slow.found_within(row.tolist(), columns, k) for row, columns in zip(scores, right, strict=True)]
        np.testing.assert_allclose(ranks.found_within(k), found, rtol=1e-12)


@given(queries(), st.integers(1, 6), st.data())
def test_ndcg_is_the_mean_over_all_orders_of_ties(reference, asked, k: int, data) -> None:
    scores, right = asked
    slow = reference("retrieval_figures")
    rows, columns = pairs(right)
    gains = np.array(data.draw(st.lists(st.integers(0, 3), min_size=len(rows), max_size=len(rows))), np.float64)
    every = np.zeros(scores.shape)
    every[rows, columns] = gains
    expected = [slow.ndcg(row.tolist(), of.tolist(), k) for row, of in zip(scores, every, strict=True)]
    np.testing.assert_allclose(ndcg(scores, rows, columns, gains, k=k), expected, rtol=1e-9)


def test_ranks_without_ties() -> None:
    scores = np.array([[0.9, 0.5, 0.1], [0.9, 0.5, 0.1], [0.9, 0.5, 0.1]], np.float32)
    ranks = ranks_of_best(scores, np.array([0, 1, 2, 2]), np.array([0, 2, 1, 2]))
    assert ranks.expected().tolist() == [1, 3, 2]
    assert ranks.found_within(1).tolist() == [1, 0, 0]
    assert ranks.found_within(2).tolist() == [1, 0, 1]


def test_an_encoder_that_tells_nothing_apart_is_at_chance() -> None:
    """All scores equal: neither the best case (always first) nor the worst (never)."""
    ranks = ranks_of_best(np.zeros((2, 100), np.float32), np.array([0, 1]), np.array([0, 99]))
    np.testing.assert_allclose(ranks.found_within(1), 0.01)
    np.testing.assert_allclose(ranks.found_within(10), 0.1)
    np.testing.assert_allclose(ranks.expected(), 50.5)


def test_the_query_itself_is_left_out_by_minus_infinity() -> None:
    scores = np.array([[-np.inf, 0.25, 0.5]], np.float32)
    assert ranks_of_best(scores, np.array([0]), np.array([1])).expected().tolist() == [2]


@given(queries(), st.randoms(use_true_random=False))
def test_the_order_of_the_gallery_does_not_matter(asked, random) -> None:
    scores, right = asked
    order = list(range(scores.shape[1]))
    random.shuffle(order)
    moved = [{order.index(column) for column in columns} for columns in right]
    before, after = ranks_of_best(scores, *pairs(right)), ranks_of_best(scores[:, order], *pairs(moved))
    assert before.expected().tolist() == after.expected().tolist()
    assert before.found_within(2).tolist() == after.found_within(2).tolist()


def test_ranks_are_joined_in_order() -> None:
    one = Ranks(np.array([0, 2]), np.array([0, 0]), np.array([1, 1]))
    two = Ranks(np.array([4]), np.array([1]), np.array([1]))
    assert Ranks.joined([one, two]).expected().tolist() == [1, 3, 5.5]
    assert len(Ranks.joined([])) == 0


@given(st.lists(levels, min_size=1, max_size=30), st.integers(0, 5))
def test_interval_holds_the_mean_and_depends_on_the_seed_alone(values: list[float], seed: int) -> None:
    low, high = bootstrap_interval(np.array(values), seed=seed)
    assert min(values) - 1e-9 <= low <= high <= max(values) + 1e-9
    assert (low, high) == bootstrap_interval(np.array(values[::-1]), seed=seed)


def test_interval_is_that_of_drawing_queries(reference) -> None:
    """Counting equal values together draws from the same distribution as drawing query by query."""
    generator = np.random.default_rng(3)
    values = generator.choice([0.0, 0.25, 1.0], size=60)
    draws = generator.integers(60, size=(4_000, 60))
    means = reference("retrieval_figures").means_of_resamples(values.tolist(), draws.tolist())
    expected = np.quantile(means, [0.025, 0.975])
    # 4,000 and 20,000 resamples: the ends are known to about 0.01
    np.testing.assert_allclose(bootstrap_interval(values, seed=0, resamples=20_000), expected, atol=0.015)


def test_more_queries_give_a_narrower_interval() -> None:
    few, many = (bootstrap_interval(np.tile([0.0, 1.0], n), seed=0) for n in (10, 1_000))
    assert many[1] - many[0] < 0.2 * (few[1] - few[0])


def test_interval_of_nothing() -> None:
    assert all(map(math.isnan, bootstrap_interval(np.empty(0), seed=0)))
    assert all(map(math.isnan, wilson_interval(0, 0)))


def test_interval_of_a_share() -> None:
    # 8 of 10: Wilson's interval as in Newcombe 1998 and any table
    np.testing.assert_allclose(wilson_interval(8, 10), (0.4902, 0.9433), atol=1e-4)
    np.testing.assert_allclose(wilson_interval(0, 10), (0.0, 0.2775), atol=1e-4)
    np.testing.assert_allclose(wilson_interval(10, 10), (0.7225, 1.0), atol=1e-4)


def test_confusion() -> None:
    matrix = confusion_matrix(np.array([0, 0, 2, 2, 2]), np.array([0, 2, 2, 2, 0]), classes=3)
    assert matrix.tolist() == [[1, 0, 1], [0, 0, 0], [1, 0, 2]]
