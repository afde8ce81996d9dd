"""With the space that ships: its heads need inner layers, which must come through the frame."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from assets import ASSETS
from trivium.pipeline.fused.features import FusedFeatures
from trivium.pipeline.space.joint import load_space


@pytest.mark.weights
def test_mean_of_vectors_in_the_space(weights: dict[str, Path], tmp_path: Path) -> None:
    picture = str(ASSETS / "strawberry.jpg")
    frame = pd.DataFrame({"text": ["a strawberry", "a cat"], "image": [picture, None]})
    found = FusedFeatures(fusion="mean", cache=tmp_path).fit(frame).transform(frame)
    space = load_space("trivium-base")
    texts, (image,) = space.encode("text", list(frame["text"])), space.encode("image", [picture])
    both = texts[0] + image
    np.testing.assert_allclose(found, [both / np.linalg.norm(both), texts[1]], atol=1e-4)
