"""Which kind of index suits a number of vectors, a memory budget, a wanted recall and a wanted latency."""

from dataclasses import dataclass

from trivium.indexes.kinds import KINDS, kind_named

AUTO = "auto"

# Numbers compared per millisecond where every vector is compared: 51.2 million (100,000 x 512) took 6.6 ms as float32,
# 4.4 to 5.3 as float16 and 6.1 in 8 bits (FAISS 1.15.1, 2 cores, one query).
_NUMBERS_PER_MS = {"flat": 7_800_000, "fp16": 9_700_000, "sq8": 8_400_000}
# Comparing all is exact, needs no training and no tuning: worth this much waiting, in milliseconds for one query.
_PATIENCE_MS = 3.0
# The recall@10 that more effort cannot pass, because of what the codes leave out.
_RECALL_AT_MOST = {
    "flat": 1.0,
    "fp16": 0.999,
    "sq8": 0.98,
    "hnsw": 0.999,
    "hnsw-sq8": 0.98,
    "ivf-fp16": 0.999,
    "ivf-flat": 1.0,
    "ivf-sq8": 0.98,
    "ivf-rabitq": 0.98,
    "ivf-pq": 0.98,
}
# Where comparing all takes too long: the first that fits; see docs/decisions/0005-index-kinds.md. Who sets no latency
# gets an index that is opened in constant time, who does gets the fastest.
_MAPPED_FIRST = ("ivf-rabitq", "ivf-pq", "ivf-sq8", "ivf-fp16", "ivf-flat")
_FASTEST_FIRST = ("ivf-pq", "ivf-rabitq", "ivf-sq8", "ivf-fp16", "ivf-flat")
# Where none that fits can be expected to reach the wanted recall: the first that fits.
_BEST_FIRST = ("flat", "fp16", "sq8", "ivf-rabitq", "ivf-pq")
_MARGIN = 1.5  # growth beyond a limit before an index that still works is built anew
_LISTS_MARGIN = 4.0  # growth of a collection until its lists are twice as long as they should be


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What the owner of a collection asks of its index."""

    kind: str = AUTO  # a name in KINDS, or "auto"
    recall: float = 0.95  # of the 10 nearest, how many are found, on average
    memory_bytes: int | None = None  # for what searches read again and again; the rest stays in a mapped file
    latency_ms: float | None = None  # for one query

    def __post_init__(self) -> None:
        """Check every field.

        Raises:
            ValueError: If one is out of range.
        """
        if self.kind != AUTO:
            kind_named(self.kind)
        if not 0 < self.recall <= 1:
            raise ValueError(f"recall must be above 0 and at most 1, got {self.recall}")
        if self.memory_bytes is not None and self.memory_bytes < 1:
            raise ValueError(f"memory_bytes must be 1 or more, got {self.memory_bytes}")
        if self.latency_ms is not None and not self.latency_ms > 0:
            raise ValueError(f"latency_ms must be above 0, got {self.latency_ms}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """A kind, and one line that says why."""

    kind: str
    reason: str


def choose(count: int, dim: int, wish: Wish) -> Choice:
    """Choose the kind of index for ``count`` vectors of ``dim`` numbers; a wish that cannot be met is met nearly."""
    if wish.kind != AUTO:
        return Choice(kind=wish.kind, reason=f"{wish.kind}: asked for")
    shape = f"{count:,} x {dim}"
    patience = _PATIENCE_MS if wish.latency_ms is None else wish.latency_ms
    budget = "" if wish.memory_bytes is None else f" fits the budget of {_size(wish.memory_bytes)}"
    flat_ms = _milliseconds("flat", count, dim)
    candidates = [kind for kind in KINDS if _fits(kind, count, dim, wish) and _RECALL_AT_MOST[kind] >= wish.recall]
    for kind in ("flat", "fp16", "sq8"):
        if kind in candidates and _milliseconds(kind, count, dim) <= patience:
            took = f"{shape} takes about {_milliseconds(kind, count, dim):.2g} ms a query"
            return Choice(kind=kind, reason=f"{kind}: {took}{_and(count, dim, kind, budget)}")
    for kind in _MAPPED_FIRST if wish.latency_ms is None else _FASTEST_FIRST:
        if kind in candidates:
            took = f"{shape} would take about {flat_ms:.2g} ms a query flat"
            return Choice(kind=kind, reason=f"{kind}: {took}{_and(count, dim, kind, budget)}")
    for kind in _BEST_FIRST:
        if _fits(kind, count, dim, wish):
            return Choice(
                kind=kind,
                reason=f"{kind}: the best for {shape}{_and(count, dim, kind, budget)}, "
                f"though recall {wish.recall:g} may be out of reach",
            )
    kind = min(_BEST_FIRST, key=lambda kind: _resident_bytes(kind, count, dim))
    assert wish.memory_bytes is not None  # else everything fits
    needed, allowed = _size(_resident_bytes(kind, count, dim)), _size(wish.memory_bytes)
    return Choice(
        kind=kind, reason=f"{kind}: the smallest for {shape}, but {needed} do not fit the budget of {allowed}"
    )


def alternatives(kind: str, count: int, dim: int, wish: Wish) -> tuple[str, ...]:
    """List what to try when an index of ``kind`` misses the wanted recall at any effort: what keeps more, and fits."""
    if wish.kind != AUTO:
        return ()
    same_way = "ivf-fp16" if KINDS[kind].effort_name else "fp16"
    better = ["ivf-sq8"] if KINDS[kind].candidates > 1 else []
    better += [same_way] if _RECALL_AT_MOST[same_way] > _RECALL_AT_MOST[kind] else []
    better += ["flat"] if kind != "flat" else []
    return tuple(other for other in better if _fits(other, count, dim, wish))


def needs_rebuild(kind: str, count_then: int, count_now: int, dim: int, wish: Wish) -> str | None:
    """Say why an index built as ``kind`` for ``count_then`` vectors should be built anew for ``count_now``.

    A limit must be passed by half as much again before it counts, so that no collection is built anew at every turn.
    """
    if wish.kind not in (AUTO, kind):
        return f"the index is {kind}, {wish.kind} was asked for"
    if wish.kind == AUTO:
        now = choose(count_now, dim, wish)
        margins = (choose(round(count_now / _MARGIN), dim, wish), choose(round(count_now * _MARGIN), dim, wish))
        if not any(_serves_as(kind, choice.kind, count_now, dim, wish) for choice in (now, *margins)):
            return f"the index is {kind}, now {now.reason}"
    if KINDS[kind].effort_name == "nprobe" and count_now > _LISTS_MARGIN * max(count_then, 1):
        return f"the index was made for {count_then:,} vectors, there are {count_now:,}"
    return None


def _serves_as(kind: str, chosen: str, count: int, dim: int, wish: Wish) -> bool:
    """Whether an index of ``kind`` may stay where another was chosen: lists may have been built for missing recall."""
    both_lists = KINDS[kind].effort_name == KINDS[chosen].effort_name == "nprobe"
    return kind == chosen or (both_lists and _fits(kind, count, dim, wish) and _RECALL_AT_MOST[kind] >= wish.recall)


def _fits(kind: str, count: int, dim: int, wish: Wish) -> bool:
    return wish.memory_bytes is None or _resident_bytes(kind, count, dim) <= wish.memory_bytes


def _resident_bytes(kind: str, count: int, dim: int) -> float:
    return KINDS[kind].resident_bytes_per_vector(dim, count) * count


def _milliseconds(kind: str, count: int, dim: int) -> float:
    return count * dim / _NUMBERS_PER_MS[kind]


def _and(count: int, dim: int, kind: str, budget: str) -> str:
    whole, resident = KINDS[kind].bytes_per_vector(dim, count) * count, _resident_bytes(kind, count, dim)
    in_memory = "" if whole == resident else f", of which {_size(resident)} in memory"
    return f"; {_size(whole)}{in_memory}{budget}"


def _size(size_bytes: float) -> str:
    """Bytes as people read them: 530 MB, 2.1 GB."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size_bytes >= scale:
            return f"{size_bytes / scale:.3g} {unit}"
    return f"{size_bytes:.0f} bytes"
