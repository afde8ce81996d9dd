"""The label bridge with loops: each item is the sum of its classes' vectors times their softened probabilities."""

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray


def bridge(
    logits: Mapping[str, NDArray[np.float32]], labels: Mapping[str, NDArray[np.float32]], temperature: float
) -> NDArray[np.float64]:
    """Map logits {head: (n, c)} and label vectors {head: (c, d)} to unit vectors (n, d)."""
    count = len(next(iter(logits.values())))
    width = next(iter(labels.values())).shape[1]
    rows = []
    for item in range(count):
        total = [0.0] * width
        for head, vectors in labels.items():
            scores = [float(score) / temperature for score in logits[head][item]]
            powers = [math.exp(score - max(scores)) for score in scores]
            for power, vector in zip(powers, vectors, strict=True):
                for axis in range(width):
                    total[axis] += power / sum(powers) * float(vector[axis])
        length = math.sqrt(sum(value * value for value in total))
        rows.append([value / length if length > 0 else 0.0 for value in total])
    return np.array(rows)
