"""Pairs for two modalities that no table brings together: they meet through the texts that both have.

A sound whose text says nearly what a picture's text says is taken to belong to it. Without such pairs the two heads
learn of each other only through the texts' head, each with an error of its own.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from trivium.encoders.base import MODALITIES, Modality, unit_rows
from trivium.pipeline.align.pairs import Pairs, Two

# Chosen on pictures and sounds of stamps (docs/benchmarks.md, "Pictures and sounds that no table pairs").
PSEUDO_SHARE = 0.5
NEIGHBOURS = 3  # texts of the one modality for each text of the other
LEAST_COSINE = 0.7  # of two texts that say nearly the same
QUERIES_AT_ONCE = 1024


def pseudo_pairs(
    pairs: Mapping[Two, Pairs], texts: NDArray[np.float32], *, share: float, limit: int = 200_000
) -> dict[Two, Pairs]:
    """Make pairs of modalities that have none, from trained pairs with texts.

    Args:
        pairs: What tables hold.
        texts: The text encoder's pooled features, a row for each text, shape (n, d).
        share: How often they are trained on together, for once that the smaller set of pairs with texts is.
        limit: Most pairs of two modalities; the texts that are most alike are kept.

    Returns:
        Pairs of modalities that ``pairs`` lacks, none held out; their weights tell how alike the texts are.
    """
    others: list[Modality] = [m for m in MODALITIES if m != "text" and _trained(pairs, ("text", m)) is not None]
    missing: list[Two] = [(a, b) for place, a in enumerate(others) for b in others[place + 1 :] if (a, b) not in pairs]
    vectors = unit_rows(texts)
    found: dict[Two, Pairs] = {}
    for first, second in missing:
        a, b = _trained(pairs, ("text", first)), _trained(pairs, ("text", second))
        assert a is not None
        assert b is not None
        of_a, of_b = np.unique(a[:, 0]), np.unique(b[:, 0])
        alike: dict[tuple[int, int], float] = {}
        for start in range(0, len(of_b), QUERIES_AT_ONCE):
            some = of_b[start : start + QUERIES_AT_ONCE]
            cosines = vectors[some] @ vectors[of_a].T
            nearest = np.argsort(-cosines, axis=1, kind="stable")[:, :NEIGHBOURS]
            for row, text in enumerate(some):
                for column in nearest[row]:
                    if (cosine := float(cosines[row, column])) >= LEAST_COSINE:
                        alike[int(of_a[column]), int(text)] = cosine
        strength: dict[tuple[int, int], float] = {}
        items_a, items_b = _items_of(a), _items_of(b)
        for (text_a, text_b), cosine in sorted(alike.items(), key=lambda item: -item[1]):
            for x in items_a[text_a]:
                for y in items_b[text_b]:
                    if len(strength) < limit:
                        strength.setdefault((x, y), cosine)
        if not strength:
            continue
        weights = np.array(list(strength.values()))
        found[first, second] = Pairs(
            rows=np.array(list(strength), np.int64),
            weights=weights * (share * min(len(a), len(b)) / weights.sum()),
            is_held_out=np.zeros(len(strength), np.bool_),
        )
    return found


def _trained(pairs: Mapping[Two, Pairs], two: Two) -> NDArray[np.int64] | None:
    if two not in pairs:
        return None
    rows = pairs[two].rows[~pairs[two].is_held_out]
    return rows if len(rows) else None


def _items_of(rows: NDArray[np.int64]) -> dict[int, list[int]]:
    found: dict[int, list[int]] = {}
    for text, item in rows.tolist():
        found.setdefault(text, []).append(item)
    return found
