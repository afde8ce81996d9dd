"""What a projection promises, and the plain ones: the identity, a shift of the origin, and one linear map."""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from trivium.encoders.base import Features, Vectors, unit_rows


class Projection(Protocol):
    """A map from one backbone's features into a space."""

    def __call__(self, features: Features, /) -> Vectors:
        """Return unit vectors, shape (n, d), one for each row of ``features``."""
        ...


class IdentityProjection:
    """The backbone's own space is the joint space: its pooled vectors, scaled to length 1."""

    def __call__(self, features: Features, /) -> Vectors:
        """Return ``features.pooled`` with rows of length 1, shape (n, d)."""
        return unit_rows(features.pooled)


class CentredProjection:
    """The backbone's own space with another origin: unit(unit(x) - mean).

    Vectors of one modality share a large common part; taking its mean away per modality closes much of the gap
    between modalities (Liang et al., "Mind the Gap", NeurIPS 2022).
    """

    def __init__(self, mean: NDArray[np.float32]) -> None:
        """Keep the new origin, shape (d,)."""
        self._mean = mean.astype(np.float32)

    def __call__(self, features: Features, /) -> Vectors:
        """Map pooled features (n, d) to unit vectors (n, d)."""
        return unit_rows(unit_rows(features.pooled) - self._mean)


class LinearProjection:
    """One matrix: x -> unit(x W + b)."""

    def __init__(self, weight: NDArray[np.float32], bias: NDArray[np.float32] | None = None) -> None:
        """Keep ``weight``, shape (d_in, d), and ``bias``, shape (d,).

        Raises:
            ValueError: If the shapes do not fit each other or a value is not finite.
        """
        bias = np.zeros(weight.shape[-1], np.float32) if bias is None else bias
        if weight.ndim != 2 or bias.shape != (weight.shape[1],):
            raise ValueError(f"weight must be (d_in, d) and bias (d,), got {weight.shape} and {bias.shape}")
        if not (np.isfinite(weight).all() and np.isfinite(bias).all()):
            raise ValueError("the projection's weight or bias holds NaN or infinity")
        self._weight, self._bias = weight.astype(np.float32), bias.astype(np.float32)

    def __call__(self, features: Features, /) -> Vectors:
        """Map pooled features (n, d_in) to unit vectors (n, d)."""
        return unit_rows(features.pooled @ self._weight + self._bias)
