"""Zero-shot transfer: a classifier that learnt from one modality's vectors of a space judges those of another.

    classifier = BlockTransferClassifier(blocks={"image": (0, 64), "text": (64, 128)}, train_on="image")
    classifier.fit(table, labels).predict(titles)  # NaN where a modality is missing

Vectors of each modality share a large common part, by which modalities can be told apart (Liang et al., "Mind the gap",
NeurIPS 2022). Each modality is therefore centred by itself, on vectors without labels, before the classifier sees it
(Zhang et al., "Diagnosing and rectifying vision models using language", ICLR 2023: the gap is close to a constant).
`trivium.fusion.TransferClassifier` is this over texts and files.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np
from scipy.special import softmax
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.linear_model import LogisticRegression
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from trivium.encoders.base import unit_rows
from trivium.fusion.blocks import Blocks, Booleans, Numbers, check_blocks, contributions_of
from trivium.fusion.estimators import BlockClasses, parts_of

MOST_STEPS = 1_000  # of L-BFGS; it stops where nothing changes


@dataclass(frozen=True, slots=True, kw_only=True)
class Transfer:
    """Logits W z + b, where z is the mean of a row's modalities, each unit((v - its centre)), scaled to length 1."""

    centres: Mapping[str, Numbers] = field(repr=False)  # (d,) of each modality whose place is known
    weight: Numbers = field(repr=False)  # (c, d)
    bias: Numbers = field(repr=False)  # (c,)
    prior: Numbers  # (c,), what a row gets that has nothing

    def predict(self, blocks: Blocks, presence: Mapping[str, Booleans]) -> Numbers:
        """Return probabilities (n, c).

        Args:
            blocks: Vectors (n, d) of each modality.
            presence: Which rows have which.

        Raises:
            ValueError: If a row has a modality that was not centred.
        """
        common, has = self.common(blocks, presence)
        logits = np.asarray(common @ self.weight.T + self.bias, np.float64)
        return np.where(has[:, np.newaxis], softmax(logits, axis=1), self.prior)

    def contributions(self, blocks: Blocks, presence: Mapping[str, Booleans]) -> dict[str, Numbers]:
        """Return what each modality added; see `contributions_of`."""
        return contributions_of(lambda has: self.predict(blocks, has), presence, presence)

    def common(self, blocks: Blocks, presence: Mapping[str, Booleans]) -> tuple[Numbers, Booleans]:
        """Return one vector a row, (n, d), and which rows have any."""
        total = np.zeros((len(next(iter(presence.values()))), self.weight.shape[1]))
        for name, has in presence.items():
            if not has.any():
                continue
            if name not in self.centres:
                known = ", ".join(self.centres) or "none"
                raise ValueError(f"'{name}' was not centred, only {known}: call centre() with rows that have it first")
            total[has] += unit_rows(blocks[name][has] - self.centres[name])
        return unit_rows(total).astype(np.float64), np.asarray(np.any(list(presence.values()), axis=0), np.bool_)


@dataclass(kw_only=True, eq=False, repr=False)
class BlockTransferClassifier(ClassifierMixin, BlockClasses, BaseEstimator):
    """Logistic regression over the vectors of one space, learnt from one modality and asked about any.

    Args:
        blocks: First column and the one after the last, of each modality, all as wide as the space; None: all
            columns are one modality, and none may be missing.
        train_on: The modality whose rows teach; None: whatever a row has.
        ridge: Of the weights' squares, 1 / C of scikit-learn's; small, as unit vectors are not standardised.
        centring: False takes vectors as they are: to see what centring does.
    """

    blocks: Mapping[str, tuple[int, int]] | None = None
    train_on: str | None = None
    ridge: float = 0.01
    centring: bool = True

    def fit(self, X: Any, y: Any) -> Self:
        """Learn from the rows (n, width) that have the modality to train on, and where each modality's vectors lie.

        Raises:
            ValueError: If fewer than two classes are left, or a setting cannot be used.
        """
        X, y = validate_data(self, X, y, dtype=np.float64, ensure_min_samples=2, ensure_all_finite=self._finite())
        check_classification_targets(y)
        self.blocks_ = check_blocks(self.blocks, X.shape[1])
        widths = {stop - start for start, stop in self.blocks_.values()}
        if len(widths) > 1:
            raise ValueError(f"blocks must be of one space, got widths {sorted(widths)}")
        if self.train_on is not None and self.train_on not in self.blocks_:
            raise ValueError(f"train_on must be one of {', '.join(self.blocks_)}, got '{self.train_on}'")
        unfitted = Transfer(centres={}, weight=np.empty((0, *widths)), bias=np.empty(0), prior=np.empty(0))
        blocks, presence = parts_of(X, self.blocks_)
        centred = replace(unfitted, centres=self._centres(blocks, presence))
        teachers = {name: has for name, has in presence.items() if self.train_on in (None, name)}
        common, has = centred.common(blocks, teachers)
        self.classes_, labels = np.unique(y[has], return_inverse=True)
        if len(self.classes_) < 2:
            of = "" if self.train_on is None else f" that have '{self.train_on}'"
            raise ValueError(f"the rows{of} must be of at least two classes, got {len(self.classes_)} class(es)")
        linear = LogisticRegression(C=1 / self.ridge, max_iter=MOST_STEPS).fit(common[has], labels)
        weight, bias = linear.coef_, linear.intercept_
        if len(weight) == 1:  # two classes share one logit: the other's is 0
            weight, bias = np.vstack([np.zeros_like(weight), weight]), np.append(0.0, bias)
        shares = np.bincount(labels) / len(labels)
        self.model_ = replace(centred, weight=weight, bias=bias, prior=shares)
        return self

    def centre(self, X: Any) -> Self:
        """Learn anew where the vectors of those modalities lie that the rows (n, width) have; no labels are needed."""
        check_is_fitted(self, "model_")
        centres = {**self.model_.centres, **self._centres(*self._given(X))}
        self.model_ = replace(self.model_, centres=centres)
        return self

    def _centres(self, blocks: Blocks, presence: Mapping[str, Booleans]) -> dict[str, Numbers]:
        if not self.centring:
            return {name: np.zeros(rows.shape[1]) for name, rows in blocks.items()}
        return {name: blocks[name][has].mean(axis=0) for name, has in presence.items() if has.any()}
