"""`FusedClassifier` and `FusedRegressor`: classes and numbers from texts, pictures and sounds.

from trivium.fusion import FusedClassifier

classifier = FusedClassifier().fit(frame[["text", "image"]], frame["gender"])
classifier.predict_proba(frame)  # whichever of text and image a row has
classifier.save("gender-model")
"""

from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.utils.validation import check_is_fitted

from trivium.encoders.base import Modality
from trivium.fusion.block_estimators import MOST_ROWS, BlockClassifier, BlockRegressor
from trivium.fusion.blocks import Numbers
from trivium.fusion.selection import Metric
from trivium.pipeline.fused.frames import (
    EncodedFrame,
    encode_frame,
    modalities_of,
    space_named,
    table_of,
    widths_of,
)
from trivium.pipeline.fused.model_folder import load_model, save_model
from trivium.pipeline.spaces import DEFAULT_SPACE


class FusedClassifier(ClassifierMixin, BaseEstimator):
    """Classes from a DataFrame with columns `text`, `image` and `audio`, any of them, each cell perhaps missing.

    By default the way of fusion is chosen by validation on the training rows, modality alone included, for each set of
    modalities that rows have. Encoders are frozen, and each content is encoded once, whatever is fitted how often.
    """

    model_: BlockClassifier
    classes_: NDArray[Any]
    widths_: dict[Modality, int]  # numbers of each modality
    blocks_: dict[str, tuple[int, int]]  # their columns
    feature_names_in_: NDArray[np.object_]
    n_features_in_: int
    label_name_: str | None

    def __init__(
        self,
        *,
        space: str | Path = DEFAULT_SPACE,
        fusion: str = "auto",
        metric: Metric = "f1_macro",
        modality_dropout: float = 0.3,
        most_rows: int = MOST_ROWS,
        random_state: int = 0,
        device: str = "cpu",
        cache: str | Path | None = None,
    ) -> None:
        """Say how.

        Args:
            space: Whose frozen encoders are used.
            fusion: See `BlockClassifier`.
            metric: What the way is chosen by: "f1_macro" or "accuracy".
            modality_dropout: How often a network's training forgets a modality.
            most_rows: Rows that ways are tried on, and that kernels are centred on.
            random_state: Of folds, and of what a network starts from.
            device: Where the encoders run.
            cache: Folder of kept features; Trivium's own if None.
        """
        self.space = space
        self.fusion = fusion
        self.metric: Metric = metric
        self.modality_dropout = modality_dropout
        self.most_rows = most_rows
        self.random_state = random_state
        self.device = device
        self.cache = cache

    def fit(self, X: Any, y: Any) -> Self:
        """Fit to a frame and its labels."""
        table = _fit_table(self, X)
        self.model_ = BlockClassifier(
            blocks=self.blocks_,
            fusion=self.fusion,
            metric=self.metric,
            modality_dropout=self.modality_dropout,
            most_rows=self.most_rows,
            random_state=self.random_state,
        ).fit(table, y)
        self.classes_ = self.model_.classes_
        self.label_name_ = _name_of(y)
        return self

    def predict_proba(self, X: Any) -> Numbers:
        """Return probabilities, (n, classes) in the order of `classes_`; of a row with nothing, the classes' shares."""
        return self.model_of_fit().predict_proba(table_for(self, X))

    def predict(self, X: Any) -> Any:
        """Return labels, shape (n,)."""
        return self.model_of_fit().predict(table_for(self, X))

    def contributions(self, X: Any) -> dict[str, Numbers]:
        """Return what each modality added to each probability, (n, classes): exact, by leaving it out."""
        return self.model_of_fit().contributions(table_for(self, X))

    def model_of_fit(self) -> BlockClassifier:
        """Return the classifier over tables of numbers that was fitted."""
        check_is_fitted(self, "model_")
        return self.model_

    def save(self, folder: str | Path) -> None:
        """Write the fitted classifier: numbers as safetensors, all else as JSON. The encoders are not part of it."""
        check_is_fitted(self, "model_")
        save_model(self, Path(folder), kind="classifier")

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Read what `save` wrote.

        Raises:
            ModelError: If it is no such folder, or of other encoders than those that are there.
        """
        return load_model(cls(), Path(folder), kind="classifier")

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        return _frame_tags(tags)


class FusedRegressor(RegressorMixin, BaseEstimator):
    """Numbers from a DataFrame with columns `text`, `image` and `audio`; see `FusedClassifier`."""

    model_: BlockRegressor
    widths_: dict[Modality, int]  # numbers of each modality
    blocks_: dict[str, tuple[int, int]]  # their columns
    feature_names_in_: NDArray[np.object_]
    n_features_in_: int
    label_name_: str | None

    def __init__(
        self,
        *,
        space: str | Path = DEFAULT_SPACE,
        fusion: str = "auto",
        modality_dropout: float = 0.3,
        most_rows: int = MOST_ROWS,
        random_state: int = 0,
        device: str = "cpu",
        cache: str | Path | None = None,
    ) -> None:
        """Say how; see `FusedClassifier`."""
        self.space = space
        self.fusion = fusion
        self.modality_dropout = modality_dropout
        self.most_rows = most_rows
        self.random_state = random_state
        self.device = device
        self.cache = cache

    def fit(self, X: Any, y: Any) -> Self:
        """Fit to a frame and its numbers."""
        table = _fit_table(self, X)
        self.model_ = BlockRegressor(
            blocks=self.blocks_,
            fusion=self.fusion,
            modality_dropout=self.modality_dropout,
            most_rows=self.most_rows,
            random_state=self.random_state,
        ).fit(table, y)
        self.label_name_ = _name_of(y)
        return self

    def predict(self, X: Any) -> Numbers:
        """Return numbers, shape (n,); of a row with nothing, the mean."""
        return self.model_of_fit().predict(table_for(self, X))

    def contributions(self, X: Any) -> dict[str, Numbers]:
        """Return what each modality added to each number, (n,): exact, by leaving it out."""
        return self.model_of_fit().contributions(table_for(self, X))

    def model_of_fit(self) -> BlockRegressor:
        """Return the regressor over tables of numbers that was fitted."""
        check_is_fitted(self, "model_")
        return self.model_

    def save(self, folder: str | Path) -> None:
        """Write the fitted regressor; see `FusedClassifier.save`."""
        check_is_fitted(self, "model_")
        save_model(self, Path(folder), kind="regressor")

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Read what `save` wrote.

        Raises:
            ModelError: If it is no such folder, or of other encoders than those that are there.
        """
        return load_model(cls(), Path(folder), kind="regressor")

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        return _frame_tags(tags)


