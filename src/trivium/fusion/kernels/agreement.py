"""Agreement: whether two modalities belong together, class by class, which neither of them can know alone.

With z_x and z_y whitened, D_c = mean(z_x z_y' over rows of class c) - mean(z_x z_y' over the others) is where two
modalities go together in class c and not elsewhere. Its first singular directions are maps U_c, V_c into a small space,
and the score of a row is the cosine of z_x U_c and z_y V_c there: a bilinear classifier of low rank, in closed form.
Where the class is "these two match", it is canonical correlation analysis.

Sources: Hotelling, "Relations between two sets of variates", 1936; Vinod, "Canonical ridge", 1976; low-rank bilinear
classification: Pirsiavash, Ramanan, Fowlkes, "Bilinear classifiers for visual recognition", NeurIPS 2009. The class
difference is ours.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.linalg import eigh

from trivium.fusion.blocks import Numbers, Places

MOST_ROWS = 5_000  # that principal directions are found from
MOST_DIRECTIONS = 256  # principal ones of a block that take part
RANKS = (32, 64, 128)
RIDGES = (1.0, 3.0, 10.0)  # added to the variance of each direction, as a share of the mean one


@dataclass(frozen=True, slots=True)
class Agreement:
    """Maps of two modalities into a small space for each class."""

    left: Numbers  # (c, d_x, rank)
    right: Numbers  # (c, d_y, rank)

    def __call__(self, x: Numbers, y: Numbers) -> Numbers:
        """Return the cosines (n, c) of rows (n, d_x) and (n, d_y)."""
        scores = np.empty((len(x), len(self.left)))
        for place, (left, right) in enumerate(zip(self.left, self.right, strict=True)):
            u, v = x @ left, y @ right
            lengths = np.linalg.norm(u, axis=1) * np.linalg.norm(v, axis=1)
            scores[:, place] = (u * v).sum(axis=1) / np.where(lengths > 0, lengths, 1.0)
        return scores


@dataclass(frozen=True, slots=True)
class Principal:
    """The directions in which a block's rows differ most, and how much; no label has a say in them."""

    variances: Numbers  # (k,), falling
    directions: Numbers  # (d, k)

    @classmethod
    def of(cls, rows: Numbers) -> "Principal":
        """Find those of rows (n, d): `MOST_DIRECTIONS` of them, from at most `MOST_ROWS` rows."""
        some = rows[:: -(-len(rows) // MOST_ROWS)]
        d = rows.shape[1]
        first = max(0, d - MOST_DIRECTIONS)
        values, directions = eigh(some.T @ some / len(some), subset_by_index=(first, d - 1))
        return cls(np.maximum(values[::-1], 0), np.asarray(directions[:, ::-1], np.float64))

    def whitening(self, ridge: float) -> Numbers:
        """Return the map (d, k) that brings each direction's variance near 1, or less where it is small."""
        floor = max(ridge * float(self.variances.mean()), 1e-12)
        return np.asarray(self.directions / np.sqrt(self.variances + floor), np.float64)


def fit_agreement(x: Numbers, y: Numbers, labels: Places, *, classes: int, rank: int, ridge: float) -> Agreement:
    """Fit the maps.

    Args:
        x: Rows of one modality on their scale, shape (n, d_x).
        y: Rows of the other, shape (n, d_y).
        labels: Of the rows, from 0, shape (n,).
        classes: How many there are; of two, one map is enough.
        rank: Numbers of the small space.
        ridge: See `RIDGES`.
    """
    white_x, white_y = (Principal.of(rows).whitening(ridge) for rows in (x, y))
    small = _maps(x @ white_x, y @ white_y, labels, classes=classes, rank=rank)
    return Agreement(white_x @ small.left, white_y @ small.right)


def out_of_fold_agreements(
    x: Numbers, y: Numbers, labels: Places, folds: Places, *, classes: int
) -> Iterator[tuple[float, int, Numbers]]:
    """Yield each ridge and rank, and the scores (n, c) of each fold's rows by maps fitted to all others."""
    principal_x, principal_y = Principal.of(x), Principal.of(y)
    most = min(len(principal_x.variances), len(principal_y.variances))
    ranks = [*(rank for rank in RANKS[:-1] if rank < most), min(RANKS[-1], most)]
    for ridge in RIDGES:
        z_x, z_y = x @ principal_x.whitening(ridge), y @ principal_y.whitening(ridge)
        scores = {rank: np.zeros((len(x), 1 if classes == 2 else classes)) for rank in ranks}
        for fold in np.unique(folds):
            held = folds == fold
            fitted = _maps(z_x[~held], z_y[~held], labels[~held], classes=classes, rank=ranks[-1])
            for rank in ranks:  # the first directions of a larger space are those of a smaller one
                smaller = Agreement(fitted.left[:, :, :rank], fitted.right[:, :, :rank])
                scores[rank][held] = smaller(z_x[held], z_y[held])
        for rank in ranks:
            yield ridge, rank, scores[rank]


def _maps(z_x: Numbers, z_y: Numbers, labels: Places, *, classes: int, rank: int) -> Agreement:
    """Fit maps of whitened rows."""
    wanted = [1] if classes == 2 else range(classes)
    kept = min(rank, z_x.shape[1], z_y.shape[1])
    left, right = np.zeros((len(wanted), z_x.shape[1], kept)), np.zeros((len(wanted), z_y.shape[1], kept))
    for place, label in enumerate(wanted):
        own = labels == label
        if own.any() and not own.all():
            weights = own / own.sum() - ~own / (~own).sum()
            u, values, v = np.linalg.svd(z_x.T @ (weights[:, np.newaxis] * z_y), full_matrices=False)
            root = np.sqrt(values[:kept])
            left[place], right[place] = u[:, :kept] * root, v[:kept].T * root
    return Agreement(left, right)
