"""The estimators over tables are proper scikit-learn estimators, and do with several modalities what they promise."""

import json
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose
from sklearn.base import clone
from sklearn.utils.estimator_checks import estimator_checks_generator

from trivium.fusion.estimators import BlockClassifier, BlockRegressor
from trivium.fusion.kernels.fusion import FAMILIES, BlockFusion
from trivium.fusion.networks.registry import FUSIONS
from trivium.fusion.state import StateError, from_state, state_of

CHECKS = [
    pytest.param(estimator, check, id=f"{type(estimator).__name__}-{check.func.__name__}")
    for one in (BlockClassifier(most_rows=60), BlockRegressor(most_rows=60))
    for estimator, check in estimator_checks_generator(one)
]


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
@pytest.mark.parametrize(("estimator", "check"), CHECKS)
def test_scikit_learns_own_checks(estimator: Any, check: Any) -> None:
    check(estimator)


BLOCKS = {"sound": (0, 3), "photo": (3, 5)}


def made(n: int = 120, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Rows whose label is one bit that the sound has and one that the photo has."""
    random = np.random.default_rng(seed)
    bits = random.integers(0, 2, (n, 2))
    table = random.normal(size=(n, 5)) * 0.3
    table[:, 0] += bits[:, 0] * 2
    table[:, 3] += bits[:, 1] * 2
    return table, bits @ np.array([1, 2])


@pytest.mark.parametrize("fusion", ["auto", *FAMILIES, *FUSIONS])
def test_every_fusion_learns_from_all(fusion: str) -> None:
    table, labels = made(200)
    test, truth = made(100, seed=1)
    table[:20, 0:3], table[20:40, 3:5] = np.nan, np.nan
    model = BlockClassifier(blocks=BLOCKS, fusion=fusion).fit(table, labels)
    # An average of what each says alone knows the less well of what both must say.
    assert model.score(test, truth) > (0.7 if fusion == "late-average" else 0.85)
    hidden = test.copy()
    hidden[:, 3:5] = np.nan
    hidden[0] = np.nan
    assert 0.33 < model.score(hidden[1:], truth[1:]) < 0.7  # one bit of two
    assert_allclose(model.predict_proba(hidden)[0], np.bincount(labels) / 200)
    assert_allclose(model.predict_proba(hidden).sum(axis=1), 1, rtol=1e-5)


@pytest.mark.parametrize("fusion", ["auto", "self-attention"])
def test_order_of_modalities_does_not_matter(fusion: str) -> None:
    table, labels = made()
    turned = BlockClassifier(blocks=dict(reversed(BLOCKS.items())), fusion=fusion).fit(table, labels)
    same = BlockClassifier(blocks=BLOCKS, fusion=fusion).fit(table, labels)
    assert_allclose(turned.predict_proba(table), same.predict_proba(table))


def test_a_modality_that_is_alone_is_as_if_trained_alone() -> None:
    table, labels = made()
    both = BlockClassifier(blocks=BLOCKS).fit(table, labels)
    hidden = table.copy()
    hidden[:, 3:] = np.nan
    alone = BlockClassifier(blocks={"sound": (0, 3)}).fit(hidden[:, :3], labels)
    assert_allclose(both.predict_proba(hidden), alone.predict_proba(hidden[:, :3]))


def test_a_set_of_modalities_that_training_had_not() -> None:
    table, labels = made()
    table[:60, 3:], table[60:, :3] = np.nan, np.nan  # never both
    model = BlockClassifier(blocks=BLOCKS).fit(table, labels)
    whole, _ = made(seed=1)
    found = model.predict_proba(whole)
    best = max(model.models().values(), key=lambda of: of.score)
    hidden = whole.copy()
    hidden[:, slice(*BLOCKS["photo" if best.way == "sound" else "sound"])] = np.nan
    assert_allclose(found, model.predict_proba(hidden))


def test_more_rows_than_centres() -> None:
    table, labels = made(400)
    test, truth = made(100, seed=1)
    model = BlockClassifier(blocks=BLOCKS, most_rows=60).fit(table, labels)
    assert isinstance(model.model_, BlockFusion)
    assert len(model.model_.centres["photo"]) == 60
    assert model.score(test, truth) > 0.9


def test_contributions() -> None:
    table, labels = made()
    table[0, 3:] = np.nan
    for estimator in (BlockClassifier(blocks=BLOCKS), BlockRegressor(blocks=BLOCKS)):
        model: Any = estimator.fit(table, labels.astype(float) if isinstance(estimator, BlockRegressor) else labels)
        hidden = table.copy()
        hidden[:, 3:] = np.nan
        predict = model.predict if isinstance(estimator, BlockRegressor) else model.predict_proba
        found = model.contributions(table)["photo"]
        assert_allclose(found, predict(table) - predict(hidden), atol=1e-12)
        assert np.all(found[0] == 0)


def test_kept_and_made_again() -> None:
    table, labels = made()
    for fusion in ("auto", "agreement", "product", "gated-units", "late-average"):
        model = BlockClassifier(blocks=BLOCKS, fusion=fusion).fit(table, labels)
        tensors, told = state_of(model.model_)
        again = clone(model).fit(table, labels)
        again.model_ = from_state(tensors, json.loads(json.dumps(told)), fusion=fusion)
        assert_allclose(again.predict_proba(table), model.predict_proba(table), atol=1e-6)
        for broken in (
            {**tensors, "prior": np.array([np.nan])},
            {k: v for k, v in tensors.items() if "prior" not in k},
        ):
            with pytest.raises(StateError, match=r"NaN or infinity|KeyError"):
                from_state(broken, told, fusion=fusion)


def test_numbers_from_probabilities_are_refused() -> None:
    table, labels = made()
    with pytest.raises(ValueError, match="fusion 'late-stack' gives probabilities of classes, not numbers"):
        BlockRegressor(blocks=BLOCKS, fusion="late-stack").fit(table, labels)
    model = BlockRegressor(blocks=BLOCKS, fusion="gated-units").fit(table, labels)
    assert model.score(*made(seed=1)) > 0.5


def test_agreement_is_chosen_where_only_it_can_tell() -> None:
    random = np.random.default_rng(0)
    bits = random.integers(0, 2, (300, 2)) * 2 - 1
    table = np.c_[bits[:, [0]] * [1, 1, 0] + 0.3 * random.normal(size=(300, 3)), bits[:, [1]] * [1, 0]]
    table[:, 4] = 0.3 * random.normal(size=300)
    labels = (bits[:, 0] == bits[:, 1]).astype(int)
    model = BlockClassifier(blocks=BLOCKS).fit(table, labels)
    used = model.models()["photo", "sound"]
    assert used.way in ("agreement", "product", "sum")
    assert model.score(table, labels) > 0.9
    assert max(used.tried["photo"], used.tried["sound"]) < 0.65
    assert used.tried["agreement"] > 0.9


def test_a_wide_view_of_noise_does_not_drown_a_narrow_one() -> None:
    random = np.random.default_rng(5)
    labels = random.integers(3, size=300)
    told = np.eye(3)[labels] + 0.5 * random.normal(size=(300, 3))
    table = np.hstack([told, random.normal(size=(300, 400))])
    block = {"all": (0, 403)}
    train, test = slice(0, 200), slice(200, 300)
    plain = BlockClassifier(blocks=block).fit(table[train], labels[train]).score(table[test], labels[test])
    viewed = BlockClassifier(blocks=block, views={"all": [3, 400]}).fit(table[train], labels[train])
    assert viewed.score(table[test], labels[test]) > plain + 0.1
    with pytest.raises(ValueError, match=r"views\['all'\] must be of 403 columns in all, got 3, 401"):
        BlockClassifier(blocks=block, views={"all": [3, 401]}).fit(table, labels)
