"""An index for a collection: chosen, built, tuned, and built as another kind if the wanted recall is missed.

Tuning finds the least effort that finds enough, for queries of every modality. A text is no picture: among vectors of
pictures, queries of another modality lie far from all of them, and an effort that suffices for pictures misses a good
part of what a text should find. So every modality is measured by itself, and the worst one counts.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from trivium.encoders.base import Vectors
from trivium.indexes.base import Hits, VectorSource
from trivium.indexes.choice import Choice, Wish, alternatives, choose
from trivium.indexes.faiss_index import FaissIndex
from trivium.indexes.kinds import KINDS
from trivium.indexes.scan import exact_search

Shares: TypeAlias = NDArray[np.float64]  # (q,), from 0 to 1

DEPTH = 10  # recall is of the 10 nearest
_SURER_STEPS = 4  # of effort, which double it: the most that is spent on being surer of the recall
_TRUTH_DEPTH = 40  # deep enough to see which others score as much as the 10th
_TIMED_QUERIES = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """How an index does with one effort."""

    effort: int | None
    recall: Mapping[str, float]  # by the queries' modality, of the 10 nearest
    milliseconds: float  # the median of single queries
    queries: Mapping[str, int]  # how many each recall is from

    def reaches(self, recall: float) -> bool:
        """Whether every modality has at least that recall."""
        return all(found >= recall for found in self.recall.values())

    def __str__(self) -> str:
        """Everything in one line, for notes."""
        recall = ", ".join(
            f"{modality} {found:.3f} of {self.queries[modality]}" for modality, found in self.recall.items()
        )
        return f"recall@{DEPTH} {recall or 'not measured'}; {self.milliseconds:.2g} ms a query"


def ground_truth(source: VectorSource, queries: Mapping[str, Vectors]) -> dict[str, Hits]:
    """Find the true neighbours of each modality's queries, deeper than recall asks, in one pass over the source."""
    if not queries:
        return {}
    bounds = np.cumsum([0, *(len(vectors) for vectors in queries.values())])
    hits = exact_search(source, np.concatenate(list(queries.values())), k=_TRUTH_DEPTH)
    return {
        modality: Hits(hits.ids[start:stop], hits.scores[start:stop], hits.counts[start:stop])
        for modality, start, stop in zip(queries, bounds[:-1], bounds[1:], strict=True)
    }


def recall_at_10(found: Hits, truth: Hits) -> float:
    """Return the mean share of the 10 nearest that were found; what scores as much as the 10th counts as well.

    Args:
        found: Of q queries, at most 10 each; more are not looked at.
        truth: Of the same queries, from `ground_truth`.

    Returns:
        From 0 to 1; 1 if there was nothing to find.
    """
    return _mean(_shares(found, truth))


def _mean(shares: Shares) -> float:
    return float(shares.mean()) if len(shares) else 1.0


def _at_least(shares: Shares) -> float:
    """Return the mean less its standard error: other queries of the kind will find that, five times in six."""
    return _mean(shares) - float(shares.std() / np.sqrt(max(len(shares), 1))) if len(shares) else 1.0


def _shares(found: Hits, truth: Hits) -> Shares:
    """Return the share of the 10 nearest that was found, of each query that has something to find."""
    shares = []
    for query in range(len(truth.counts)):
        true_ids, true_scores = truth.of(query)
        wanted = min(DEPTH, len(true_ids))
        if not wanted:
            continue
        as_good = true_scores >= true_scores[wanted - 1]
        ids, scores = (part[:DEPTH] for part in found.of(query))
        good = np.isin(ids, true_ids[as_good])
        if as_good.all() and len(true_ids) == _TRUTH_DEPTH:
            good |= scores >= true_scores[-1]  # so many are equal that the truth does not list them all
        shares.append(min(int(good.sum()), wanted) / wanted)
    return np.array(shares)


def tune(index: FaissIndex, queries: Mapping[str, Vectors], truth: Mapping[str, Hits], *, wish: Wish) -> Measurement:
    """Set the least effort with which every modality reaches the wanted recall; the most there is if none does.

    The queries are a sample, and the least effort with which they reach it would miss it for every other sample. So
    the effort is raised by a few steps, if that makes it likely that others reach it too.

    Args:
        index: Its `effort` is set.
        queries: Unit vectors by modality, shape (q, d) each; with none, the most effort is set.
        truth: From `ground_truth`, for the same queries.
        wish: Its recall is the target.

    Returns:
        What was measured with that effort.
    """
    queries = {modality: vectors for modality, vectors in queries.items() if len(vectors)}
    efforts = index.efforts
    if not efforts:
        return _measured(index, queries, _found(index, queries, truth))
    known: dict[int, dict[str, Shares]] = {}

    def suffices(step: int, recall: Callable[[Shares], float] = _mean) -> bool:
        if step not in known:
            index.effort = efforts[step]
            known[step] = _found(index, queries, truth)
        return bool(queries) and min(map(recall, known[step].values())) >= wish.recall

    # From the cheap end in strides of 8 steps (4 times the effort), then the steps between by halves: the dear end,
    # where a search looks at everything, is not measured unless it is needed.
    low, high = -1, 0
    while high < len(efforts) - 1 and not suffices(high):
        low, high = high, min(high + 8, len(efforts) - 1)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if suffices(middle) else (middle, high)
    if suffices(high):
        surer = range(high, min(high + _SURER_STEPS + 1, len(efforts)))
        high = next((step for step in surer if suffices(step, _at_least)), high)
    index.effort = efforts[high]
    return _measured(index, queries, known[high])


