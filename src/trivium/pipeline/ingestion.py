"""Files to vectors to collection: what is new or changed is read, encoded and committed, batch by batch."""

import contextlib
import hashlib
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from itertools import islice
from typing import Any

import numpy as np

from trivium.encoders.base import MODALITIES, DecodeError, Modality, Prepared, Vectors
from trivium.encoders.files import read_file
from trivium.encoders.sandbox import DecodeSandbox
from trivium.encoders.text_decoding import decode_text, first_line
from trivium.indexes import Wish
from trivium.pipeline.indexing import Indexer, IndexProgress
from trivium.pipeline.metadata import MAX_BYTES as MAX_SIDECAR_BYTES
from trivium.pipeline.metadata import Metadata, MetadataError, MetadataTable, merged, read_sidecar
from trivium.pipeline.records import ContentKey, IndexFile, ItemState, NewItem, Role, StoredItem
from trivium.pipeline.scanning import MediaFile, Problem, fingerprint, fingerprint_beside, scan_media
from trivium.pipeline.spaces import JointSpace
from trivium.pipeline.store import ContentLookup, Store
from trivium.pipeline.writer import Writer, writing

# Files read, encoded and committed together. A picture is 150 kB when prepared, a half-hour sound 60 MB.
BATCH_FILES: Mapping[Modality, int] = {"text": 128, "image": 64, "audio": 16}
EMBED_ITEMS = 32  # per forward pass
EXAMPLE_TEXTS = 200
# A text is read whole for its first 256 tokens; the largest scans and lossless half hours have some hundred MB.
MAX_FILE_BYTES: Mapping[Modality, int] = {"text": 64 << 20, "image": 512 << 20, "audio": 1 << 30}
MAX_CAPTION_FILE_BYTES = 1 << 20
# A file changed this shortly before it was read may change again without its times telling (FAT counts in 2 s).
FRESH_NS = 2_000_000_000
FRESH = "fresh"  # stands for the fingerprint of such a file, and equals none

Progress = Callable[[Modality, int, int], None]  # (modality, files done, files to do)


@dataclass(slots=True)
class Summary:
    """What a run did."""

    added: int = 0
    changed: int = 0
    renamed: int = 0
    unchanged: int = 0
    removed: int = 0
    ignored: int = 0  # files of kinds that are not indexed
    skipped: list[Problem] = field(default_factory=list)
    encoded: Counter[Modality] = field(default_factory=Counter)  # vectors made, captions counted as text
    indexes: list[IndexFile] = field(default_factory=list)  # made anew
    seconds: dict[str, float] = field(default_factory=dict)  # scan, text, image, audio, index

    @property
    def indexed(self) -> int:
        """Files that were taken in anew, or again because they changed."""
        return self.added + self.changed


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedFile:
    """A file read, hashed and decoded."""

    file: MediaFile
    fingerprint: str
    beside: str
    content: ContentKey
    prepared: Prepared | None  # None where the vector is known
    caption: str | None
    sidecar: Metadata
    problems: Sequence[Problem] = ()  # with what lies beside it


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedFile:
    """A file that could not be read or decoded."""

    file: MediaFile
    reason: str
    was_read: bool  # its bytes are known, and hold nothing that can be indexed


def ingest(
    store: Store,
    space: JointSpace,
    media: Iterable[str | os.PathLike[str]],
    *,
    captions: bool = True,
    table: MetadataTable | None = None,
    positions: bool = False,
    wish: Wish | None = None,
    progress: Progress | None = None,
    index_progress: IndexProgress | None = None,
) -> Summary:
    """Bring a collection up to date with files and folders.

    Args:
        store: The collection.
        space: The space that the collection was made with.
        media: Files and folders. What lies below them and is gone from the disk goes from the collection; what lies
            elsewhere stays.
        captions: Whether captions are encoded as vectors of their items too; they are shown either way.
        table: Metadata by path; what a file's own sidecar says comes before it. Without one, what an earlier table
            said stays.
        positions: Keep where items were made, as far as a sidecar says so.
        wish: What to ask of the index from now on; as before if not given.
        progress: Told after each batch.
        index_progress: Told while an index file is made.

    Raises:
        CollectionError: If the collection belongs to another space, or another process is writing to it.
    """
    store.require(space.space)
    with writing(store) as writer, contextlib.closing(store.lookup()) as known, DecodeSandbox() as sandbox:
        if wish is not None:
            writer.set_wish(asdict(wish))
        indexer = Indexer(writer, examples=lambda: example_queries(space), progress=index_progress)
        indexer.start()
        run = _Ingestion(
            store, writer, known, space, sandbox, captions=captions, table=table, positions=positions, progress=progress
        )
        summary = run.run(media)
        started = time.perf_counter()
        indexer.finish()
        summary.seconds["index"] = time.perf_counter() - started
        summary.indexes = indexer.made
        return summary


