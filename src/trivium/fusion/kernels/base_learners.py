"""Base learners: what a fusion stacks. Each turns the modalities of rows into scores, a column for each class.

    kernel learner      sum_i w_i k_i(x, x') + w * prod_i k_i(x, x')       one modality alone, or several at once
    agreement learner   the cosine of two modalities in a space learned for it

A sum of kernels learns what each modality says by itself, with weights for how much each is to be believed; the product
lets one modality say what another one means. Both are as much work as one modality alone. A kernel learner is ridge
regression: f(x) = sum_i a_i k(x_i, x), with (K + lambda I) a = Y. As a classifier, Y are the classes as 0 and 1, less
their shares: least-squares support vector machines by another name. Everything is a linear system, so trying many
kernels is cheap.

Agreement is whether two modalities belong together, class by class, which neither of them can know alone. With z_x and
z_y whitened, D_c = mean(z_x z_y' over rows of class c) - mean(z_x z_y' over the others) is where two modalities go
together in class c and not elsewhere. Its first singular directions are maps U_c, V_c into a small space, and the score
of a row is the cosine of z_x U_c and z_y V_c there: a bilinear classifier of low rank, in closed form. Where the class
is "these two match", it is canonical correlation analysis.

Sources: Gönen, Alpaydın, "Multiple Kernel Learning Algorithms", JMLR 2011 (the sum and the product of kernels);
Saunders, Gammerman, Vovk, "Ridge Regression Learning Algorithm in Dual Variables", ICML 1998; Suykens, Vandewalle,
"Least Squares Support Vector Machine Classifiers", 1999; fewer centres than rows: Rudi, Camoriano, Rosasco, "Less is
More: Nyström Computational Regularization", NeurIPS 2015; Hotelling, "Relations between two sets of variates", 1936;
Vinod, "Canonical ridge", 1976; low-rank bilinear classification: Pirsiavash, Ramanan, Fowlkes, "Bilinear classifiers
for visual recognition", NeurIPS 2009. The class difference is ours.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

import numpy as np
from scipy.linalg import cho_factor, cho_solve, eigh

from trivium.fusion.blocks import Blocks, Integers, Numbers

WIDTH = 0.5  # of exp(-WIDTH |x - y|^2): rows have length about 1, so two unrelated ones have a kernel of about 1 / e
JITTER = 1e-8  # keeps a matrix of equal rows invertible
PENALTIES = (0.03, 0.1, 0.3, 1.0)
WEIGHT_STEPS = 4  # a modality weighs from 1/16 to 16 times as much as another

MOST_ROWS = 5_000  # that principal directions are found from
MOST_DIRECTIONS = 256  # principal ones of a block that take part
RANKS = (32, 64, 128)
RIDGES = (1.0, 3.0, 10.0)  # added to the variance of each direction, as a share of the mean one


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelSettings:
    """Which kernels are added, and how smooth what is learned of them is."""

    weights: Mapping[str, float]  # of the modalities' own kernels
    product: float = 0.0  # of the product of all of them
    penalty: float = 0.1

    def matrix(self, kernels: Mapping[str, Numbers]) -> Numbers:
        """Return the kernel as a whole, of the kernels of the modalities; its diagonal is 1."""
        total = sum(self.weights.values()) + self.product
        found = sum(weight / total * kernels[name] for name, weight in self.weights.items())
        if self.product:
            found = found + self.product / total * np.prod([kernels[name] for name in self.weights], axis=0)
        return np.asarray(found, np.float64)


@dataclass(frozen=True, slots=True, kw_only=True)
class AgreementSettings:
    """Which two modalities are to agree, and in how small a space."""

    pair: tuple[str, str]
    rank: int
    ridge: float


LearnerSettings: TypeAlias = KernelSettings | AgreementSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class OutOfFold:
    """What a base learner says of rows that it was not fitted to."""

    settings: LearnerSettings
    scores: Numbers = field(repr=False)  # (n, columns)
    loss: float  # mean square of what is missed


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelLearner:
    """Fitted: the rows it knows, and how much each counts for each class."""

    settings: KernelSettings
    coefficients: Numbers = field(repr=False)  # (centres, c)

    def __call__(self, rows: Blocks, centres: Blocks) -> Numbers:
        """Return scores (n, c) of rows that have all of its modalities."""
        kernels = {name: gaussian(rows[name], centres[name]) for name in self.settings.weights}
        return self.settings.matrix(kernels) @ self.coefficients


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


@dataclass(frozen=True, slots=True, kw_only=True)
class AgreementLearner:
    """Fitted maps of two modalities."""

    settings: AgreementSettings
    agreement: Agreement = field(repr=False)

    def __call__(self, rows: Blocks, centres: Blocks) -> Numbers:
        """Return scores (n, c) of rows that have both of its modalities."""
        del centres
        first, second = self.settings.pair
        return self.agreement(rows[first], rows[second])


BaseLearner: TypeAlias = KernelLearner | AgreementLearner


def fit_learner(
    settings: LearnerSettings,
    blocks: Blocks,
    targets: Numbers,
    labels: Integers,
    centres: Integers,
    *,
    most_centres: int,
) -> BaseLearner:
    """Fit a base learner to rows that have all of its modalities.

    Args:
        settings: What was chosen.
        blocks: All training rows, shape (n, d) each; NaN where a modality is missing.
        targets: Shape (n, c).
        labels: From 0, shape (n,); of a regression they are not looked at.
        centres: Places of the rows that kernels are centred on, shape (m,).
        most_centres: With more rows than that, centres stand for all.
    """
    if isinstance(settings, AgreementSettings):
        x, y = (blocks[name] for name in settings.pair)
        has = ~np.isnan(x[:, 0]) & ~np.isnan(y[:, 0])
        agreement = fit_agreement(
            x[has], y[has], labels[has], classes=targets.shape[1], rank=settings.rank, ridge=settings.ridge
        )
        return AgreementLearner(settings=settings, agreement=agreement)
    has = np.all([~np.isnan(blocks[name][:, 0]) for name in settings.weights], axis=0)
    used = has[centres]
    own = {name: blocks[name][centres[used]] for name in settings.weights}
    kernel = settings.matrix({name: gaussian(rows, rows) for name, rows in own.items()})
    coefficients = np.zeros((len(centres), targets.shape[1]))
    if len(blocks[next(iter(settings.weights))]) <= most_centres:
        coefficients[used] = solve(kernel, targets[centres[used]], penalty=settings.penalty)
    else:
        rows = settings.matrix({name: gaussian(blocks[name][has], own[name]) for name in settings.weights})
        coefficients[used] = solve_on_centres(rows, kernel, targets[has], penalty=settings.penalty)
    return KernelLearner(settings=settings, coefficients=coefficients)


class KernelSearch:
    """Tries kernels on some rows; the modalities' own kernel matrices are made once."""

    def __init__(self, blocks: Blocks, targets: Numbers, weights: Numbers, folds: Integers) -> None:
        """Take rows that have all modalities, targets (n, c), how much each row counts (n,), and folds (n,)."""
        self._kernels = {name: gaussian(rows, rows) for name, rows in blocks.items()}
        self._targets, self._weights, self._folds = targets, weights / weights.sum(), folds

    def penalised(self, settings: KernelSettings) -> OutOfFold:
        """Choose the penalty."""
        return min((self._tried(replace(settings, penalty=penalty)) for penalty in PENALTIES), key=lambda t: t.loss)

    def weighted(self, names: Sequence[str]) -> OutOfFold:
        """Choose how much each modality counts: from all the same on, doubled or halved while that helps."""
        best = self.penalised(KernelSettings(weights=dict.fromkeys(names, 1.0)))
        for name in names[:-1]:  # only the proportions matter
            for factor in (2.0, 0.5):
                better = self._climbed(best, name, factor)
                if better is not best:
                    best = better
                    break
        return best

    def with_product(self, tried: OutOfFold) -> OutOfFold:
        """Add the product of all kernels, as much as all of them together."""
        assert isinstance(tried.settings, KernelSettings)
        return self._tried(replace(tried.settings, product=sum(tried.settings.weights.values())))

    def _climbed(self, best: OutOfFold, name: str, factor: float) -> OutOfFold:
        for _ in range(WEIGHT_STEPS):
            assert isinstance(best.settings, KernelSettings)
            weights = {**best.settings.weights, name: best.settings.weights[name] * factor}
            tried = self._tried(replace(best.settings, weights=weights))
            if tried.loss >= best.loss:
                break
            best = tried
        return best

    def _tried(self, settings: KernelSettings) -> OutOfFold:
        scores = out_of_fold(settings.matrix(self._kernels), self._targets, self._folds, penalty=settings.penalty)
        loss = float(self._weights @ ((scores - self._targets) ** 2).sum(axis=1))
        return OutOfFold(settings=settings, scores=scores, loss=loss)


