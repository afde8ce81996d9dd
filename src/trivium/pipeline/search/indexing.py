"""Index files: which are due, built from stored vectors, and named in the manifest when they are whole.

Few vectors need no file. What is newer than a file is searched exactly, until it is a tenth of it; then it is added,
which takes no training. When another kind has become the best, a file of that kind is built in the background of the
next write, and the old one serves until it is there; at once only if most vectors are new.
"""

import logging
import secrets
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field

import numpy as np

from trivium.encoders.base import MODALITIES, Modality, Vectors, unit_rows
from trivium.encoders.files.writing import write_durably
from trivium.indexes import FaissIndex, Ids
from trivium.indexes.building import Measurement, build_index, ground_truth, tune
from trivium.indexes.choice import AUTO, Wish, needs_rebuild
from trivium.pipeline.escaping import printable
from trivium.pipeline.progress import Bars
from trivium.pipeline.records import IndexFile
from trivium.pipeline.search.vectors import usable_index
from trivium.pipeline.store.database import CollectionError
from trivium.pipeline.store.index_seal import sealed_state
from trivium.pipeline.store.shards import ShardSource
from trivium.pipeline.store.store import INDEX, Store
from trivium.pipeline.store.writer import Writer

log = logging.getLogger(__name__)

FEWEST = 10_000  # vectors; fewer are read from the shards in some ten milliseconds, and compared in one
TAIL_SHARE = 0.1
QUERIES = 200  # of each modality, to measure recall with
FEWEST_QUERIES = 20
SPREAD = 0.35  # of the differences that make new queries out of the indexed vectors

Examples = Callable[[], Mapping[Modality, Vectors]]


@dataclass(slots=True)
class Task:
    """One index file to be made; `run` may be called in another thread than the one that made it."""

    modality: Modality
    source: ShardSource
    wish: Wish
    queries: Mapping[str, Vectors]
    can_wait: bool  # the present file serves meanwhile
    base: FaissIndex | None = None  # to be added to
    tail: ShardSource | None = None
    through: int = 0
    made: tuple[FaissIndex, dict[str, object]] | None = None
    error: Exception | None = None
    progress: Callable[[int, int], None] | None = field(default=None, repr=False)

    def run(self) -> None:
        """Make the index in memory.

        Raises:
            CollectionError: If a shard is missing or damaged, or a stored vector is not finite.
        """
        try:
            self._run()
        except ValueError as error:
            raise CollectionError(
                f"no index of {self.modality} can be made of the stored vectors ({error}): `trivium verify "
                "--read-data` tells which are damaged"
            ) from error

    def _run(self) -> None:
        if self.base is not None and self.tail is not None:
            done = 0
            for ids, vectors in self.tail.chunks():
                self.base.add(ids, vectors.astype(np.float32))
                done += len(ids)
                if self.progress is not None:
                    self.progress(done, self.tail.count)
            measurement = tune(self.base, self.queries, ground_truth(self.source, self.queries), wish=self.wish)
            self._made_of(self.base, f"{self.base.kind}: grown", measurement)
            return
        built = build_index(self.source, wish=self.wish, queries=self.queries, progress=self.progress)
        self._made_of(built.index, built.choice.reason, built.measurement, built.notes)

    def _made_of(self, index: FaissIndex, reason: str, measurement: Measurement, notes: Sequence[str] = ()) -> None:
        told = {name: value for name, value in asdict(measurement).items() if name != "effort"}
        self.made = index, {"wish": asdict(self.wish), "reason": reason, **told, "notes": list(notes)}


