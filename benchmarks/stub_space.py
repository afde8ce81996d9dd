"""A space whose encoders cost nothing: what is measured is Trivium's own work, not the networks'."""

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from trivium.encoders.base import Encoder, Modality, Prepared, Space, Vectors, unit_rows
from trivium.pipeline.space.config import SpaceConfig
from trivium.pipeline.space.joint import JointSpace


class StubEncoder(Encoder):
    """A vector drawn from a seed that the item's bytes give."""

    modality: Modality = "text"
    space = Space(name="", dim=0, revision="")

    def __init__(self, modality: Modality, space: Space) -> None:
        self.modality = modality
        self.space = space

    def prepare(self, item: Any, /) -> Prepared:
        return np.frombuffer(item.encode("utf-8", "surrogateescape"), np.uint8)

    def embed(self, batch: Sequence[Prepared], /) -> Vectors:
        seeds = [int.from_bytes(hashlib.sha256(item.tobytes()).digest()[:8], "big") for item in batch]
        return unit_rows(np.stack([np.random.default_rng(seed).normal(size=self.space.dim) for seed in seeds]))


class StubSpace(JointSpace):
    """Texts only."""

    def __init__(self, dim: int = 512) -> None:
        space = Space(name="stub", dim=dim, revision="1")
        super().__init__(SpaceConfig(space=space, description="", encoders={}), source="stub")

    @property
    def modalities(self) -> tuple[Modality, ...]:
        return ("text",)

    def encoder(self, modality: Modality, _replica: int = 0) -> Encoder:
        return StubEncoder(modality, self.space)