def gaussian(rows: Numbers, centres: Numbers) -> Numbers:
    """Return exp(-WIDTH |x - y|^2) of rows (n, d) and centres (m, d), shape (n, m); 0 where either is NaN."""
    kernel: Numbers = rows @ centres.T  # and all else in its place: it is large
    kernel *= 2 * WIDTH
    kernel -= WIDTH * np.einsum("nd,nd->n", rows, rows)[:, np.newaxis]
    kernel -= WIDTH * np.einsum("md,md->m", centres, centres)
    np.minimum(kernel, 0, out=kernel)
    np.exp(kernel, out=kernel)
    return np.nan_to_num(kernel, copy=False, nan=0.0)


def solve(kernel: Numbers, targets: Numbers, *, penalty: float) -> Numbers:
    """Return the coefficients (n, c) for targets (n, c) of a kernel matrix (n, n)."""
    matrix = kernel + (penalty + JITTER) * np.eye(len(kernel))
    return np.asarray(cho_solve(cho_factor(matrix, lower=True, overwrite_a=True), targets), np.float64)


def solve_on_centres(rows: Numbers, centres: Numbers, targets: Numbers, *, penalty: float) -> Numbers:
    """Return coefficients (m, c) of centres, fewer than rows: min |K_nm a - Y|^2 + lambda a' K_mm a.

    Args:
        rows: Kernel of rows and centres, shape (n, m).
        centres: Kernel of the centres, shape (m, m).
        targets: Shape (n, c).
        penalty: Lambda.
    """
    matrix = rows.T @ rows + (penalty + JITTER) * centres
    matrix[np.diag_indices_from(matrix)] += JITTER * np.trace(matrix) / len(matrix)
    return np.asarray(cho_solve(cho_factor(matrix, lower=True, overwrite_a=True), rows.T @ targets), np.float64)


