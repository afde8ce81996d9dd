"""A collection of media: indexed once, kept up to date, searched any by any."""

import functools
import os
import threading
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Concatenate, ParamSpec, TypeVar

from trivium.encoders.base import Modality, Space, Vectors
from trivium.encoders.networks.contract import Precision
from trivium.encoders.several import Paths, listed, path_of, paths_of
from trivium.indexes import Wish
from trivium.pipeline.closing import Uses
from trivium.pipeline.progress import Bars, Progress
from trivium.pipeline.records import IndexFile, ItemKind
from trivium.pipeline.search.folding import Fold
from trivium.pipeline.search.query import (
    Items,
    QueryPart,
    asked_with,
    checked_parts,
    parts_of_many,
    query_parts,
    query_vectors,
    unit_queries,
)
from trivium.pipeline.search.retrieval import Hit, Judge, Retrieval
from trivium.pipeline.space.config import OPEN_CLIP
from trivium.pipeline.space.joint import DEFAULT_SPACE, JointSpace, load_space, space_folders
from trivium.pipeline.store.connections import closed
from trivium.pipeline.store.database import CollectionError, is_free, what_is_missing
from trivium.pipeline.store.database_file import DATABASE, size_bytes
from trivium.pipeline.store.filters import Filter
from trivium.pipeline.store.roots import Root
from trivium.pipeline.store.store import Store
from trivium.pipeline.store.thumbnails import count_thumbnails
from trivium.pipeline.tables.metadata_table import read_table

if TYPE_CHECKING:  # what writes is imported when something is written: a search would wait 70 ms for it
    from trivium.encoders.engine import Stats
    from trivium.encoders.sandbox.pool import DecodeSandbox
    from trivium.pipeline.explain.drops import Explanation
    from trivium.pipeline.ingest.settings import Summary
    from trivium.pipeline.upkeep.compaction import Compaction
    from trivium.pipeline.upkeep.duplicates import Duplicates
    from trivium.pipeline.upkeep.importing import Imported
    from trivium.pipeline.upkeep.migration import Migration
    from trivium.pipeline.upkeep.snapshot import Snapshot

EXAMPLES_TOLD = 3  # of a field of metadata
P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectionInfo:
    """What `Collection.info` tells."""

    folder: str
    space: Space
    items: dict[ItemKind, int]
    vectors: int
    generation: int  # commits so far
    size_bytes: int  # of the collection's folder
    thumbnails: int
    thumbnail_bytes: int
    wish: Wish  # what is asked of the index
    roots: dict[str, Root]  # what it was made of, by path
    missing: int  # items that are kept although their files are gone
    skipped: dict[str, str]  # why files of those roots could not be indexed, by path
    metadata: dict[str, list[str]]  # fields that items have, with examples
    indexes: dict[Modality, IndexFile]  # where there is none, all vectors are compared


def _while_open(
    method: "Callable[Concatenate[Collection, P], R]",
) -> "Callable[Concatenate[Collection, P], R]":
    """Have a method raise a CollectionError when its collection is closed."""

    @functools.wraps(method)
    def method_while_open(collection: "Collection", /, *args: P.args, **kwargs: P.kwargs) -> R:
        with collection._uses.inside(lambda: closed(collection.folder)):
            return method(collection, *args, **kwargs)

    return method_while_open


