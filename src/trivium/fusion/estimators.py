"""scikit-learn estimators over tables of numbers: columns of several modalities, NaN where one is missing.

    classifier = BlockClassifier(blocks={"text": (0, 384), "image": (384, 1664)}).fit(table, labels)
    classifier.predict_proba(table)

`trivium.fusion.FusedClassifier` is this over texts and files; this one takes vectors that are there already.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from trivium.fusion.blocks import (
    Blocks,
    Booleans,
    Metric,
    Numbers,
    Targets,
    check_blocks,
    check_views,
    groups_of,
    presence_of,
    scalers_of,
)
from trivium.fusion.kernels.fusion import FAMILIES, BlockFusion, FusionSettings, Names, SubsetModel, fit_fusion
from trivium.fusion.networks.fitting import NetworkFusion, NetworkRecipe, fit_network
from trivium.fusion.networks.registry import FUSIONS

MOST_ROWS = 2_500
METRICS: tuple[Metric, ...] = ("f1_macro", "accuracy")


class BlockModel:
    """What estimators over blocks share, as one of scikit-learn's mixins."""

    blocks: Mapping[str, tuple[int, int]] | None
    model_: Any
    blocks_: dict[str, tuple[int, int]]
    n_features_in_: int
    deviation_: float  # of a regressor

    def models(self) -> dict[Names, SubsetModel]:
        """Return what was chosen for each set of modalities; a network, or a transfer, has none of these."""
        check_is_fitted(self, "model_")
        return dict(self.model_.models) if isinstance(self.model_, BlockFusion) else {}

    def _finite(self) -> Any:  # gaps are allowed where blocks are named
        return True if self.blocks is None else "allow-nan"

    def _given(self, X: Any) -> tuple[Blocks, dict[str, Booleans]]:
        check_is_fitted(self, "model_")
        X = validate_data(self, X, dtype=np.float64, reset=False, ensure_all_finite=self._finite())
        return parts_of(X, self.blocks_)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()  # type: ignore[misc]  # of BaseEstimator, which stands behind
        tags.input_tags.allow_nan = self.blocks is not None
        return tags


class BlockClasses(BlockModel):
    """What classifiers over blocks share."""

    classes_: NDArray[Any]

    def predict_proba(self, X: Any) -> Numbers:
        """Return probabilities, shape (n, classes), in the order of `classes_`; of a row with nothing their shares.

        Raises:
            ValueError: If a transfer is asked about a modality that was not centred.
        """
        given = self._given(X)
        found: Numbers = self.model_.predict(*given)
        return found

    def predict(self, X: Any) -> Any:
        """Return labels, shape (n,)."""
        probabilities = self.predict_proba(X)
        return self.classes_[probabilities.argmax(axis=1)]

    def contributions(self, X: Any) -> dict[str, Numbers]:
        """Return what each modality added to each probability, shape (n, classes) each: exact, by leaving it out."""
        given = self._given(X)
        found: dict[str, Numbers] = self.model_.contributions(*given)
        return found


@dataclass(kw_only=True, eq=False, repr=False)
class BlockClassifier(ClassifierMixin, BlockClasses, BaseEstimator):
    """Classes from the columns of several modalities; the way they are fused is chosen by validation.

    Args:
        blocks: First column and the one after the last, of each modality; None: all columns are one, and none may
            be missing.
        views: How many columns each view of a modality has; views weigh the same. None, or one that is not named:
            each modality is one.
        fusion: "auto", one of `kernels.fusion.FAMILIES` ("sum", "product", "late", "agreement"), or a network of
            `registry.FUSIONS`.
        metric: What "auto" is chosen by: "f1_macro" or "accuracy".
        modality_dropout: How often a network's training forgets a modality.
        most_rows: Rows that candidates are judged on, and that kernels are centred on.
        random_state: Of folds, and of what a network starts from.
    """

    blocks: Mapping[str, tuple[int, int]] | None = None
    views: Mapping[str, Sequence[int]] | None = None
    fusion: str = "auto"
    metric: Metric = "f1_macro"
    modality_dropout: float = 0.3
    most_rows: int = MOST_ROWS
    random_state: int = 0

    def fit(self, X: Any, y: Any) -> Self:
        """Fit to a table (n, width) and n labels.

        Raises:
            ValueError: If the table, the labels or a setting cannot be used.
        """
        X, y = validate_data(self, X, y, dtype=np.float64, ensure_min_samples=2, ensure_all_finite=self._finite())
        check_classification_targets(y)
        if self.metric not in METRICS:
            raise ValueError(f"metric must be one of {', '.join(METRICS)}, got '{self.metric}'")
        self.classes_, labels = np.unique(y, return_inverse=True)
        shares = np.bincount(labels) / len(labels)
        targets = Targets(
            values=np.eye(len(shares))[labels] - shares,
            labels=labels.astype(np.int64),
            mean=shares,
            metric=self.metric,
        )
        self.blocks_ = check_blocks(self.blocks, X.shape[1])
        self.model_ = _fitted(X, self.blocks_, targets, self)
        return self


