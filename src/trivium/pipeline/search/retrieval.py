"""Query vectors to hits: items, each once, with the vector of it that matched."""

import contextlib
import math
import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from trivium.encoders.base import Modality, Vectors
from trivium.indexes import Ids, IdSet
from trivium.pipeline.records import ItemKind, Match, Part, PartKind, modality_of
from trivium.pipeline.search.folding import FOLDS, Fold, Folded, Likeness, Whole
from trivium.pipeline.search.query import QueryError
from trivium.pipeline.search.vectors import Rescale, VectorSearch
from trivium.pipeline.space.relevance import LogOdds, Relevance
from trivium.pipeline.store.database import CollectionError
from trivium.pipeline.store.database_file import DATABASE
from trivium.pipeline.store.filters import Filter
from trivium.pipeline.store.store import Store
from trivium.pipeline.tables.metadata import Metadata, decode

FILTERS_KEPT = 8
ROUNDS_FOR_ALL = 2  # of searching for all queries at once that have too few hits, before each is searched on by itself


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """One item found."""

    path: str
    modality: ItemKind
    score: float  # cosine of query and vector, in [-1, 1]; larger is nearer
    caption: str | None  # the caption beside a picture or sound; a text's first line
    matched: PartKind  # which vector of the item
    relevance: float | None = None  # how likely it is what was asked for; None where the space cannot tell
    start: float | None = None  # where in it: seconds of a window and a frame, characters of a passage
    stop: float | None = None  # of a window and a passage
    metadata: Metadata = field(default_factory=dict)
    is_missing: bool = False  # the file was not there when its folder was last indexed
    copies: tuple[str, ...] = ()  # paths of the items that it stands for, see `folding`
    fingerprint: str = field(default="", repr=False, compare=False)  # of the file when it was indexed, see `scanning`


@dataclass(frozen=True, slots=True)
class Allowed:
    """What a filter lets through in one generation."""

    items: IdSet | None  # None: all of `modality`
    modality: ItemKind | None
    contents: Mapping[Modality, IdSet | None]  # to choose from; None: all of the modality
    without: IdSet | None = None  # contents that are left out of those

    def lets_through(self, item: int, kind: ItemKind) -> bool:
        """Whether an item may be a hit; its content may also belong to one that may not."""
        if self.items is not None:
            return bool(self.items.contains(np.array(item)))
        return self.modality is None or kind == self.modality


@dataclass(frozen=True, slots=True)
class Judge:
    """Tells how likely hits are relevant."""

    relevance: Relevance
    asked: Sequence[Modality]  # of each query

    def knows(self, found: Iterable[Modality]) -> bool:
        """Whether it can judge vectors of these modalities for all queries."""
        return all((asked, modality) in self.relevance.of_pair for modality in found for asked in set(self.asked))


class _Scales:
    """Scores to log-odds of relevance and back, for each query and modality."""

    def __init__(self, judge: Judge) -> None:
        self._judge = judge
        self._searched: dict[Modality, int] = {}

    def of(self, queries: Sequence[int]) -> Rescale:
        """Return what turns the scores of some queries into log-odds."""

        def rescale(modality: Modality, scores: NDArray[np.float32], searched: int) -> NDArray[np.float32]:
            self._searched[modality] = searched
            of_rows = [
                self._log_odds(query, modality).of(row, searched) for query, row in zip(queries, scores, strict=True)
            ]
            return np.array(of_rows, np.float32).reshape(scores.shape)

        return rescale

    def score(self, query: int, modality: Modality, log_odds: float) -> float:
        """Return the score that has such log-odds."""
        return self._log_odds(query, modality).score(log_odds, self._searched[modality])

    def _log_odds(self, query: int, modality: Modality) -> LogOdds:
        return self._judge.relevance.of_pair[self._judge.asked[query], modality]


def _rank(hit: Hit) -> tuple[float, float, str]:
    # Where probabilities are 1 to the last digit, scores still differ.
    return (0.0 if hit.relevance is None else -hit.relevance, -hit.score, hit.path)


@dataclass(frozen=True, slots=True)
class _Asked:
    """What one search is about."""

    queries: Vectors
    k: int
    allowed: Allowed | None
    scales: _Scales | None


@dataclass(slots=True)
class _Found:
    """What one query has found."""

    folded: Folded
    hits: dict[int, Hit] = field(default_factory=dict)  # by item, of those that stand for themselves


