"""Ridge regression on a kernel matrix, and what it says of rows that it has not seen.

f(x) = sum_i a_i k(x_i, x), with (K + lambda I) a = Y. As a classifier, Y are the classes as 0 and 1, less their shares:
least-squares support vector machines by another name. Everything is a linear system, so trying many kernels is cheap.

Sources: Saunders, Gammerman, Vovk, "Ridge Regression Learning Algorithm in Dual Variables", ICML 1998; Suykens,
Vandewalle, "Least Squares Support Vector Machine Classifiers", 1999; fewer centres than rows: Rudi, Camoriano, Rosasco,
"Less is More: Nyström Computational Regularization", NeurIPS 2015.
"""

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from trivium.fusion.blocks import Numbers, Places

WIDTH = 0.5  # of exp(-WIDTH |x - y|^2): rows have length about 1, so two unrelated ones have a kernel of about 1 / e
JITTER = 1e-8  # keeps a matrix of equal rows invertible


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


def out_of_fold(kernel: Numbers, targets: Numbers, folds: Places, *, penalty: float) -> Numbers:
    """Return what the rows of each fold get from a fit to all others, shape (n, c)."""
    found = np.empty_like(targets)
    for fold in np.unique(folds):
        held = folds == fold
        found[held] = kernel[np.ix_(held, ~held)] @ solve(kernel[np.ix_(~held, ~held)], targets[~held], penalty=penalty)
    return found
