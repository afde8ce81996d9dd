"""A fusion that copes with whatever a row has: one model for each set of modalities, each chosen by validation.

A row with text and photo is predicted by the model of text and photo, a row without a photo by the model of text: as
good as if it had been asked for that alone. So nothing is filled in, and what a modality added to a prediction is, to
the last digit, the prediction less that of the model that never saw it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import combinations
from typing import TypeAlias

import numpy as np

from trivium.fusion.blocks import Booleans, Numbers, Places, Scale, contributions_of, folds_of
from trivium.fusion.kernels.experts import Blocks, Expert, KernelTrials, Tried, fit_expert, try_agreement
from trivium.fusion.kernels.selection import Link, Truth, Way, judge, simplest, try_way

Names: TypeAlias = tuple[str, ...]  # of modalities, in order
FOLDS = 5
ROWS_AT_ONCE = 1024  # of prediction: their kernel has 20 MB for 2,500 centres
LEAST_ROWS = 2 * FOLDS  # that have a set of modalities, to learn anything of it
MOST_CLASSES_OF_AGREEMENT = 10  # one map each


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a fit is told."""

    fusion: str  # "auto" or one of `FAMILIES`
    most_rows: int  # that are tried on, and that kernels are centred on
    seed: int


# What may be asked for instead of "auto".
FAMILIES = ("sum", "product", "late", "agreement")


@dataclass(frozen=True, slots=True, kw_only=True)
class SubsetModel:
    """What predicts rows that have some modalities."""

    way: str
    experts: tuple[Expert, ...]
    link: Link = field(repr=False)
    score: float  # on validation
    tried: Mapping[str, float]  # every way's score on validation


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockFusion:
    """Models by the modalities that a row has; what a row gets that has nothing known is `prior`."""

    scales: Mapping[str, Scale] = field(repr=False)
    centres: Blocks = field(repr=False)  # rows that kernels are centred on
    models: Mapping[Names, SubsetModel]
    prior: Numbers  # (c,)
    is_classes: bool

    def predict(self, blocks: Blocks, presence: Mapping[str, Booleans]) -> Numbers:
        """Return probabilities of classes (n, c), or numbers (n, 1).

        Args:
            blocks: Rows as they were given, (n, d) of each modality.
            presence: Which rows have which.
        """
        names = tuple(self.scales)
        n = len(next(iter(presence.values())))
        found = np.tile(self.prior, (n, 1))
        has = np.stack([presence[name] for name in names], axis=1)  # (n, m)
        for pattern in np.unique(has, axis=0):
            known = tuple(name for name, is_there in zip(names, pattern, strict=True) if is_there)
            if (model := self.model_of(known)) is None:
                continue
            alike = np.flatnonzero((has == pattern).all(axis=1))
            for start in range(0, len(alike), ROWS_AT_ONCE):
                rows = alike[start : start + ROWS_AT_ONCE]
                scaled = {name: self.scales[name](blocks[name][rows]) for name in known}
                scores = np.concatenate([expert(scaled, self.centres) for expert in model.experts], axis=1)
                found[rows] = model.link.probabilities(scores) if self.is_classes else model.link(scores)
        return found

    def model_of(self, names: Names) -> SubsetModel | None:
        """Return the model of a set of modalities; if it has none, the best one of a part of it."""
        if names in self.models:
            return self.models[names]
        parts = [model for known, model in self.models.items() if set(known) < set(names)]
        return max(parts, key=lambda model: model.score, default=None)

    def contributions(self, blocks: Blocks, presence: Mapping[str, Booleans]) -> dict[str, Numbers]:
        """Return what each modality added; see `contributions_of`."""
        return contributions_of(lambda has: self.predict(blocks, has), presence, self.scales)


def fit_fusion(
    blocks: Blocks,
    presence: Mapping[str, Booleans],
    scales: Mapping[str, Scale],
    truth: Truth,
    groups: Places,
    settings: Settings,
) -> BlockFusion:
    """Fit a model for every set of modalities that enough rows have.

    Args:
        blocks: Rows (n, d) of each modality, by name; NaN where it is missing.
        presence: Which rows have which.
        scales: Of the modalities that any row has.
        truth: Of all rows.
        groups: Rows that must not be apart in validation share a number, (n,).
        settings: See `Settings`.
    """
    random = np.random.default_rng(settings.seed)
    n = len(groups)
    centres = np.sort(random.permutation(n)[: settings.most_rows])
    folds = folds_of(truth.labels, groups, count=FOLDS, seed=settings.seed)
    names = tuple(scales)
    scaled = {name: scales[name](blocks[name]) for name in names}
    search = _Search(scaled, presence, truth, folds, centres, settings)
    models = {}
    for count in range(1, len(names) + 1):
        for subset in combinations(names, count):
            way = search.way(subset)
            if way is None:
                continue
            experts = tuple(
                fit_expert(plan, scaled, truth.targets, truth.labels, centres, most_centres=settings.most_rows)
                for plan in way.plans
            )
            models[subset] = SubsetModel(
                way=way.name, experts=experts, link=way.link, score=way.score, tried=search.tried[subset]
            )
    return BlockFusion(
        scales=scales,
        centres={name: rows[centres] for name, rows in scaled.items()},
        models=models,
        prior=truth.mean,
        is_classes=truth.is_classes,
    )