class _Ingestion:
    """One run of `ingest`."""

    def __init__(
        self,
        store: Store,
        writer: Writer,
        known: ContentLookup,
        space: JointSpace,
        sandbox: DecodeSandbox,
        *,
        captions: bool,
        table: MetadataTable | None,
        positions: bool,
        progress: Progress | None,
    ) -> None:
        self._store = store
        self._writer = writer
        self._space = space
        self._sandbox = sandbox
        self._captions = captions
        self._table = table
        self._positions = positions
        self._progress = progress
        self._summary = Summary()
        self._recorded = store.states()
        self._known = known
        self._gone: dict[str, ItemState] = {}
        self._renamed: set[int] = set()

    def run(self, media: Iterable[str | os.PathLike[str]]) -> Summary:
        summary = self._summary
        with self._timed("scan"):
            scan = scan_media(media)
        summary.ignored = scan.ignored
        summary.skipped += scan.problems
        present = {file.path for file in scan.files}
        self._gone = {path: item for path, item in self._recorded.items() if path not in present and scan.covers(path)}
        todo = [file for file in scan.files if not self._is_unchanged(file)]
        if self._table is not None:
            todo = self._apply_table(self._table, scan.files, todo)
        summary.unchanged = len(scan.files) - len(todo) - summary.changed
        for modality in MODALITIES:
            with self._timed(modality):
                self._take_all(modality, [file for file in todo if file.modality == modality])
        if self._gone:
            self._writer.remove(item.id for item in self._gone.values())
            summary.removed += len(self._gone)
        return summary

    @contextlib.contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self._summary.seconds[stage] = time.perf_counter() - started

    def _is_unchanged(self, file: MediaFile) -> bool:
        item = self._recorded.get(file.path)
        return (
            item is not None
            and item.fingerprint == file.fingerprint
            and item.beside == file.beside
            and item.embeds_caption == (item.has_caption and self._embeds_captions(file.modality))
        )

    def _apply_table(
        self, table: MetadataTable, files: Sequence[MediaFile], todo: Sequence[MediaFile]
    ) -> list[MediaFile]:
        """Record what the table says of unchanged files; return ``todo`` and those whose sidecar has to be read too."""
        recorded, taken = self._store.tabled(), {file.path for file in todo}
        again: list[MediaFile] = []
        metadata: dict[int, tuple[str | None, str | None]] = {}
        for file in files:
            row = table.json_of(file.path)
            if file.path in taken or row == recorded.get(file.path):
                continue
            if file.sidecar_path is not None:
                again.append(file)
            else:
                metadata[self._recorded[file.path].id] = (row, row)
        if metadata:
            self._writer.set_metadata(metadata)
            self._summary.changed += len(metadata)
        self._summary.skipped += _problems_of(table, self._recorded.keys() | {file.path for file in files})
        return [*todo, *again]

    def _embeds_captions(self, modality: Modality) -> bool:
        return self._captions and modality != "text" and "text" in self._space.modalities

    def _take_all(self, modality: Modality, files: Sequence[MediaFile]) -> None:
        if files and modality not in self._space.modalities:
            reason = f"space {self._space.space} has no encoder for {modality}"
            self._summary.skipped += [Problem(path=file.path, reason=reason) for file in files]
            return
        done = 0
        for batch in self._load_ahead(files, batch_files=BATCH_FILES[modality]):
            loaded = [result for result in batch if isinstance(result, LoadedFile)]
            self._commit(modality, loaded)
            for result in batch:
                if isinstance(result, FailedFile):
                    self._leave_out(result)
            done += len(batch)
            if self._progress is not None:
                self._progress(modality, done, len(files))

    def _load_ahead(self, files: Sequence[MediaFile], *, batch_files: int) -> Iterator[list[LoadedFile | FailedFile]]:
        """Yield loaded batches in order; the next one is read and decoded while the caller encodes this one."""
        remaining = iter(files)
        workers = ThreadPoolExecutor(max_workers=os.cpu_count() or 1, thread_name_prefix="decode")
        try:
            ahead: list[Future[LoadedFile | FailedFile]] = []
            while True:
                current = ahead
                ahead = [workers.submit(self._load, file) for file in islice(remaining, batch_files)]
                if current:
                    yield [future.result() for future in current]
                if not ahead:
                    return
        finally:
            workers.shutdown(cancel_futures=True)

    def _load(self, file: MediaFile) -> LoadedFile | FailedFile:
        was_read = False
        try:
            # Looked at before the bytes are: a change in between shows as a changed file next time.
            state = _lasting_fingerprint(file.path)
            beside = fingerprint_beside((file.caption_path, file.sidecar_path), _lasting_fingerprint)
            data = read_file(file.path, max_bytes=MAX_FILE_BYTES[file.modality])
            was_read = True
            content = _content_key(file.modality, data)
            problems: list[Problem] = []
            caption, sidecar = _load_caption(file, problems), self._load_sidecar(file, problems)
            prepared = None
            if file.modality == "text":
                caption = first_line(decode_text(data))
            if content not in self._known:
                item = decode(self._sandbox, file.modality, data)
                prepared = self._space.encoder(file.modality).prepare(item)
        except DecodeError as error:
            return FailedFile(file=file, reason=error.reason, was_read=was_read)
        except MemoryError:
            return FailedFile(file=file, reason="too large for this machine's memory", was_read=was_read)
        return LoadedFile(
            file=file,
            fingerprint=state,
            beside=beside,
            content=content,
            prepared=prepared,
            caption=caption,
            sidecar=sidecar,
            problems=problems,
        )

    def _load_sidecar(self, file: MediaFile, problems: list[Problem]) -> Metadata:
        if file.sidecar_path is None:
            return {}
        try:
            data = read_file(file.sidecar_path, max_bytes=MAX_SIDECAR_BYTES)
            return read_sidecar(data, positions=self._positions)
        except (DecodeError, MetadataError) as error:
            problems.append(Problem(path=file.sidecar_path, reason=f"metadata left out: {error}"))
            return {}

    def _commit(self, modality: Modality, loaded: Sequence[LoadedFile]) -> None:
        # Decoded ahead of the last commit, which may have brought the same content.
        new = {f.content: f.prepared for f in loaded if f.prepared is not None and f.content not in self._known}
        vectors = self._embed(modality, new)
        new_captions: dict[ContentKey, str] = {}
        items, untouched = [], {}
        for file in loaded:
            self._summary.skipped += file.problems
            contents: dict[Role, ContentKey] = {"content": file.content}
            if file.caption is not None and self._embeds_captions(modality):
                contents["caption"] = _content_key("text", file.caption.encode())
                if contents["caption"] not in self._known:
                    new_captions[contents["caption"]] = file.caption
            item, before = self._new_item(file, contents)
            if before is not None and _says_the_same(item, before):
                untouched[before.id] = (file.fingerprint, file.beside)
                self._summary.unchanged += 1
                continue
            items.append(item)
            self._summary.added += before is None
            self._summary.renamed += item.renamed_from is not None
            self._summary.changed += before is not None and item.renamed_from is None
        if items:
            vectors = np.concatenate([vectors, self._embed_captions(new_captions)])
            self._writer.commit(items, [*new, *new_captions], vectors)
        if untouched:
            self._writer.touch(untouched)

    def _new_item(self, file: LoadedFile, contents: Mapping[Role, ContentKey]) -> tuple[NewItem, StoredItem | None]:
        """Return the item of a loaded file, and the one that was there: at its path, or where it was before."""
        before = self._store.item_at(file.file.path) if file.file.path in self._recorded else None
        renamed_from = None
        if before is None:
            before = self._renamed_from(file.content)
            renamed_from = before.id if before is not None else None
        tabled = before.tabled if before is not None else None
        if self._table is not None:
            tabled = self._table.json_of(file.file.path)
        try:
            metadata = merged(tabled, file.sidecar)
        except MetadataError as error:  # together they are too much
            assert file.file.sidecar_path is not None
            self._summary.skipped.append(Problem(path=file.file.sidecar_path, reason=f"metadata left out: {error}"))
            metadata = tabled
        item = NewItem(
            path=file.file.path,
            modality=file.file.modality,
            fingerprint=file.fingerprint,
            beside=file.beside,
            caption=file.caption,
            metadata=metadata,
            tabled=tabled,
            contents=contents,
            renamed_from=renamed_from,
        )
        return item, before

    def _renamed_from(self, content: ContentKey) -> StoredItem | None:
        """Find an item with this content whose file is no longer there; each is found once."""
        for item, path in self._store.items_with(content):
            if item not in self._renamed and (path in self._gone or _is_gone(path)):
                self._gone.pop(path, None)
                self._renamed.add(item)
                return self._store.item_at(path)
        return None

    def _leave_out(self, failed: FailedFile) -> None:
        path = failed.file.path
        self._summary.skipped.append(Problem(path=path, reason=failed.reason))
        before = self._recorded.get(path)
        # What cannot be read just now keeps its vectors; what was read and is damaged, or is gone, does not.
        if before is not None and (failed.was_read or _is_gone(path)):
            self._writer.remove([before.id])
            self._summary.removed += 1

    def _embed_captions(self, captions: Mapping[ContentKey, str]) -> Vectors:
        if not captions:
            return np.empty((0, self._space.space.dim), np.float32)
        encoder = self._space.encoder("text")
        return self._embed("text", {content: encoder.prepare(caption) for content, caption in captions.items()})

    def _embed(self, modality: Modality, prepared: Mapping[ContentKey, Prepared]) -> Vectors:
        batches = [np.empty((0, self._space.space.dim), np.float32)]
        items = iter(prepared.values())
        while batch := list(islice(items, EMBED_ITEMS)):
            batches.append(self._space.encoder(modality).embed(batch))
        self._summary.encoded[modality] += len(prepared)
        return np.concatenate(batches)


