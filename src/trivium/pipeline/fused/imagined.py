"""`ImaginedFeatures`: a scikit-learn transformer that gives each row what an indexed collection recalls of it.

from trivium.fusion import FusedFeatures, ImaginedFeatures

features = make_union(FusedFeatures(), ImaginedFeatures("photos"))  # texts, and the photos that they bring to mind
"""

from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from trivium.encoders.base import Modality
from trivium.fusion.blocks import Scale
from trivium.pipeline.collection import Collection
from trivium.pipeline.features.cache import FeatureCache
from trivium.pipeline.features.columns import FrameTags
from trivium.pipeline.features.frames import encode_frame, modalities_of, vectors_of
from trivium.pipeline.fused.imagination import NEAREST, TEMPERATURE, Imagination


class ImaginedFeatures(TransformerMixin, FrameTags, BaseEstimator):
    """What the nearest items of a collection look or sound like, blended, for each row of a DataFrame.

    The items are found by one column, in the collection's own space; what is given is what the frozen network of
    another modality says of them. See `imagination.Imagination`.
    """

    scale_: Scale
    feature_names_in_: NDArray[np.object_]
    n_features_in_: int

    def __init__(
        self,
        collection: str | Path,
        *,
        recalled: Modality = "image",
        asked_by: Modality = "text",
        k: int = NEAREST,
        temperature: float = TEMPERATURE,
        device: str = "cpu",
        cache: str | Path | None = None,
    ) -> None:
        """Say how.

        Args:
            collection: Folder of a collection.
            recalled: Of which of its items' features.
            asked_by: The column that they are found by.
            k: How many items.
            temperature: Of the softmax over their cosines.
            device: Where the encoders run.
            cache: Folder of kept features; Trivium's own if None.
        """
        self.collection = collection
        self.recalled: Modality = recalled
        self.asked_by: Modality = asked_by
        self.k = k
        self.temperature = temperature
        self.device = device
        self.cache = cache

    def fit(self, X: Any, y: Any = None) -> Self:
        """Learn the numbers' scale.

        Raises:
            CollectionError: If there is no collection.
            ValueError: If it has nothing of what is to be recalled, or no row has anything to ask by.
        """
        del y
        found, _ = self._recall(X)
        if not len(found):
            raise ValueError(f"no row of X has anything in '{self.asked_by}' that could be encoded")
        self.scale_ = Scale.of(found.astype(np.float64))
        self.feature_names_in_ = np.array([self.asked_by], object)
        self.n_features_in_ = 1
        return self

    def transform(self, X: Any) -> NDArray[np.float32]:
        """Return what is recalled, shape (n, d), of about deviation 1; zeros where there is nothing to ask by."""
        check_is_fitted(self, "scale_")
        found, has = self._recall(X)
        recalled = np.zeros((len(has), len(self.scale_.mean)), np.float32)
        if len(found):
            recalled[has] = np.sqrt(found.shape[1]) * self.scale_(found)
        return recalled

    def get_feature_names_out(self, input_features: Any = None) -> NDArray[np.object_]:
        """Name the numbers."""
        del input_features
        check_is_fitted(self, "scale_")
        return np.array([f"recalled_{self.recalled}{place}" for place in range(len(self.scale_.mean))], object)

    def _recall(self, X: Any) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Return what is recalled of the rows that have something to ask by, and which rows these are."""
        folder = None if self.cache is None else Path(self.cache)
        with Collection.open(self.collection, device=self.device) as collection:
            space = collection.space
            if self.asked_by not in modalities_of(X, space):
                raise ValueError(f"X must have the column '{self.asked_by}', which the collection is asked by")
            encoded = encode_frame(X, space, [self.asked_by], cache=folder)
            has = np.zeros(encoded.count, np.bool_)
            if self.asked_by not in encoded.rows:
                return np.empty((0, 0), np.float32), has
            has[encoded.rows[self.asked_by]] = True
            kept = FeatureCache(space.features_revision(self.recalled), folder=folder)
            imagination = Imagination(collection, self.recalled, k=self.k, temperature=self.temperature, cache=kept)
            return imagination.of_vectors(vectors_of(encoded, space)[self.asked_by]), has
