"""Transfer between modalities that lie apart: centring closes the gap."""

import numpy as np
import pytest

from trivium.encoders.base import unit_rows
from trivium.fusion.transfer import TransferClassifier


def modalities(n: int = 200) -> tuple[np.ndarray, np.ndarray, list[str]]:
    random = np.random.default_rng(0)
    truth = random.integers(4, size=n)
    shared = 0.6 * np.eye(4, 16)[truth] + 0.1 * random.normal(size=(n, 16))
    gap = 1.0 * np.eye(16)[0]  # along a class: what it shifts, a plain classifier takes for that class
    return unit_rows(shared - gap), unit_rows(shared + gap), ["abcd"[place] for place in truth]


def test_centring_lets_one_modality_judge_another() -> None:
    pictures, texts, labels = modalities()
    centred = TransferClassifier(ridge=1e-3).fit(pictures, labels, modality="image").centre(texts, modality="text")
    plain = TransferClassifier(ridge=1e-3, centring="none").fit(pictures, labels, modality="image")
    assert centred.score(pictures, labels, modality="image") > 0.9
    assert centred.score(texts, labels, modality="text") > 0.9
    assert plain.score(texts, labels, modality="text") < 0.5
    np.testing.assert_allclose(centred.predict_proba(texts, modality="text").sum(axis=1), 1, rtol=1e-5)


def test_a_modality_that_was_not_centred_is_told() -> None:
    pictures, texts, labels = modalities()
    fitted = TransferClassifier().fit(pictures, labels, modality="image")
    with pytest.raises(ValueError, match="text was not centred, only image"):
        fitted.predict(texts, modality="text")