@dataclass(kw_only=True, eq=False, repr=False)
class BlockRegressor(RegressorMixin, BlockModel, BaseEstimator):
    """Numbers from the columns of several modalities; the way they are fused is chosen by validation (R squared).

    See `BlockClassifier`. "agreement" is of classes, and is "sum" here.
    """

    blocks: Mapping[str, tuple[int, int]] | None = None
    views: Mapping[str, Sequence[int]] | None = None
    fusion: str = "auto"
    modality_dropout: float = 0.3
    most_rows: int = MOST_ROWS
    random_state: int = 0

    def fit(self, X: Any, y: Any) -> Self:
        """Fit to a table (n, width) and n numbers.

        Raises:
            ValueError: If the table, the numbers or a setting cannot be used.
        """
        checks = {"dtype": np.float64, "ensure_min_samples": 2, "ensure_all_finite": self._finite()}
        X, y = validate_data(self, X, y, y_numeric=True, **checks)
        mean = np.array([float(np.mean(y))])
        self.deviation_ = float(np.std(y)) or 1.0
        targets = Targets(
            values=((y - mean) / self.deviation_).reshape(-1, 1),
            labels=np.zeros(len(y), np.int64),
            mean=mean / self.deviation_,
            metric="r2",
        )
        self.blocks_ = check_blocks(self.blocks, X.shape[1])
        self.model_ = _fitted(X, self.blocks_, targets, self)
        return self

    def predict(self, X: Any) -> Numbers:
        """Return numbers, shape (n,); of a row with nothing the mean."""
        given = self._given(X)
        return np.asarray(self.model_.predict(*given)[:, 0] * self.deviation_, np.float64)

    def contributions(self, X: Any) -> dict[str, Numbers]:
        """Return what each modality added to each number, shape (n,) each: exact, by leaving it out."""
        given = self._given(X)
        found = self.model_.contributions(*given)
        return {name: added[:, 0] * self.deviation_ for name, added in found.items()}


def _fitted(
    table: Numbers,
    blocks: Mapping[str, tuple[int, int]],
    targets: Targets,
    of: BlockClassifier | BlockRegressor,
) -> BlockFusion | NetworkFusion:
    if of.most_rows < 2:
        raise ValueError(f"most_rows must be at least 2, got {of.most_rows}")
    known = ("auto", *FAMILIES, *FUSIONS)
    if of.fusion not in known:
        raise ValueError(f"no fusion '{of.fusion}': known are {', '.join(known)}")
    parts, presence = parts_of(table, blocks)
    scalers = scalers_of(parts, presence, check_views(of.views, blocks))
    groups = groups_of(table, blocks)
    if of.fusion in FUSIONS:
        recipe = NetworkRecipe(fusion=of.fusion, modality_dropout=of.modality_dropout, seed=of.random_state)
        return fit_network(parts, presence, scalers, targets, groups, recipe)
    settings = FusionSettings(fusion=of.fusion, most_rows=of.most_rows, seed=of.random_state)
    return fit_fusion(parts, presence, scalers, targets, groups, settings)


def parts_of(table: Numbers, blocks: Mapping[str, tuple[int, int]]) -> tuple[Blocks, dict[str, Booleans]]:
    """Return the blocks of a table, and which rows have which."""
    presence = presence_of(table, blocks)
    return {name: table[:, start:stop] for name, (start, stop) in blocks.items()}, presence
