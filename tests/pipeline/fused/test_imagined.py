"""What is recalled: the nearest items' features, of real pictures in a real space."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas
import pytest
from numpy.testing import assert_allclose
from sklearn.base import clone
from sklearn.pipeline import make_union
from sklearn.utils import estimator_checks

from assets import ASSETS
from trivium.fusion import FusedFeatures, ImaginedFeatures
from trivium.pipeline.collection import Collection
from trivium.pipeline.features.cache import FeatureCache
from trivium.pipeline.features.frozen import encode_items
from trivium.pipeline.fused.imagined import blended, recalled
from trivium.pipeline.space.joint import load_space
from trivium.pipeline.store.database import CollectionError


def test_blending_weighs_by_cosine() -> None:
    values = np.array([[1, 0], [0, 1], [5, 5]], np.float32)
    found = blended(values, np.array([[0, 1], [2, 0]]), np.array([[0.5, 0.5], [0.9, -np.inf]], np.float32))
    assert_allclose(found, np.array([[0.5, 0.5], [5, 5]]), rtol=1e-6)
    sharp = blended(values, np.array([[0, 1]]), np.array([[0.6, 0.5]], np.float32), temperature=0.01)
    assert sharp[0, 0] > 0.999


@pytest.mark.weights
def test_a_text_recalls_pictures(weights: dict[str, Path], tmp_path: Path) -> None:
    space = load_space()
    paths = [ASSETS / name for name in ("airliner.png", "strawberry.jpg", "teacup.webp")]
    with Collection.open(tmp_path / "c", space=space) as collection:
        collection.add(paths, captions=False)
        cache = FeatureCache("pictures", folder=tmp_path / "features")
        asked = space.encode("text", ["a red berry", "an aeroplane"])
        own = encode_items(space, "image", [str(paths[1]), str(paths[0])]).features.pooled
        assert_allclose(recalled(collection, "image", asked, k=1, cache=cache), own, rtol=1e-4, atol=1e-4)
        with pytest.raises(ValueError, match="has no audio"):
            recalled(collection, "audio", asked, cache=cache)


PICTURES = [str(ASSETS / name) for name in ("airliner.png", "strawberry.jpg", "teacup.webp")]


@pytest.fixture(scope="module")
def collection(weights: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> str:
    """A collection of three pictures and a diary."""
    folder = tmp_path_factory.mktemp("imagined") / "c"
    with Collection.open(folder) as found:
        found.add([*PICTURES, ASSETS / "diary.txt"], captions=False)
    return str(folder)


@pytest.mark.weights
def test_each_row_gets_what_is_nearest_to_it(collection: str, cache: Path) -> None:
    frame = pandas.DataFrame({"text": ["a red berry", None, "an aeroplane", "a cup of tea"]})
    maker = ImaginedFeatures(collection, k=1)
    found = maker.fit_transform(frame)
    own = encode_items(load_space(), "image", [PICTURES[place] for place in (1, 0, 2)]).features.pooled
    wanted = np.clip((own - own.mean(axis=0)) / maker.scaler_.deviation, -6, 6)
    assert_allclose(found[[0, 2, 3]], wanted, atol=1e-4)
    assert not found[1].any()
    assert len(maker.get_feature_names_out()) == found.shape[1] == 1280
    assert not maker.transform(frame[1:2]).any()
    both = make_union(FusedFeatures(), maker).fit(frame)
    assert both.transform(frame).shape == (4, len(both.get_feature_names_out()))


@pytest.mark.weights
def test_pictures_recall_texts(collection: str, cache: Path) -> None:
    frame = pandas.DataFrame({"image": [PICTURES[0], "nowhere.png"]})
    maker = ImaginedFeatures(collection, recalled="text", asked_by="image")
    with pytest.warns(UserWarning, match="1 of 2 items of 'image' could not be encoded"):
        found = maker.fit(frame).transform(frame)
    assert found.shape == (2, 384)
    assert not found[1].any()


@pytest.mark.weights
def test_what_cannot_be_recalled_is_told(collection: str, cache: Path, tmp_path: Path) -> None:
    frame = pandas.DataFrame({"text": ["a bird"]})
    with pytest.raises(ValueError, match="has no audio: there is nothing to recall"):
        ImaginedFeatures(collection, recalled="audio").fit(frame)
    with pytest.raises(ValueError, match="X must have the column 'image', which the collection is asked by"):
        ImaginedFeatures(collection, asked_by="image").fit(frame)
    with pytest.raises(CollectionError, match="no collection"):
        ImaginedFeatures(tmp_path / "none").fit(frame)
    with pytest.raises(ValueError, match="no row of X has anything in 'text'"):
        ImaginedFeatures(collection).fit(frame.assign(text=None))


@pytest.mark.weights
def test_from_the_command_line(
    collection: str, cache: Path, tmp_path: Path, run: Callable[..., tuple[int, str, str]]
) -> None:
    (tmp_path / "notes.csv").write_text("text\na red berry\nan aeroplane\n")
    out = tmp_path / "found.parquet"
    status, told, err = run(
        "features", str(tmp_path / "notes.csv"), "--imagine", collection, "--out", str(out), "--json"
    )
    assert status == 0, err
    found = pandas.read_parquet(out)
    last = tmp_path / "last.csv"
    assert run("features", str(tmp_path / "notes.csv"), "--no-layers", "--out", str(last))[0] == 0
    assert pandas.read_csv(last).shape == (2, 384 + 1)
    assert json.loads(told)["width"] == found.shape[1]
    assert sum(name.startswith("recalled_image") for name in found.columns) == 1280
    assert sum(name.startswith("text") for name in found.columns) == 4 * 384


@pytest.mark.parametrize(
    "name",
    ["check_estimator_cloneable", "check_estimator_repr", "check_get_params_invariance", "check_mixin_order",
     "check_no_attributes_set_in_init", "check_set_params", "check_valid_tag_types"],
)  # fmt: skip
def test_scikit_learns_checks_that_need_no_table_of_numbers(name: str) -> None:
    estimator = ImaginedFeatures("c")
    getattr(estimator_checks, name)("ImaginedFeatures", clone(estimator))
