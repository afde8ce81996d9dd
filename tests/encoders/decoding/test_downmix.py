"""Channels to one: their mean, and the loudest where they cancel each other out."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray

from trivium.encoders.decoding.downmix import downmixed


def noise(channels: int, *, seed: int = 0) -> NDArray[np.float32]:
    made: NDArray[np.float32] = np.random.default_rng(seed).standard_normal((5000, channels), dtype=np.float32)
    return made


@pytest.mark.parametrize("channels", [1, 2, 3, 6, 8, 64])
def test_unrelated_channels_are_averaged(channels: int) -> None:
    samples = noise(channels)
    assert_allclose(downmixed(samples), samples.astype(np.float64).mean(axis=1), atol=1e-12)


@pytest.mark.parametrize("channels", [2, 8, 64])
@pytest.mark.parametrize("speaker", [0, 1])
def test_one_speaker_of_many_is_averaged(channels: int, speaker: int) -> None:
    """Its mean is quiet, but nothing is cancelled."""
    samples = np.zeros((5000, channels), np.float32)
    samples[:, speaker] = noise(1)[:, 0]
    assert_allclose(downmixed(samples), samples[:, speaker] / channels, atol=1e-7)


@pytest.mark.parametrize("gain", [1.0, 0.9, 1.1])
def test_opposite_phases_give_the_louder_channel(gain: float) -> None:
    left = noise(1)
    samples = np.hstack([left, -gain * left]).astype(np.float32)
    assert_array_equal(downmixed(samples), samples[:, int(gain > 1)])


def test_many_channels_that_cancel_out() -> None:
    left = noise(1)
    samples = np.hstack([left, -left] * 5)
    assert_array_equal(downmixed(samples), left[:, 0])


@pytest.mark.parametrize("correlation", [-0.9, -0.5, 0.5, 1.0])
def test_what_is_only_partly_opposite_is_averaged(correlation: float) -> None:
    left, other = noise(1), noise(1, seed=1)
    samples = np.hstack([left, correlation * left + np.sqrt(1 - correlation**2) * other]).astype(np.float32)
    assert_allclose(downmixed(samples), samples.astype(np.float64).mean(axis=1), atol=1e-12)


def test_silence_stays_silence() -> None:
    assert_array_equal(downmixed(np.zeros((100, 2), np.float32)), np.zeros(100))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_stays_so(bad: float) -> None:
    samples = noise(2)
    samples[7, 1] = bad
    assert not np.isfinite(downmixed(samples)).all()
