"""Files to vectors to collection: what is new or changed is read, encoded and committed, batch by batch."""

import contextlib
import os
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trivium.encoders.base import Modality, Vectors
from trivium.encoders.sandbox.limits import limits_of
from trivium.encoders.sandbox.pool import DecodeSandbox
from trivium.pipeline.ingest.beside import FailedFile, FileLoading, LoadedFile
from trivium.pipeline.ingest.contents import Claims, EncodedBatch, encode_files, loading_stats, small_first
from trivium.pipeline.ingest.excludes import Excludes, given_patterns
from trivium.pipeline.ingest.loading import Loader
from trivium.pipeline.ingest.roots import Vanished, plan, vanished_roots
from trivium.pipeline.ingest.scanning import MediaFile, Problem, Scan, scan_media
from trivium.pipeline.ingest.settings import IngestSettings, PassedOver, Summary
from trivium.pipeline.paths import Naming, named
from trivium.pipeline.records import (
    ITEM_KINDS,
    ContentKey,
    ItemKind,
    ItemState,
    NewItem,
    Part,
    StoredItem,
    Traits,
    modality_of,
)
from trivium.pipeline.search.indexing import Indexer
from trivium.pipeline.space.joint import JointSpace
from trivium.pipeline.store.lookup import ContentLookup
from trivium.pipeline.store.roots import RootSettings, nearest
from trivium.pipeline.store.store import Store
from trivium.pipeline.store.writer import Writer, writing
from trivium.pipeline.tables.metadata import Metadata, MetadataError, merged, told
from trivium.pipeline.tables.metadata_table import MetadataTable, read_table, said_of

EXAMPLE_TEXTS = 200


def ingest(
    store: Store,
    space: JointSpace,
    media: Iterable[str | os.PathLike[str]] | None,
    settings: IngestSettings | None = None,
) -> Summary:
    """Bring a collection up to date with files and folders.

    Args:
        store: The collection.
        space: The space that the collection was made with.
        media: Files and folders; None for all that the collection was made of. What lies below them and is gone from
            the disk goes from the collection; what lies elsewhere stays.
        settings: How.

    Raises:
        CollectionError: If the collection belongs to another space, or another process is writing to it.
    """
    settings = settings or IngestSettings()
    store.require(space.space)
    sandbox = DecodeSandbox(limits=limits_of(settings.max_megapixels))
    with writing(store) as writer, contextlib.closing(store.lookup()) as known, sandbox:
        if settings.wish is not None:
            writer.set_wish(asdict(settings.wish))
        indexer = Indexer(writer, examples=lambda: example_queries(space), progress=settings.index_progress)
        indexer.start()
        summary = _Ingestion(settings, writer, known, space, sandbox).run(media)
        started = time.perf_counter()
        indexer.finish()
        summary.seconds["index"] = time.perf_counter() - started
        summary.indexes = indexer.made
        return summary


