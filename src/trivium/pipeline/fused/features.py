"""`FusedFeatures`: a scikit-learn transformer from texts, pictures and sounds to one vector a row."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from trivium.encoders.networks.contract import Precision
from trivium.fusion.blocks import BlockScaler, presence_of
from trivium.fusion.combination import unit_means
from trivium.fusion.estimators import BlockClassifier, BlockRegressor
from trivium.fusion.networks.fitting import NetworkFusion
from trivium.fusion.networks.registry import FUSIONS, LATE
from trivium.pipeline.features.frames import FrameColumns, table_of, vectors_of
from trivium.pipeline.space.joint import DEFAULT_SPACE

CONCATENATION, MEAN = "concatenation", "mean"
NETWORKS = tuple(name for name in FUSIONS if name not in (*LATE, CONCATENATION))


@dataclass(kw_only=True, eq=False, repr=False)
class FusedFeatures(TransformerMixin, FrameColumns, BaseEstimator):
    """One vector a row of a DataFrame with columns `text`, `image` and `audio`, each cell perhaps missing.

    Encoders are frozen, and each content is encoded once, whatever is fitted how often.

    Args:
        space: Whose frozen encoders are used.
        fusion: "concatenation": what each encoder says, standardised so that modalities weigh the same, zeros
            where one is missing, and for each whether it is there. "mean": the mean of the vectors in the space,
            scaled to length 1; zeros where all is missing. Or a network of `registry.FUSIONS`, trained on what
            `fit` is told.
        layers: Whether inner layers are given too, which still know colours, textures and single words: better
            features, and three times as many.
        modality_dropout: How often a network's training forgets a modality.
        random_state: What a network starts from.
        precision: Of the encoders: "float32" or "int8" (texts on a CPU).
        device: Where the encoders run.
        cache: Folder of kept features; Trivium's own if None.
    """

    space: str | Path = DEFAULT_SPACE
    fusion: str = CONCATENATION
    layers: bool = True
    modality_dropout: float = 0.3
    random_state: int = 0
    precision: Precision = "float32"
    device: str = "cpu"
    cache: str | Path | None = None

    def fit(self, X: Any, y: Any = None) -> Self:
        """Learn scalers, and of a network all of it.

        Args:
            X: The frame.
            y: Labels or numbers; only a network needs them.

        Raises:
            ValueError: If the fusion is not known, or is a network and there is no ``y``.
        """
        known = (CONCATENATION, MEAN, *NETWORKS)
        if self.fusion not in known:
            raise ValueError(f"no fusion '{self.fusion}': known are {', '.join(known)}")
        if self.fusion in NETWORKS and y is None:
            raise ValueError(f"fusion '{self.fusion}' is trained: fit needs y")
        encoded = self.learn_columns(X, layers=self.layers)
        if self.fusion == MEAN:
            return self
        table = table_of(encoded, self.blocks_).astype(np.float64)
        if self.fusion == CONCATENATION:
            presence = presence_of(table, self.blocks_)
            self.scalers_ = {
                m: BlockScaler.of(table[presence[m], a:b], self.views_[m]) for m, (a, b) in self.blocks_.items()
            }
            return self
        is_number = np.asarray(y).dtype.kind == "f" and not np.all(np.asarray(y) == np.round(np.asarray(y)))
        estimator = (BlockRegressor if is_number else BlockClassifier)(
            blocks=self.blocks_,
            views=self.views_,
            fusion=self.fusion,
            modality_dropout=self.modality_dropout,
            random_state=self.random_state,
        )
        fitted = estimator.fit(table, y).model_
        assert isinstance(fitted, NetworkFusion)
        self.network_ = fitted
        return self

    def transform(self, X: Any) -> NDArray[np.float32]:
        """Return fused vectors, shape (n, d)."""
        check_is_fitted(self, "blocks_")
        encoded = self.encoded(X)
        if self.fusion == MEAN:
            space = self.joint_space()
            parts = [(encoded.rows[m], vectors) for m, vectors in vectors_of(encoded, space).items()]
            return unit_means(parts, count=encoded.count, dim=space.space.dim)
        table = table_of(encoded, self.blocks_)
        if self.fusion == CONCATENATION:
            # Blocks of the same weight, numbers of about deviation 1: what linear models are made for.
            size = np.sqrt(table.shape[1] / len(self.blocks_))
            parts = [size * np.nan_to_num(self.scalers_[m](table[:, a:b])) for m, (a, b) in self.blocks_.items()]
            flags = [~np.isnan(table[:, a : a + 1]) for a, _ in self.blocks_.values()]
            return np.concatenate([*parts, *flags], axis=1, dtype=np.float32)
        own = table.astype(np.float64)
        presence = presence_of(own, self.blocks_)
        fused = self.network_.fused({m: own[:, a:b] for m, (a, b) in sorted(self.blocks_.items())}, presence)
        return np.asarray(fused, np.float32)

    def get_feature_names_out(self, input_features: Any = None) -> NDArray[np.object_]:
        """Name the numbers of a fused vector."""
        del input_features  # what goes in are columns of a frame, not numbers
        check_is_fitted(self, "blocks_")
        if self.fusion == CONCATENATION:
            names = [f"{m}{place}" for m, (start, stop) in self.blocks_.items() for place in range(stop - start)]
            names += [f"has_{m}" for m in self.blocks_]
        else:
            space = self.joint_space().space
            width = space.dim if self.fusion == MEAN else int(self.network_.fusion.dim)  # type: ignore[arg-type]
            names = [f"fused{place}" for place in range(width)]
        return np.array(names, object)
