"""Reliability: whether probabilities mean what they say."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from trivium.pipeline.evaluation.calibration import CalibrationSample, reliability


def test_perfect_and_wrong() -> None:
    said = np.repeat([0.25, 0.75], 400)
    came_true = np.tile([True, False, False, False], 100).tolist() + np.tile([True, True, True, False], 100).tolist()
    found = reliability(said, np.array(came_true))
    assert (found.ece, found.ece_equal_width, found.count) == (0.0, 0.0, 800)
    assert [(each.count, each.probability, each.relevant) for each in found.bins] == [
        (400, 0.25, 0.25),
        (400, 0.75, 0.75),
    ]
    wrong = reliability(1 - said, np.array(came_true))
    assert wrong.ece == pytest.approx(0.5)
    assert wrong.ece_equal_width == pytest.approx(0.5)


def test_equal_probabilities_are_not_parted() -> None:
    """All say 0.5 and half are relevant: calibrated, in whatever order the relevant ones come."""
    found = reliability(np.full(100, 0.5), np.arange(100) < 50)
    assert found.ece == 0
    assert len(found.bins) == 1


def test_bins_of_equal_mass() -> None:
    generator = np.random.default_rng(0)
    said = generator.random(1_500) ** 4  # most are low
    found = reliability(said, generator.random(1_500) < said)
    assert len(found.bins) == 15
    assert {each.count for each in found.bins} == {100}
    assert found.ece < 0.05
    ordered = [each.probability for each in found.bins]
    assert ordered == sorted(ordered)


@given(st.lists(st.tuples(st.integers(0, 8).map(lambda n: n / 8), st.booleans()), min_size=1, max_size=40))
def test_equal_width_is_what_the_reference_says(reference, judged) -> None:
    bins: list[list[tuple[float, bool]]] = [[] for _ in range(15)]
    for probability, relevant in judged:
        bins[min(int(probability * 15), 14)].append((probability, relevant))
    said, came_true = (np.array(column) for column in zip(*judged, strict=True))
    found = reliability(said, came_true)
    slow = reference("retrieval_figures").expected_calibration_error
    assert found.ece_equal_width == pytest.approx(slow(bins), abs=1e-12)
    # Whatever the bins are, each judgement is in one, and no probability is in two.
    assert sum(each.count for each in found.bins) == len(judged)
    counts = {p: sum(1 for other, _ in judged if other == p) for p, _ in judged}
    edges = np.cumsum([each.count for each in found.bins]).tolist()
    assert set(edges) <= set(np.cumsum([counts[p] for p in sorted(counts)]).tolist())


def test_nothing() -> None:
    found = reliability(np.empty(0), np.empty(0, np.bool_))
    assert (found.count, len(found.bins)) == (0, 0)
    assert np.isnan(found.ece)


@pytest.mark.parametrize("bad", [-0.1, 1.1, np.nan])
def test_what_is_no_probability(bad: float) -> None:
    with pytest.raises(ValueError, match="probabilities must be 0 to 1"):
        reliability(np.array([bad]), np.array([True]))


def test_shapes() -> None:
    with pytest.raises(ValueError, match=r"of one shape \(n,\), got \(2,\) and \(3,\)"):
        reliability(np.zeros(2), np.zeros(3, np.bool_))


def test_samples_are_the_best_hits_and_as_many_wrong_pairs_as_right_ones() -> None:
    scores = np.tile(np.arange(40) / 40, (3, 1)).astype(np.float32)
    scores[0, 39] = -np.inf  # the query itself
    seen: dict[int, list[float]] = {}
    sample = CalibrationSample(seed=0)
    sample.add(scores, np.array([0, 1, 2]), np.array([38, 39, 0]))

    def certain(of: NDArray[np.float32], searched: int) -> NDArray[np.floating]:
        assert searched == (1 if seen else 9)  # a hit was found among all, a pair by itself
        seen[len(seen)] = sorted(of.tolist())
        return of

    found = sample.reliabilities(certain, gallery=9)
    assert list(found) == ["hits", "pairs"]
    best = [(np.arange(29, 39) / 40).tolist(), *[(np.arange(30, 40) / 40).tolist()] * 2]
    np.testing.assert_allclose(seen[0], sorted(np.concatenate(best).tolist()), rtol=1e-6)
    assert found["pairs"].count in (2, 4, 6)  # a wrong one that happens to be right is not taken
    total = sum(each.count * each.relevant for each in found["pairs"].bins)
    assert total == found["pairs"].count / 2


def test_a_right_answer_is_never_taken_for_a_wrong_one() -> None:
    sample = CalibrationSample(seed=0)
    sample.add(np.full((20, 2), 0.5, np.float32), np.repeat(np.arange(20), 2), np.tile([0, 1], 20))
    assert sample.reliabilities(lambda scores, _: scores, gallery=3)["pairs"].count == 0
