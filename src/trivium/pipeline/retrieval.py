"""A query vector to hits: items, each once, with the vector of it that matched."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trivium.encoders.base import Modality
from trivium.pipeline.query import QueryError
from trivium.pipeline.records import Role
from trivium.pipeline.store import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """One item found."""

    path: str
    modality: Modality
    score: float  # cosine of query and vector, in [-1, 1]; larger is nearer
    caption: str | None  # the caption beside a picture or sound; a text's first line
    matched: Role  # which vector of the item


def search(store: Store, vector: NDArray[np.float32], *, k: int, only: Modality | None = None) -> list[Hit]:
    """Find the k items nearest to a unit vector, shape (d,), best first; ties by path.

    Args:
        store: The collection.
        vector: In the collection's space.
        k: At least 1; fewer hits come back when the collection has fewer items.
        only: Restrict the hits to items of one modality; there are k of them whenever they exist.

    Raises:
        QueryError: If ``k`` is below 1.
    """
    if k < 1:
        raise QueryError(f"k must be at least 1, got {k}")
    with store.reading():
        # An item takes at most `vectors_per_item` of the nearest vectors, so that many times k cover k items.
        wanted = k * store.vectors_per_item()
        if not wanted:
            return []
        among = None if only is None else store.vectors_of(only)
        ids, scores = store.index().search(vector[np.newaxis], k=wanted, among=among).of(0)
        score_of = dict(zip(ids.tolist(), scores.tolist(), strict=True))
        best: dict[str, Hit] = {}
        for match in store.matches(ids.tolist()):  # best vector first: an item's first match is its best
            if only is None or match.modality == only:
                best.setdefault(
                    match.path,
                    Hit(
                        path=match.path,
                        modality=match.modality,
                        score=score_of[match.vector],
                        caption=match.caption,
                        matched=match.role,
                    ),
                )
    return sorted(best.values(), key=lambda hit: (-hit.score, hit.path))[:k]