def decode(sandbox: DecodeSandbox, modality: Modality, data: bytes) -> Any:
    """Decode a file's bytes to what encoders take: pictures and sounds outside of this process.

    Raises:
        DecodeError: If it cannot be decoded, or the decoder crashed, hung or wanted too much memory.
    """
    return decode_text(data) if modality == "text" else sandbox.decode(modality, data)


def _load_caption(file: MediaFile, problems: list[Problem]) -> str | None:
    if file.caption_path is None:
        return None
    try:
        return first_line(decode_text(read_file(file.caption_path, max_bytes=MAX_CAPTION_FILE_BYTES)))
    except DecodeError as error:
        problems.append(Problem(path=file.caption_path, reason=f"caption left out: {error.reason}"))
        return None


def _problems_of(table: MetadataTable, known: Set[str]) -> list[Problem]:
    problems = [
        Problem(path=table.path, reason=f"line {problem.line} left out: {problem.reason}") for problem in table.problems
    ]
    if more := table.problem_count - len(table.problems):
        problems.append(Problem(path=table.path, reason=f"{more:,} more lines left out"))
    if unused := table.unused(known):
        reason = f"{len(unused):,} lines name files that are not in the collection, the first {unused[0]}"
        problems.append(Problem(path=table.path, reason=reason))
    return problems


def _says_the_same(item: NewItem, before: StoredItem) -> bool:
    """Whether nothing but fingerprints differs."""
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


def _content_key(modality: Modality, data: bytes) -> ContentKey:
    return ContentKey(modality, hashlib.sha256(data).digest())


def _lasting_fingerprint(path: str) -> str:
    """Fingerprint that will tell any later change, or `FRESH` if the file is too fresh for that."""
    try:
        status = os.lstat(path)
    except OSError:
        return FRESH
    is_fresh = time.time_ns() - max(status.st_mtime_ns, status.st_ctime_ns) < FRESH_NS
    return FRESH if is_fresh else fingerprint(status)


def _is_gone(path: str) -> bool:
    """Whether there is certainly no such file; one that cannot be looked at may be there."""
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        pass
    return False
