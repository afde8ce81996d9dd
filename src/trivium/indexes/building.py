"""An index for a collection: chosen, built, tuned, and built as another kind if the wanted recall is missed."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from trivium.encoders.base import Vectors
from trivium.indexes.base import VectorSource
from trivium.indexes.choice import Choice, Wish, alternatives, choose
from trivium.indexes.faiss_index import FaissIndex
from trivium.indexes.kinds import KINDS
from trivium.indexes.tuning import Measurement, ground_truth, tune

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
