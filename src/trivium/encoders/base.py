"""What every encoder promises: items of one modality in, unit vectors of one space out.

A *backbone* is a frozen pretrained network: it turns items into `Features`. An *encoder* puts those
features into a `Space` whose vectors may be compared. Nothing here imports torch, so that code
which only handles vectors stays light.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

Modality = Literal["text", "image", "audio"]
MODALITIES: tuple[Modality, ...] = get_args(Modality)

Vectors: TypeAlias = NDArray[np.float32]  # (n, d), every row of length 1
Prepared: TypeAlias = NDArray[Any]  # one decoded item, no batch axis


@dataclass(frozen=True, slots=True, kw_only=True)
class Space:
    """The identity of a vector space: vectors may be compared only when their spaces are equal."""

    name: str  # e.g. "trivium-labels"
    dim: int  # numbers per vector
    revision: str  # hash over weights, preprocessing and projections

    def __str__(self) -> str:
        """Name and revision, as users meet them in messages."""
        return f"'{self.name}' (revision {self.revision})"


class DecodeError(Exception):
    """An item that cannot be read or decoded; ``reason`` is a plain sentence for its owner."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Features:
    """What a frozen backbone says about n items."""

    pooled: NDArray[np.float32]  # (n, d)
    logits: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)  # classifier head -> (n, c)

    def means(self, segments: Sequence[tuple[int, int]]) -> "Features":
        """Return one row for each segment (start, stop) of rows: their mean. No segment is empty."""
        arrays = {"": self.pooled, **self.logits}
        pooled, *logits = (_segment_means(rows, segments) for rows in arrays.values())
        return Features(pooled=pooled, logits=dict(zip(self.logits, logits, strict=True)))


class Backbone(Protocol):
    """A frozen pretrained network for one modality."""

    @property
    def modality(self) -> Modality:
        """What the items are."""
        ...

    @property
    def dim(self) -> int:
        """Width of the pooled features."""
        ...

    def prepare(self, item: Any, /) -> Prepared:
        """Decode one item on the CPU; safe to call from several threads.

        Raises:
            DecodeError: If the item is unreadable, damaged, empty or over a size limit.
        """
        ...

    def features(self, batch: Sequence[Prepared], /) -> Features:
        """Run one forward pass on the device; row i belongs to ``batch[i]``; no gradient."""
        ...


class Encoder(Protocol):
    """One modality's way into a space."""

    @property
    def modality(self) -> Modality:
        """What the items are."""
        ...

    @property
    def space(self) -> Space:
        """Where the vectors lie."""
        ...

    def prepare(self, item: Any, /) -> Prepared:
        """Decode one item on the CPU; see `Backbone.prepare`."""
        ...

    def embed(self, batch: Sequence[Prepared], /) -> Vectors:
        """Return one unit vector per prepared item, shape (n, d), in order."""
        ...


def unit_rows(matrix: NDArray[np.floating[Any]]) -> Vectors:
    """Scale each row of ``matrix`` (n, d) to length 1; a zero row stays zero."""
    norms = np.linalg.norm(matrix.astype(np.float64), axis=1, keepdims=True)
    return np.asarray(matrix / np.where(norms > 0, norms, 1.0), dtype=np.float32)


def _segment_means(rows: NDArray[np.float32], segments: Sequence[tuple[int, int]]) -> NDArray[np.float32]:
    means = np.empty((len(segments), rows.shape[1]), np.float32)
    for place, (start, stop) in enumerate(segments):
        means[place] = rows[start:stop].mean(axis=0)
    return means
