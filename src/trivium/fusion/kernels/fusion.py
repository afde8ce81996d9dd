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

from trivium.fusion.blocks import (
    Blocks,
    BlockScaler,
    Booleans,
    Integers,
    Numbers,
    Targets,
    contributions_of,
    folds_of,
)
from trivium.fusion.kernels.base_learners import BaseLearner, KernelSearch, OutOfFold, fit_learner, search_agreement
from trivium.fusion.kernels.selection import CalibrationMap, Candidate, judge, simplest, stacked

Names: TypeAlias = tuple[str, ...]  # of modalities, in order
FAMILIES = ("sum", "product", "late", "agreement")  # what may be asked for instead of "auto"
FOLDS = 5
ROWS_AT_ONCE = 1024  # of prediction: their kernel has 20 MB for 2,500 centres
LEAST_ROWS = 2 * FOLDS  # that have a set of modalities, to learn anything of it
MOST_CLASSES_OF_AGREEMENT = 10  # one map each


@dataclass(frozen=True, slots=True, kw_only=True)
class FusionSettings:
    """What a fit is told."""

    fusion: str  # "auto" or one of `FAMILIES`
    most_rows: int  # that candidates are judged on, and that kernels are centred on
    seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SubsetModel:
    """What predicts rows that have some modalities."""

    way: str  # the name of the candidate that was chosen
    learners: tuple[BaseLearner, ...]
    calibration: CalibrationMap = field(repr=False)
    score: float  # on validation
    tried: Mapping[str, float]  # every candidate's score on validation


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockFusion:
    """Models by the modalities that a row has; what a row gets that has nothing known is `prior`."""

    scalers: Mapping[str, BlockScaler] = field(repr=False)
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
        names = tuple(self.scalers)
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
                scaled = {name: self.scalers[name](blocks[name][rows]) for name in known}
                scores = np.concatenate([learner(scaled, self.centres) for learner in model.learners], axis=1)
                calibration = model.calibration
                found[rows] = calibration.probabilities(scores) if self.is_classes else calibration(scores)
        return found

    def model_of(self, names: Names) -> SubsetModel | None:
        """Return the model of a set of modalities; if it has none, the best one of a part of it."""
        if names in self.models:
            return self.models[names]
        parts = [model for known, model in self.models.items() if set(known) < set(names)]
        return max(parts, key=lambda model: model.score, default=None)

    def contributions(self, blocks: Blocks, presence: Mapping[str, Booleans]) -> dict[str, Numbers]:
        """Return what each modality added; see `contributions_of`."""
        return contributions_of(lambda has: self.predict(blocks, has), presence, self.scalers)


def fit_fusion(
    blocks: Blocks,
    presence: Mapping[str, Booleans],
    scalers: Mapping[str, BlockScaler],
    targets: Targets,
    groups: Integers,
    settings: FusionSettings,
) -> BlockFusion:
    """Fit a model for every set of modalities that enough rows have.

    Args:
        blocks: Rows (n, d) of each modality, by name; NaN where it is missing.
        presence: Which rows have which.
        scalers: Of the modalities that any row has.
        targets: Of all rows.
        groups: Rows that must not be apart in validation share a number, (n,).
        settings: See `FusionSettings`.
    """
    n = len(groups)
    centres = np.sort(np.random.default_rng(settings.seed).permutation(n)[: settings.most_rows])
    folds = folds_of(targets.labels, groups, count=FOLDS, seed=settings.seed)
    names = tuple(scalers)
    scaled = {name: scalers[name](blocks[name]) for name in names}
    search = _CandidateSearch(scaled, presence, targets, folds, centres, settings)
    models = {}
    for subset in (subset for count in range(1, len(names) + 1) for subset in combinations(names, count)):
        candidates = search.candidates(subset)
        if not candidates:
            continue
        best = simplest(candidates, targets.of(search.rows_of(subset)), seed=settings.seed)
        models[subset] = SubsetModel(
            way=best.name,
            learners=tuple(
                fit_learner(of, scaled, targets.values, targets.labels, centres, most_centres=settings.most_rows)
                for of in best.learners
            ),
            calibration=best.calibration,
            score=best.score,
            tried={candidate.name: candidate.score for candidate in candidates},
        )
    return BlockFusion(
        scalers=scalers,
        centres={name: rows[centres] for name, rows in scaled.items()},
        models=models,
        prior=targets.mean,
        is_classes=targets.is_classes,
    )