class _Search:
    """Tries the ways of every set of modalities; what one modality says is tried once on the rows of each set."""

    def __init__(
        self,
        scaled: Blocks,
        presence: Mapping[str, Booleans],
        truth: Truth,
        folds: Places,
        centres: Places,
        settings: Settings,
    ) -> None:
        self._scaled, self._presence, self._truth = scaled, presence, truth
        self._folds, self._centres, self._settings = folds, centres, settings
        self.tried: dict[Names, dict[str, float]] = {}
        self._alone: dict[tuple[str, bytes], Tried] = {}  # by modality and rows

    def way(self, names: Names) -> Way | None:
        """Choose how rows that have these modalities are predicted; None if there are too few."""
        has = np.all([self._presence[name] for name in names], axis=0)
        rows = self._centres[has[self._centres]]
        if len(rows) < LEAST_ROWS or len(np.unique(self._folds[rows])) < FOLDS:
            return None if len(names) > 1 or not len(rows) else self._untried(names, rows)
        truth = self._truth.of(rows)
        if truth.is_classes and len(np.unique(truth.labels)) < 2:
            return None
        trials = KernelTrials(
            {name: self._scaled[name][rows] for name in names}, truth.targets, truth.weights, self._folds[rows]
        )
        ways = [
            try_way(way, parts, truth, self._folds[rows]) for way, parts in self._ways(names, trials, rows, truth, has)
        ]
        self.tried[names] = {way.name: way.score for way in ways}
        return simplest(ways, truth, seed=self._settings.seed)

    def _ways(
        self, names: Names, trials: KernelTrials, rows: Places, truth: Truth, has: Booleans
    ) -> list[tuple[str, list[Tried]]]:
        for name in names:
            if (name, rows.tobytes()) not in self._alone:
                self._alone[name, rows.tobytes()] = trials.weighted([name])
        alone = {name: self._alone[name, rows.tobytes()] for name in names}
        if len(names) == 1:
            return [(names[0], [alone[names[0]]])]
        wanted = self._settings.fusion
        together = trials.weighted(names)
        ways = {"sum": [together], "product": [trials.with_product(together)], "late": list(alone.values())}
        if truth.is_classes and truth.classes <= MOST_CLASSES_OF_AGREEMENT and wanted in ("auto", "agreement"):
            agreements = [self._agreement(pair, rows, truth, has) for pair in combinations(names, 2)]
            ways["agreement"] = [together, *agreements]
        if wanted != "auto":
            return [(wanted, ways.get(wanted, ways["sum"]))]
        return [*((name, [tried]) for name, tried in alone.items()), *ways.items()]

    def _agreement(self, pair: tuple[str, str], rows: Places, truth: Truth, has: Booleans) -> Tried:
        """Try a pair's agreement: fitted to all rows that have it, as that costs little, and judged on those tried."""
        both = np.flatnonzero(has)
        at = np.searchsorted(both, rows)
        return try_agreement(
            {name: self._scaled[name][both] for name in pair},
            self._truth.labels[both],
            self._folds[both],
            pair,
            classes=truth.classes,
            at=at,
            judge=judge(truth),
        )

    def _untried(self, names: Names, rows: Places) -> Way | None:
        """Fit what is too little to be tried: as it would be if there were more, and its own scores as they are."""
        truth = self._truth.of(rows)
        if truth.is_classes and len(np.unique(truth.labels)) < 2:
            return None
        folds = np.arange(len(rows))  # each row for itself
        blocks = {name: self._scaled[name][rows] for name in names}
        tried = KernelTrials(blocks, truth.targets, truth.weights, folds).weighted(names)
        way = try_way(names[0], [tried], truth, folds % FOLDS)
        self.tried[names] = {way.name: way.score}
        return way
