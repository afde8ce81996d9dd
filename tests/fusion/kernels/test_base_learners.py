"""Base learners against slow versions, and by what must hold of them."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from trivium.fusion.kernels.base_learners import (
    WIDTH,
    Agreement,
    KernelSearch,
    KernelSettings,
    fit_agreement,
    gaussian,
    out_of_fold,
    out_of_fold_agreements,
    solve,
    solve_on_centres,
)

RANDOM = np.random.default_rng(0)


def test_gaussian_as_by_hand() -> None:
    x, y = RANDOM.normal(size=(5, 3)), RANDOM.normal(size=(4, 3))
    y[2] = np.nan
    found = gaussian(x, y)
    for i in range(5):
        for j in range(4):
            wanted = 0.0 if j == 2 else np.exp(-WIDTH * sum((x[i, k] - y[j, k]) ** 2 for k in range(3)))
            assert found[i, j] == pytest.approx(wanted)


def test_kernel_settings_as_by_hand() -> None:
    kernels = {"a": RANDOM.random((3, 3)), "b": RANDOM.random((3, 3))}
    settings = KernelSettings(weights={"a": 2.0, "b": 1.0}, product=3.0)
    wanted = [[(2 * kernels["a"][i, j] + kernels["b"][i, j] + 3 * kernels["a"][i, j] * kernels["b"][i, j]) / 6
               for j in range(3)] for i in range(3)]  # fmt: skip
    assert_allclose(settings.matrix(kernels), wanted)


def test_ridge_is_where_the_loss_is_least() -> None:
    rows, targets = RANDOM.normal(size=(20, 3)), RANDOM.normal(size=(20, 2))
    kernel = gaussian(rows, rows)
    found = solve(kernel, targets, penalty=0.3)

    def loss(coefficients: np.ndarray) -> float:
        rest = kernel @ coefficients - targets
        return float((rest * rest).sum() + 0.3 * np.trace(coefficients.T @ kernel @ coefficients))

    least = loss(found)
    for _ in range(50):
        assert loss(found + 1e-3 * RANDOM.normal(size=found.shape)) > least
    # With all rows as centres, centres say the same.
    assert_allclose(kernel @ solve_on_centres(kernel, kernel, targets, penalty=0.3), kernel @ found, atol=1e-4)


def test_out_of_fold_is_a_fit_without_the_fold() -> None:
    rows, targets = RANDOM.normal(size=(12, 3)), RANDOM.normal(size=(12, 1))
    folds = np.arange(12) % 3
    kernel = gaussian(rows, rows)
    found = out_of_fold(kernel, targets, folds, penalty=0.1)
    for fold in range(3):
        own = np.flatnonzero(folds != fold)
        for row in np.flatnonzero(folds == fold):
            coefficients = np.linalg.inv(kernel[np.ix_(own, own)] + 0.1 * np.eye(len(own))) @ targets[own]
            assert found[row, 0] == pytest.approx(float(kernel[row, own] @ coefficients[:, 0]), abs=1e-5)


def test_a_modality_of_noise_weighs_less() -> None:
    labels = RANDOM.integers(0, 2, 120)
    blocks = {"good": np.c_[labels * 2.0 - 1, RANDOM.normal(size=120) * 0.2], "noise": RANDOM.normal(size=(120, 2))}
    targets = np.eye(2)[labels] - 0.5
    trials = KernelSearch(blocks, targets, np.ones(120), np.arange(120) % 5)
    found = trials.weighted(["good", "noise"])
    assert isinstance(found.settings, KernelSettings)
    assert found.settings.weights["good"] > found.settings.weights["noise"]
    assert found.loss <= trials.penalised(KernelSettings(weights={"good": 1.0, "noise": 1.0})).loss


def pairs_that_match(n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows of two modalities that share what they hide, in half of the cases."""
    hidden = RANDOM.normal(size=(n, 4))
    labels = np.arange(n) % 2
    other = np.where(labels[:, None] == 1, hidden, RANDOM.normal(size=(n, 4)))
    maps = np.random.default_rng(9)
    x = hidden @ maps.normal(size=(4, 12)) + 0.1 * RANDOM.normal(size=(n, 12))
    y = other @ maps.normal(size=(4, 9)) + 0.1 * RANDOM.normal(size=(n, 9))
    return x, y, labels


def test_agreement_finds_what_belongs_together() -> None:
    x, y, labels = pairs_that_match(600)
    agreement = fit_agreement(x[:400], y[:400], labels[:400], classes=2, rank=4, ridge=0.1)
    scores = agreement(x[400:], y[400:])[:, 0]
    right = scores[labels[400:] == 1][:, None] > scores[labels[400:] == 0][None, :]
    assert right.mean() > 0.9
    u, v = x[400] @ agreement.left[0], y[400] @ agreement.right[0]
    assert scores[0] == pytest.approx(float(u @ v) / np.sqrt(float(u @ u) * float(v @ v)))


def test_agreement_out_of_fold_does_not_know_the_fold() -> None:
    x, y, _ = pairs_that_match(200)
    labels = np.random.default_rng(5).integers(0, 2, 200)  # nothing to be learned
    for _, _, scores in out_of_fold_agreements(x, y, labels, np.arange(200) % 5, classes=2):
        right = scores[labels == 1] > scores[labels == 0][:, 0]
        assert abs(right.mean() - 0.5) < 0.12
    known = fit_agreement(x, y, labels, classes=2, rank=9, ridge=0.1)(x, y)[:, 0]
    assert (known[labels == 1][:, None] > known[labels == 0]).mean() > 0.6  # what it would have said


def test_agreement_of_zeros() -> None:
    assert (Agreement(np.zeros((1, 3, 2)), np.zeros((1, 3, 2)))(np.ones((2, 3)), np.ones((2, 3))) == 0).all()