class _CandidateSearch:
    """Judges candidates for every set of modalities; a modality alone is judged once on the rows of each set."""

    def __init__(
        self,
        scaled: Blocks,
        presence: Mapping[str, Booleans],
        targets: Targets,
        folds: Integers,
        centres: Integers,
        settings: FusionSettings,
    ) -> None:
        self._scaled, self._presence, self._targets = scaled, presence, targets
        self._folds, self._centres, self._settings = folds, centres, settings
        self._alone: dict[tuple[str, bytes], OutOfFold] = {}  # by modality and rows

    def rows_of(self, names: Names) -> Integers:
        """Return which rows that kernels are centred on have all of some modalities."""
        has = np.all([self._presence[name][self._centres] for name in names], axis=0)
        rows: Integers = self._centres[has]
        return rows

    def candidates(self, names: Names) -> list[Candidate]:
        """Judge how rows that have these modalities may be predicted, from simple to rich; none if they are too few."""
        rows = self.rows_of(names)
        targets, folds = self._targets.of(rows), self._folds[rows]
        is_enough = len(rows) >= LEAST_ROWS and len(np.unique(folds)) == FOLDS
        is_alone = len(names) == 1
        if not len(rows) or not (is_enough or is_alone):
            return []
        if targets.is_classes and len(np.unique(targets.labels)) < 2:
            return []
        blocks = {name: self._scaled[name][rows] for name in names}
        if not is_enough:  # each row is a fold of its own: as it would be if there were more
            alone = np.arange(len(rows))
            tried = KernelSearch(blocks, targets.values, targets.weights, alone).weighted(names)
            return [stacked(names[0], [tried], targets, alone % FOLDS)]
        search = KernelSearch(blocks, targets.values, targets.weights, folds)
        return [stacked(name, parts, targets, folds) for name, parts in self._parts(names, search, rows, targets)]

    def _parts(
        self, names: Names, search: KernelSearch, rows: Integers, targets: Targets
    ) -> list[tuple[str, list[OutOfFold]]]:
        """Return the base learners of each candidate."""
        for name in names:
            if (name, rows.tobytes()) not in self._alone:
                self._alone[name, rows.tobytes()] = search.weighted([name])
        alone = {name: self._alone[name, rows.tobytes()] for name in names}
        if len(names) == 1:
            return [(name, [tried]) for name, tried in alone.items()]
        wanted = self._settings.fusion
        together = search.weighted(names)
        found = {"sum": [together], "product": [search.with_product(together)], "late": list(alone.values())}
        if targets.is_classes and targets.classes <= MOST_CLASSES_OF_AGREEMENT and wanted in ("auto", "agreement"):
            agreements = [self._agreement(pair, names, rows, targets) for pair in combinations(names, 2)]
            found["agreement"] = [together, *agreements]
        if wanted != "auto":
            return [(wanted, found.get(wanted, found["sum"]))]
        return [*((name, [tried]) for name, tried in alone.items()), *found.items()]

    def _agreement(self, pair: tuple[str, str], names: Names, rows: Integers, targets: Targets) -> OutOfFold:
        """Try a pair's agreement: fitted to all rows with the names, as that costs little, judged on those given."""
        has = np.flatnonzero(np.all([self._presence[name] for name in names], axis=0))
        return search_agreement(
            {name: self._scaled[name][has] for name in pair},
            self._targets.labels[has],
            self._folds[has],
            pair,
            classes=targets.classes,
            at=np.searchsorted(has, rows),
            judge=judge(targets),
        )
