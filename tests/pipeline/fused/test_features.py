"""`FusedFeatures`: what its numbers are, and that they are named, whatever is missing."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas
import pytest
from numpy.testing import assert_allclose
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression

from trivium.fusion import FusedFeatures
from trivium.pipeline.fused.features import NETWORKS

Products = Callable[..., pandas.DataFrame]
pytestmark = pytest.mark.usefixtures("made_up")


def test_concatenation_is_standardised(products: Products) -> None:
    train = products(50)
    train.loc[:9, "image"] = None
    maker = FusedFeatures()
    found = maker.fit_transform(train)
    names = list(maker.get_feature_names_out())
    assert found.shape == (50, len(names)) == (50, 6 + 7 + 2)
    assert found.dtype == np.float32
    text = found[:, :6] * np.sqrt(6 / (13 / 2))  # modalities weigh the same
    assert_allclose(text.mean(axis=0), 0, atol=1e-5)
    assert_allclose(text.std(axis=0), 1, atol=1e-4)
    assert (found[:10, 6:13] == 0).all()  # the mean, where it is missing
    assert found[:, names.index("has_image")].tolist() == [0] * 10 + [1] * 40


def test_mean_is_of_unit_vectors(products: Products) -> None:
    train = products(20)
    train.loc[0, "image"] = None
    train.loc[1, ["text", "image"]] = None
    found = FusedFeatures(fusion="mean").fit_transform(train)
    alone = [FusedFeatures(fusion="mean").fit(train).transform(train[[m]]) for m in ("text", "image")]
    lengths = np.linalg.norm(found, axis=1)
    assert_allclose(lengths[[0, *range(2, 20)]], 1, rtol=1e-5)
    assert lengths[1] == 0
    assert_allclose(found[0], alone[0][0])
    together = alone[0][2:] + alone[1][2:]
    assert_allclose(found[2:], together / np.linalg.norm(together, axis=1, keepdims=True), atol=1e-5)


@pytest.mark.parametrize("fusion", NETWORKS)
def test_networks_are_trained(products: Products, fusion: str) -> None:
    train, test = products(90), products(40, seed=1)
    maker = FusedFeatures(fusion=fusion).fit(train, train["label"])
    found = maker.transform(train)
    assert found.shape == (90, 64) == (90, len(maker.get_feature_names_out()))
    model = LogisticRegression(max_iter=1_000).fit(found, train["label"])
    assert model.score(maker.transform(test), test["label"]) > 0.6  # six classes
    gone = test.assign(image=np.nan)
    gone.loc[0, "text"] = np.nan
    assert (maker.transform(gone)[0] == 0).all()


def test_set_output(products: Products) -> None:
    train = products(12)
    maker = FusedFeatures().set_output(transform="pandas")
    found: Any = maker.fit_transform(train)
    assert isinstance(found, pandas.DataFrame)
    assert list(found.columns) == list(maker.get_feature_names_out())
    assert list(found.index) == list(train.index)
    assert clone(maker).fit(train).transform(train).equals(found)


def test_errors(products: Products) -> None:
    train = products(12)
    with pytest.raises(ValueError, match="no fusion 'sum': known are concatenation, mean, gated-units"):
        FusedFeatures(fusion="sum").fit(train)
    with pytest.raises(ValueError, match="fusion 'gated-units' is trained: fit needs y"):
        FusedFeatures(fusion="gated-units").fit(train)
    with pytest.raises(NotFittedError, match="This FusedFeatures instance is not fitted yet"):
        FusedFeatures().transform(train)
    with pytest.raises(ValueError, match="no row of X has anything in text that could be encoded"):
        FusedFeatures().fit(train.assign(text=" ")[["text"]])
