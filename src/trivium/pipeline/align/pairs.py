"""What spaces are aligned on: distinct items of tables, which of them belong together, and what is held out.

Two modalities that no table brings together meet through the texts that both have: a sound whose text says nearly what
a picture's text says is taken to belong to it. Without such pairs the two heads learn of each other only through the
texts' head, each with an error of its own.
"""

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from trivium.encoders.base import MODALITIES, Modality, unit_rows
from trivium.pipeline.tables.pairs import PairTable, Row

Two: TypeAlias = tuple[Modality, Modality]  # in the order of `MODALITIES`
LABEL_TEMPLATES: Mapping[Modality, tuple[str, ...]] = {
    "text": ("{}",),
    "image": ("{}", "a photo of a {}."),
    "audio": ("{}", "the sound of {}."),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A table and how much it counts."""

    table: PairTable
    weight: float = 1.0  # how often a pair of it is trained on, for once that a pair of weight 1 is


@dataclass(frozen=True, slots=True, kw_only=True)
class Pairs:
    """Pairs of two modalities' items."""

    rows: NDArray[np.int64]  # (p, 2), places among the items
    weights: NDArray[np.float64]  # (p,)
    is_held_out: NDArray[np.bool_]  # (p,)

    def chosen(self, is_wanted: NDArray[np.bool_]) -> "Pairs":
        """Return some of them."""
        return Pairs(
            rows=self.rows[is_wanted], weights=self.weights[is_wanted], is_held_out=self.is_held_out[is_wanted]
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Material:
    """Items without repeats, and pairs of them."""

    items: Mapping[Modality, Sequence[str]]  # texts, or absolute paths
    pairs: Mapping[Two, Pairs]

    def without(self, failed: Mapping[Modality, Iterable[int]]) -> "Material":
        """Return it without the pairs of some items; the items keep their places."""
        kept = {}
        for (first, second), pairs in self.pairs.items():
            is_wanted = ~np.isin(pairs.rows[:, 0], list(failed.get(first, ())))
            is_wanted &= ~np.isin(pairs.rows[:, 1], list(failed.get(second, ())))
            if is_wanted.any():
                kept[first, second] = pairs.chosen(is_wanted)
        return Material(items=self.items, pairs=kept)


def gather(
    sources: Sequence[Source],
    *,
    modalities: Sequence[Modality],
    held_out: float,
    seed: int,
    templates: Sequence[str] | None = None,
) -> Material:
    """Put tables together.

    Args:
        sources: At least one.
        modalities: That are wanted; others in the tables are passed over.
        held_out: Share of the pictures and sounds (or texts, of rows without either) whose rows are not trained on.
        seed: Decides which: by the item and not by its row, so that captions of a picture stay together.
        templates: With "{}" for a row's label; `LABEL_TEMPLATES` of what the row has if None.
    """
    places: dict[Modality, dict[str, int]] = {modality: {} for modality in modalities}
    found: dict[Two, dict[tuple[int, int], tuple[float, bool]]] = {}
    for source in sources:
        folder = os.path.dirname(os.path.abspath(source.table.path))
        for row in source.table.rows:
            is_held_out = _falls_out(row, folder, held_out, seed)
            items: dict[Modality, list[str]] = {}
            for modality in modalities:
                item = row.item(modality)
                items[modality] = [] if item is None else [item]
            if "text" in items and row.label is not None:
                items["text"] += _labelled(row, templates)
            present: list[Modality] = [m for m in MODALITIES if m in items]
            for first, second in combinations(present, 2):
                of_two = found.setdefault((first, second), {})
                for a in items[first]:
                    for b in items[second]:
                        key = (
                            places[first].setdefault(a, len(places[first])),
                            places[second].setdefault(b, len(places[second])),
                        )
                        of_two[key] = (source.weight, is_held_out)
    pairs = {
        two: Pairs(
            rows=np.array(list(of_two), np.int64).reshape(-1, 2),
            weights=np.array([weight for weight, _ in of_two.values()], np.float64),
            is_held_out=np.array([held for _, held in of_two.values()], np.bool_),
        )
        for two, of_two in found.items()
        if of_two
    }
    return Material(items={modality: list(of) for modality, of in places.items() if of}, pairs=pairs)


def _labelled(row: Row, templates: Sequence[str] | None) -> list[str]:
    label = (row.label or "").replace("_", " ").strip()
    if not label:
        return []
    if templates is None:
        has: Modality = "image" if row.image is not None else "audio" if row.audio is not None else "text"
        templates = LABEL_TEMPLATES[has]
    return [template.replace("{}", label) for template in templates]


def _falls_out(row: Row, folder: str, share: float, seed: int) -> bool:
    file = row.image or row.audio
    # Not by the whole path: the same table elsewhere gives the same heads.
    item = (row.text or "") if file is None else os.path.relpath(file, folder)
    digest = hashlib.sha256(f"{seed}|{item}".encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest[:8]) < share * 2**64


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
