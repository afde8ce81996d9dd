"""What is recalled: the nearest items' features, against a slow search; real pictures in a real space."""

from pathlib import Path

import numpy as np
import pytest

from trivium.encoders.base import unit_rows
from trivium.pipeline.collection import Collection
from trivium.pipeline.features.cache import FeatureCache
from trivium.pipeline.fused.imagination import Imagination, Neighbours, features_in, nearest
from trivium.pipeline.space.joint import load_space

ASSETS = Path(__file__).parents[2] / "assets"


def test_the_nearest_are_those_of_a_slow_search() -> None:
    random = np.random.default_rng(0)
    queries, keys = unit_rows(random.normal(size=(5, 4))), unit_rows(random.normal(size=(9, 4)))
    found = nearest(queries, keys, k=3)
    for query, places, scores in zip(queries, found.places, found.scores, strict=True):
        expected = sorted(range(9), key=lambda place: -float(query @ keys[place]))[:3]
        assert list(places) == expected
        np.testing.assert_allclose(scores, [query @ keys[place] for place in expected], atol=1e-6)
    assert nearest(queries, keys[:2], k=3).places.shape == (5, 2)
    assert nearest(queries[:0], keys, k=3).blended(np.ones((9, 2), np.float32)).shape == (0, 2)
    with pytest.raises(ValueError, match="nothing to recall"):
        nearest(queries, keys[:0])


def test_blending_weighs_by_cosine() -> None:
    values = np.array([[1, 0], [0, 1], [5, 5]], np.float32)
    found = Neighbours(np.array([[0, 1], [2, 0]]), np.array([[0.5, 0.5], [0.9, -np.inf]], np.float32))
    np.testing.assert_allclose(found.blended(values), np.array([[0.5, 0.5], [5, 5]]), rtol=1e-6)
    sharp = Neighbours(np.array([[0, 1]]), np.array([[0.6, 0.5]], np.float32)).blended(values, temperature=0.01)
    assert sharp[0, 0] > 0.999


@pytest.mark.weights
def test_a_text_recalls_pictures(weights: dict[str, Path], tmp_path: Path) -> None:
    space = load_space()
    paths = [ASSETS / name for name in ("airliner.png", "strawberry.jpg", "teacup.webp")]
    with Collection.open(tmp_path / "c", space=space) as collection:
        collection.add(paths, captions=False)
        cache = FeatureCache("pictures", folder=tmp_path / "features")
        recalled = Imagination(collection, "image", k=1, cache=cache).transform(["a red berry", "an aeroplane"])
        own, _ = features_in(space, "image", [str(paths[1]), str(paths[0])])
        np.testing.assert_allclose(recalled, own, rtol=1e-4, atol=1e-4)
        with pytest.raises(ValueError, match="has no audio"):
            Imagination(collection, "audio", cache=cache).transform(["a bird"])
