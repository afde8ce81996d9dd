"""An encoder of a space: a frozen network, and the projection that puts its features there."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from trivium.encoders.base import Backbone, Features, Modality, Passage, Prepared, Space, Vectors
from trivium.fusion.projection import Projection


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
        return self.projection(self.backbone.features(batch))

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
        return self.projection(features.means([(0, count), *self.backbone.windows(count, seconds)]))
