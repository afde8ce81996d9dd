"""The linear classifier: the best answer by a slow descent, separable data, what is refused."""

import numpy as np
import pytest

from trivium.fusion.linear_classifier import LinearClassifier, chosen_ridge


def rows(n: int = 90, d: int = 4) -> tuple[np.ndarray, list[str]]:
    random = np.random.default_rng(0)
    truth = random.integers(3, size=n)
    x = random.normal(size=(n, d)) + 1.5 * np.eye(3, d)[truth]
    return x.astype(np.float32), ["abc"[place] for place in truth]


def test_it_is_the_minimum() -> None:
    x, labels = rows()
    fitted = LinearClassifier(ridge=2.0).fit(x, labels)
    z = (x - x.mean(axis=0)) / x.std(axis=0)
    truth = np.eye(3)[["abc".index(label) for label in labels]]
    weight, bias = np.zeros((4, 3)), np.zeros(3)
    for _ in range(4000):  # plain descent, in NumPy
        powers = np.exp(z @ weight + bias)
        wrong = (powers / powers.sum(axis=1, keepdims=True) - truth) / len(x)
        weight -= 0.5 * (z.T @ wrong + 2.0 * weight / len(x))
        bias -= 0.5 * wrong.sum(axis=0)
    powers = np.exp(z @ weight + bias)
    np.testing.assert_allclose(fitted.predict_proba(x), powers / powers.sum(axis=1, keepdims=True), atol=1e-3)
    assert fitted.score(x, labels) > 0.7
    assert fitted.classes == ["a", "b", "c"]


def test_the_ridge_is_chosen_by_what_is_held_out() -> None:
    random = np.random.default_rng(1)
    labels = ["ab"[place] for place in random.integers(2, size=40)]
    noise = random.normal(size=(40, 200)).astype(np.float32)
    noise[:, 0] = [0.7 if label == "a" else -0.7 for label in labels] + random.normal(size=40) * 0.8
    assert chosen_ridge(noise, labels, ridges=[1e-4, 100.0], seed=0) == 100.0


def test_what_is_refused() -> None:
    x, labels = rows()
    with pytest.raises(ValueError, match="90 rows need as many labels of at least two classes, got 90 labels of 1"):
        LinearClassifier().fit(x, ["a"] * 90)
    with pytest.raises(ValueError, match="got 89 labels of 3 classes"):
        LinearClassifier().fit(x, labels[:-1])
    with pytest.raises(ValueError, match="above 0, got 0"):
        LinearClassifier(ridge=0)
