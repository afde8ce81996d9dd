"""The closed forms against their definitions."""

import numpy as np
import pytest

from trivium.fusion.projections.closed_form import canonical_maps, ridge_map

RANDOM = np.random.default_rng(0)
N = 500


def centred(x: np.ndarray) -> np.ndarray:
    return np.asarray(x - x.mean(axis=0), np.float32)


def views(noise: float = 0.1) -> tuple[np.ndarray, np.ndarray]:
    """Two views of three hidden numbers."""
    hidden = RANDOM.normal(size=(N, 3))
    x = hidden @ RANDOM.normal(size=(3, 6)) + noise * RANDOM.normal(size=(N, 6))
    y = hidden @ RANDOM.normal(size=(3, 5)) + noise * RANDOM.normal(size=(N, 5))
    return centred(x), centred(y)


def test_canonical_directions_are_uncorrelated_and_correlate_in_pairs() -> None:
    x, y = views()
    a, b = canonical_maps(x, y, dim=4, ridge=(0, 0), power=0)
    u, v = x @ a, y @ b
    np.testing.assert_allclose(u.T @ u / N, np.eye(4), atol=1e-3)
    np.testing.assert_allclose(v.T @ v / N, np.eye(4), atol=1e-3)
    cross = u.T @ v / N
    np.testing.assert_allclose(cross, np.diag(np.diag(cross)), atol=1e-3)
    assert (np.diag(cross)[:3] > 0.98).all()  # what they share
    assert np.diag(cross)[3] < 0.3


def test_power_scales_by_correlation() -> None:
    x, y = views(noise=1.0)
    plain, scaled = (canonical_maps(x, y, dim=5, ridge=(0.1, 0.1), power=power)[0] for power in (0.0, 2.0))
    lengths = np.linalg.norm(scaled, axis=0) / np.linalg.norm(plain, axis=0)
    assert (np.diff(lengths) < 0).all()
    assert lengths[0] <= 1


def test_more_numbers_than_directions_are_zero() -> None:
    x, y = views()
    a, b = canonical_maps(x, y, dim=8)
    assert a.shape == (6, 8)
    assert b.shape == (5, 8)
    assert not a[:, 5:].any()
    assert not b[:, 5:].any()


def test_constant_inputs_do_no_harm() -> None:
    x, y = views()
    x[:, 0] = 0
    a, b = canonical_maps(x, y, dim=3)
    assert np.isfinite(a).all()
    assert np.isfinite(b).all()
    assert np.isfinite(ridge_map(x, y)).all()


def test_weights_are_repetitions() -> None:
    x, y = views()
    times = RANDOM.integers(1, 4, N)
    repeated = np.repeat(np.arange(N), times)
    for found, expected in zip(
        canonical_maps(x, y, times.astype(float), dim=3), canonical_maps(x[repeated], y[repeated], dim=3), strict=True
    ):
        np.testing.assert_allclose(np.abs(found), np.abs(expected), atol=1e-4)
    np.testing.assert_allclose(
        ridge_map(x, y, times.astype(float)), ridge_map(x[repeated], y[repeated]), rtol=1e-3, atol=1e-5
    )


@pytest.mark.parametrize("ridge", [0.01, 1.0])
def test_ridge_is_the_minimum(ridge: float) -> None:
    x, y = views(noise=1.0)
    penalty = ridge * np.trace(x.T @ x / N) / x.shape[1]

    def cost(w: np.ndarray) -> float:
        return float(((x @ w - y) ** 2).sum() / N + penalty * (w**2).sum())

    best = ridge_map(x, y, ridge=ridge)
    for _ in range(20):
        assert cost(best) <= cost(best + 0.01 * RANDOM.normal(size=best.shape))


def test_fewer_pairs_than_numbers_give_the_same_maps() -> None:
    """As with rows of zeros added that count for nothing, which take the other way."""
    random = np.random.default_rng(1)
    x, y = (random.normal(size=(20, width)).astype(np.float32) for width in (60, 30))
    ones = np.concatenate([np.ones(20), np.zeros(50)])
    long_x, long_y = (np.concatenate([side, np.zeros((50, side.shape[1]), np.float32)]) for side in (x, y))
    many = canonical_maps(long_x, long_y, ones, dim=10)
    for found, expected in zip(canonical_maps(x, y, dim=10), many, strict=True):
        signs = np.sign((found * expected).sum(axis=0))  # a direction may point either way
        np.testing.assert_allclose(found * signs, expected, atol=1e-6)
    np.testing.assert_allclose(ridge_map(x, y), ridge_map(long_x, long_y, ones), atol=1e-6)
