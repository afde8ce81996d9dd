"""Projections in closed form: canonical correlations of two modalities, and a ridge into a space that stands.

Seconds on a CPU, usable alone, and where training starts.

Sources: Hotelling, "Relations between two sets of variates", Biometrika 1936; Vinod, "Canonical ridge and econometrics
of joint production", 1976 (the regularised form); Gong et al., "A multi-view embedding space for modeling internet
images, tags, and their semantics", IJCV 2014 (directions scaled by a power of their correlation).
"""

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]


def canonical_maps(
    x: NDArray[np.float32],
    y: NDArray[np.float32],
    weights: NDArray[np.float64] | None = None,
    *,
    dim: int,
    ridge: tuple[float, float] = (0.1, 0.1),
    power: float = 1.0,
) -> tuple[Matrix, Matrix]:
    """Find maps of two modalities into one space, in which pairs correlate most.

    Args:
        x: Of n pairs one side, centred, shape (n, d_x).
        y: The other side, centred, shape (n, d_y).
        weights: Of the pairs, shape (n,); all the same if None.
        dim: Of the space; at most the smaller width is used, the rest of the maps is 0.
        ridge: What is added to the covariances' diagonals, as a share of their mean; 0 or more.
        power: Directions are scaled by their correlation to this power.

    Returns:
        Matrices of shape (d_x, dim) and (d_y, dim).
    """
    share = np.full(len(x), 1 / len(x)) if weights is None else weights / weights.sum()
    scaled = share[:, np.newaxis] * y
    xx = _regularised(x.T @ (share[:, np.newaxis] * x), ridge[0])
    yy = _regularised(y.T @ scaled, ridge[1])
    white_x, white_y = _inverse_root(xx), _inverse_root(yy)
    left, correlations, right = np.linalg.svd(white_x @ (x.T @ scaled) @ white_y, full_matrices=False)
    kept = min(dim, len(correlations))
    scale = np.zeros(dim)
    scale[:kept] = np.clip(correlations[:kept], 0, 1) ** power
    maps = []
    for white, directions in ((white_x, left), (white_y, right.T)):
        whole = np.zeros((len(white), dim))
        whole[:, :kept] = white @ directions[:, :kept]
        maps.append(whole * scale)
    return maps[0], maps[1]


def ridge_map(
    x: NDArray[np.float32],
    target: NDArray[np.float32],
    weights: NDArray[np.float64] | None = None,
    *,
    ridge: float = 0.1,
) -> Matrix:
    """Find the matrix (d_x, d) that takes x (n, d_x), centred, nearest to its targets (n, d) in the mean square."""
    share = np.full(len(x), 1 / len(x)) if weights is None else weights / weights.sum()
    scaled = (share[:, np.newaxis] * x).astype(np.float64)
    covariance = _regularised(x.T @ scaled, ridge)
    return np.asarray(np.linalg.solve(covariance, scaled.T @ target), np.float64)


def _regularised(covariance: NDArray[np.floating], ridge: float) -> Matrix:
    covariance = covariance.astype(np.float64)
    return covariance + np.eye(len(covariance)) * max(ridge * float(np.trace(covariance)) / len(covariance), 1e-9)


def _inverse_root(covariance: Matrix) -> Matrix:
    values, vectors = np.linalg.eigh(covariance)
    root: Matrix = (vectors / np.sqrt(np.maximum(values, 1e-12))) @ vectors.T
    return root
