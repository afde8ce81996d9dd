"""Features by content: encoded once, whatever files hold it; damage is made good; bad files cost themselves."""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trivium.encoders.base import Backbone, DecodeError, Features, Modality, Prepared
from trivium.pipeline.features.cache import FeatureCache
from trivium.pipeline.features.frozen import frozen_features


class Counted(Backbone):
    """Features drawn from what an item holds; counts what it encodes."""

    dim = 4

    def __init__(self, modality: Modality) -> None:
        self.modality = modality
        self.encoded: list[str] = []

    def prepare(self, item: Any, /) -> Prepared:
        if isinstance(item, str) and not item.strip():
            raise DecodeError("the text is empty")
        data = item.encode() if isinstance(item, str) else np.asarray(item).tobytes()
        return np.frombuffer(hashlib.sha256(data).digest(), np.uint8)

    def features(self, batch: Sequence[Prepared], /) -> Features:
        self.encoded += [item.tobytes().hex() for item in batch]
        rows = np.stack([item[:4] for item in batch]).astype(np.float32)
        return Features(pooled=rows, logits={"classes": rows[:, :2] * 2}, layers={"inner": rows[:, :3] * 3})


def test_each_content_is_encoded_once(tmp_path: Path) -> None:
    backbone, cache = Counted("text"), FeatureCache("r1", folder=tmp_path)
    found = frozen_features(lambda: backbone, cache, ["a", "b", "a"], modality="text")
    assert len(backbone.encoded) == 2
    np.testing.assert_array_equal(found.features.pooled[0], found.features.pooled[2])
    again = frozen_features(lambda: pytest.fail("not needed"), cache, ["b", "a"], modality="text")
    np.testing.assert_array_equal(again.features.pooled, found.features.pooled[[1, 0]])
    np.testing.assert_array_equal(again.features.logits["classes"], found.features.logits["classes"][[1, 0]])
    np.testing.assert_array_equal(again.features.layers["inner"], found.features.layers["inner"][[1, 0]])
    np.testing.assert_array_equal(again.features.layers["inner"], again.features.pooled[:, :3] * 3)
    more = frozen_features(lambda: backbone, cache, ["c", "a"], modality="text")
    assert len(backbone.encoded) == 3
    np.testing.assert_array_equal(more.features.pooled[1], found.features.pooled[0])


def test_another_revision_has_its_own(tmp_path: Path) -> None:
    backbone = Counted("text")
    for revision in ("r1", "r2"):
        frozen_features(lambda: backbone, FeatureCache(revision, folder=tmp_path), ["a"], modality="text")
    assert len(backbone.encoded) == 2


def test_bad_items_cost_themselves(tmp_path: Path, picture: Callable[..., Path]) -> None:
    good = picture(tmp_path / "good.png")
    copy = tmp_path / "copy.png"
    copy.write_bytes(good.read_bytes())
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no picture")
    backbone = Counted("image")
    items = [str(bad), str(good), str(tmp_path / "none.png"), str(copy)]
    found = frozen_features(lambda: backbone, FeatureCache("r", folder=tmp_path / "c"), items, modality="image")
    assert found.places.tolist() == [1, 3]
    assert len(backbone.encoded) == 1
    assert "not a picture" in found.failures[0]
    assert set(found.failures) == {0, 2}


def test_nothing_can_be_encoded(tmp_path: Path) -> None:
    found = frozen_features(lambda: Counted("text"), FeatureCache("r", folder=tmp_path), [" "], modality="text")
    assert not len(found.places)
    assert found.failures == {0: "the text is empty"}


def test_progress_and_the_order_of_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trivium.pipeline.features.frozen.ROWS_PER_COMMIT", 5)
    seen: list[tuple[int, int]] = []
    items = [f"text {number}" for number in range(3000)]
    backbone, cache = Counted("text"), FeatureCache("r", folder=tmp_path)
    first = frozen_features(lambda: backbone, cache, items, modality="text", progress=lambda *told: seen.append(told))
    assert seen[-1] == (3000, 3000)
    second = frozen_features(lambda: backbone, cache, items, modality="text")
    np.testing.assert_array_equal(first.features.pooled, second.features.pooled)
    assert len(backbone.encoded) == 3000
