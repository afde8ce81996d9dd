"""Transfer between modalities that lie apart: centring closes the gap."""

from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.utils.estimator_checks import parametrize_with_checks

from trivium.encoders.base import unit_rows
from trivium.fusion import BlockTransferClassifier
from trivium.fusion.state import StateError, from_state, state_of

BLOCKS = {"image": (0, 16), "text": (16, 32)}


def modalities(n: int = 200) -> tuple[np.ndarray, np.ndarray]:
    """Return tables of n rows with both modalities, and labels."""
    random = np.random.default_rng(0)
    truth = random.integers(4, size=n)
    shared = 0.6 * np.eye(4, 16)[truth] + 0.1 * random.normal(size=(n, 16))
    gap = 1.0 * np.eye(16)[0]  # along a class: what it shifts, a plain classifier takes for that class
    table = np.hstack([unit_rows(shared - gap), unit_rows(shared + gap)])
    return table, np.array(list("abcd"))[truth]


def only(table: np.ndarray, name: str) -> np.ndarray:
    found = np.full_like(table, np.nan)
    found[:, slice(*BLOCKS[name])] = table[:, slice(*BLOCKS[name])]
    return found


def test_centring_lets_one_modality_judge_another() -> None:
    table, labels = modalities()
    centred = BlockTransferClassifier(blocks=BLOCKS, train_on="image", ridge=1e-3).fit(table, labels)
    plain = clone(centred).set_params(centring=False).fit(table, labels)
    assert centred.score(only(table, "image"), labels) > 0.9
    assert centred.score(only(table, "text"), labels) > 0.9
    assert plain.score(only(table, "text"), labels) < 0.5
    probabilities = centred.predict_proba(table)
    assert_allclose(probabilities.sum(axis=1), 1)


def test_no_label_of_another_modality_is_used() -> None:
    table, labels = modalities()
    first = BlockTransferClassifier(blocks=BLOCKS, train_on="image").fit(table, labels)
    half = table.copy()
    half[100:, :16] = np.nan  # rows without what teaches: their labels are not looked at
    wrong = np.concatenate([labels[:100], np.full(100, "z")])
    second = BlockTransferClassifier(blocks=BLOCKS, train_on="image").fit(half, wrong)
    third = BlockTransferClassifier(blocks=BLOCKS, train_on="image").fit(only(half, "image")[:100], labels[:100])
    third.centre(only(table, "text"))
    assert list(second.classes_) == list(first.classes_) == list("abcd")
    assert_allclose(second.predict_proba(only(table, "text")), third.predict_proba(only(table, "text")), rtol=1e-6)


def test_as_scikit_learns_regression_would() -> None:
    table, labels = modalities()
    for wanted in (np.isin(labels, ["a", "b"]), np.ones(len(labels), bool)):
        rows, truth = table[wanted, :16], labels[wanted]
        ours = BlockTransferClassifier(ridge=0.1).fit(rows, truth)
        centred = unit_rows(rows - rows.mean(axis=0))
        theirs = LogisticRegression(C=10, max_iter=1_000).fit(centred, truth)
        assert_allclose(ours.predict_proba(rows), theirs.predict_proba(centred), atol=1e-4)


def test_several_modalities_of_a_row_are_one_vector() -> None:
    table, labels = modalities()
    model = BlockTransferClassifier(blocks=BLOCKS).fit(table, labels)
    parts = [unit_rows(table[:, a:b] - table[:, a:b].mean(axis=0)) for a, b in BLOCKS.values()]
    common = unit_rows(parts[0] + parts[1])
    logits = common @ model.model_.weight.T + model.model_.bias
    assert_array_equal(model.predict(table), model.classes_[logits.argmax(axis=1)])
    added = model.contributions(table)
    assert_allclose(added["text"], model.predict_proba(table) - model.predict_proba(only(table, "image")), atol=1e-12)
    nothing = np.full((2, 32), np.nan)
    assert_allclose(
        model.predict_proba(nothing), np.tile(np.bincount(np.unique(labels, return_inverse=True)[1]) / 200, (2, 1))
    )


def test_state_comes_back() -> None:
    table, labels = modalities()
    model = BlockTransferClassifier(blocks=BLOCKS, train_on="text").fit(table, labels).model_
    tensors, told = state_of(model)
    back: Any = from_state(tensors, told, fusion="")
    presence = {name: np.ones(len(table), bool) for name in BLOCKS}
    blocks = {name: table[:, a:b] for name, (a, b) in BLOCKS.items()}
    assert_array_equal(back.predict(blocks, presence), model.predict(blocks, presence))
    del tensors["centres.image"]
    with pytest.raises(StateError, match=r"centres\.image"):
        from_state(tensors, told, fusion="")


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"train_on": "audio"}, "train_on must be one of image, text, got 'audio'"),
        ({"blocks": {"image": (0, 16), "text": (16, 31)}}, r"blocks must be of one space, got widths \[15, 16\]"),
    ],
)
def test_wrong_settings(parameters: dict[str, Any], message: str) -> None:
    table, labels = modalities()
    with pytest.raises(ValueError, match=message):
        BlockTransferClassifier(**{"blocks": BLOCKS, **parameters}).fit(table, labels)


def test_what_cannot_be_learnt_or_asked_is_told() -> None:
    table, labels = modalities()
    with pytest.raises(ValueError, match="the rows that have 'image' must be of at least two classes, got 0 class"):
        BlockTransferClassifier(blocks=BLOCKS, train_on="image").fit(only(table, "text"), labels)
    fitted = BlockTransferClassifier(blocks=BLOCKS, train_on="image").fit(only(table, "image"), labels)
    with pytest.raises(ValueError, match="'text' was not centred, only image"):
        fitted.predict(table)


@parametrize_with_checks([BlockTransferClassifier()])
def test_scikit_learns_checks(estimator: Any, check: Any) -> None:
    check(estimator)