def _found(index: FaissIndex, queries: Mapping[str, Vectors], truth: Mapping[str, Hits]) -> dict[str, Shares]:
    if index.is_exact:
        return {modality: np.ones(len(vectors)) for modality, vectors in queries.items()}
    return {modality: _shares(index.search(vectors, k=DEPTH), truth[modality]) for modality, vectors in queries.items()}


def _measured(index: FaissIndex, queries: Mapping[str, Vectors], found: Mapping[str, Shares]) -> Measurement:
    return Measurement(
        effort=index.effort,
        recall={modality: _mean(shares) for modality, shares in found.items()},
        milliseconds=_median_ms(index, queries),
        queries={modality: len(vectors) for modality, vectors in queries.items()},
    )


def _median_ms(index: FaissIndex, queries: Mapping[str, Vectors]) -> float:
    """Return the median time of one query, of every modality in turn; 0 without queries."""
    if not queries:
        return 0.0
    share = -(-_TIMED_QUERIES // len(queries))
    mixed: NDArray[np.float32] = np.concatenate([vectors[:share] for vectors in queries.values()])
    index.search(mixed[:1], k=DEPTH)  # the first one pays for what is made once
    taken = []
    for query in range(len(mixed)):
        start = time.perf_counter()
        index.search(mixed[query : query + 1], k=DEPTH)
        taken.append(time.perf_counter() - start)
    return float(np.median(taken) * 1e3)


_REBUILDS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """An index ready for use, and how it came about."""

    index: FaissIndex
    choice: Choice
    measurement: Measurement
    notes: tuple[str, ...]  # plain sentences: what was tried, and what was missed


def build_index(
    source: VectorSource,
    *,
    wish: Wish,
    queries: Mapping[str, Vectors],
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
    threads: int | None = None,
) -> Built:
    """Build the index that ``wish`` asks for.

    Args:
        source: What to index.
        wish: The kind, or what to choose it by.
        queries: Unit vectors by modality, shape (q, d) each: what will be searched for, for measuring.
        seed: For the training samples.
        progress: Called as ``progress(vectors_added, vectors_to_add)``; starts again when another kind is tried.
        threads: How many FAISS uses to build; all it is allowed if not given.

    Returns:
        The index with its effort set. If no kind reaches the wanted recall, the best one, and a note says so.

    Raises:
        ValueError: If a vector or a query is not finite or of another width, or the source is inconsistent.
    """
    queries = {modality: vectors for modality, vectors in queries.items() if len(vectors)}
    first = choose(source.count, source.dim, wish)
    others = alternatives(first.kind, source.count, source.dim, wish)[:_REBUILDS]
    truth = None
    best: Built | None = None
    notes: list[str] = []
    for kind in (first.kind, *others):
        index = FaissIndex.build(kind, source, seed=seed, progress=progress, threads=threads)
        if truth is None and not KINDS[kind].is_exact:
            truth = ground_truth(source, queries)
        measurement = tune(index, queries, truth or {}, wish=wish)
        choice = first if kind == first.kind else Choice(kind=kind, reason=f"{kind}: {notes[-1]}")
        if best is None or _worst(measurement) > _worst(best.measurement):
            best = Built(index=index, choice=choice, measurement=measurement, notes=())
        if measurement.reaches(wish.recall):
            break
        notes.append(f"{kind} misses recall {wish.recall:g}: {measurement}")
    assert best is not None  # the first kind is always built
    if not best.measurement.reaches(wish.recall):
        notes.append(f"recall {wish.recall:g} is out of reach: {best.choice.kind} is the best that was tried")
    if wish.latency_ms is not None and best.measurement.milliseconds > wish.latency_ms:
        notes.append(
            f"a query takes {best.measurement.milliseconds:.2g} ms on this machine, "
            f"more than the {wish.latency_ms:g} ms asked for"
        )
    return Built(index=best.index, choice=best.choice, measurement=best.measurement, notes=tuple(notes))


def _worst(measurement: Measurement) -> float:
    return min(measurement.recall.values(), default=0.0)
