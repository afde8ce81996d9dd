"""What is right for which query: the distinct items of a table, and which of them belong together.

An item is a text, or a file by its path, however many rows name it. Two items of different modalities belong together
when a row holds both; where a table has no row with both modalities, when they share an item of the third. Two items of
the same modality belong together when they share an item of another: two captions of one picture.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from trivium.encoders.base import MODALITIES, Modality
from trivium.fusion.blocks import Integers, Numbers
from trivium.pipeline.tables.pairs import Row


class Matches(Protocol):
    """Which items of a gallery are right for queries; made block by block, because there may be very many."""

    def pairs(self, queries: Integers) -> tuple[Integers, Integers, Numbers]:
        """Return all right pairs of some queries, each once, by rising row and column.

        Args:
            queries: Their numbers, shape (q,), each once.

        Returns:
            Positions in ``queries``, the gallery's items, and how much each is worth, all of shape (p,).
        """
        ...


@dataclass(frozen=True, slots=True)
class Links:
    """Items that rows hold together, as compressed rows: targets[starts[i]:starts[i + 1]] belong to item i."""

    starts: Integers  # (n + 1,)
    targets: Integers  # (p,)
    gains: Numbers  # (p,)

    @classmethod
    def of(cls, edges: Mapping[tuple[int, int], float], *, count: int) -> "Links":
        """Make links of edges (from, to) and their gains, for ``count`` items."""
        ordered = sorted(edges)
        sources = np.array([source for source, _ in ordered], np.int64)
        starts = np.concatenate([[0], np.cumsum(np.bincount(sources, minlength=count))]).astype(np.int64)
        targets = np.array([target for _, target in ordered], np.int64)
        return cls(starts, targets, np.array([edges[edge] for edge in ordered], np.float64))

    def pairs(self, queries: Integers) -> tuple[Integers, Integers, Numbers]:
        """See `Matches`."""
        counts = self.starts[queries + 1] - self.starts[queries]
        before = np.cumsum(counts) - counts
        chosen = np.repeat(self.starts[queries] - before, counts) + np.arange(counts.sum())
        return np.repeat(np.arange(len(queries)), counts), self.targets[chosen], self.gains[chosen]


@dataclass(frozen=True, slots=True)
class JoinedLinks:
    """Items that share an item of another modality; none with itself, where both are of the same modality."""

    ways: Sequence[tuple[Links, Links]]  # to the shared item, and on from there
    gallery_size: int
    is_same: bool

    def pairs(self, queries: Integers) -> tuple[Integers, Integers, Numbers]:
        """See `Matches`; each is worth 1."""
        found = [np.empty(0, np.int64)]
        for first, second in self.ways:
            rows, shared, _ = first.pairs(queries)
            middle, targets, _ = second.pairs(shared)
            found.append(rows[middle] * self.gallery_size + targets)
        flat = np.unique(np.concatenate(found))
        rows, columns = np.divmod(flat, max(self.gallery_size, 1))
        if self.is_same:
            others = queries[rows] != columns
            rows, columns = rows[others], columns[others]
        return rows, columns, np.ones(len(rows))


@dataclass(frozen=True, slots=True)
class Judgements:
    """The galleries of a table, and what is right in them."""

    items: Mapping[Modality, Sequence[str]]  # distinct, in the order of the table
    links: Mapping[tuple[Modality, Modality], Links]  # both ways; only of modalities that some row has both of

    def matches(self, query: Modality, gallery: Modality) -> Matches | None:
        """Return what is right for queries of a modality; None if nothing ties it to the gallery's."""
        if (query, gallery) in self.links:
            return self.links[query, gallery]
        ways = [
            (self.links[query, shared], self.links[shared, gallery])
            for shared in self.items
            if (query, shared) in self.links and (shared, gallery) in self.links
        ]
        return JoinedLinks(ways, len(self.items[gallery]), query == gallery) if ways else None


def judge(rows: Iterable[Row], modalities: Sequence[Modality] = MODALITIES) -> Judgements:
    """Find the distinct items of rows and what belongs together.

    Args:
        rows: A row with a score is worth that much; with a score of 0 or less, nothing: what it holds does not belong
            together. Without a score it is worth 1. Where rows repeat a pair, the highest score counts.
        modalities: Those that are looked at.
    """
    numbers: dict[Modality, dict[str, int]] = {modality: {} for modality in modalities}
    edges: dict[tuple[Modality, Modality], dict[tuple[int, int], float]] = {}
    for row in rows:
        there: dict[Modality, int] = {}
        for modality in modalities:
            item = row.item(modality)
            if item is not None:
                there[modality] = numbers[modality].setdefault(item, len(numbers[modality]))
        gain = 1.0 if row.score is None else row.score
        if gain <= 0:
            continue
        for query, source in there.items():
            for gallery, target in there.items():
                if query != gallery:
                    known = edges.setdefault((query, gallery), {})
                    known[source, target] = max(gain, known.get((source, target), 0.0))
    items: dict[Modality, Sequence[str]] = {modality: list(found) for modality, found in numbers.items() if found}
    links = {pair: Links.of(found, count=len(items[pair[0]])) for pair, found in edges.items()}
    return Judgements(items, links)
