"""Feature blocks: their scale, their gaps, and which rows belong together."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from trivium.fusion.blocks import (
    LARGEST,
    BlockScaler,
    check_blocks,
    check_views,
    folds_of,
    groups_of,
    presence_of,
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
