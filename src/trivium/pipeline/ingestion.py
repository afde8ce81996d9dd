"""Files to vectors to collection: what is new or changed is read, encoded and committed, batch by batch."""

import contextlib
import hashlib
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np

from trivium.encoders.base import MODALITIES, DecodeError, Modality, Prepared, Vectors
from trivium.encoders.files import read_file
from trivium.encoders.sandbox import DecodeSandbox
from trivium.encoders.text_decoding import decode_text, first_line
from trivium.pipeline.indexing import Indexer, IndexProgress
from trivium.pipeline.records import ContentKey, ItemState, NewItem, Role, StoredItem
from trivium.pipeline.scanning import MediaFile, Problem, fingerprint, scan_media
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
    caption_problem: Problem | None = None


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
        progress: Told after each batch.
        index_progress: Told while an index file is made.

    Raises:
        CollectionError: If the collection belongs to another space, or another process is writing to it.
    """
    store.require(space.space)
    with writing(store) as writer, contextlib.closing(store.lookup()) as known, DecodeSandbox() as sandbox:
        indexer = Indexer(writer, examples=lambda: _examples(space), progress=index_progress)
        indexer.start()
        run = _Ingestion(store, writer, known, space, sandbox, captions=captions, progress=progress)
        summary = run.run(media)
        started = time.perf_counter()
        indexer.finish()
        summary.seconds["index"] = time.perf_counter() - started
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
        progress: Progress | None,
    ) -> None:
        self._store = store
        self._writer = writer
        self._space = space
        self._sandbox = sandbox
        self._captions = captions
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
        summary.unchanged = len(scan.files) - len(todo)
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
            beside = _lasting_fingerprint(file.caption_path) if file.caption_path else ""
            data = read_file(file.path, max_bytes=MAX_FILE_BYTES[file.modality])
            was_read = True
            content = _content_key(file.modality, data)
            caption, problem = self._load_caption(file)
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
            caption_problem=problem,
        )

    def _load_caption(self, file: MediaFile) -> tuple[str | None, Problem | None]:
        if file.caption_path is None:
            return None, None
        try:
            return first_line(decode_text(read_file(file.caption_path, max_bytes=MAX_CAPTION_FILE_BYTES))), None
        except DecodeError as error:
            return None, Problem(path=file.caption_path, reason=f"caption left out: {error.reason}")

    def _commit(self, modality: Modality, loaded: Sequence[LoadedFile]) -> None:
        # Decoded ahead of the last commit, which may have brought the same content.
        new = {f.content: f.prepared for f in loaded if f.prepared is not None and f.content not in self._known}
        vectors = self._embed(modality, new)
        new_captions: dict[ContentKey, str] = {}
        items, untouched = [], {}
        for file in loaded:
            if file.caption_problem is not None:
                self._summary.skipped.append(file.caption_problem)
            contents: dict[Role, ContentKey] = {"content": file.content}
            if file.caption is not None and self._embeds_captions(modality):
                contents["caption"] = _content_key("text", file.caption.encode())
                if contents["caption"] not in self._known:
                    new_captions[contents["caption"]] = file.caption
            before = self._store.item_at(file.file.path) if file.file.path in self._recorded else None
            if before is not None and before.contents == contents and before.caption == file.caption:
                untouched[before.id] = (file.fingerprint, file.beside)
                self._summary.unchanged += 1
            else:
                items.append(self._new_item(file, contents, before))
        if items:
            vectors = np.concatenate([vectors, self._embed_captions(new_captions)])
            self._writer.commit(items, [*new, *new_captions], vectors)
        if untouched:
            self._writer.touch(untouched)

    def _new_item(self, file: LoadedFile, contents: Mapping[Role, ContentKey], before: StoredItem | None) -> NewItem:
        renamed_from = None
        if before is not None:
            self._summary.changed += 1
        else:
            renamed_from = self._renamed_from(file.content)
            if renamed_from is not None:
                self._summary.renamed += 1
            else:
                self._summary.added += 1
        return NewItem(
            path=file.file.path,
            modality=file.file.modality,
            fingerprint=file.fingerprint,
            beside=file.beside,
            caption=file.caption,
            contents=contents,
            renamed_from=renamed_from,
        )

    def _renamed_from(self, content: ContentKey) -> int | None:
        """Find an item with this content whose file is no longer there; each is found once."""
        for item, path in self._store.items_with(content):
            if item not in self._renamed and (path in self._gone or _is_gone(path)):
                self._gone.pop(path, None)
                self._renamed.add(item)
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


def _examples(space: JointSpace) -> Mapping[Modality, Vectors]:
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
