"""`FusedClassifier` and `FusedRegressor`: over frames with gaps, inside scikit-learn's tools, saved and loaded."""

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone, is_classifier, is_regressor
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.utils import estimator_checks

import trivium
from trivium.fusion import FusedClassifier, FusedFeatures, FusedRegressor, TransferClassifier
from trivium.pipeline.features.frames import MissingModalityWarning
from trivium.pipeline.fused.model_folder import CONFIG, TENSORS, ModelError

Products = Callable[..., pandas.DataFrame]
pytestmark = pytest.mark.usefixtures("made_up")


def split(products: Products) -> tuple[pandas.DataFrame, pandas.DataFrame]:
    return products(90, seed=0), products(40, seed=1)


def test_together_they_know_what_neither_does(products: Products) -> None:
    train, test = split(products)
    model = FusedClassifier().fit(train, train["label"])
    assert model.score(test, test["label"]) > 0.9
    for column, most in (("text", 0.75), ("image", 0.6)):
        alone = FusedClassifier().fit(train[[column]], train["label"])
        assert alone.score(test[[column]], test["label"]) < most
    probabilities = model.predict_proba(test)
    assert probabilities.shape == (40, 6)
    assert_allclose(probabilities.sum(axis=1), 1)
    assert_array_equal(model.classes_, sorted(set(train["label"])))


def test_rows_with_gaps(products: Products) -> None:
    train, test = split(products)
    train.loc[:20, "image"] = np.nan
    train.loc[21:35, "text"] = None
    model = FusedClassifier().fit(train, train["label"])
    gone = test.copy()
    gone.loc[::2, "image"] = np.nan
    gone.loc[1, ["text", "image"]] = np.nan
    found = model.predict_proba(gone)
    assert np.isfinite(found).all()
    whole = model.predict_proba(test)
    assert_allclose(found[3::2], whole[3::2])  # nothing is missing there
    only_text = model.predict_proba(test[["text"]])
    assert_allclose(found[::2], only_text[::2])
    shares = train["label"].value_counts(normalize=True).sort_index()
    assert_allclose(found[1], shares)


def test_contributions_are_what_leaving_out_takes_away(products: Products) -> None:
    train, test = split(products)
    model = FusedClassifier().fit(train, train["label"])
    test.loc[0, "image"] = np.nan
    added = model.contributions(test)
    assert set(added) == {"text", "image"}
    without = model.predict_proba(test.assign(image=np.nan))
    assert_allclose(added["image"], model.predict_proba(test) - without, atol=1e-12)
    assert (added["image"][0] == 0).all()


def test_a_bad_file_is_missing_and_is_told(products: Products, tmp_path: Path) -> None:
    train, test = split(products)
    (tmp_path / "broken.png").write_bytes(b"no picture")
    test.loc[2, "image"] = str(tmp_path / "broken.png")
    test.loc[5, "image"] = str(tmp_path / "not there.png")
    model = FusedClassifier().fit(train, train["label"])
    with pytest.warns(
        MissingModalityWarning, match=r"2 of 40 items of 'image' could not be encoded .*\(row 2: .*row 5"
    ):
        found = model.predict_proba(test)
    assert_allclose(found[[2, 5]], model.predict_proba(test[["text"]])[[2, 5]])


def test_each_content_is_encoded_once(products: Products, made_up: Any) -> None:
    train = products(60)
    frame, labels = train[["text", "image"]], train["label"]
    search = GridSearchCV(FusedClassifier(), {"fusion": ["sum", "late"], "metric": ["accuracy", "f1_macro"]}, cv=3)
    search.fit(frame, labels)
    assert sorted(made_up.counted) == ["image"] * 60 + ["text"] * 60
    assert search.best_score_ > 0.4  # of six classes, from 40 rows
    assert len(cross_val_score(FusedClassifier(), frame, labels, cv=3)) == 3
    assert len(made_up.counted) == 120


def test_in_a_pipeline(products: Products) -> None:
    train, test = split(products)
    model = make_pipeline(FusedFeatures(), LogisticRegression(max_iter=1_000))
    assert model.fit(train, train["label"]).score(test, test["label"]) > 0.8
    own = make_pipeline("passthrough", FusedClassifier()).fit(train, train["label"])
    assert own.score(test, test["label"]) > 0.8


@pytest.mark.parametrize("fusion", ["auto", "sum", "late", "gated-units", "late-stack"])
def test_saved_and_loaded(products: Products, tmp_path: Path, fusion: str) -> None:
    train, test = split(products)
    train.loc[:10, "image"] = np.nan
    test.loc[:5, "text"] = np.nan
    model = FusedClassifier(fusion=fusion).fit(train, train["label"])
    model.save(tmp_path / "model")
    model.save(tmp_path / "model")  # replaces it
    loaded = FusedClassifier.load(tmp_path / "model")
    assert type(trivium.load_classifier(tmp_path / "model")) is FusedClassifier
    assert_allclose(loaded.predict_proba(test), model.predict_proba(test), atol=1e-5)  # centres are kept as float32
    assert_array_equal(loaded.predict(test), model.predict(test))
    assert loaded.get_params() == model.get_params()
    assert loaded.label_name_ == "label"
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == [CONFIG, TENSORS]


