"""An encoder of a space: a frozen network, and the projection that puts its features there."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from trivium.encoders.base import Backbone, Features, Modality, Passage, Prepared, Space, Vectors
from trivium.fusion.projections.plain import Projection
from trivium.pipeline.space.config import SpaceError


class ProjectedEncoder:
    """A backbone and the projection that puts its features into a space."""

    def __init__(self, space: Space, backbone: Backbone, projection: Projection) -> None:
        self.modality: Modality = backbone.modality
        self.space = space
        self.side: int | None = backbone.side
        self.backbone = backbone
        self.projection = projection

    def prepare(self, item: Any, /) -> Prepared:
        """Decode one item; see the backbone's own ``prepare`` for what it takes."""
        return self.backbone.prepare(item)

    def embed(self, batch: Sequence[Prepared], /) -> Vectors:
        """Return one unit vector per prepared item, shape (n, d)."""
        return self._projected(self.backbone.features(batch))

    def prepare_all(self, items: Sequence[Any], /) -> list[Prepared]:
        """Prepare many items in one call."""
        return self.backbone.prepare_all(items)

    def takes_file(self, data: bytes, /) -> bool:
        """Whether a file is decoded on the device."""
        return self.backbone.takes_file(data)

    def prepare_file(self, content: Any, /) -> Prepared:
        """Prepare what is left of a file to prepare."""
        return self.backbone.prepare_file(content)

    def passages(self, text: str, /) -> Sequence[Passage]:
        """Cut a long text into passages."""
        return self.backbone.passages(text)

    def blocks(self, sound: Any, /) -> Iterator[Prepared]:
        """Cut a sound into blocks."""
        return self.backbone.blocks(sound)

    def embed_windows(self, blocks: Iterable[Prepared], seconds: Sequence[tuple[float, float]], /) -> Vectors:
        """Return the vector of a whole sound and of each window, shape (1 + windows, d)."""
        features = Features.joined([self.backbone.block_features([part]) for part in blocks])
        count = len(features.pooled)
        return self._projected(features.means([(0, count), *self.backbone.windows(count, seconds)]))

    def _projected(self, features: Features) -> Vectors:
        """Project features, whatever a space's folder says of how.

        Raises:
            SpaceError: If the projection does not fit the backbone, or gives what is no vector.
        """
        try:
            with np.errstate(all="ignore"):  # numbers that are too large are told below
                vectors = self.projection(features)
        except ValueError as error:
            raise SpaceError(
                f"the projection of {self.modality} in space {self.space} does not fit: {error}"
            ) from error
        if not np.isfinite(vectors).all():
            raise SpaceError(f"the projection of {self.modality} in space {self.space} gives NaN or infinity")
        return vectors
