"""`TransferClassifier`: classes of one modality learnt from another's labels, through a space that both share.

from trivium.fusion import TransferClassifier

classifier = TransferClassifier(space="my-space", train_on="image").fit(frame, frame["kind"])
classifier.predict(frame[["text"]])  # no label of a text was seen
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin

from trivium.encoders.base import Modality
from trivium.encoders.networks.contract import Precision
from trivium.fusion.transfer import BlockTransferClassifier
from trivium.pipeline.features.frames import EncodedFrame, blocks_of, vectors_of
from trivium.pipeline.fused.classifier import FusedClasses, name_of
from trivium.pipeline.space.joint import DEFAULT_SPACE

LEAST_ROWS = 30  # that say where a modality's vectors lie


@dataclass(kw_only=True, eq=False, repr=False)
class TransferClassifier(ClassifierMixin, FusedClasses, BaseEstimator):
    """Classes from a DataFrame with columns `text`, `image` and `audio`, learnt from one of them, asked about any.

    Other columns of the frame to learn from need no labels of their own: they say where that modality's vectors lie. A
    row that has several modalities is judged by the mean of its vectors.

    Args:
        space: Whose vectors are used: best one aligned on like media (`trivium align`).
        train_on: The modality whose labels teach; None: whatever a row has.
        ridge: See `BlockTransferClassifier`.
        centring: See `BlockTransferClassifier`.
        precision: Of the encoders: "float32" or "int8" (texts on a CPU).
        device: Where the encoders run.
        cache: Folder of kept features; Trivium's own if None.
    """

    kind = "transfer"

    space: str | Path = DEFAULT_SPACE
    train_on: Modality | None = None
    ridge: float = 0.01
    centring: bool = True
    precision: Precision = "float32"
    device: str = "cpu"
    cache: str | Path | None = None

    def fit(self, X: Any, y: Any) -> Self:
        """Fit to a frame and its labels."""
        table = self.fit_table(X)
        self.model_ = BlockTransferClassifier(
            blocks=self.blocks_, train_on=self.train_on, ridge=self.ridge, centring=self.centring
        ).fit(table, y)
        self.classes_ = self.model_.classes_
        self.label_name_ = name_of(y)
        return self

    def centre(self, X: Any) -> Self:
        """Learn anew where the vectors of a frame's modalities lie; no labels are needed.

        Raises:
            ValueError: If a modality has too few rows to say.
        """
        table = self.table(X)
        for modality, (start, _) in self.blocks_.items():
            count = int((~np.isnan(table[:, start])).sum())
            if 0 < count < LEAST_ROWS and self.centring:
                raise ValueError(
                    f"{count} rows with '{modality}' do not say where its vectors lie, {LEAST_ROWS} would: "
                    f"let the table to train on have '{modality}' too, no labels are needed for it"
                )
        self.model_.centre(table)
        return self

    def numbers_of(self, encoded: EncodedFrame) -> NDArray[np.float32]:
        """Return the vectors in the space side by side, NaN where a modality is missing."""
        table = np.full((encoded.count, len(self.blocks_) * self.joint_space().space.dim), np.nan, np.float32)
        for modality, vectors in vectors_of(encoded, self.joint_space()).items():
            table[encoded.rows[modality], slice(*self.blocks_[modality])] = vectors
        return table

    def learn_columns(self, X: Any, *, layers: bool = True) -> EncodedFrame:
        """Encode a frame to learn from; whatever the space has may be asked about later."""
        encoded = super().learn_columns(X, layers=layers)
        space = self.joint_space()
        self.views_ = dict.fromkeys(map(str, space.modalities), (space.space.dim,))
        self.blocks_ = blocks_of(self.views_)
        return encoded