class _Ingestion:
    """One run of `ingest`."""

    def __init__(
        self, settings: IngestSettings, writer: Writer, known: ContentLookup, space: JointSpace, sandbox: DecodeSandbox
    ) -> None:
        self._store = writer.store
        self._writer = writer
        self._known = known
        self._space = space
        self._sandbox = sandbox
        self._tables = settings.tables
        self._progress = settings.progress
        self._drops_missing = settings.drop_missing
        self._is_shallow = settings.shallow
        self._given = settings.of_roots
        before = self._store.windows
        self._windows = before if settings.windows is None else settings.windows
        # Whoever asks for windows where old ones do not overlap gets all of them anew; else those stay as they are.
        are_old = bool(settings.windows) and not self._store.windows_overlap
        self._other_windows = self._windows != before or are_old
        self._partial = not settings.strict
        if settings.thumbnails is not None:
            writer.set_thumbnails(settings.thumbnails)
        self._look = partial(look_at, keeps_thumbnail=self._store.keeps_thumbnails)
        # Of before windows were usual: read once more, to see which are long.
        self._unmeasured = self._store.unmeasured_sounds() if self._windows is None else set()
        self._summary = Summary(stats=settings.stats)
        self._recorded = self._store.states()
        self._gone: dict[str, ItemState] = {}
        self._renamed: set[int] = set()
        self._newest = max((item.id for item in self._recorded.values()), default=0)
        self._earlier: dict[ContentKey, Iterator[str]] = {}  # paths of items from before this run not looked at yet
        self._untold: set[str] = set()  # files that are as they were, and whose tags are to be read

    def run(self, media: Iterable[str | os.PathLike[str]] | None) -> Summary:
        summary = self._summary
        known = self._store.roots()
        self._plan = plan(known, None if media is None else [named(path) for path in media], self._given)
        self._loadings = {settings: self._loading(settings) for settings in self._plan.walked.values()}
        self._turned = {
            path
            for path, settings in self._plan.walked.items()
            if (before := nearest(path, known)) and known[before].settings.positions != settings.positions
        }
        with self._timed("scan"):
            excludes = {
                path: Excludes.of_root(path, given_patterns(own.exclude), defaults=own.default_excludes)
                for path, own in self._plan.walked.items()
            }
            scan = scan_media(self._plan.walked, shallow=self._is_shallow, excludes=excludes)
        summary.passed = {suffix: PassedOver.of(suffix, count) for suffix, count in scan.passed.most_common()}
        summary.excluded = dict(Counter(scan.excluded.values()).most_common())
        summary.skipped += scan.problems
        present = {file.path for file in scan.files}
        naming = Naming()  # an earlier version named items through links
        self._gone = {
            path: item
            for path, item in self._recorded.items()
            if path not in present and (scan.covers(path) or naming.in_folder(path) in present)
        }
        todo = [file for file in scan.files if not self._is_unchanged(file)]
        if self._tables is None:
            self._tables = self._kept_tables()
        if self._tables:
            todo = self._apply_tables(self._tables, scan.files, todo)
        summary.unchanged = len(scan.files) - len(todo) - summary.changed
        for kind in ITEM_KINDS:
            with self._timed(kind):
                self._take_all(kind, [file for file in todo if file.modality == kind])
        if self._other_windows:  # only now: a run that was stopped has not given them to all
            self._writer.set_windows(self._windows)
        excluded = {path: by for path in self._gone if (by := scan.excluded_by(path)) is not None}
        summary.removed_as_excluded.update(excluded.values())
        vanished = vanished_roots(self._plan, scan, known, self._recorded, self._gone.keys() - excluded)
        self._drop(present, vanished)
        self._record(scan, vanished)
        return summary

    def _drop(self, present: Set[str], vanished: Sequence[Vanished]) -> None:
        """Forget the items whose files are gone; those of roots that have vanished are kept, and marked."""
        summary = self._summary
        lost = {path for root in vanished for path in root.items if path not in present} | self._gone.keys()
        lost = {path for path in lost if self._recorded[path].id not in self._renamed}
        kept = {path for root in vanished for path in root.items} | {
            path for path in self._gone if self._recorded[path].is_missing
        }
        if self._drops_missing:
            kept = set()
        else:
            summary.vanished = [Problem(path=root.path, reason=root.reason) for root in vanished]
        if dropped := [self._recorded[path].id for path in lost - kept]:
            self._writer.remove(dropped)
            summary.removed += len(dropped)
        summary.missing = len(lost & kept)
        if marked := [self._recorded[path].id for path in lost & kept if not self._recorded[path].is_missing]:
            self._writer.set_missing(marked, missing=True)
        if back := [item.id for path, item in self._recorded.items() if item.is_missing and path in present]:
            self._writer.set_missing(back, missing=False)

    def _record(self, scan: Scan, vanished: Sequence[Vanished]) -> None:
        """Record what was walked, and what of it could not be indexed."""
        roots = self._plan.after(scan, vanished={root.path for root in vanished})
        if roots != self._store.roots():
            self._writer.set_roots(roots)
        reasons = {problem.path: problem.reason for problem in self._summary.skipped}
        reasons = {path: reason for path, reason in reasons.items() if nearest(path, roots) is not None}
        if reasons != {path: why for path, why in self._store.skipped().items() if nearest(path, self._plan.walked)}:
            self._writer.set_skipped(self._plan.walked, reasons)

    def _loading(self, settings: RootSettings) -> FileLoading:
        return FileLoading(
            embeds_captions=settings.captions and "text" in self._space.modalities,
            positions=settings.positions,
            windows=self._windows,
        )

    def _loading_of(self, file: MediaFile) -> FileLoading:
        return self._loadings[self._plan.settings_of(file.path)]

    def _load(self, loader: Loader, file: MediaFile) -> LoadedFile | FailedFile:
        known = self._known.contents_at(file.path) if file.path in self._untold else None
        return self._loading_of(file).load(file, loader, known=known)

    @contextlib.contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self._summary.seconds[stage] = time.perf_counter() - started

    def _is_unchanged(self, file: MediaFile) -> bool:
        item = self._recorded.get(file.path)
        is_unchanged = (
            item is not None
            and item.fingerprint == file.fingerprint
            and item.beside == file.beside
            and item.embeds_caption == (item.has_caption and self._loading_of(file).embeds_captions_of(file.modality))
            and not (self._other_windows and file.modality in ("audio", "video"))
            and item.id not in self._unmeasured
        )
        if not is_unchanged or item is None:
            return False
        # It was indexed by a Trivium that did not read tags, or positions are kept that were not, or no longer.
        is_told = item.has_own or file.modality == "text"
        if is_told and not (self._turned and nearest(file.path, self._plan.walked) in self._turned):
            return True
        if file.modality != "text":
            self._untold.add(file.path)
        return False

    def _kept_tables(self) -> list[MetadataTable]:
        """Read the tables that were given with the roots before; one that is gone leaves what it said."""
        positions = any(settings.positions for settings in self._plan.walked.values())
        paths = dict.fromkeys(path for settings in self._plan.walked.values() for path in settings.metadata)
        tables = []
        for path in paths:
            try:
                tables.append(read_table(Path(path), positions=positions))
            except MetadataError as error:
                self._summary.skipped.append(Problem(path=path, reason=f"metadata are as they were: {error}"))
        return tables

    def _apply_tables(
        self, tables: Sequence[MetadataTable], files: Sequence[MediaFile], todo: Sequence[MediaFile]
    ) -> list[MediaFile]:
        """Record what tables say of unchanged files; return ``todo`` and those whose sidecar has to be read too."""
        recorded, taken = self._store.tabled(), {file.path for file in todo}
        again: list[MediaFile] = []
        metadata: dict[int, tuple[str | None, str | None]] = {}
        for file in files:
            row = said_of(file.path, tables)
            if row is None or file.path in taken or row == recorded.get(file.path):
                continue
            if file.sidecar_path is not None:
                again.append(file)
            else:
                item = self._store.item_at(file.path)
                assert item is not None
                metadata[item.id] = (self._merged(file.path, item.own, row, {}), row)
        if metadata:
            self._writer.set_metadata(metadata)
            self._summary.changed += len(metadata)
        known = self._recorded.keys() | {file.path for file in files}
        for table in tables:
            self._tell_of(table, known)
        return [*todo, *again]

    def _tell_of(self, table: MetadataTable, known: Set[str]) -> None:
        """Tell of a table's rows that were left out, or of which something was, and of those that name no file."""
        summary = self._summary
        for problem in table.problems:
            if problem.is_taken:
                summary.notes.append(Problem(path=table.path, reason=f"line {problem.line}: {problem.reason}"))
            else:
                reason = f"line {problem.line} left out: {problem.reason}"
                summary.skipped.append(Problem(path=table.path, reason=reason))
        if more := table.problem_count - len(table.problems):
            reason = f"{more:,} more lines left out, or something of them"
            summary.skipped.append(Problem(path=table.path, reason=reason))
        if unused := table.unused(known):
            reason = f"{len(unused):,} lines name files that are not in the collection, the first {unused[0]}"
            summary.skipped.append(Problem(path=table.path, reason=reason))

    def _take_all(self, kind: ItemKind, files: Sequence[MediaFile]) -> None:
        needed = modality_of(kind, Part("content"))
        if files and needed not in self._space.modalities:
            reason = f"space {self._space.space} has no encoder for {needed}"
            self._summary.skipped += [Problem(path=file.path, reason=reason) for file in files]
            return
        if not files:
            return
        stats = self._summary.stats[kind] = loading_stats(self._sandbox)
        writing = stats.stage("write")
        done = 0
        groups = deque(small_first(files, kind, size_bytes=lambda file: file.size_bytes))
        while groups:
            # Files with the same content, of which one was being loaded: again when its vector is there, or it failed.
            waiting: list[MediaFile] = []
            loader = Loader(
                self._space,
                self._sandbox,
                Claims(self._known),
                stats=stats,
                partial=self._partial,
                reads_tags=True,
                look=self._look,
                seconds_of=self._known.seconds_of,
            )
            batches = encode_files(
                groups.popleft(),
                load=partial(self._load, loader),
                space=self._space,
                kind=kind,
                sandbox=self._sandbox,
                stats=stats,
                size_bytes=lambda file: file.size_bytes,
            )
            with contextlib.closing(batches):
                for batch in batches:
                    with writing.working(len(batch.files)):
                        postponed = self._commit(batch)
                    waiting += postponed
                    done += len(batch.files) - len(postponed)
                    if self._progress is not None:
                        self._progress(kind, done + batch.begun, len(files))
            if waiting:
                groups.append(waiting)
        stats.end()

    def _commit(self, batch: EncodedBatch[LoadedFile | FailedFile]) -> list[MediaFile]:
        """Take a batch in; return the files that wait for vectors which another batch is to bring."""
        postponed: list[MediaFile] = []
        items, untouched = [], {}
        traits: dict[ContentKey, Traits] = {}
        for file in batch.files:
            if isinstance(file, FailedFile):
                self._leave_out(file)
                continue
            if (reason := batch.failure_of(file.contents)) is not None:
                self._leave_out(FailedFile(file=file.file, reason=reason, was_read=True))
                continue
            if not all(key in batch.vectors or key in self._known for key in file.contents.roles.values()):
                postponed.append(file.file)
                continue
            self._summary.skipped += file.problems
            self._summary.notes += file.notes
            traits |= file.contents.traits
            if file.contents.note:
                self._summary.notes.append(Problem(path=file.file.path, reason=file.contents.note))
            item, before = self._new_item(file)
            self._summary.windowed += (
                before is not None
                and before.id in self._unmeasured
                and any(role.startswith("window") for role in item.contents)
            )
            if before is not None and _says_the_same(item, before):
                untouched[before.id] = (file.fingerprint, file.beside, file.own)
                self._summary.unchanged += 1
                continue
            items.append(item)
            self._summary.added += before is None
            self._summary.renamed += item.renamed_from is not None
            self._summary.changed += before is not None and item.renamed_from is None
        vectors = batch.vectors
        self._summary.encoded.update(key.modality for key in vectors)
        if items or vectors:
            rows = np.array(list(vectors.values()), np.float32).reshape(len(vectors), self._space.space.dim)
            self._writer.commit(items, list(vectors), rows, traits=traits)
        elif traits:
            self._writer.set_traits(traits)
        if untouched:
            self._writer.touch(untouched)
        return postponed

    def _new_item(self, file: LoadedFile) -> tuple[NewItem, StoredItem | None]:
        """Return the item of a loaded file, and the one that was there: at its path, or where it was before."""
        before = self._store.item_at(file.file.path) if file.file.path in self._recorded else None
        renamed_from = None
        if before is None:
            before = self._renamed_from(file.contents.roles["content"])
            renamed_from = before.id if before is not None else None
        tabled = before.tabled if before is not None else None
        if (row := said_of(file.file.path, self._tables or ())) is not None:
            tabled = row
        item = NewItem(
            path=file.file.path,
            modality=file.file.modality,
            fingerprint=file.fingerprint,
            beside=file.beside,
            caption=file.caption,
            metadata=self._merged(file.file.path, file.own, tabled, file.sidecar),
            tabled=tabled,
            own=file.own,
            contents=file.contents.roles,
            renamed_from=renamed_from,
        )
        return item, before

    def _merged(self, path: str, own: str | None, tabled: str | None, sidecar: Metadata) -> str | None:
        left_out: list[str] = []
        metadata = merged(own, tabled, sidecar, left_out=left_out)
        if left_out:
            self._summary.notes.append(Problem(path=path, reason=told(left_out)))
        return metadata

    def _renamed_from(self, content: ContentKey) -> StoredItem | None:
        """Find an item with this content whose file is no longer there; each is looked at once in a run."""
        if content not in self._earlier:
            earlier = self._store.paths_with(content, through=self._newest)
            if not earlier:
                return None
            self._earlier[content] = iter(earlier)
        for path in self._earlier[content]:
            if (path in self._gone or _is_gone(path)) and (item := self._store.item_at(path)) is not None:
                self._gone.pop(path, None)
                self._renamed.add(item.id)
                return item
        return None

    def _leave_out(self, failed: FailedFile) -> None:
        path = failed.file.path
        self._summary.skipped.append(Problem(path=path, reason=failed.reason))
        before = self._recorded.get(path)
        # What cannot be read just now keeps its vectors; what was read and is damaged, or is gone, does not.
        if before is not None and (failed.was_read or _is_gone(path)):
            self._writer.remove([before.id])
            self._summary.removed += 1


def look_at(pixels: NDArray[np.uint8], *, keeps_thumbnail: bool) -> Traits:
    """Return what is kept of a picture (h, w, 3) beside its vector."""
    from trivium.encoders.image.looks import perceptual_hash, small_picture, thumbnail  # texts need no Pillow

    small = small_picture(pixels)
    return Traits(looks=perceptual_hash(small), thumbnail=thumbnail(small) if keeps_thumbnail else None)


def _says_the_same(item: NewItem, before: StoredItem) -> bool:
    """Whether nothing that anybody sees differs."""
    return item.renamed_from is None and (item.contents, item.caption, item.metadata, item.tabled) == (
        before.contents,
        before.caption,
        before.metadata,
        before.tabled,
    )


def example_queries(space: JointSpace) -> Mapping[Modality, Vectors]:
    """Texts as people search for: queries to measure recall with where a collection has no texts of its own."""
    words = space.example_texts(EXAMPLE_TEXTS) if "text" in space.modalities else []
    return {"text": space.encode("text", words)} if words else {}


def _is_gone(path: str) -> bool:
    """Whether there is certainly no such file; one that cannot be looked at may be there."""
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        pass
    return False
