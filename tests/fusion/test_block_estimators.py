"""The estimators over tables are proper scikit-learn estimators, and do with several modalities what they promise."""

from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose
from sklearn.base import clone
from sklearn.utils.estimator_checks import estimator_checks_generator

from trivium.fusion.block_estimators import BlockClassifier, BlockRegressor

CHECKS = [
    pytest.param(estimator, check, id=f"{type(estimator).__name__}-{check.func.__name__}")
    for one in (BlockClassifier(most_rows=60), BlockRegressor(most_rows=60))
    for estimator, check in estimator_checks_generator(one)
]


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
@pytest.mark.parametrize(("estimator", "check"), CHECKS)
def test_scikit_learns_own_checks(estimator: Any, check: Any) -> None:
    check(estimator)
