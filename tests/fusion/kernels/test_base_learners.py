"""What fusions by kernels are made of: against slow versions, and by what must hold of them."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from trivium.fusion.blocks import (
    LARGEST,
    BlockScaler,
    Targets,
    check_blocks,
    check_views,
    folds_of,
    groups_of,
    presence_of,
)
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
from trivium.fusion.kernels.selection import (
    CalibrationMap,
    calibrate_classes,
    calibrate_value,
    macro_f1,
    simplest,
    stacked,
)

RANDOM = np.random.default_rng(0)


def test_scale_as_by_hand() -> None:
    rows = RANDOM.normal(3, 2, size=(50, 4))
    rows[0, 0] = 1_000
    found = BlockScaler.of(rows)(rows)
    for column in range(4):
        values = rows[:, column]
        for row in range(50):
            wanted = max(-LARGEST, min(LARGEST, (values[row] - values.mean()) / values.std())) / 2
            assert found[row, column] == pytest.approx(wanted)


def test_columns_that_never_change_stay_where_they_are() -> None:
    rows = np.hstack([np.full((9, 1), 5.0), RANDOM.normal(size=(9, 3))])
    assert (BlockScaler.of(rows)(rows)[:, 0] == 0).all()
    assert (BlockScaler.of(np.ones((4, 2)))(np.ones((4, 2))) == 0).all()


def test_views_weigh_the_same_however_wide_and_large_they_are() -> None:
    narrow, wide = RANDOM.normal(size=(60, 3)), 1_000 * RANDOM.normal(size=(60, 30))
    found = BlockScaler.of(np.hstack([narrow, wide]), [3, 30])(np.hstack([narrow, wide]))
    parts = [BlockScaler.of(rows)(rows) for rows in (narrow, wide)]
    assert_allclose(found, np.hstack(parts) / np.sqrt(2))
    assert_allclose((found[:, :3] ** 2).sum(), (found[:, 3:] ** 2).sum(), rtol=0.05)
    # What hardly varies is judged among its own: the narrow one is no noise beside the large one.
    assert (found[:, :3].std(axis=0) > 0.2).all()


def test_wrong_views_are_told() -> None:
    blocks = {"text": (0, 4), "image": (4, 9)}
    assert check_views({"image": [2, 3]}, blocks) == {"text": (4,), "image": (2, 3)}
    for wrong in ([2, 2], [5, 0], [6, -1]):
        with pytest.raises(ValueError, match=r"views\['image'\] must be of 5 columns in all, got"):
            check_views({"image": wrong}, blocks)


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


def test_calibration_maps() -> None:
    scores = RANDOM.normal(size=(300, 2))
    labels = (scores @ np.array([3.0, -1.0]) + 0.3 * RANDOM.normal(size=300) > 0).astype(np.int64)
    calibration = calibrate_classes(scores, labels, classes=3)  # a class that nobody is of
    chances = calibration.probabilities(scores)
    assert_allclose(chances.sum(axis=1), 1)
    assert (chances.argmax(axis=1) == labels).mean() > 0.95
    assert chances[:, 2].max() < 1e-6
    adjusted = CalibrationMap(np.zeros((2, 2)), np.log([0.9, 0.1])).adjusted(np.array([0.9, 0.1]), 1.0)
    assert_allclose(adjusted.probabilities(scores[:1]), [[0.5, 0.5]])
    number = calibrate_value(scores, 2 * scores[:, :1], mean=5.0)
    assert_allclose(number(scores)[:, 0], 5 + 2 * scores[:, 0], atol=1e-3)


def test_macro_f1_as_scikit_learns() -> None:
    from sklearn.metrics import f1_score

    for _ in range(20):
        actual, predicted = RANDOM.integers(0, 4, 30), RANDOM.integers(0, 5, 30)
        assert macro_f1(actual, predicted, classes=6) == pytest.approx(f1_score(actual, predicted, average="macro"))


def test_the_simpler_candidate_is_taken_on_a_tie() -> None:
    labels = np.arange(60) % 2
    targets = Targets(values=np.eye(2)[labels] - 0.5, labels=labels, mean=np.full(2, 0.5), metric="f1_macro")
    folds = np.arange(60) % 5
    trials = KernelSearch({"a": np.array(labels[:, None] * 2.0, np.float64)}, targets.values, targets.weights, folds)
    tried = trials.weighted(["a"])
    candidates = [stacked("first", [tried], targets, folds), stacked("second", [tried], targets, folds)]
    assert simplest(candidates, targets, seed=0).name == "first"
    noise = KernelSearch({"a": RANDOM.normal(size=(60, 1))}, targets.values, targets.weights, np.arange(60) % 5)
    assert (
        simplest([stacked("noise", [noise.weighted(["a"])], targets, folds), candidates[0]], targets, seed=0).name
        == "first"
    )


def test_groups_and_folds() -> None:
    table = RANDOM.normal(size=(40, 3))
    table[:, 2] = np.arange(40) // 4  # ten contents, four rows each
    table[36:, 2] = np.nan
    groups = groups_of(table, {"text": (0, 2), "image": (2, 3)})
    for start in range(0, 36, 4):
        assert len(set(groups[start : start + 4])) == 1
    assert len(set(groups[36:])) == 4  # what is missing is not the same
    labels = np.arange(40) // 20
    folds = folds_of(labels, groups, count=5, seed=0)
    for group in set(groups):
        assert len(set(folds[groups == group])) == 1
    alone = folds_of(labels, np.arange(40), count=5, seed=0)
    for label in (0, 1):
        assert_array_equal(np.bincount(alone[labels == label]), [4] * 5)


def test_blocks_that_cannot_be() -> None:
    with pytest.raises(ValueError, match=r"blocks\['a'\] is \(2, 9\), the table has columns 0 to 5"):
        check_blocks({"a": (2, 9)}, 5)
    with pytest.raises(ValueError, match="blocks 'a' and 'b' share columns 2 to 3"):
        check_blocks({"a": (0, 3), "b": (2, 5)}, 5)
    with pytest.raises(ValueError, match="blocks must name at least one modality, got none"):
        check_blocks({}, 5)
    table = np.ones((3, 4))
    table[1, 2] = np.nan
    with pytest.raises(ValueError, match="'b' has NaN among its numbers in 1 of 3 rows, first in row 1"):
        presence_of(table, {"a": (0, 2), "b": (2, 4)})