def test_numbers(products: Products, tmp_path: Path) -> None:
    train, test = split(products)
    prices = {"shirt": 10.0, "shoe": 30.0, "watch": 80.0}

    def price(frame: pandas.DataFrame) -> Any:
        return frame["label"].map(lambda label: prices[label.split()[1]] + 5.0 * label.startswith("red"))

    model = FusedRegressor().fit(train, price(train))
    assert model.score(test, price(test)) > 0.8
    nothing = test.assign(text=np.nan, image=np.nan)
    assert_allclose(model.predict(nothing), price(train).mean())
    assert_allclose(model.contributions(test)["text"], model.predict(test) - model.predict(test[["image"]]))
    model.save(tmp_path / "model")
    assert_allclose(FusedRegressor.load(tmp_path / "model").predict(test), model.predict(test), rtol=1e-4)
    with pytest.raises(ModelError, match="is no classifier of format 2, it is regressor of format 2"):
        FusedClassifier.load(tmp_path / "model")


@pytest.mark.parametrize("estimator", [FusedClassifier(), FusedRegressor(), FusedFeatures(), TransferClassifier()])
@pytest.mark.parametrize(
    "name",
    [
        "check_estimator_cloneable",
        "check_estimator_repr",
        "check_estimator_tags_renamed",
        "check_get_params_invariance",
        "check_mixin_order",
        "check_no_attributes_set_in_init",
        "check_parameters_default_constructible",
        "check_set_params",
        "check_valid_tag_types",
    ],
)
def test_scikit_learns_checks_that_need_no_table_of_numbers(estimator: Any, name: str) -> None:
    getattr(estimator_checks, name)(type(estimator).__name__, clone(estimator))


def test_as_scikit_learn_expects(products: Products) -> None:
    train = products(60)
    model = FusedClassifier(random_state=3)
    assert is_classifier(model)
    assert is_regressor(FusedRegressor())
    with pytest.raises(NotFittedError, match="This FusedClassifier instance is not fitted yet"):
        model.predict(train)
    before = model.get_params()
    frame = train.copy()
    assert model.fit(train, train["label"]) is model
    assert model.get_params() == before
    pandas.testing.assert_frame_equal(train, frame)
    first = model.predict_proba(train)
    assert_array_equal(clone(model).fit(train, train["label"]).predict_proba(train), first)  # nothing is left to chance
    assert_array_equal(model.feature_names_in_, ["text", "image"])
    turned = train.iloc[::-1]
    assert_allclose(model.predict_proba(turned)[::-1], first)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda f: f[["label"]], ValueError, "X must have a column among text, image, its columns: label"),
        (lambda f: f.to_numpy(), TypeError, "X must be a DataFrame with columns among text, image, got ndarray"),
        (lambda f: f.assign(text=3), TypeError, "'text' must hold a text or nothing in each row, got int in row 0"),
        (
            lambda f: f.assign(text=None, image=None),
            ValueError,
            "no row of X has anything in text, image that could be encoded",
        ),
    ],
)
def test_wrong_frames(products: Products, change: Any, error: type[Exception], message: str) -> None:
    train = products(30)
    with pytest.raises(error, match=message):
        FusedClassifier().fit(change(train), train["label"])


def test_wrong_settings(products: Products) -> None:
    train = products(30)
    with pytest.raises(ValueError, match="no fusion 'best': known are auto, sum, product, late, agreement, concaten"):
        FusedClassifier(fusion="best").fit(train, train["label"])
    with pytest.raises(ValueError, match="metric must be one of f1_macro, accuracy, got 'f1'"):
        FusedClassifier(metric="f1").fit(train, train["label"])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="most_rows must be at least 2, got 1"):
        FusedClassifier(most_rows=1).fit(train, train["label"])


def test_folders_that_are_no_model(products: Products, made_up: Any, tmp_path: Path) -> None:
    train = products(40)
    model = FusedClassifier().fit(train, train["label"])
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "diary.txt").write_text("mine")
    with pytest.raises(ModelError, match="exists and is no model"):
        model.save(tmp_path / "other")
    with pytest.raises(ModelError, match=r"there is no folder .*nothing"):
        FusedClassifier.load(tmp_path / "nothing")
    with pytest.raises(ModelError, match=r"is no classifier: it has no model\.json"):
        FusedClassifier.load(tmp_path / "other")
    model.save(tmp_path / "model")
    config = json.loads((tmp_path / "model" / CONFIG).read_text())
    made_up.revision = "2"
    with pytest.raises(ModelError, match=r"was made with encoders .*made-up-text-1.*here they are .*made-up-text-2"):
        FusedClassifier.load(tmp_path / "model")
    made_up.revision = "1"
    for broken in ({**config, "parameters": {"colour": 3}}, {k: v for k, v in config.items() if k != "model"}):
        (tmp_path / "model" / CONFIG).write_text(json.dumps(broken))
        with pytest.raises(ModelError, match="is damaged: "):
            FusedClassifier.load(tmp_path / "model")
    (tmp_path / "model" / CONFIG).write_text(json.dumps(config))
    (tmp_path / "model" / TENSORS).write_bytes(b"nothing")
    with pytest.raises(ModelError, match="cannot be read as a model"):
        FusedClassifier.load(tmp_path / "model")


def test_no_warning_where_all_is_well(products: Products) -> None:
    train = products(30)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        FusedClassifier().fit(train, train["label"]).predict(train)
