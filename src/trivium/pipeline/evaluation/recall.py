"""How well a space finds what belongs together: every modality of a table asked for in every other, and in itself."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from trivium.encoders.base import MODALITIES, Modality, Space, Vectors
from trivium.fusion.blocks import Numbers
from trivium.pipeline.evaluation.calibration import Calibration, CalibrationSample, Reliability
from trivium.pipeline.evaluation.encoding import encode_rows
from trivium.pipeline.evaluation.judgements import Links, Matches, judge
from trivium.pipeline.evaluation.metrics import (
    RESAMPLES,
    Ranks,
    bootstrap_interval,
    ndcg,
    ranks_of_best,
    wilson_interval,
)
from trivium.pipeline.progress import Bars
from trivium.pipeline.space.joint import JointSpace
from trivium.pipeline.tables.pairs import PairTable, RefusedRow, Role, Row, TableError

DEPTHS = (1, 5, 10)
NDCG_DEPTH = 10
BLOCK_SCORES = 1 << 24  # scores at a time: 64 MB of float32

Pair = tuple[Modality, Modality]  # the query's and the gallery's
Interval = tuple[float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class RecallFigures:
    """Retrieval from one modality to one."""

    at: Mapping[int, float]  # depth k -> share of queries with a right answer among the first k
    mrr: float
    median_rank: float
    queries: int  # that have a right answer in the gallery
    gallery: int  # items
    interval: Mapping[str, Interval]  # of "R@1", "R@5", "R@10", "MRR"


@dataclass(frozen=True, slots=True, kw_only=True)
class NdcgFigures:
    """Graded retrieval from one modality to another."""

    at_10: float
    interval: Interval
    queries: int
    gallery: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """All that was found, and how."""

    space: Space
    table: Path
    columns: Mapping[Role, str]
    galleries: Mapping[Modality, int]
    recall: Mapping[Pair, RecallFigures]
    ndcg: Mapping[Pair, NdcgFigures]  # where the table has scores
    calibration: Mapping[Pair, Mapping[str, Reliability]]  # where the space has one; see `CalibrationSample`
    rows: int  # that were used
    refused: Sequence[RefusedRow] = field(repr=False)
    seed: int
    protocol: Sequence[str]


def evaluate(
    space: JointSpace,
    table: PairTable,
    *,
    limit: int | None = None,
    seed: int = 0,
    calibration: Calibration | None = None,
    progress: Bars | None = None,
) -> Evaluation:
    """Ask for each item of a table by each other that belongs to it.

    Args:
        space: What is evaluated.
        table: Its rows say what belongs together (`judgements`).
        limit: How many pictures to use (of a table without any: sounds, or else texts), drawn at random, with all
            their rows; all of them if None.
        seed: Of the drawing, and of the intervals.
        calibration: What says how likely hits are relevant, if the space has that.
        progress: Called while items are encoded.

    Raises:
        TableError: If nothing in the table belongs together, as far as the space has encoders for it.
    """
    modalities: list[Modality] = [modality for modality in table.modalities if modality in space.modalities]
    rows = table.rows if limit is None else sample_rows(table.rows, limit, seed=seed)
    encoded = encode_rows(space, rows, modalities, progress=progress)
    judgements = judge(encoded.rows, modalities)
    vectors = {modality: encoded.of(modality, items) for modality, items in judgements.items.items()}
    has_scores = any(row.score is not None for row in encoded.rows)
    recall: dict[Pair, RecallFigures] = {}
    graded: dict[Pair, NdcgFigures] = {}
    reliabilities: dict[Pair, dict[str, Reliability]] = {}
    pairs: list[Pair] = [(query, gallery) for query in judgements.items for gallery in judgements.items]
    for pair in pairs:
        matches = judgements.matches(*pair)
        if matches is None:
            continue
        is_graded = has_scores and isinstance(matches, Links)
        run = _Run(is_same=pair[0] == pair[1], is_graded=is_graded, seed=seed, samples=calibration is not None)
        run.take_all(vectors[pair[0]], vectors[pair[1]], matches)
        if not len(run.ranks()):
            continue
        recall[pair] = recall_figures(run.ranks(), gallery=len(vectors[pair[1]]), seed=seed)
        if is_graded:
            graded[pair] = _ndcg_figures(run.gained(), gallery=len(vectors[pair[1]]), seed=seed)
        if calibration is not None and run.sample is not None:
            of_pair = run.sample.reliabilities(partial(calibration, *pair), gallery=len(vectors[pair[1]]))
            if of_pair:
                reliabilities[pair] = of_pair
    if not recall:
        raise TableError(_why_nothing(table, space, encoded.refused, len(encoded.rows)))
    return Evaluation(
        space=space.space,
        table=table.path,
        columns=dict(table.columns),
        galleries={modality: len(items) for modality, items in judgements.items.items()},
        recall=recall,
        ndcg=graded,
        calibration=reliabilities,
        rows=len(encoded.rows),
        refused=sorted([*table.refused, *encoded.refused], key=lambda row: row.line),
        seed=seed,
        protocol=_protocol(table, modalities, limit=limit, seed=seed, has_scores=has_scores),
    )


def recall_figures(ranks: Ranks, *, gallery: int, seed: int) -> RecallFigures:
    """Sum up the ranks of queries."""
    expected = ranks.expected()
    by_name = {**{f"R@{k}": ranks.found_within(k) for k in DEPTHS}, "MRR": 1.0 / expected}
    return RecallFigures(
        at={k: float(by_name[f"R@{k}"].mean()) for k in DEPTHS},
        mrr=float(by_name["MRR"].mean()),
        median_rank=float(np.median(expected)),
        queries=len(ranks),
        gallery=gallery,
        interval={name: _interval(values, seed=seed) for name, values in by_name.items()},
    )


def _interval(values: Numbers, *, seed: int) -> Interval:
    """Return the interval of a mean; where all or no queries found it, resampling would say that this is certain."""
    if (values == 0).all() or (values == 1).all():
        return wilson_interval(int(values.sum()), len(values))
    return bootstrap_interval(values, seed=seed)


def sample_rows(rows: Sequence[Row], limit: int, *, seed: int) -> list[Row]:
    """Draw ``limit`` pictures (or sounds, or else texts) and return all their rows, in order."""
    keys = [row.image or row.audio or row.text for row in rows]
    distinct = list(dict.fromkeys(keys))
    if len(distinct) <= limit:
        return list(rows)
    drawn = np.random.default_rng(seed).choice(len(distinct), size=limit, replace=False)
    kept = {distinct[place] for place in drawn}
    return [row for row, key in zip(rows, keys, strict=True) if key in kept]


class _Run:
    """One modality asked for by one, block by block."""

    def __init__(self, *, is_same: bool, is_graded: bool, seed: int, samples: bool) -> None:
        self._is_same = is_same
        self._is_graded = is_graded
        self._ranks: list[Ranks] = []
        self._gained: list[Numbers] = []
        self.sample = CalibrationSample(seed=seed) if samples else None

    def take_all(self, queries: Vectors, gallery: Vectors, matches: Matches) -> None:
        size = max(1, BLOCK_SCORES // max(len(gallery), 1))
        for start in range(0, len(queries), size):
            block = np.arange(start, min(start + size, len(queries)))
            rows, columns, gains = matches.pairs(block)
            asked, rows = np.unique(rows, return_inverse=True)  # those that have a right answer
            if not len(asked):
                continue
            block = block[asked]
            scores = queries[block] @ gallery.T
            if self._is_same:
                scores[np.arange(len(block)), block] = -np.inf
            self._ranks.append(ranks_of_best(scores, rows, columns))
            if self._is_graded:
                self._gained.append(ndcg(scores, rows, columns, gains, k=NDCG_DEPTH))
            if self.sample is not None:
                self.sample.add(scores, rows, columns)

    def ranks(self) -> Ranks:
        return Ranks.joined(self._ranks)

    def gained(self) -> Numbers:
        return np.concatenate([np.empty(0), *self._gained])


def _ndcg_figures(values: Numbers, *, gallery: int, seed: int) -> NdcgFigures:
    return NdcgFigures(
        at_10=float(values.mean()),
        interval=bootstrap_interval(values, seed=seed),
        queries=len(values),
        gallery=gallery,
    )


def _protocol(
    table: PairTable, modalities: Sequence[Modality], *, limit: int | None, seed: int, has_scores: bool
) -> list[str]:
    lines = [
        "gallery of a modality: all distinct texts or files of it in the table's rows",
        "right is what a row holds together with the query: a text is found by its own picture, a picture by any of "
        "its captions, whichever stands first",
        "within a modality (text->text), items that share an item of another, the query itself left out",
        "equal scores count as on average over their orders",
        f"95 % intervals: {RESAMPLES:,} bootstrap resamples of the queries, seed {seed}; Wilson where all agree",
    ]
    if limit is not None:
        what = next(
            word for m, word in (("image", "pictures"), ("audio", "sounds"), ("text", "texts")) if m in modalities
        )
        lines.insert(0, f"at most {limit:,} {what}, drawn with seed {seed}, with all their rows")
    if has_scores:
        lines.append("recall counts rows with a score above 0; nDCG@10 takes scores as gains (linear, log2 discount)")
    if left_out := [modality for modality in table.modalities if modality not in modalities]:
        lines.append(f"left out, because the space has no encoder: {', '.join(left_out)}")
    return lines


def _why_nothing(table: PairTable, space: JointSpace, refused: Sequence[RefusedRow], usable: int) -> str:
    known = [modality for modality in MODALITIES if modality in space.modalities]
    reason = (
        f"{table.path}: nothing in it belongs together, so there is nothing to find: a row needs two of "
        f"{', '.join(known)}, or rows must share one; read from columns "
        + ", ".join(f"{role}={column}" for role, column in table.columns.items())
    )
    if refused:
        reason += f"; {usable:,} rows usable, {len(refused):,} refused, the first in line {refused[0].line}: "
        reason += refused[0].reason
    return reason
