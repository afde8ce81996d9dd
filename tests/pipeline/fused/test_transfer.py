"""`TransferClassifier` over frames: what one column taught is asked of another; saved and loaded."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from trivium.fusion import BlockTransferClassifier, FusedClassifier, TransferClassifier
from trivium.pipeline.fused.model_folder import ModelError

Products = Callable[..., pandas.DataFrame]
pytestmark = pytest.mark.usefixtures("made_up")


def test_it_is_the_table_s_own_over_vectors_of_the_space(products: Products) -> None:
    train, test = products(60, seed=0), products(40, seed=1)
    model = TransferClassifier(train_on="image").fit(train, train["label"])
    vectors = model.table(train)
    assert vectors.shape == (60, 8)
    inner = BlockTransferClassifier(blocks={"text": (0, 4), "image": (4, 8)}, train_on="image")
    inner.fit(vectors, train["label"])
    asked = model.table(test[["text"]])
    assert np.isnan(asked[:, 4:]).all()
    assert_allclose(model.predict_proba(test[["text"]]), inner.predict_proba(asked))
    assert_array_equal(model.predict(test), inner.predict(model.table(test)))
    assert model.models() == {}


def test_titles_without_labels_say_where_titles_lie(products: Products) -> None:
    train, others, test = products(60, seed=0), products(60, seed=1), products(40, seed=2)
    model = TransferClassifier(train_on="image").fit(train[["image"]], train["label"])
    with pytest.raises(ValueError, match="'text' was not centred, only image"):
        model.predict(test[["text"]])
    model.centre(others[["text"]])
    before = model.predict_proba(test[["image"]])
    assert model.predict_proba(test[["text"]]).shape == (40, 6)
    with pytest.raises(ValueError, match="5 rows with 'text' do not say where its vectors lie, 30 would"):
        model.centre(others[["text"]][:5])
    assert_allclose(model.predict_proba(test[["image"]]), before)  # pictures lie where they lay


def test_saved_and_loaded(products: Products, tmp_path: Path) -> None:
    train, test = products(60, seed=0), products(40, seed=1)
    model = TransferClassifier(train_on="text", ridge=0.1).fit(train, train["label"])
    model.save(tmp_path / "model")
    back = TransferClassifier.load(tmp_path / "model")
    assert back.get_params() == model.get_params()
    assert back.label_name_ == "label"
    assert_allclose(back.predict_proba(test[["image"]]), model.predict_proba(test[["image"]]), rtol=1e-6)
    assert_allclose(back.contributions(test)["text"], model.contributions(test)["text"], atol=1e-7)
    with pytest.raises(ModelError, match="is no classifier of format 2, it is transfer of format 2"):
        FusedClassifier.load(tmp_path / "model")