class Collection:
    """A folder that holds what Trivium knows of a set of files; the files themselves are never touched.

    Threads may share one object: they search at the same time, also while one of them, or another process, adds,
    removes or compacts; each search sees one state of the collection. Of several that write, one does, and the others
    get a `CollectionLockedError`. Networks and index files are loaded once for all; each thread has a connection to the
    database, closed when the thread ends.

    After `close`, whatever is called raises a `CollectionError`, and so does what other threads were in the middle of.
    """

    def __init__(
        self,
        folder: Path,
        *,
        space: str | os.PathLike[str] | JointSpace | None = None,
        device: str = "cpu",
        precision: Precision = "float32",
        announce: Callable[[str], None] | None = None,
    ) -> None:
        self.folder = folder
        self._device = device
        self._precision: Precision = precision
        self._announce = announce
        self._uses = Uses()
        self._watches: list[threading.Event] = []  # what ends them
        self._making = threading.RLock()  # over what is made when it is first needed: store, space, retrieval, sandbox
        self._store = Store(folder) if _exists(folder) else None
        self._search: Retrieval | None = None
        self._sandbox: DecodeSandbox | None = None
        self._source = self._space_source(space)
        # Else the collection, which may be anybody's, names it.
        self._is_named = space is not None or self._store is None
        self._space = space if isinstance(space, JointSpace) else None
        if space is not None and self._store is not None:
            self._store.require(self.space.space)

    @classmethod
    def open(
        cls,
        folder: str | os.PathLike[str],
        *,
        space: str | os.PathLike[str] | JointSpace | None = None,
        device: str = "cpu",
        precision: Precision = "float32",
        announce: Callable[[str], None] | None = None,
    ) -> "Collection":
        """Open a collection; one that does not exist is made by the first `add`.

        Args:
            folder: Where it lies. Must not exist, be empty, or be a collection.
            space: A name, a space folder, or a loaded space, for a new collection (default: ``trivium-base``). An
                existing collection knows its space; another one is refused.
            device: Where the networks run: see `encoders.devices.resolve`.
            precision: See `load_space`.
            announce: Called with one line before each download.

        Raises:
            CollectionError: If the folder is not a collection, damaged, of a newer format or another space.
            SpaceError: If there is no such space.
            ValueError: If a path is empty.
        """
        folder = os.path.abspath(path_of(folder, "folder"))
        return cls(Path(folder), space=space, device=device, precision=precision, announce=announce)

    @property
    def space(self) -> JointSpace:
        """The collection's space; its networks are loaded when they are first used."""
        if (space := self._space) is not None:
            return space
        with self._making:
            if self._space is None:
                self._space = load_space(
                    self._source,
                    device=self._device,
                    precision=self._precision,
                    announce=self._announce,
                    is_named=self._is_named,
                )
            return self._space

    @_while_open
    def add(
        self,
        media: Paths | None = None,
        *,
        captions: bool | None = None,
        metadata: Paths | None = None,
        positions: bool | None = None,
        windows: float | None = None,
        exclude: str | Iterable[str] | None = None,
        default_excludes: bool | None = None,
        strict: bool = False,
        max_megapixels: float | None = None,
        thumbnails: bool | None = None,
        index: Wish | None = None,
        drop_missing: bool = False,
        progress: Bars | None = None,
        index_progress: Bars | None = None,
        stats: "dict[ItemKind, Stats] | None" = None,
    ) -> "Summary":
        """Index files and folders: what is new or changed is encoded, what is gone from them is dropped.

        The collection remembers them, and how each was indexed: what is not given is as it was for the nearest of them.

        Args:
            media: Files and folders, one or several; all that were ever named if not given.
            captions: Whether captions become vectors of their items too (at first they do); they are shown in hits
                either way.
            metadata: A table of metadata, or several (CSV or JSON lines, see `read_table`), beside the JSON files that
                lie next to the media; of a key that several have, the last counts. What tables of earlier runs said
                stays of files that none of these names. They are read again when what was named with them is brought
                up to date.
            positions: Keep where the media were made, if metadata say so; they are private, and left out at first.
            windows: Sounds get a vector for each stretch of so many seconds too, each overlapping the next by half, so
                that hits say where; 0 for none. At first those of more than a minute get some of 10 s.
            exclude: A pattern, or several, of what is left out below the folders: git's syntax, relative to each
                folder in ``media``. What is there already and matches is dropped. Each folder's `.triviumignore` says
                more of that, weaker than this.
            default_excludes: Whether hidden files, and what systems put beside media (`excludes.DEFAULTS`), are left
                out.
            strict: Refuse files of which only a part can be decoded, because they are cut off, say; that part is taken
                in with a note otherwise. Files that are in the collection and have not changed are not read again.
            max_megapixels: The largest picture that is decoded, in memory and time that grow with it; if not given what
                TRIVIUM_MAX_MEGAPIXELS says, else 100, and 400 for a JPEG, which is scaled down on the way.
            thumbnails: Keep small copies of pictures, and of those of videos, for pages; as before if not given, and at
                first they are kept.
            index: What to ask of the index from now on.
            drop_missing: Forget all items whose files are gone. Without it, where all or most of what was named is gone
                at once, or another disk lies there, its items are kept and marked: see ``Summary.vanished``.
            progress: Called as ``progress(kind, files_done, files_to_do)`` after each commit; files done have a
                fraction while a large text is taken in, portion by portion.
            index_progress: Called as ``index_progress(modality, vectors_done, vectors_to_do)`` while an index is made.
            stats: Filled meanwhile with what each stage does, for each kind of file; an empty dictionary.

        Returns:
            Counts, timings, every file that was left out with its reason, and notes on files that are not all there.

        Raises:
            CollectionError: If the collection belongs to another space or is being written by another process.
            MetadataError: If the table cannot be read.
            TypeError: If one of ``media`` is no path.
            ValueError: If a path is empty, ``exclude`` is no pattern, ``windows`` is below 0.1 and not 0, or
                ``max_megapixels`` is not above 0 or above 4295.
            WeightsError: If the weights cannot be fetched.
        """
        from trivium.pipeline.ingest.ingestion import ingest
        from trivium.pipeline.ingest.settings import IngestSettings

        paths = None if media is None else paths_of(media, "media")
        tables = None if metadata is None else paths_of(metadata, "metadata")
        store = self._existing() if paths is None else self._existing_or_new()
        settings = IngestSettings(
            captions=captions,
            tables=None if tables is None else [read_table(Path(path), positions=bool(positions)) for path in tables],
            positions=positions,
            windows=windows,
            exclude=None if exclude is None else [exclude] if isinstance(exclude, str) else list(exclude),
            default_excludes=default_excludes,
            strict=strict,
            max_megapixels=max_megapixels,
            thumbnails=thumbnails,
            wish=index,
            drop_missing=drop_missing,
            progress=progress,
            index_progress=index_progress,
            stats={} if stats is None else stats,
        )
        return ingest(store, self.space, paths, settings)

    @_while_open
    def watch(
        self,
        told: Callable[["Summary"], None],
        *,
        poll: bool = False,
        stop: threading.Event | None = None,
        note: Callable[[str], None] | None = None,
        progress: Bars | None = None,
    ) -> None:
        """Keep the collection up to date with what it was made of, until it is stopped.

        At first all is brought up to date; then what the file system tells of, once it is quiet for 2 s in a folder.
        Other processes may search and write meanwhile: while one writes, changes wait.

        Args:
            told: Called after each update that changed anything.
            poll: Look every 5 seconds instead of waiting for events; on network disks that is done anyway.
            stop: Set it to end the watch, within a second; `close` does so too.
            note: Called with a line when something should be known: a network disk, too many folders, another writer.
            progress: As for `add`.

        Raises:
            CollectionError: If there is no collection, or it is damaged.
        """
        from trivium.pipeline.ingest.watching import keep_up_to_date

        store, stop = self._existing(), stop or threading.Event()
        self._watches.append(stop)
        if self._uses.is_closed:
            stop.set()
        keep_up_to_date(store, self.space, told, poll=poll, stop=stop, note=note, progress=progress)

    @_while_open
    def search(
        self,
        *,
        text: Items = None,
        image: Items = None,
        audio: Items = None,
        video: Items = None,
        k: int = 10,
        only: ItemKind | None = None,
        paths: Paths = (),
        where: str | Sequence[str] | None = None,
        min_relevance: float | None = None,
        fold: Fold = "same",
    ) -> list[Hit]:
        """Find the items nearest to a query of any modality, or several at once.

        Args:
            text: A string, a pair (weight, string), or a list of these. A negative weight means less of it.
            image: The same with paths, bytes, PIL images or uint8 arrays (h, w, 3).
            audio: The same with paths, bytes or (waveform, rate in Hz) pairs of array and int.
            video: The same with paths or bytes: what its pictures show, on the whole.
            k: How many hits, at least 1.
            only: Restrict the hits to one kind of item.
            paths: Restrict the hits to files that one of these patterns matches (see `filters.patterns`), one or
                several; an `os.PathLike` is a name and no pattern.
            where: Restrict the hits by captions and metadata: ``year >= 2020 and caption contains dog``; of several
                such expressions all must hold.
            min_relevance: Leave out what is less likely to be relevant, 0 to 1; perhaps nothing is left.
            fold: ``same``: of equal files the best is a hit, the others are its ``copies``; ``near``: so too of
                pictures and videos that look the same (`search.folding`); ``none``: each is a hit.

        Returns:
            At most k hits, best first; k whenever so many items, each with its copies, meet the restrictions.

        Raises:
            CollectionError: If there is no collection, or it is damaged.
            FilterError: If a restriction cannot be understood.
            QueryError: If the query is empty, cannot be decoded or cancels out, or ``k`` is below 1.
        """
        parts = query_parts(text=text, image=image, audio=audio, video=video)
        filter = Filter(only=only, paths=tuple(listed(paths, "paths")), where=where)
        (hits,) = self.search_parts([parts], k=k, filter=filter, min_relevance=min_relevance, fold=fold)
        if not hits:
            self._warn_of(filter)
        return hits

    @_while_open
    def search_many(
        self,
        *,
        text: Items = None,
        image: Items = None,
        audio: Items = None,
        video: Items = None,
        k: int = 10,
        only: ItemKind | None = None,
        paths: Paths = (),
        where: str | Sequence[str] | None = None,
        min_relevance: float | None = None,
        fold: Fold = "same",
    ) -> list[list[Hit]]:
        """Answer many queries at once: encoded in batches, and compared as matrices.

        Args:
            text: For each query what `search` takes, or None; for one query that alone.
            image: The same, as many as of ``text`` where both are given: entries at one place are one query.
            audio: The same.
            video: The same.
            k: How many hits for each query, at least 1.
            only: As in `search`, for all queries.
            paths: As in `search`, for all queries.
            where: As in `search`, for all queries.
            min_relevance: As in `search`, for all queries.
            fold: As in `search`, for all queries.

        Returns:
            The hits of each query, in the order of the queries.

        Raises:
            CollectionError: As in `search`.
            FilterError: As in `search`.
            QueryError: As in `search`, or if the numbers of texts, pictures, sounds and videos differ.
        """
        queries = parts_of_many(text=text, image=image, audio=audio, video=video)
        filter = Filter(only=only, paths=tuple(listed(paths, "paths")), where=where)
        found = self.search_parts(queries, k=k, filter=filter, min_relevance=min_relevance, fold=fold)
        if queries and not any(found):
            self._warn_of(filter)
        return found

    @_while_open
    def search_vectors(
        self,
        vectors: Vectors,
        *,
        k: int = 10,
        only: ItemKind | None = None,
        paths: Paths = (),
        where: str | Sequence[str] | None = None,
        fold: Fold = "same",
    ) -> list[list[Hit]]:
        """Find the items nearest to vectors of the collection's space, which need not come from an item.

        Args:
            vectors: Shape (n, dim), of any length but zero.
            k: How many hits for each, at least 1.
            only: As in `search`.
            paths: As in `search`.
            where: As in `search`.
            fold: As in `search`.

        Returns:
            The hits of each vector; how likely they are relevant is not told.

        Raises:
            CollectionError: As in `search`.
            FilterError: As in `search`.
            QueryError: If the vectors are not of the space's dimension, one is zero or has NaN, or ``k`` is below 1.
        """
        store, space = self._existing(), self.space.space
        unit = unit_queries(vectors, dim=space.dim)
        filter = Filter(only=only, paths=tuple(listed(paths, "paths")), where=where)
        retrieval = self._retrieval(store)
        with store.reading():
            store.require(space)
            return retrieval.search(unit, k=k, filter=filter, judge=None, fold=fold)

    @_while_open
    def search_parts(
        self,
        queries: Sequence[Sequence[QueryPart]],
        *,
        k: int = 10,
        filter: Filter | None = None,
        min_relevance: float | None = None,
        fold: Fold = "same",
    ) -> list[list[Hit]]:
        """Do what `search_many` does, with the parts of each query in one list.

        Raises:
            TypeError: If ``queries`` are no lists of parts.
        """
        queries = checked_parts(queries)
        store = self._existing()
        sandbox, space = self._sandbox_for(queries), self.space
        vectors = query_vectors(space, queries, sandbox=sandbox)
        relevance = space.relevance
        judge = None if relevance is None else Judge(relevance, [asked_with(parts) for parts in queries])
        retrieval = self._retrieval(store)
        with store.reading():
            store.require(space.space)  # it may have been migrated meanwhile
            return retrieval.search(vectors, k=k, filter=filter, judge=judge, least=min_relevance, fold=fold)

    @_while_open
    def explain(
        self, hit: Hit, *, text: Items = None, image: Items = None, audio: Items = None, video: Items = None
    ) -> "Explanation":
        """Say which regions, seconds or words of a hit, and which words of the query, held up its score.

        Args:
            hit: What a search gave; its file is read again.
            text: The query, as in `search`.
            image: As in `search`.
            audio: As in `search`.
            video: As in `search`.

        Returns:
            What was found; or a ``reason``, if the file is gone or has changed since it was indexed, say.

        Raises:
            CollectionError: As in `search`.
            QueryError: As in `search`.
        """
        parts = query_parts(text=text, image=image, audio=audio, video=video)
        (explanation,) = self.explain_parts(parts, [hit])
        return explanation

    @_while_open
    def explain_parts(self, parts: QueryPart | Sequence[QueryPart], hits: Hit | Sequence[Hit]) -> "list[Explanation]":
        """Do what `explain` does for several hits of a query, or one, with its parts in one list.

        Raises:
            TypeError: If they are no parts and hits.
        """
        from trivium.pipeline.explain.hits import explain

        ((*parts,),) = checked_parts([listed(parts, "parts")])
        hits = listed(hits, "hits")
        if not all(isinstance(hit, Hit) for hit in hits):
            raise TypeError("hits must be what a search gave: a Hit, or a list of them")
        store = self._existing()
        store.require(self.space.space)

        def sha256_of(path: str) -> bytes | None:
            item = store.item_at(path)
            own = None if item is None else item.contents.get("content")
            return None if own is None else own.sha256

        return explain(self.space, parts, hits, sha256_of=sha256_of)

    @_while_open
    def remove(self, paths: Paths, *, on_missing: Callable[[str], None] | None = None) -> int:
        """Forget the items at these paths, and all items below those that are folders; the files stay.

        Args:
            paths: One or several. Where neither an item nor a file is named so, a text (no `os.PathLike`) with ``*``,
                ``?`` or ``[`` is a pattern, see `filters.patterns`: ``*.tmp``.
            on_missing: Called with each of them that nothing was found for.

        Returns:
            How many items were forgotten. A file that still lies in an indexed folder comes back with the next `add`.

        Raises:
            CollectionError: If there is no collection, or another process is writing to it.
            FilterError: If a pattern cannot be understood.
            TypeError: If one is no path.
            ValueError: If one is empty.
        """
        from trivium.pipeline.store.writer import writing

        asked = {path_of(path, "paths"): isinstance(path, str) for path in listed(paths, "paths")}
        store = self._existing()
        with writing(store) as writer:
            found = {path: store.items_named(path, or_pattern=is_text) for path, is_text in asked.items()}
            if items := {item for items in found.values() for item in items}:
                writer.remove(items)
        for path in asked:
            if not found[path] and on_missing is not None:
                on_missing(path)
        return len(items)

    @_while_open
    def forget(self, root: str | os.PathLike[str]) -> int:
        """Forget what was named to be indexed, and all items below it that no other root has; the files stay.

        Returns:
            How many items were forgotten.

        Raises:
            CollectionError: If it is none of the collection's roots (see `info`), or another process is writing.
        """
        from trivium.pipeline.ingest.roots import forget

        return forget(self._existing(), root)

    @_while_open
    def info(self) -> CollectionInfo:
        """Tell what the collection holds.

        Raises:
            CollectionError: If there is no collection.
        """
        store = self._existing()
        thumbnails, thumbnail_bytes = count_thumbnails(self.folder)
        with store.reading():
            return CollectionInfo(
                folder=str(self.folder),
                space=store.space,
                items=store.counts(),
                vectors=store.vector_count(),
                generation=store.generation,
                size_bytes=size_bytes(self.folder),
                thumbnails=thumbnails,
                thumbnail_bytes=thumbnail_bytes,
                wish=store.wish,
                roots=store.roots(),
                missing=store.missing_count(),
                skipped=store.skipped(),
                metadata=store.metadata_examples(EXAMPLES_TOLD),
                indexes=store.index_files(),
            )

    @_while_open
    def rebuild(self, *, index: Wish | None = None, progress: Bars | None = None) -> None:
        """Make the index anew from the stored vectors, whatever its files look like.

        Args:
            index: What to ask of the index from now on; as before if not given.
            progress: Called as ``progress(modality, vectors_done, vectors_to_do)``.

        Raises:
            CollectionError: If there is no collection, a shard is damaged, or another process is writing.
        """
        from trivium.pipeline.search.indexing import Indexer
        from trivium.pipeline.store.writer import writing

        with writing(self._existing()) as writer:
            if index is not None:
                writer.set_wish(asdict(index))
            Indexer(writer, examples=self._examples, progress=progress).rebuild()

    @_while_open
    def metadata_keys(self) -> frozenset[str]:
        """Return the keys of all items' metadata."""
        return self._existing().metadata_keys()

    @_while_open
    def import_vectors(
        self,
        source: str | os.PathLike[str],
        *,
        assume_space: bool = False,
        positions: bool = False,
        progress: Progress | None = None,
    ) -> "Imported":
        """Take in vectors that were made elsewhere; see `importing.import_vectors`."""
        from trivium.pipeline.upkeep.importing import import_vectors

        return import_vectors(
            self._existing_or_new(),
            Path(path_of(source, "source")),
            assume_space=assume_space,
            positions=positions,
            examples=self._examples,
            progress=progress,
        )

    @_while_open
    def compact(self, *, progress: Progress | None = None) -> "Compaction":
        """Really delete what was removed, and merge small files; see `compaction.compact`."""
        from trivium.pipeline.upkeep.compaction import compact

        return compact(self._existing(), examples=self._examples, progress=progress)

    @_while_open
    def export(
        self,
        target: str | os.PathLike[str],
        *,
        filter: Filter | None = None,
        overwrite: bool = False,
        progress: Progress | None = None,
    ) -> int:
        """Write items and their vectors to a ``.parquet`` or ``.npy`` file; see `exporting.export`."""
        from trivium.pipeline.upkeep.exporting import export

        return export(
            self._existing(), Path(path_of(target, "target")), filter=filter, overwrite=overwrite, progress=progress
        )

    @_while_open
    def backup(
        self, target: str | os.PathLike[str], *, replace: bool = False, progress: Progress | None = None
    ) -> "Snapshot":
        """Copy the collection, checked, to a folder of its own, also while it is written to; see `backup.backup`."""
        from trivium.pipeline.upkeep.backup import backup

        return backup(self.folder, Path(path_of(target, "target")), replace=replace, progress=progress)

    @_while_open
    def migrate(
        self,
        space: str | os.PathLike[str] | JointSpace,
        *,
        drop_missing: bool = False,
        progress: Bars | None = None,
        index_progress: Bars | None = None,
        stats: "dict[ItemKind, Stats] | None" = None,
    ) -> "Migration":
        """Encode everything in another space, and search that one when it is whole; see `migration.migrate`."""
        from trivium.pipeline.upkeep.migration import migrate

        store = self._existing()
        if not isinstance(space, JointSpace):
            space = load_space(
                self._space_source(space), device=self._device, precision=self._precision, announce=self._announce
            )
        done = migrate(
            store, space, drop_missing=drop_missing, progress=progress, index_progress=index_progress, stats=stats
        )
        if done.is_done:
            with self._making:
                self._space, self._source = space, space.source
        return done

    @_while_open
    def duplicates(self, *, near: bool = False, progress: Progress | None = None) -> "Duplicates":
        """List which files are copies of one another; nothing is changed. See `duplicates.find_duplicates`."""
        from trivium.pipeline.upkeep.duplicates import find_duplicates

        return find_duplicates(self._existing(), near=near, progress=progress)

    @_while_open
    def unseen_pictures(self) -> int:
        """Count the pictures and videos that near-equal ones cannot be told of, until `duplicates` looks at them."""
        return len(self._existing().without_looks())

    @_while_open
    def thumbnails(self, places: Mapping[str, float | None]) -> dict[str, bytes]:
        """Return small WebP pictures of items; lost ones are made again, of the files as they were indexed.

        Args:
            places: Paths, each with the seconds of a video's picture, None for its first one.
        """
        from trivium.pipeline.upkeep.showing import thumbnails

        return thumbnails(self._existing(), places, sandbox=self._started_sandbox())

    @_while_open
    def small_pictures(self, files: Sequence[str]) -> dict[str, bytes]:
        """Return small WebP pictures of files that need not be in the collection, but of those that cannot be shown."""
        from trivium.pipeline.upkeep.showing import small_pictures

        return small_pictures(files, sandbox=self._started_sandbox())

    def close(self) -> None:
        """Release the database file, and end the processes that decoded queries' files. May be called again.

        Waits for what other threads are in the middle of: searches end at once, a run of `add` with the batch that is
        being made; what it has committed is kept. A thread that is itself in the middle of something, in a callback
        say, does not wait.
        """
        self._uses.close(stop=self._stop, take_apart=self._take_apart)

    def __enter__(self) -> "Collection":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @_while_open
    def __len__(self) -> int:
        return 0 if self._store is None else sum(self._store.counts().values())

    def __repr__(self) -> str:
        if self._uses.is_closed:
            return f"<Collection {str(self.folder)!r}: closed>"
        return f"<Collection {str(self.folder)!r}: {len(self)} items>"

    def _examples(self) -> Mapping[Modality, Vectors]:
        from trivium.pipeline.ingest.ingestion import example_queries

        return example_queries(self.space)

    def _warn_of(self, filter: Filter) -> None:
        """Tell of metadata that no item has: a slip of the pen is the likeliest reason for no hits."""
        for key in sorted(filter.metadata_keys - self.metadata_keys()):
            warnings.warn(f"no hits, and no item has metadata '{key}'", stacklevel=4)

    def _sandbox_for(self, queries: Sequence[Sequence[QueryPart]]) -> "DecodeSandbox | None":
        """Return where the parts' files are decoded: a process that starts while the networks are loaded, and stays."""
        if not any(part.is_file for query in queries for part in query):
            return None
        sandbox = self._started_sandbox()
        sandbox.begin()
        return sandbox

    def _started_sandbox(self) -> "DecodeSandbox":
        with self._making:
            if self._sandbox is None:
                from trivium.encoders.sandbox.pool import DecodeSandbox

                self._sandbox = DecodeSandbox()
            return self._sandbox

    def _existing(self) -> Store:
        with self._making:
            if self._store is None:
                self._store = Store(self.folder)  # made meanwhile, or an error that says what is missing
            return self._store

    def _existing_or_new(self) -> Store:
        with self._making:
            if self._store is None:
                self._store = Store.create(self.folder, self.space.space, source=self.space.source)
            return self._store

    def _retrieval(self, store: Store) -> Retrieval:
        with self._making:
            if self._search is None:
                self._search = Retrieval(store)
            return self._search

    def _stop(self) -> None:
        for stop in list(self._watches):
            stop.set()
        if self._sandbox is not None:
            self._sandbox.close()
        if self._store is not None:
            self._store.stop()

    def _take_apart(self) -> None:
        self._stop()  # what was made meanwhile too
        if self._store is not None:
            self._store.close()
        self._search = self._sandbox = None

    def _space_source(self, space: str | os.PathLike[str] | JointSpace | None) -> str:
        if isinstance(space, JointSpace):
            return space.source
        if space is not None:
            path_of(space, "space")
            is_name = os.fspath(space) in space_folders() or str(space).startswith(OPEN_CLIP)
            return os.fspath(space) if is_name else os.path.abspath(space)
        return DEFAULT_SPACE if self._store is None else self._store.space_source


def _exists(folder: Path) -> bool:
    if (folder / DATABASE).exists():
        return True
    if not is_free(folder):
        raise CollectionError(what_is_missing(folder))
    return False
