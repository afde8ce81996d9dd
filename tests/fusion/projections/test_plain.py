"""The plain projections: rows of length 1, and the arithmetic that their names say."""

from collections.abc import Callable
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.testing import assert_allclose
from numpy.typing import NDArray

from trivium.encoders.base import Features, unit_rows
from trivium.fusion.projections.plain import (
    CentredProjection,
    IdentityProjection,
    LabelBridge,
    LinearProjection,
    softmax,
)

POOLED = np.array([[3, 4, 0], [0, 0, -2], [1, 1, 1]], np.float32)


def of(pooled: NDArray[np.float32]) -> Features:
    return Features(pooled=pooled)


def unit(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.stack([row / np.sqrt(sum(row * row)) for row in rows])


def test_identity() -> None:
    found = IdentityProjection()(of(POOLED))
    assert found.dtype == np.float32
    assert_allclose(found, unit(POOLED.astype(np.float64)), atol=1e-6)


def test_identity_keeps_a_zero_row() -> None:
    assert_allclose(IdentityProjection()(of(np.zeros((1, 3), np.float32))), np.zeros((1, 3)))


def test_linear_without_bias() -> None:
    weight = np.array([[1, 0], [0, 1], [2, 2]], np.float32)
    found = LinearProjection(weight)(of(POOLED))
    assert_allclose(found, unit(np.array([[3.0, 4.0], [-4.0, -4.0], [3.0, 3.0]])), atol=1e-6)
    assert found.dtype == np.float32


def test_linear_with_bias() -> None:
    weight = np.array([[1, 0], [0, 1], [2, 2]], np.float32)
    found = LinearProjection(weight, np.array([1, -4], np.float32))(of(POOLED))
    assert_allclose(found, unit(np.array([[4.0, 0.0], [-3.0, -8.0], [4.0, -1.0]])), atol=1e-6)


def test_linear_of_no_rows() -> None:
    projection = LinearProjection(np.eye(3, dtype=np.float32))
    assert projection(of(np.empty((0, 3), np.float32))).shape == (0, 3)


@pytest.mark.parametrize(
    ("weight", "bias", "message"),
    [
        (np.zeros(3), None, r"got \(3,\) and \(3,\)"),
        (np.zeros((3, 2)), np.zeros(3), r"got \(3, 2\) and \(3,\)"),
        (np.zeros((3, 2)), np.zeros((1, 2)), r"got \(3, 2\) and \(1, 2\)"),
    ],
)
def test_linear_shapes(weight: NDArray[np.float32], bias: NDArray[np.float32] | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LinearProjection(weight, bias)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_linear_must_be_finite(bad: float) -> None:
    with pytest.raises(ValueError, match="holds NaN or infinity"):
        LinearProjection(np.full((2, 2), bad, np.float32))
    with pytest.raises(ValueError, match="holds NaN or infinity"):
        LinearProjection(np.eye(2, dtype=np.float32), np.array([0, bad], np.float32))


def test_centred() -> None:
    mean = np.array([0.2, 0.0, -0.1], np.float32)
    expected = unit(unit(POOLED.astype(np.float64)) - mean)
    assert_allclose(CentredProjection(mean)(of(POOLED)), expected, atol=1e-6)


def test_centred_does_not_see_the_features_length() -> None:
    projection = CentredProjection(np.array([0.2, 0.0, -0.1], np.float32))
    assert_allclose(projection(of(POOLED)), projection(of(8 * POOLED)), atol=1e-6)


# Sums over at most a few dozen float32 products, each of relative error 6e-8.
FLOAT32 = 1e-5

LOGITS = arrays(
    np.float32,
    array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=6),
    elements=st.integers(-80, 80).map(lambda quarters: quarters / 4),
)


def features(**logits: NDArray[np.float32]) -> Features:
    count = len(next(iter(logits.values()))) if logits else 1
    return Features(pooled=np.zeros((count, 1), np.float32), logits=logits)


def drawn(seed: int, *shape: int) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("temperature", [0.25, 1.0, 4.0])
@pytest.mark.parametrize("heads", [{"a": 5}, {"a": 5, "b": 2}, {"a": 3, "b": 7, "c": 1}])
def test_equals_the_reference(
    reference: Callable[[str], ModuleType], heads: dict[str, int], temperature: float
) -> None:
    labels = {head: drawn(len(head) + classes, classes, 6) for head, classes in heads.items()}
    logits = {head: 3 * drawn(classes, 4, classes) for head, classes in heads.items()}
    found = LabelBridge(labels, temperature=temperature)(features(**logits))
    assert found.dtype == np.float32
    assert_allclose(found, reference("conse").bridge(logits, labels, temperature), atol=FLOAT32)
    assert_allclose(np.linalg.norm(found, axis=1), 1.0, atol=FLOAT32)


def test_a_sure_classifier_gives_the_label_itself() -> None:
    labels = unit_rows(drawn(1, 4, 8))
    logits = np.full((4, 4), -50, np.float32)
    np.fill_diagonal(logits, 50)
    assert_allclose(LabelBridge({"h": labels}, temperature=1.0)(features(h=logits)), labels, atol=FLOAT32)


def test_heat_brings_the_mean_of_all_labels() -> None:
    labels = drawn(2, 4, 8)
    found = LabelBridge({"h": labels}, temperature=1e6)(features(h=drawn(3, 2, 4)))
    mean = unit_rows(labels.mean(axis=0, keepdims=True))
    assert_allclose(found, np.repeat(mean, 2, axis=0), atol=FLOAT32)


def test_cold_leaves_the_likeliest() -> None:
    labels = unit_rows(drawn(2, 4, 8))
    found = LabelBridge({"h": labels}, temperature=1e-3)(features(h=np.array([[0, 1, 3, 2]], np.float32)))
    assert_allclose(found[0], labels[2], atol=FLOAT32)


def test_heads_weigh_the_same_in_any_order() -> None:
    labels = {"a": drawn(1, 3, 4), "b": drawn(2, 9, 4)}
    given_logits = {"b": drawn(3, 5, 9), "a": drawn(4, 5, 3), "unused": drawn(5, 5, 2)}
    forth = LabelBridge(labels, temperature=2.0)(features(**given_logits))
    back = LabelBridge(dict(reversed(labels.items())), temperature=2.0)(features(**given_logits))
    assert_allclose(forth, back, atol=FLOAT32)


def test_no_items() -> None:
    bridge = LabelBridge({"a": drawn(1, 3, 4)}, temperature=1.0)
    assert bridge(features(a=np.empty((0, 3), np.float32))).shape == (0, 4)


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan")])
def test_temperature_must_be_above_0(temperature: float) -> None:
    with pytest.raises(ValueError, match=f"temperature must be above 0, got {temperature}"):
        LabelBridge({"a": drawn(1, 3, 4)}, temperature=temperature)


def test_heads_of_two_widths() -> None:
    with pytest.raises(ValueError, match=r"share one width, got a \(3, 4\), b \(3, 5\)"):
        LabelBridge({"a": drawn(1, 3, 4), "b": drawn(1, 3, 5)}, temperature=1.0)


def test_no_head() -> None:
    with pytest.raises(ValueError, match="got none"):
        LabelBridge({}, temperature=1.0)


def test_head_missing() -> None:
    with pytest.raises(ValueError, match=r"head 'a' has 3 labels, the backbone has b \(2, 3\)"):
        LabelBridge({"a": drawn(1, 3, 4)}, temperature=1.0)(features(b=drawn(1, 2, 3)))


def test_head_of_another_size() -> None:
    with pytest.raises(ValueError, match=r"head 'a' has 3 labels, the backbone has a \(2, 4\)"):
        LabelBridge({"a": drawn(1, 3, 4)}, temperature=1.0)(features(a=drawn(1, 2, 4)))


@given(LOGITS)
def test_softmax_gives_probabilities(logits: NDArray[np.float32]) -> None:
    found = softmax(logits)
    assert found.shape == logits.shape
    assert (found >= 0).all()
    assert_allclose(found.sum(axis=1), 1.0, atol=FLOAT32)


@given(LOGITS, st.integers(-1000, 1000))
def test_softmax_does_not_see_a_shift(logits: NDArray[np.float32], shift: int) -> None:
    assert_allclose(softmax(logits + np.float32(shift)), softmax(logits), atol=FLOAT32)


@given(LOGITS)
def test_softmax_keeps_the_order(logits: NDArray[np.float32]) -> None:
    found = softmax(logits)
    order = np.argsort(logits, axis=1)
    assert (np.diff(np.take_along_axis(found, order, axis=1), axis=1) >= 0).all()
    assert (found.argmax(axis=1) == logits.argmax(axis=1)).all()


def test_softmax_of_large_scores_is_finite() -> None:
    found = softmax(np.array([[1e30, 0.0], [-1e30, -1e30]], np.float32))
    assert found.tolist() == [[1, 0], [0.5, 0.5]]
