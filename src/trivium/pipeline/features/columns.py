"""What estimators over frames share, as one of scikit-learn's mixins: which columns there are, and encoding them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trivium.encoders.base import MODALITIES, Modality
from trivium.encoders.networks.contract import Precision
from trivium.pipeline.features.frames import EncodedFrame, encode_frame, modalities_of, space_named, views_of
from trivium.pipeline.space.joint import JointSpace


class FrameTags:
    """Tells scikit-learn that tables have columns of texts and files, with gaps."""

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()  # type: ignore[misc]  # of BaseEstimator, which stands behind
        tags.input_tags.allow_nan = True
        tags.input_tags.string = True
        tags.input_tags.two_d_array = False  # of numbers: what scikit-learn's generic checks would feed it
        return tags


class FrameColumns(FrameTags):
    """A frame's columns of a space's modalities, learnt by `fit`."""

    space: str | Path
    precision: Precision
    device: str
    cache: str | Path | None
    views_: dict[str, tuple[int, ...]]  # how many numbers each view of each modality has
    blocks_: dict[str, tuple[int, int]]  # their columns
    feature_names_in_: NDArray[np.object_]
    n_features_in_: int
    named_elsewhere_: str | None = None  # a space that a loaded model names, and nobody here

    def learn_columns(self, X: Any, *, layers: bool = True) -> EncodedFrame:
        """Encode a frame to learn from, and keep what it has; of each modality the last layer alone if not ``layers``.

        Raises:
            ValueError: If it has nothing that can be encoded.
        """
        modalities = modalities_of(X, self.joint_space())
        encoded = self._encode(X, modalities)
        views = views_of(encoded)
        self.views_ = views if layers else {name: widths[:1] for name, widths in views.items()}
        if not self.views_:
            raise ValueError(f"no row of X has anything in {', '.join(modalities)} that could be encoded")
        self.feature_names_in_ = np.array(modalities, object)
        self.n_features_in_ = len(modalities)
        self.blocks_ = blocks_of(self.views_)
        return encoded

    def encoded(self, X: Any) -> EncodedFrame:
        """Encode a frame's columns of what was learnt."""
        modalities_of(X, self.joint_space())
        return self._encode(X, [m for m in MODALITIES if m in self.views_])

    def joint_space(self) -> JointSpace:
        """Return the space, loaded once."""
        is_named = str(self.space) != self.named_elsewhere_
        return space_named(str(self.space), self.device, self.precision, is_named=is_named)

    def _encode(self, X: Any, modalities: Sequence[Modality]) -> EncodedFrame:
        cache = None if self.cache is None else Path(self.cache)
        return encode_frame(X, self.joint_space(), modalities, cache=cache)


def blocks_of(views: Mapping[str, Sequence[int]]) -> dict[str, tuple[int, int]]:
    """Return the first column and the one after the last of each modality, side by side in the order of the views."""
    found, start = {}, 0
    for modality, widths in views.items():
        found[modality] = (start, start + sum(widths))
        start += sum(widths)
    return found
