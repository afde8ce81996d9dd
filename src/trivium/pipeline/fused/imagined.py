"""`ImaginedFeatures`: a scikit-learn transformer that gives each row what an indexed collection recalls of it.

from trivium.fusion import FusedFeatures, ImaginedFeatures

features = make_union(FusedFeatures(), ImaginedFeatures("photos"))  # texts, and the photos that they bring to mind

Imagination: an item gets the features of those nearest to it in another modality, as one recalls what it looks like. A
text is looked up in a collection of pictures through their common space; what the pictures' own frozen network says of
the nearest ones, weighted by their cosines, stands beside the text's own features. The same from sounds; and the other
way round, a picture gets the features of texts.

Sources: Tan, Bansal, "Vokenization", EMNLP 2020; Lu et al., "Imagination-augmented natural language understanding",
NAACL 2022 (there pictures are generated; here they are retrieved).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from trivium.encoders.base import Modality, Vectors
from trivium.encoders.decoding.texts import decode_text
from trivium.encoders.files.reading import read_file
from trivium.encoders.several import path_of
from trivium.fusion.blocks import BlockScaler
from trivium.fusion.projections.plain import softmax
from trivium.pipeline.collection import Collection
from trivium.pipeline.features.cache import FeatureCache
from trivium.pipeline.features.frames import FrameTags, encode_frame, modalities_of, vectors_of
from trivium.pipeline.features.frozen import encode_items

NEAREST = 10
TEMPERATURE = 0.05  # of the cosines: the nearest of ten counts about twice as much as the tenth


def recalled(
    collection: Collection,
    modality: Modality,
    vectors: Vectors,
    *,
    k: int = NEAREST,
    temperature: float = TEMPERATURE,
    cache: FeatureCache | None = None,
) -> NDArray[np.float32]:
    """Return the blended features of what is nearest to each vector in a collection, (n, e); zeros of a zero vector.

    Args:
        collection: Where items are looked up, in its own space.
        modality: Of what is recalled: pictures for texts, say.
        vectors: Of the collection's space, shape (n, d).
        k: How many items.
        temperature: Of the softmax over their cosines.
        cache: Where the features are kept; Trivium's own if None.

    Raises:
        ValueError: If the collection has nothing of the modality.
    """
    asked = np.flatnonzero(vectors.any(axis=1))
    found = collection.search_vectors(vectors[asked], only=modality, k=k)
    paths = sorted({hit.path for hits in found for hit in hits})
    if not paths:
        raise ValueError(f"{collection.folder} has no {modality}: there is nothing to recall")
    items: Sequence[str] = [decode_text(read_file(path)) for path in paths] if modality == "text" else paths
    encoded = encode_items(collection.space, modality, items, cache=cache)
    row_of = {paths[place]: row for row, place in enumerate(encoded.places)}
    places = np.zeros((len(found), k), np.int64)
    scores = np.full((len(found), k), -np.inf, np.float32)
    for query, hits in enumerate(found):
        known = [hit for hit in hits if hit.path in row_of]
        for rank, hit in enumerate(known):
            places[query, rank], scores[query, rank] = row_of[hit.path], hit.score
        if not known:  # all the same: what is recalled of anything
            scores[query, 0] = 0.0
    values = encoded.features.pooled
    whole = np.zeros((len(vectors), values.shape[1]), np.float32)
    whole[asked] = blended(values, places, scores, temperature=temperature)
    return whole


def blended(
    values: NDArray[np.float32],
    places: NDArray[np.int64],
    scores: NDArray[np.float32],
    *,
    temperature: float = TEMPERATURE,
) -> NDArray[np.float32]:
    """Return means of neighbours' values, weighted by softmax of their scores, shape (n, e).

    Args:
        values: Shape (m, e).
        places: Of each query's neighbours among them, shape (n, k).
        scores: Their cosines, shape (n, k); minus infinity where there are fewer.
        temperature: Of the softmax.
    """
    weights = softmax(scores / np.float32(temperature))
    found: NDArray[np.float32] = np.einsum("nk,nke->ne", weights, values[places]).astype(np.float32)
    return found


@dataclass(kw_only=True, eq=False, repr=False)
class ImaginedFeatures(TransformerMixin, FrameTags, BaseEstimator):
    """What the nearest items of a collection look or sound like, blended, for each row of a DataFrame.

    The items are found by one column, in the collection's own space; what is given is what the frozen network of
    another modality says of them. See `recalled`.

    Args:
        collection: Folder of a collection.
        recalled: Of which of its items' features.
        asked_by: The column that they are found by.
        k: How many items.
        temperature: Of the softmax over their cosines.
        device: Where the encoders run.
        cache: Folder of kept features; Trivium's own if None.
    """

    collection: str | Path = field(kw_only=False)
    recalled: Modality = "image"
    asked_by: Modality = "text"
    k: int = NEAREST
    temperature: float = TEMPERATURE
    device: str = "cpu"
    cache: str | Path | None = None

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
        self.scaler_ = BlockScaler.of(found.astype(np.float64))
        self.feature_names_in_ = np.array([self.asked_by], object)
        self.n_features_in_ = 1
        return self

    def transform(self, X: Any) -> NDArray[np.float32]:
        """Return what is recalled, shape (n, d), of about deviation 1; zeros where there is nothing to ask by."""
        check_is_fitted(self, "scaler_")
        found, has = self._recall(X)
        recalled = np.zeros((len(has), len(self.scaler_.mean)), np.float32)
        if len(found):
            recalled[has] = np.sqrt(found.shape[1]) * self.scaler_(found)
        return recalled

    def get_feature_names_out(self, input_features: Any = None) -> NDArray[np.object_]:
        """Name the numbers."""
        del input_features
        check_is_fitted(self, "scaler_")
        return np.array([f"recalled_{self.recalled}{place}" for place in range(len(self.scaler_.mean))], object)

    def _recall(self, X: Any) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Return what is recalled of the rows that have something to ask by, and which rows these are."""
        folder = None if self.cache is None else Path(path_of(self.cache, "cache"))
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
            vectors = vectors_of(encoded, space)[self.asked_by]
            found = recalled(collection, self.recalled, vectors, k=self.k, temperature=self.temperature, cache=kept)
            return found, has