def out_of_fold(kernel: Numbers, targets: Numbers, folds: Integers, *, penalty: float) -> Numbers:
    """Return what the rows of each fold get from a fit to all others, shape (n, c)."""
    found = np.empty_like(targets)
    for fold in np.unique(folds):
        held = folds == fold
        found[held] = kernel[np.ix_(held, ~held)] @ solve(kernel[np.ix_(~held, ~held)], targets[~held], penalty=penalty)
    return found


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


def fit_agreement(x: Numbers, y: Numbers, labels: Integers, *, classes: int, rank: int, ridge: float) -> Agreement:
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


def search_agreement(
    blocks: Blocks,
    labels: Integers,
    folds: Integers,
    pair: tuple[str, str],
    *,
    classes: int,
    at: Integers,
    judge: Callable[[Numbers], float],
) -> OutOfFold:
    """Choose the space in which two modalities agree.

    Args:
        blocks: Rows that have both.
        labels: From 0, shape (n,).
        folds: Shape (n,).
        pair: Names of the two.
        classes: How many labels there are.
        at: Rows that are judged, and whose scores are wanted.
        judge: Says how wrong their scores (rows, c) are.
    """
    x, y = (blocks[name] for name in pair)
    found: OutOfFold | None = None
    for ridge, rank, scores in out_of_fold_agreements(x, y, labels, folds, classes=classes):
        loss = judge(scores[at])
        if found is None or loss < found.loss:
            settings = AgreementSettings(pair=pair, rank=rank, ridge=ridge)
            found = OutOfFold(settings=settings, scores=scores[at], loss=loss)
    assert found is not None  # there is a rank and a ridge
    return found


def out_of_fold_agreements(
    x: Numbers, y: Numbers, labels: Integers, folds: Integers, *, classes: int
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


def _maps(z_x: Numbers, z_y: Numbers, labels: Integers, *, classes: int, rank: int) -> Agreement:
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
