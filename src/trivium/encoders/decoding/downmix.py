"""Channels of a sound to one."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

# Of the energy that the mean of channels which have nothing to do with each other keeps. Below, they cancel out: two
# equal ones are correlated by less than -0.99 then. Ordinary music stays far above, one speaker of many as well.
CANCELLED = 0.01


def downmixed(samples: NDArray[Any]) -> NDArray[np.float64]:
    """Average channels, (s, c) to (s,), in float64: the mean of two large float32 samples may overflow.

    Where the mean loses nearly all energy, as it does of opposite phases, the loudest channel is taken instead. That is
    decided for each stretch that is given here, some seconds, and not once for a sound: one that is out of phase for a
    minute only has no silence there, and a long one that is decoded twice gives the same without being kept.
    """
    channels = samples.shape[1]
    if channels == 1:
        return samples[:, 0].astype(np.float64)
    mean: NDArray[np.float64]
    if channels >= 8:
        mean = samples.mean(axis=1, dtype=np.float64)
        energies = np.einsum("sc,sc->c", samples, samples, dtype=np.float64)
    else:  # The same sums in the same order, and several times as fast: NumPy is slow along short rows.
        columns = [samples[:, channel].astype(np.float64) for channel in range(channels)]
        energies = np.array([np.dot(column, column) for column in columns])
        mean = columns[0].copy()
        for column in columns[1:]:
            mean += column
        mean /= channels
    if np.dot(mean, mean) < CANCELLED * energies.sum() / channels**2:
        return samples[:, energies.argmax()].astype(np.float64)
    return mean
