"""What a fusion is fitted to: feature blocks, which are the columns of one modality in a table, and targets.

A modality is missing from a row where all of its numbers are NaN. A block may consist of several views, as in
multi-view learning: what different layers of one network say, side by side. Views weigh the same, however many numbers
each has.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from trivium.encoders.several import is_one

Numbers = NDArray[np.float64]
Booleans = NDArray[np.bool_]
Integers = NDArray[np.int64]
Blocks: TypeAlias = Mapping[str, Numbers]  # modality -> rows (n, d), NaN where it is missing
Views: TypeAlias = Mapping[str, Sequence[int]]  # how many columns each view of a block has
Metric: TypeAlias = Literal["f1_macro", "accuracy", "r2"]

# Standardised numbers are cut there: some features of ReLU networks are nearly always 0 and then 50 deviations off.
LARGEST = 6.0
LEAST_DEVIATION = 1e-2  # as a share of the view's mean one: what hardly varies is not blown up


@dataclass(frozen=True, slots=True, kw_only=True)
class Targets:
    """What is to be predicted of some rows."""

    values: Numbers  # (n, c), as base learners are fitted to them
    labels: Integers  # (n,), from 0; of a regression all 0
    mean: Numbers  # (c,), what was taken away from the values: the classes' shares, or a mean
    metric: Metric

    @property
    def is_classes(self) -> bool:
        """Whether classes are predicted, not numbers."""
        return self.metric != "r2"

    @property
    def classes(self) -> int:
        """How many classes there are; 1 of a regression."""
        return int(self.values.shape[1])

    @property
    def numbers(self) -> Numbers:
        """Return what a regression is to predict, shape (n,)."""
        return np.asarray(self.values[:, 0] + self.mean[0], np.float64)

    @property
    def weights(self) -> Numbers:
        """How much each row counts when base learners are chosen: rows of rare classes more, for macro-F1."""
        if self.metric != "f1_macro":
            return np.ones(len(self.labels))
        return np.asarray(1 / np.sqrt(self.mean[self.labels]), np.float64)

    def of(self, rows: Booleans | Integers) -> "Targets":
        """Return that of some rows."""
        return Targets(values=self.values[rows], labels=self.labels[rows], mean=self.mean, metric=self.metric)


@dataclass(frozen=True, slots=True)
class BlockScaler:
    """Brings a block to one scale: z = weight clip((x - mean) / deviation), so that rows have length about 1."""

    mean: Numbers  # (d,)
    deviation: Numbers  # (d,)
    weight: Numbers  # (d,), 1 / sqrt(d_v v) of a view of d_v columns, one of v views

    @classmethod
    def of(cls, rows: Numbers, views: Sequence[int] | None = None) -> "BlockScaler":
        """Measure rows (n, d), at least one.

        Args:
            rows: Without NaN.
            views: How many columns each view has, d in all; None: there is one.
        """
        deviation = rows.std(axis=0)
        widths = np.array(views or [rows.shape[1]])
        view = np.repeat(np.arange(len(widths)), widths)
        means = np.bincount(view, deviation, minlength=len(widths)) / widths
        least = LEAST_DEVIATION * means[view]
        deviation = np.where(least > 0, np.maximum(deviation, least), 1.0)
        return cls(rows.mean(axis=0), deviation, 1 / np.sqrt(widths[view] * len(widths)))

    def __call__(self, rows: NDArray[np.floating[Any]]) -> Numbers:
        """Return rows (n, d) on this scale; NaN stays NaN."""
        scaled = np.clip((rows - self.mean) / self.deviation, -LARGEST, LARGEST)
        return np.asarray(self.weight * scaled, np.float64)


def check_blocks(blocks: Mapping[str, tuple[int, int]] | None, width: int) -> dict[str, tuple[int, int]]:
    """Return which columns each modality has, by name.

    Args:
        blocks: First column and the one after the last, of each modality; None: all columns are one.
        width: Of the table.

    Raises:
        ValueError: If they are not columns of it, or two modalities share one.
    """
    if blocks is None:
        return {"all": (0, width)}
    if not blocks:
        raise ValueError("blocks must name at least one modality, got none")
    for name, (start, stop) in blocks.items():
        if not 0 <= start < stop <= width:
            raise ValueError(f"blocks['{name}'] is ({start}, {stop}), the table has columns 0 to {width}")
    ordered = sorted(blocks.items(), key=lambda block: block[1])
    for (first, (_, stop)), (second, (start, _)) in pairwise(ordered):
        if start < stop:
            raise ValueError(f"blocks '{first}' and '{second}' share columns {start} to {stop}")
    return {name: (start, stop) for name, (start, stop) in sorted(blocks.items())}


def check_views(views: Mapping[str, Sequence[int]] | None, blocks: Mapping[str, tuple[int, int]]) -> Views:
    """Return how many columns each view of each block has.

    Raises:
        TypeError: If they are no sequence of numbers.
        ValueError: If they are not those of the blocks.
    """
    found = {}
    for name, (start, stop) in blocks.items():
        widths = (views or {}).get(name, (stop - start,))
        if is_one(widths):
            raise TypeError(f"views['{name}'] must be a list of widths, got {widths!r}: write [{widths}]")
        own = tuple(int(width) for width in widths)
        if sum(own) != stop - start or min(own) < 1:
            raise ValueError(
                f"views['{name}'] must be of {stop - start} columns in all, got {', '.join(map(str, own))}"
            )
        found[name] = own
    return found


def scalers_of(rows: Mapping[str, Numbers], presence: Mapping[str, "Booleans"], views: Views) -> dict[str, BlockScaler]:
    """Measure each block (n, d) that any row has."""
    return {name: BlockScaler.of(rows[name][has], views[name]) for name, has in presence.items() if has.any()}


def presence_of(table: Numbers, blocks: Mapping[str, tuple[int, int]]) -> dict[str, Booleans]:
    """Say which rows of a table (n, width) have which modality.

    Raises:
        ValueError: If a modality is there in part.
    """
    found: dict[str, Booleans] = {}
    for name, (start, stop) in blocks.items():
        is_nan = np.isnan(table[:, start:stop])
        missing = is_nan.all(axis=1)
        in_part = np.flatnonzero(is_nan.any(axis=1) & ~missing)
        if len(in_part):
            raise ValueError(
                f"'{name}' has NaN among its numbers in {len(in_part)} of {len(table)} rows, "
                f"first in row {in_part[0]}: a missing modality is NaN in all of its columns"
            )
        found[name] = np.asarray(~missing, np.bool_)
    return found


def contributions_of(
    predict: Callable[[Mapping[str, Booleans]], Numbers], presence: Mapping[str, Booleans], names: Iterable[str]
) -> dict[str, Numbers]:
    """Return what each modality added: the prediction less the one without it, zeros where it is missing.

    Args:
        predict: Given what rows are taken to have, (n,) of each modality; returns (n, c).
        presence: What they have.
        names: Of the modalities that are asked about.
    """
    whole = predict(presence)
    found = {}
    for name in names:
        without = {**presence, name: np.zeros_like(presence[name])}
        found[name] = np.where(presence[name][:, np.newaxis], whole - predict(without), 0.0)
    return found


def groups_of(table: Numbers, blocks: Mapping[str, tuple[int, int]]) -> Integers:
    """Return numbers of rows: those that share the content of the modality with the fewest contents share one.

    Captions of one photo belong together: what is learned of some must not be tried on the others.
    """
    best = np.arange(len(table))
    fewest = len(table)
    for start, stop in blocks.values():
        rows = np.ascontiguousarray(table[:, start:stop])
        keys = [row.tobytes() for row in rows]
        number_of = {key: place for place, key in enumerate(dict.fromkeys(keys))}
        missing = np.isnan(rows[:, 0])
        count = len(number_of) + int(missing.sum())
        # A modality of a handful of contents, such as a flag, says nothing about what belongs together.
        if len(table) / 10 < count < fewest:
            fewest = count
            best = np.array([number_of[key] for key in keys], np.int64)
            best[missing] = len(table) + np.arange(int(missing.sum()))
    return best


def folds_of(labels: Integers, groups: Integers, *, count: int, seed: int) -> Integers:
    """Deal rows to folds, groups staying whole and labels spread evenly, shape (n,)."""
    _, first, group = np.unique(groups, return_index=True, return_inverse=True)
    order = np.lexsort((np.random.default_rng(seed).permutation(len(first)), labels[first]))
    fold = np.empty(len(first), np.int64)
    fold[order] = np.arange(len(first)) % count
    return np.asarray(fold[group], np.int64)