class Retrieval:
    """Searches one store; keeps what it derived from the present generation. Threads may share one."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._vectors = VectorSearch(store)
        self._generation = -1
        self._searching: set[int] = set()  # the ids of threads that use what was derived
        self._changing = threading.Condition()  # over the two above, and while another generation is taken in
        self._allowed: OrderedDict[Filter, Allowed] = OrderedDict()
        self._keeping = threading.Lock()  # over the filters
        self._vectors_per_item = 1  # as far as the last queries told

    def search(
        self,
        queries: Vectors,
        *,
        k: int,
        filter: Filter | None = None,
        judge: Judge | None = None,
        least: float | None = None,
        fold: Fold = "same",
    ) -> list[list[Hit]]:
        """Find the k items nearest to each unit vector, shape (q, d), best first; ties by path.

        Args:
            queries: In the collection's space.
            k: At least 1; fewer hits come back when there are fewer items.
            filter: Restrict the hits; there are k of them whenever they exist.
            judge: Ranks by relevance where it knows all modalities that are asked with and found, else by score.
            least: Leave hits out that are less likely to be relevant.
            fold: Which items are shown as one hit, the best of them: equal files, near-equal ones too, or none.

        Raises:
            QueryError: If ``k`` is below 1, ``fold`` is not known, or there is a ``least`` and nothing that can judge.
            CollectionError: If a shard is missing or damaged.
        """
        if k < 1:
            raise QueryError(f"k must be at least 1, got {k}")
        if fold not in FOLDS:
            raise QueryError(f"fold must be one of {', '.join(FOLDS)}, got '{fold}'")
        with self._store.reading(), self._derived(self._store.generation):
            allowed = None if filter is None or filter.is_empty else self._allow(filter)
            if judge is not None and not judge.knows(self._vectors.modalities if allowed is None else allowed.contents):
                judge = None
            asked = _Asked(queries, k, allowed, None if judge is None else _Scales(judge))
            likeness = Likeness(self._store)
            found = [_Found(Folded(fold, likeness)) for _ in range(len(queries))]
            short = list(range(len(queries)))
            # An item may take several of the nearest vectors: as many are fetched as it needs to find k items.
            wanted = k * self._vectors_per_item
            for _ in range(ROUNDS_FOR_ALL):
                short = self._search(asked, short, found, wanted=wanted)
                if not short:
                    break
                wanted *= 2
                self._vectors_per_item = 2
            for query in short:
                self._search_on(asked, query, found, wanted=wanted)
            hits = [self._best(asked, of_query) for of_query in found]
            return hits if least is None else [self._relevant(of_query, least) for of_query in hits]

    @contextlib.contextmanager
    def _derived(self, generation: int) -> Iterator[None]:
        """Have what is derived be of a generation, and stay so: made once, while other threads wait for it.

        Those that are at work are of the same generation: a commit waits for all that read. Should locks of files not
        hold where the collection lies, one waits for the other here, for FAISS must not search what it adds to.
        Nobody waits for the database in here: its lock was taken with the generation's number.
        """
        thread = threading.get_ident()
        with self._changing:
            while generation != self._generation and self._searching - {thread}:
                self._changing.wait()
            if generation != self._generation:
                self._vectors.refresh(generation)
                self._allowed.clear()
                self._generation = generation
            self._searching.add(thread)
        try:
            yield
        finally:
            with self._changing:
                self._searching.discard(thread)
                self._changing.notify_all()

    def _search(
        self,
        asked: _Asked,
        chosen: list[int],
        found: "list[_Found]",
        *,
        wanted: int,
        without: IdSet | None = None,
    ) -> list[int]:
        """Add what the nearest ``wanted`` vectors give to the hits of some queries; return those that need more."""
        allowed, scales = asked.allowed, asked.scales
        among = None if allowed is None else allowed.contents
        if allowed is not None and allowed.without is not None:
            without = allowed.without if without is None else IdSet(np.concatenate([allowed.without.ids, without.ids]))
        rescale = None if scales is None else scales.of(chosen)
        nearest = self._vectors.search(asked.queries[chosen], k=wanted, among=among, without=without, rescale=rescale)
        for position, query in enumerate(chosen):
            self._add_hits(asked, query, found[query], *nearest.of(position))
        return [q for place, q in enumerate(chosen) if len(found[q].hits) < asked.k and nearest.counts[place] == wanted]

    def _search_on(self, asked: _Asked, query: int, found: "list[_Found]", *, wanted: int) -> None:
        """Find more items for one query, whose nearest vectors all belong to a few items: theirs are left out from now.

        The best vector of an item that was found is known, so that nothing is lost; and a text with thousands of
        passages costs one search more, not a search for thousands.
        """
        short = [query]
        while short:
            without = IdSet(self._store.contents_only_of(found[query].folded.seen))
            short = self._search(asked, short, found, wanted=wanted, without=without)
            wanted *= 2  # what is left out cannot repeat; what else repeats (a filter, shared captions) is bounded so

    def _add_hits(self, asked: _Asked, query: int, best: "_Found", contents: Ids, scores: NDArray[np.float32]) -> None:
        allowed, scales = asked.allowed, asked.scales
        ids = contents.tolist()
        matches = self._store.matches(ids)
        # Best first: an item's first match is its best. With scales the search gives log-odds instead of scores.
        for content, found in zip(ids, scores.tolist(), strict=True):
            for match in matches.get(content, ()):
                if match.item in best.folded.seen or not (
                    allowed is None or allowed.lets_through(match.item, match.modality)
                ):
                    continue
                if best.folded.is_new(match.item, Whole(match.own, match.modality, match.looks)):
                    part = Part.parse(match.role)
                    score, relevance = found, None
                    if scales is not None:
                        score = scales.score(query, modality_of(match.modality, part), found)
                        relevance = 0.5 * (1 + math.tanh(found / 2))
                    best.hits[match.item] = Hit(
                        path=match.path,
                        modality=match.modality,
                        score=min(max(score, -1.0), 1.0),
                        caption=match.caption,
                        matched=part.kind,
                        relevance=relevance,
                        start=part.start,
                        stop=part.stop,
                        metadata=self._metadata(match),
                        is_missing=match.is_missing,
                        fingerprint=match.fingerprint,
                    )

    def _best(self, asked: _Asked, found: "_Found") -> list[Hit]:
        """Return the best hits, with the copies that meet the restrictions too."""
        ranked = sorted(found.hits.items(), key=lambda of_item: _rank(of_item[1]))[: asked.k]
        if not found.folded.folds:
            return [hit for _, hit in ranked]
        contents = {item: found.folded.contents_of(item) for item, _ in ranked}
        items_of = self._store.items_of(content for each in contents.values() for content in each)
        return [
            replace(hit, copies=copies) if (copies := self._copies(asked, item, contents[item], items_of)) else hit
            for item, hit in ranked
        ]

    @staticmethod
    def _copies(
        asked: _Asked, leader: int, contents: Sequence[int], items_of: Mapping[int, list[tuple[int, str, ItemKind]]]
    ) -> tuple[str, ...]:
        found = (each for content in contents for each in items_of.get(content, ()))
        allowed = asked.allowed
        return tuple(
            sorted(
                path
                for item, path, kind in found
                if item != leader and (allowed is None or allowed.lets_through(item, kind))
            )
        )

    def _relevant(self, hits: list[Hit], least: float) -> list[Hit]:
        if any(hit.relevance is None for hit in hits):
            raise QueryError(
                f"space {self._store.space} cannot tell what is relevant: it is not calibrated for these modalities. "
                "Spaces made by `trivium align` are, for those that have pairs"
            )
        return [hit for hit in hits if hit.relevance is not None and hit.relevance >= least]

    def _metadata(self, match: Match) -> Metadata:
        try:
            return decode(match.metadata) if match.metadata else {}
        except (ValueError, TypeError) as error:
            raise CollectionError(
                f"{self._store.folder / DATABASE} is damaged: what it says of {match.path} is no metadata ({error}). "
                "`trivium verify --read-data` tells more"
            ) from error

    def _allow(self, filter: Filter) -> Allowed:
        with self._keeping:
            if filter in self._allowed:
                self._allowed.move_to_end(filter)
                return self._allowed[filter]
        allowed = _allowed(self._store, filter)
        with self._keeping:
            # The first of several threads' is taken: its sets remember their places.
            allowed = self._allowed.setdefault(filter, allowed)
            while len(self._allowed) > FILTERS_KEPT:
                self._allowed.popitem(last=False)
        return allowed


def _allowed(store: Store, filter: Filter) -> Allowed:
    contents: dict[Modality, IdSet | None] = {}
    only = filter.only
    if only in ("image", "audio") and not filter.paths and not filter.expressions:
        # All contents of the modality belong to such items, or to videos; what else they have is captions.
        contents[only] = None
        captions = store.captions_of(only)
        if len(captions):
            contents["text"] = IdSet(captions)
        of_videos = store.contents_of_videos()
        return Allowed(None, only, contents, IdSet(of_videos) if len(of_videos) else None)
    condition, parameters = filter.sql()
    items, by_modality = store.chosen(condition, parameters)
    contents = {modality: IdSet(ids) for modality, ids in by_modality.items()}
    if only is not None and not filter.paths and not filter.expressions:
        return Allowed(None, only, contents)
    return Allowed(IdSet(items), None, contents)
