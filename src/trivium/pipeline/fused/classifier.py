"""`FusedClassifier` and `FusedRegressor`: classes and numbers from texts, pictures and sounds.

from trivium.fusion import FusedClassifier

classifier = FusedClassifier().fit(frame[["text", "image"]], frame["gender"])
classifier.predict_proba(frame)  # whichever of text and image a row has
classifier.save("gender-model")
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.utils.validation import check_is_fitted

from trivium.encoders.networks.contract import Precision
from trivium.encoders.several import path_of
from trivium.fusion.blocks import Metric, Numbers
from trivium.fusion.estimators import MOST_ROWS, BlockClassifier, BlockRegressor
from trivium.fusion.kernels.fusion import Names, SubsetModel
from trivium.pipeline.features.frames import EncodedFrame, FrameColumns, table_of
from trivium.pipeline.fused.model_folder import ModelKind, load_model, save_model
from trivium.pipeline.space.joint import DEFAULT_SPACE


class FusedModel(FrameColumns):
    """What `FusedClassifier` and `FusedRegressor` share: a model over tables of numbers, behind a frame."""

    kind: ClassVar[ModelKind]
    model_: Any  # `BlockClassifier`, `BlockRegressor` or `BlockTransferClassifier`
    label_name_: str | None

    def fit_table(self, X: Any) -> NDArray[np.float32]:
        """Return the table of numbers that a frame to learn from becomes."""
        return self.numbers_of(self.learn_columns(X))

    def table(self, X: Any) -> NDArray[np.float32]:
        """Return the table of numbers that the fitted model is asked."""
        check_is_fitted(self, "model_")
        return self.numbers_of(self.encoded(X))

    def numbers_of(self, encoded: EncodedFrame) -> NDArray[np.float32]:
        """Return what the model is given of each modality, side by side, NaN where one is missing."""
        return table_of(encoded, self.blocks_)

    def predict(self, X: Any) -> Any:
        """Return labels, or numbers, shape (n,); of a row with nothing the most frequent class, or the mean."""
        table = self.table(X)
        return self.model_.predict(table)

    def contributions(self, X: Any) -> dict[str, Numbers]:
        """Return what each modality added to each probability (n, classes) or number (n,): exact, by leaving it out."""
        table = self.table(X)
        found: dict[str, Numbers] = self.model_.contributions(table)
        return found

    def models(self) -> dict[Names, SubsetModel]:
        """Return what was chosen for each set of modalities; a network has none of these."""
        check_is_fitted(self, "model_")
        found: dict[Names, SubsetModel] = self.model_.models()
        return found

    def save(self, folder: str | Path) -> None:
        """Write the fitted model: numbers as safetensors, all else as JSON. The encoders are not part of it."""
        check_is_fitted(self, "model_")
        save_model(self, Path(path_of(folder, "folder")), kind=self.kind)

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Read what `save` wrote.

        Raises:
            ModelError: If it is no such folder, or of other encoders than those that are there.
        """
        return load_model(cls(), Path(path_of(folder, "folder")), kind=cls.kind)


class FusedClasses(FusedModel):
    """What classifiers share."""

    classes_: NDArray[Any]

    def predict_proba(self, X: Any) -> Numbers:
        """Return probabilities, (n, classes) in the order of `classes_`; of a row with nothing, the classes' shares."""
        table = self.table(X)
        found: Numbers = self.model_.predict_proba(table)
        return found


@dataclass(kw_only=True, eq=False, repr=False)
class FusedClassifier(ClassifierMixin, FusedClasses, BaseEstimator):
    """Classes from a DataFrame with columns `text`, `image` and `audio`, any of them, each cell perhaps missing.

    Texts are strings; pictures and sounds are paths or the bytes of files. What is None or NaN, and a file that
    cannot be read, is missing.

    By default the way of fusion is chosen by validation on the training rows, modality alone included, for each set
    of modalities that rows have. Encoders are frozen, and each content is encoded once, whatever is fitted how often.

    Args:
        space: Whose frozen encoders are used.
        fusion: See `BlockClassifier`.
        metric: What the way is chosen by: "f1_macro" or "accuracy".
        modality_dropout: How often a network's training forgets a modality.
        most_rows: Rows that candidates are judged on, and that kernels are centred on.
        random_state: Of folds, and of what a network starts from.
        precision: Of the encoders: "float32" or "int8" (texts on a CPU).
        device: Where the encoders run.
        cache: Folder of kept features; Trivium's own if None.
    """

    kind = "classifier"

    space: str | Path = DEFAULT_SPACE
    fusion: str = "auto"
    metric: Metric = "f1_macro"
    modality_dropout: float = 0.3
    most_rows: int = MOST_ROWS
    random_state: int = 0
    precision: Precision = "float32"
    device: str = "cpu"
    cache: str | Path | None = None

    def fit(self, X: Any, y: Any) -> Self:
        """Fit to a frame and its labels."""
        table = self.fit_table(X)
        self.model_ = BlockClassifier(
            blocks=self.blocks_,
            views=self.views_,
            fusion=self.fusion,
            metric=self.metric,
            modality_dropout=self.modality_dropout,
            most_rows=self.most_rows,
            random_state=self.random_state,
        ).fit(table, y)
        self.classes_ = self.model_.classes_
        self.label_name_ = name_of(y)
        return self


@dataclass(kw_only=True, eq=False, repr=False)
class FusedRegressor(RegressorMixin, FusedModel, BaseEstimator):
    """Numbers from a DataFrame with columns `text`, `image` and `audio`; see `FusedClassifier`."""

    kind = "regressor"

    space: str | Path = DEFAULT_SPACE
    fusion: str = "auto"
    modality_dropout: float = 0.3
    most_rows: int = MOST_ROWS
    random_state: int = 0
    precision: Precision = "float32"
    device: str = "cpu"
    cache: str | Path | None = None

    def fit(self, X: Any, y: Any) -> Self:
        """Fit to a frame and its numbers."""
        table = self.fit_table(X)
        self.model_ = BlockRegressor(
            blocks=self.blocks_,
            views=self.views_,
            fusion=self.fusion,
            modality_dropout=self.modality_dropout,
            most_rows=self.most_rows,
            random_state=self.random_state,
        ).fit(table, y)
        self.label_name_ = name_of(y)
        return self


def name_of(y: Any) -> str | None:
    """Return the name of a column of labels; None of a plain array."""
    name = getattr(y, "name", None)
    return name if isinstance(name, str) else None
