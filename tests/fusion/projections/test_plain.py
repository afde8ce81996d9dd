"""The plain projections: rows of length 1, and the arithmetic that their names say."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from numpy.typing import NDArray

from trivium.encoders.base import Features
from trivium.fusion.projections.plain import CentredProjection, IdentityProjection, LinearProjection

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
