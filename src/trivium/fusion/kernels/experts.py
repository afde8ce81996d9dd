"""Experts: what a fusion is made of. Each turns the modalities of rows into scores, a column for each class.

    kernel expert      sum_i w_i k_i(x, x') + w * prod_i k_i(x, x')       one modality alone, or several at once
    agreement expert   the cosine of two modalities in a space learned for it

A sum of kernels learns what each modality says by itself, with weights for how much each is to be believed; the product
lets one modality say what another one means. Both are as much work as one modality alone.

Source: Gönen, Alpaydın, "Multiple Kernel Learning Algorithms", JMLR 2011 (the sum and the product of kernels).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

import numpy as np

from trivium.fusion.blocks import Numbers, Places
from trivium.fusion.kernels.agreement import Agreement, fit_agreement, out_of_fold_agreements
from trivium.fusion.kernels.kernel_ridge import gaussian, out_of_fold, solve, solve_on_centres

Blocks: TypeAlias = Mapping[str, Numbers]  # modality -> rows on their scale, (n, d), NaN where it is missing
PENALTIES = (0.03, 0.1, 0.3, 1.0)
WEIGHT_STEPS = 4  # a modality weighs from 1/16 to 16 times as much as another


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelPlan:
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
class AgreementPlan:
    """Which two modalities are to agree, and in how small a space."""

    pair: tuple[str, str]
    rank: int
    ridge: float


Plan: TypeAlias = KernelPlan | AgreementPlan


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """A plan, and what it says of rows that it was not fitted to."""

    plan: Plan
    scores: Numbers = field(repr=False)  # (n, columns)
    loss: float  # mean square of what is missed


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelExpert:
    """A fitted kernel plan: the rows it knows, and how much each counts for each class."""

    plan: KernelPlan
    coefficients: Numbers = field(repr=False)  # (centres, c)

    def __call__(self, rows: Blocks, centres: Blocks) -> Numbers:
        """Return scores (n, c) of rows that have all of its modalities."""
        kernels = {name: gaussian(rows[name], centres[name]) for name in self.plan.weights}
        return self.plan.matrix(kernels) @ self.coefficients


@dataclass(frozen=True, slots=True, kw_only=True)
class AgreementExpert:
    """A fitted agreement plan."""

    plan: AgreementPlan
    agreement: Agreement = field(repr=False)

    def __call__(self, rows: Blocks, centres: Blocks) -> Numbers:
        """Return scores (n, c) of rows that have both of its modalities."""
        del centres
        first, second = self.plan.pair
        return self.agreement(rows[first], rows[second])


Expert: TypeAlias = KernelExpert | AgreementExpert


class KernelTrials:
    """Tries kernels on some rows; the modalities' own kernel matrices are made once."""

    def __init__(self, blocks: Blocks, targets: Numbers, weights: Numbers, folds: Places) -> None:
        """Take rows that have all modalities, targets (n, c), how much each row counts (n,), and folds (n,)."""
        self._kernels = {name: gaussian(rows, rows) for name, rows in blocks.items()}
        self._targets, self._weights, self._folds = targets, weights / weights.sum(), folds

    def penalised(self, plan: KernelPlan) -> Tried:
        """Choose the penalty of a plan."""
        return min((self._tried(replace(plan, penalty=penalty)) for penalty in PENALTIES), key=lambda t: t.loss)

    def weighted(self, names: Sequence[str]) -> Tried:
        """Choose how much each modality counts: from all the same on, doubled or halved while that helps."""
        best = self.penalised(KernelPlan(weights=dict.fromkeys(names, 1.0)))
        for name in names[:-1]:  # only the proportions matter
            for factor in (2.0, 0.5):
                better = self._climbed(best, name, factor)
                if better is not best:
                    best = better
                    break
        return best

    def with_product(self, tried: Tried) -> Tried:
        """Add the product of all kernels, as much as all of them together."""
        assert isinstance(tried.plan, KernelPlan)
        return self._tried(replace(tried.plan, product=sum(tried.plan.weights.values())))

    def _climbed(self, best: Tried, name: str, factor: float) -> Tried:
        for _ in range(WEIGHT_STEPS):
            assert isinstance(best.plan, KernelPlan)
            weights = {**best.plan.weights, name: best.plan.weights[name] * factor}
            tried = self._tried(replace(best.plan, weights=weights))
            if tried.loss >= best.loss:
                break
            best = tried
        return best

    def _tried(self, plan: KernelPlan) -> Tried:
        scores = out_of_fold(plan.matrix(self._kernels), self._targets, self._folds, penalty=plan.penalty)
        loss = float(self._weights @ ((scores - self._targets) ** 2).sum(axis=1))
        return Tried(plan=plan, scores=scores, loss=loss)


def try_agreement(
    blocks: Blocks,
    labels: Places,
    folds: Places,
    pair: tuple[str, str],
    *,
    classes: int,
    at: Places,
    judge: Callable[[Numbers], float],
) -> Tried:
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
    found: Tried | None = None
    for ridge, rank, scores in out_of_fold_agreements(x, y, labels, folds, classes=classes):
        loss = judge(scores[at])
        if found is None or loss < found.loss:
            found = Tried(plan=AgreementPlan(pair=pair, rank=rank, ridge=ridge), scores=scores[at], loss=loss)
    assert found is not None  # there is a rank and a ridge
    return found


def fit_expert(
    plan: Plan, blocks: Blocks, targets: Numbers, labels: Places, centres: Places, *, most_centres: int
) -> Expert:
    """Fit a plan to rows that have all of its modalities.

    Args:
        plan: What was chosen.
        blocks: All training rows, shape (n, d) each; NaN where a modality is missing.
        targets: Shape (n, c).
        labels: From 0, shape (n,); of a regression they are not looked at.
        centres: Places of the rows that kernels are centred on, shape (m,).
        most_centres: With more rows than that, centres stand for all.
    """
    if isinstance(plan, AgreementPlan):
        x, y = (blocks[name] for name in plan.pair)
        has = ~np.isnan(x[:, 0]) & ~np.isnan(y[:, 0])
        agreement = fit_agreement(
            x[has], y[has], labels[has], classes=targets.shape[1], rank=plan.rank, ridge=plan.ridge
        )
        return AgreementExpert(plan=plan, agreement=agreement)
    has = np.all([~np.isnan(blocks[name][:, 0]) for name in plan.weights], axis=0)
    used = has[centres]
    own = {name: blocks[name][centres[used]] for name in plan.weights}
    kernel = plan.matrix({name: gaussian(rows, rows) for name, rows in own.items()})
    coefficients = np.zeros((len(centres), targets.shape[1]))
    if len(blocks[next(iter(plan.weights))]) <= most_centres:
        coefficients[used] = solve(kernel, targets[centres[used]], penalty=plan.penalty)
    else:
        rows = plan.matrix({name: gaussian(blocks[name][has], own[name]) for name in plan.weights})
        coefficients[used] = solve_on_centres(rows, kernel, targets[has], penalty=plan.penalty)
    return KernelExpert(plan=plan, coefficients=coefficients)
