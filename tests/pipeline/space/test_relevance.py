"""Scores to probabilities: what is fitted, what it says on data it has not seen, and what is refused."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trivium.encoders.base import Modality, unit_rows
from trivium.pipeline.space.joint import load_space
from trivium.pipeline.space.relevance import (
    LogOdds,
    Relevance,
    fit,
    from_background,
    probability,
    read_relevance,
    simulate,
)


def space(items: int, *, seed: int, noise: float = 0.7) -> tuple[np.ndarray, np.ndarray]:
    """Queries and the one item that each asks for."""
    random = np.random.default_rng(seed)
    gallery = unit_rows(random.normal(size=(items, 24)))
    return unit_rows(gallery + noise * random.normal(size=gallery.shape) / np.sqrt(24) * 2), gallery


def test_known_log_odds_are_found_again() -> None:
    random = np.random.default_rng(0)
    scores = random.uniform(0, 1, 40_000)
    searched = random.choice([10.0, 100.0, 1000.0], 40_000)
    truth = LogOdds(offset=-1.0, slope=9.0, size=-0.8)
    log_odds = -1.0 + 9.0 * scores - 0.8 * np.log(searched)
    found = fit(scores, searched, random.random(40_000) < probability(log_odds))
    assert found is not None
    for name in ("offset", "slope", "size"):
        assert getattr(found, name) == pytest.approx(getattr(truth, name), rel=0.1, abs=0.1)


def test_probabilities_hold_on_other_items() -> None:
    queries, gallery = space(400, seed=0)
    found = fit(*simulate(queries, gallery, np.eye(400, dtype=bool), seed=0))
    assert found is not None
    queries, gallery = space(400, seed=1)
    scores, searched, is_relevant = simulate(queries, gallery, np.eye(400, dtype=bool), seed=1)
    said = probability(found.offset + found.slope * scores + found.size * np.log(searched))
    bins = np.clip((said * 10).astype(int), 0, 9)
    error = sum(
        abs(said[bins == b].mean() - is_relevant[bins == b].mean()) * (bins == b).mean() for b in np.unique(bins)
    )
    assert error < 0.03
    assert said[is_relevant].mean() > said[~is_relevant].mean() + 0.3


def test_half_of_the_queries_find_nothing_because_there_is_nothing() -> None:
    queries, gallery = space(50, seed=0, noise=0.0)
    scores, searched, is_relevant = simulate(queries, gallery, np.eye(50, dtype=bool), seed=0)
    assert set(searched) == {10, 30, 50}
    assert (scores[is_relevant] > 0.999).all()
    assert (scores[~is_relevant] < 0.999).all()
    per_query = is_relevant.sum() / (len(scores) / 5)
    assert 0.4 < per_query < 0.6


def test_what_tells_nothing_is_not_fitted() -> None:
    scores, searched = np.linspace(0, 1, 20), np.full(20, 10.0)
    assert fit(scores, searched, np.zeros(20, bool)) is None
    assert fit(scores, searched, np.ones(20, bool)) is None
    assert fit(scores, searched, scores < 0.5) is None  # the worse the more relevant
    assert fit(scores, searched, scores > 0.5) is not None


@given(st.floats(-5, 5), st.floats(0.01, 50), st.floats(-2, 0), st.integers(1, 10**7))
def test_larger_scores_are_likelier(offset: float, slope: float, size: float, searched: int) -> None:
    relevance = Relevance({("text", "image"): LogOdds(offset=offset, slope=slope, size=size)})
    found = relevance.probabilities("text", "image", np.linspace(-1, 1, 9), searched)
    assert found is not None
    assert (np.diff(found) >= 0).all()
    assert ((found >= 0) & (found <= 1)).all()
    assert relevance.probabilities("image", "text", np.zeros(1), searched) is None


@pytest.mark.parametrize("modality", ["image", "audio"])
@pytest.mark.parametrize("searched", [1, 1_485, 1_000_000])
def test_copies_are_relevant_however_many_items_are_searched(modality: Modality, searched: int) -> None:
    relevance = load_space().relevance
    assert relevance is not None
    found = relevance.probabilities(modality, modality, np.array([0.9, 0.98, 1.0]), searched)
    assert found is not None
    assert found[2] > 0.99
    assert found[0] < found[1] < found[2]
    assert relevance.of_pair["text", modality].finds_copies is False


@given(st.floats(-1, 1), st.integers(1, 10**7), st.booleans())
def test_scores_come_back_from_log_odds(score: float, searched: int, finds_copies: bool) -> None:
    log_odds = LogOdds(offset=-10.5, slope=15.0, size=-0.7, finds_copies=finds_copies)
    assert log_odds.score(float(log_odds.of(np.array(score), searched)), searched) == pytest.approx(score, abs=1e-9)


def test_it_is_kept_as_json(tmp_path: Path) -> None:
    relevance = Relevance({("text", "audio"): LogOdds(offset=-1.5, slope=3.0, size=-0.5)})
    path = tmp_path / "calibration.json"
    assert read_relevance(path) is None
    path.write_text(json.dumps(relevance.to_json()))
    assert read_relevance(path) == relevance


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ([], "format 1"),
        ({"format": 2, "log_odds": {}}, "format 1"),
        ({"format": 1, "log_odds": {"text->smell": {}}}, "no pair of modalities"),
        ({"format": 1, "log_odds": {"text->image": 3}}, "an offset, a slope and a size"),
        ({"format": 1, "log_odds": {"text->image": {"offset": 0, "slope": "1", "size": 0}}}, "an offset, a slope"),
        ({"format": 1, "log_odds": {"text->image": {"offset": 0, "slope": 0, "size": 0}}}, "slope .* above 0"),
    ],
)
def test_other_json_is_refused(raw: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Relevance.from_json(raw)


def test_all_right_answers_are_there() -> None:
    """A photo has five captions: four of another's five best hits are right, for the half that finds any."""
    vectors = np.repeat(unit_rows(np.random.default_rng(0).normal(size=(30, 16))), 4, axis=0)  # four alike
    is_relevant = np.equal.outer(np.arange(120) // 4, np.arange(120) // 4)
    asked = unit_rows(vectors + 0.01 * np.random.default_rng(1).normal(size=vectors.shape))
    _, searched, is_hit = simulate(asked, vectors, is_relevant, seed=0)
    assert is_hit[searched == 120].mean() == pytest.approx(0.5 * 4 / 5, abs=0.05)


def test_scores_that_hardly_differ_tell_nothing() -> None:
    """Of two pictures that were held out there is one score: what it gave could not be read again."""
    assert from_background(np.full(50, 0.7)) is None
    assert fit(np.full(50, 0.7), np.full(50, 10.0), np.arange(50) < 5) is None
    found = from_background(np.random.default_rng(0).normal(0, 0.01, 1_000))
    assert found is not None
    assert Relevance.from_json(Relevance({("text", "image"): found}).to_json()).of_pair