def encoded_for(of: FusedClassifier | FusedRegressor, X: Any, modalities: "tuple[Modality, ...]") -> EncodedFrame:
    """Encode a frame as an estimator's parameters say."""
    space = space_named(str(of.space), of.device)
    cache = None if of.cache is None else Path(of.cache)
    return encode_frame(X, space, modalities, cache=cache)


def _fit_table(of: FusedClassifier | FusedRegressor, X: Any) -> NDArray[np.float32]:
    modalities = modalities_of(X, space_named(str(of.space), of.device))
    encoded = encoded_for(of, X, modalities)
    of.widths_ = widths_of(encoded)
    if not of.widths_:
        raise ValueError(f"no row of X has anything in {', '.join(modalities)} that could be encoded")
    of.feature_names_in_ = np.array(modalities, object)
    of.n_features_in_ = len(modalities)
    of.blocks_, start = {}, 0
    for modality, width in of.widths_.items():
        of.blocks_[str(modality)] = (start, start + width)
        start += width
    return table_of(encoded, of.widths_)


def table_for(of: FusedClassifier | FusedRegressor, X: Any) -> NDArray[np.float32]:
    """Return the table of numbers that a fitted estimator makes of a frame."""
    check_is_fitted(of, "model_")
    modalities_of(X, space_named(str(of.space), of.device))
    return table_of(encoded_for(of, X, tuple(of.widths_)), of.widths_)


def _name_of(y: Any) -> str | None:
    """Return the name of a column of labels; None of a plain array."""
    name = getattr(y, "name", None)
    return name if isinstance(name, str) else None


def _frame_tags(tags: Any) -> Any:
    tags.input_tags.allow_nan = True
    tags.input_tags.string = True
    tags.input_tags.two_d_array = False  # of numbers: what scikit-learn's generic checks would feed it
    return tags