class Indexer:
    """Keeps the index files of one collection fit, while its writer holds the lock."""

    def __init__(self, writer: Writer, *, examples: Examples | None = None, progress: Bars | None = None) -> None:
        """Prepare; ``examples`` gives queries of modalities that the collection has few or no vectors of."""
        self.made: list[IndexFile] = []
        self._writer = writer
        self._wish = writer.store.wish
        self._examples = examples
        self._progress = progress
        self._thread: threading.Thread | None = None
        self._waiting: list[Task] = []

    def start(self) -> None:
        """Begin in the background what is due from earlier writes."""
        self._waiting = [task for task in self.due() if task.can_wait]
        if self._waiting:
            # A daemon: an interrupted run must not wait minutes for an index that nobody will name.
            self._thread = threading.Thread(target=_try_all, args=(self._waiting,), daemon=True)
            self._thread.start()

    def finish(self) -> None:
        """Name what was made in the background, and make what cannot wait.

        Raises:
            CollectionError: If a shard is missing or damaged, or a stored vector is not finite.
            OSError: If the disk is full or fails.
        """
        if self._thread is not None:
            self._thread.join()
            for task in self._waiting:
                if task.error is None:
                    self._name(task)
                else:  # due again in the next run; a damaged shard is what `verify` tells in full
                    log.warning(
                        "no better index of %s was made (%s): the old one serves",
                        printable(task.modality),
                        printable(task.error),
                    )
        for task in self.due():
            if not task.can_wait:
                self._make(task)

    def rebuild(self) -> None:
        """Make all index files anew from the stored vectors, whatever there is."""
        files = self._writer.store.index_files()
        for modality, count in self._writer.store.vector_counts().items():
            if self.wants_file(count):
                self._make(self._whole(modality, can_wait=False))
            elif modality in files:
                self._drop(modality)

    def wants_file(self, count: int) -> bool:
        """Whether so many vectors should have an index file."""
        return count >= (FEWEST if self._wish.kind == AUTO else 1)

    def prepared_without(self, modality: Modality, contents: Ids) -> IndexFile:
        """Write an index file of a modality that leaves some contents out, for the caller to name."""
        store = self._writer.store
        locations = store.locations(modality)
        source = store.source(locations.take(np.flatnonzero(~np.isin(locations.contents, contents))))
        task = Task(modality, source, self._wish, self._queries(modality, source), False, through=source.newest)
        task.run()
        assert task.made is not None
        index, report = task.made
        return _write(store, modality, index, through=int(locations.contents[-1]), report=report)

    def due(self) -> list[Task]:
        """Return what has to be made, so that searches are fast again."""
        store, wish = self._writer.store, self._wish
        files, counts = store.index_files(), store.vector_counts()
        tasks = []
        for modality in MODALITIES:
            count, file = counts.get(modality, 0), files.get(modality)
            index = None if file is None else usable_index(store, file)
            if not self.wants_file(count):
                if file is not None:
                    self._drop(modality)
            elif file is None or index is None or file.report.get("wish", asdict(wish)) != asdict(wish):
                tasks.append(self._whole(modality, can_wait=False))
            else:
                tail = store.source(store.locations(modality, after=file.through))
                is_long = tail.count > max(FEWEST, TAIL_SHARE * file.vectors)
                most_is_new = tail.count > max(FEWEST, file.vectors)
                outgrown = needs_rebuild(file.kind, file.vectors, count, store.space.dim, wish) is not None
                if outgrown and (most_is_new or not is_long):
                    tasks.append(self._whole(modality, can_wait=not most_is_new))
                elif is_long:
                    tasks.append(self._grown(modality, file, tail))
        return tasks

    def _whole(self, modality: Modality, *, can_wait: bool) -> Task:
        store = self._writer.store
        source = store.source(store.locations(modality))
        return Task(modality, source, self._wish, self._queries(modality, source), can_wait, through=source.newest)

    def _grown(self, modality: Modality, file: IndexFile, tail: ShardSource) -> Task:
        store = self._writer.store
        task = self._whole(modality, can_wait=False)
        path = store.folder / INDEX / file.name
        task.base = FaissIndex.read(path, kind=file.kind, effort=file.effort, dim=tail.dim, mapped=False)
        task.tail = tail
        return task

    def _make(self, task: Task) -> None:
        if self._progress is not None:
            progress, modality = self._progress, task.modality
            task.progress = lambda done, total: progress(modality, done, total)
        task.run()
        self._name(task)

    def _name(self, task: Task) -> None:
        if task.made is not None:
            index, report = task.made
            written = _write(self._writer.store, task.modality, index, through=task.through, report=report)
            self._writer.set_index_file(written)
            self.made.append(written)

    def _drop(self, modality: Modality) -> None:
        with self._writer.transaction():
            self._writer.drop_index_files([modality])
        self._writer.remove_unnamed_files()

    def _queries(self, modality: Modality, source: ShardSource) -> dict[str, Vectors]:
        """Return queries of each modality: stored vectors of the others, and new ones out of its own."""
        store = self._writer.store
        queries: dict[str, Vectors] = {}
        for other, count in store.vector_counts().items():
            if other != modality and count >= FEWEST_QUERIES:
                queries[other] = store.source(store.locations(other)).sample(QUERIES, seed=0)
        given: Mapping[Modality, Vectors] = {}
        if self._examples is not None and any(other not in queries for other in MODALITIES if other != modality):
            given = self._examples()
        for other, vectors in given.items():
            if other != modality:
                queries.setdefault(other, vectors)
        queries[modality] = _like(source)
        return queries


def build_index_file(writer: Writer, modality: Modality, *, kind: str) -> None:
    """Index all vectors of one modality as one kind and make that the index which searches use.

    Raises:
        CollectionError: If a shard is missing or damaged.
        ValueError: If there is no such kind, or a stored vector is not finite.
        OSError: If the disk is full or fails.
    """
    store = writer.store
    source = store.source(store.locations(modality))
    if source.count:
        index = FaissIndex.build(kind, source)
        writer.set_index_file(_write(store, modality, index, through=source.newest, report={}))


def _try_all(tasks: Sequence[Task]) -> None:
    for task in tasks:
        try:
            task.run()
        except Exception as error:  # told when the run has finished its own work
            task.error = error


def _like(source: ShardSource) -> Vectors:
    """Vectors that lie as the indexed ones do without being any of them: one moved by the difference of two others."""
    drawn = source.sample(3 * QUERIES, seed=0)
    drawn = drawn[np.random.default_rng(0).permutation(len(drawn))]
    third = len(drawn) // 3
    if not third:
        return drawn
    one, two, three = drawn[:third], drawn[third : 2 * third], drawn[2 * third : 3 * third]
    with np.errstate(all="ignore"):  # of a damaged shard, which is told when it is compared
        return unit_rows(one + SPREAD * (two - three))


def _write(
    store: Store, modality: Modality, index: FaissIndex, *, through: int, report: Mapping[str, object]
) -> IndexFile:
    # A name of its own: readers may have the present file mapped.
    name = f"{modality}-{index.kind}-{secrets.token_hex(4)}.faiss"
    written = write_durably(store.folder / INDEX / name, index.write)
    return IndexFile(
        modality=modality,
        name=name,
        size=written.size,
        sha256=written.sha256,
        state=sealed_state(written),
        kind=index.kind,
        effort=index.effort,
        through=through,
        vectors=len(index),
        report=report,
    )
