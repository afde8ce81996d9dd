"""What is loaded of files, and the one loop that makes vectors of it: of indexing, of migrating, and of measuring.

    jobs -> load (threads) -> portions -> encode (each device) -> EncodedBatch, which the caller writes

What fails costs itself only, and no more than a portion is made between two commits.
"""

import contextlib
import threading
from collections.abc import Callable, Container, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Generic, Protocol, TypeVar

import numpy as np

from trivium.encoders import engine
from trivium.encoders.base import DecodeError, Encoder, Modality, Prepared, Vectors, unit_rows
from trivium.encoders.engine import Stats
from trivium.encoders.machine import usable_cores
from trivium.encoders.networks.contract import DeviceKind
from trivium.encoders.sandbox.pool import DecodeSandbox
from trivium.encoders.tags.reading import FileTags
from trivium.pipeline.records import ContentKey, ItemKind, Traits
from trivium.pipeline.space.joint import JointSpace

# Files read, encoded and committed together, and bytes of them: prepared, a picture has 150 kB, a minute of sound 2 MB;
# for a GPU 5 MB each, and pictures that it resizes up to 4.5 MB.
BATCH_FILES: Mapping[ItemKind, int] = {"text": 256, "image": 64, "audio": 32, "video": 1}
GPU_BATCH_FILES: Mapping[ItemKind, int] = {"text": 2048, "image": 256, "audio": 128, "video": 1}
BATCH_BYTES: Mapping[ItemKind, float] = {"text": 16 << 20, "image": 1 << 30, "audio": 32 << 20, "video": 1 << 30}
# Files of more are taken in when all others are, the smallest first: a text of 4 MB is a minute's work, and 50 notes
# behind it would wait for all of it. Of videos even a small one is.
LARGE_BYTES: Mapping[ItemKind, int] = {"text": 64 << 10, "image": 16 << 20, "audio": 1 << 20, "video": 0}
# Made and committed together: a stop loses no more of a text with thousands of passages. 256 take a small machine 5 s.
PORTION_VECTORS: Mapping[DeviceKind, int] = {"cpu": 256, "gpu": 16_384}

J = TypeVar("J")
L = TypeVar("L", bound="Loaded")


@dataclass(frozen=True, slots=True)
class WindowedSound:
    """A sound whose blocks make several vectors: its own, and one for each window."""

    blocks: Iterable[Prepared]  # may be decoded as they are taken
    windows: Sequence[tuple[float, float]]  # seconds
    keys: Sequence[ContentKey | None]  # of the whole, then of each window; None where the vector is known


@dataclass(slots=True)
class LoadedContents:
    """What a file's vectors belong to, and what those are made from that have to be made."""

    roles: dict[str, ContentKey] = field(default_factory=dict)
    prepared: dict[ContentKey, Prepared] = field(default_factory=dict)
    sounds: list[WindowedSound] = field(default_factory=list)
    traits: dict[ContentKey, Traits] = field(default_factory=dict)
    means: dict[ContentKey, Sequence[ContentKey]] = field(default_factory=dict)  # made from others' vectors
    first_line: str | None = None  # of a text
    reads_on: bool = False  # the file, when it is encoded
    note: str = ""  # what its owner should know of it
    tags: FileTags | None = None  # what it says of itself, if that was read

    def add_note(self, note: str) -> None:
        """Say one thing more."""
        self.note = f"{self.note}; {note}" if self.note else note


class Claims:
    """Contents that somebody has taken on in this run; what is known needs nobody. Safe to use from several threads."""

    def __init__(self, known: Container[ContentKey]) -> None:
        self._known = known
        self._claimed: set[ContentKey] = set()
        self._lock = threading.Lock()

    def claim(self, content: ContentKey) -> bool:
        """Whether the caller is to make this content's vector: it is not there, and nobody else makes it."""
        if content in self._known:
            return False
        with self._lock:
            if content in self._claimed:
                return False
            self._claimed.add(content)
            return True


def loading_stats(sandbox: DecodeSandbox) -> Stats:
    """Return counters of what loads and encodes, which know what the sandbox's processes use."""
    return Stats(helpers={"decode": sandbox.cpu_seconds})


class Loaded(Protocol):
    """What loading a job gives."""

    @property
    def contents(self) -> LoadedContents | None:
        """What its vectors are made from; None if it failed."""
        ...


@dataclass(frozen=True, slots=True)
class _Portion:
    """Some contents of a file whose others follow."""

    contents: LoadedContents
    share: float  # of the file's vectors


@dataclass(frozen=True, slots=True)
class EncodedBatch(Generic[L]):
    """Vectors that were made together, and the files whose last vectors are among them, perhaps none."""

    files: Sequence[L]
    vectors: Mapping[ContentKey, Vectors]  # shape (d,) each
    failures: Mapping[ContentKey, str]  # why contents have none; also of portions of these files that came before
    begun: float  # how much of the file that comes next is made by now: 0, or a share of its vectors

    def failure_of(self, contents: LoadedContents) -> str | None:
        """Say why the first of a file's contents that has no vector has none; None if that is so of none."""
        return next((self.failures[key] for key in contents.roles.values() if key in self.failures), None)


def encode_files(
    jobs: Iterable[J],
    *,
    load: Callable[[J], L],
    space: JointSpace,
    kind: ItemKind,
    sandbox: DecodeSandbox,
    stats: Stats,
    size_bytes: Callable[[J], float] = lambda _: 0.0,
    most_files: int | None = None,
) -> Generator[EncodedBatch[L]]:
    """Load files and make their vectors, batch by batch, while the caller writes those of the batch before.

    Close it if it is left early.

    Args:
        jobs: A file each, in any form that ``load`` takes.
        load: Called in several threads.
        space: Whose encoders, on all their devices.
        kind: Of all the files.
        sandbox: Where ``load`` decodes; closed if this is left early.
        stats: Where stages are counted, see `loading_stats`.
        size_bytes: Of a job's file.
        most_files: In a batch; as indexing has it if not given.
    """
    early: dict[ContentKey, str] = {}  # failures in files whose other contents come later
    begun: float = 0
    batches = engine.run(
        jobs,
        load=load,
        encode=[partial(_encode, space=space, replica=replica) for replica in space.lanes],
        batch_items=batch_files(space, kind) if most_files is None else most_files,
        batch_cost=BATCH_BYTES[kind],
        cost=size_bytes,
        loaders=usable_cores(),
        portions=partial(portions_of, most=PORTION_VECTORS[space.device_kind]),
        on_stop=sandbox.close,
        stats=stats,
    )
    with contextlib.closing(batches):
        for batch, (vectors, failures) in batches:
            files = [file for file in batch if not isinstance(file, _Portion)]
            if not files:
                early |= failures
            begun = 0 if files else begun + sum(part.share for part in batch if isinstance(part, _Portion))
            yield EncodedBatch(files, vectors, early | failures, begun)


def small_first(files: Sequence[J], kind: ItemKind, *, size_bytes: Callable[[J], float]) -> list[list[J]]:
    """Part files into groups to be taken in one after the other: in their order, then the large ones by size."""
    large = sorted((file for file in files if size_bytes(file) > LARGE_BYTES[kind]), key=size_bytes)
    usual = [file for file in files if size_bytes(file) <= LARGE_BYTES[kind]]
    return [group for group in (usual, large) if group]


def batch_files(space: JointSpace, kind: ItemKind) -> int:
    """Return how many files a batch has where a space's encoders run."""
    return (BATCH_FILES if space.device_kind == "cpu" else GPU_BATCH_FILES)[kind]


def portions_of(batch: Iterable[L], *, most: int) -> Iterator[list[L | _Portion]]:
    """Cut a batch of files so that about ``most`` vectors are made at a time; a file comes with the last of its own.

    Args:
        batch: What was loaded, in order; of a file that is cut, its own contents are then what is left.
        most: Vectors; more only where they need each other, as the pictures of a video and their mean do.
    """
    portion: list[L | _Portion] = []
    size = 0
    for file in batch:
        contents = file.contents or LoadedContents()
        if portion and size + len(contents.prepared) > most:
            yield portion
            portion, size = [], 0
        whole = len(contents.prepared)
        while not contents.means and len(contents.prepared) > most:
            rows = iter(contents.prepared.items())
            yield [_Portion(LoadedContents(prepared=dict(islice(rows, most))), most / whole)]
            contents.prepared = dict(rows)
        portion.append(file)
        size += len(contents.prepared)
    if portion:
        yield portion


def _encode(
    batch: Sequence[Loaded], *, space: JointSpace, replica: int
) -> tuple[dict[ContentKey, Vectors], dict[ContentKey, str]]:
    """Make a batch's vectors on one device."""
    loaded = [file.contents for file in batch if file.contents is not None]
    return encode_contents(loaded, lambda modality: space.encoder(modality, replica))


def encode_contents(
    loaded: Sequence[LoadedContents], encoder: Callable[[Modality], Encoder]
) -> tuple[dict[ContentKey, Vectors], dict[ContentKey, str]]:
    """Make all vectors of a batch; what fails costs itself only.

    Returns:
        The vector of each content, shape (d,), and why others have none.
    """
    vectors: dict[ContentKey, Vectors] = {}
    failures: dict[ContentKey, str] = {}
    by_modality: dict[Modality, dict[ContentKey, Prepared]] = {}
    for contents in loaded:
        for key, prepared in contents.prepared.items():
            by_modality.setdefault(key.modality, {})[key] = prepared
    for modality, prepared_of in by_modality.items():
        _embed(encoder(modality), list(prepared_of.items()), vectors, failures)
    for key, members in (mean for contents in loaded for mean in contents.means.items()):
        if lacking := [member for member in members if member not in vectors]:
            failures[key] = failures.get(lacking[0], "not all of its pictures could be encoded")
        else:
            mean = np.mean([vectors[member] for member in members], axis=0)
            _keep(key, unit_rows(mean[np.newaxis])[0], vectors, failures)
    for sound in (sound for contents in loaded for sound in contents.sounds):
        try:
            rows = encoder("audio").embed_windows(sound.blocks, sound.windows)
        except (DecodeError, MemoryError) as error:
            failures |= dict.fromkeys((key for key in sound.keys if key is not None), reason_of(error))
        else:
            for wanted, row in zip(sound.keys, rows, strict=True):
                if wanted is not None:
                    _keep(wanted, row, vectors, failures)
    return vectors, failures


def _embed(
    encoder: Encoder,
    prepared: Sequence[tuple[ContentKey, Prepared]],
    vectors: dict[ContentKey, Vectors],
    failures: dict[ContentKey, str],
) -> None:
    try:
        rows = encoder.embed([item for _, item in prepared])
    except (DecodeError, MemoryError) as error:  # the device decodes too
        if len(prepared) == 1:
            failures[prepared[0][0]] = reason_of(error)
            return
        middle = len(prepared) // 2
        _embed(encoder, prepared[:middle], vectors, failures)
        _embed(encoder, prepared[middle:], vectors, failures)
        return
    for (key, _), row in zip(prepared, rows, strict=True):
        _keep(key, row, vectors, failures)


def _keep(
    key: ContentKey, vector: Vectors, vectors: dict[ContentKey, Vectors], failures: dict[ContentKey, str]
) -> None:
    if np.isfinite(vector).all():
        vectors[key] = vector
    else:
        failures[key] = "the network gave no finite vector for it"


def reason_of(error: DecodeError | MemoryError) -> str:
    """Say why something has no vector."""
    return error.reason if isinstance(error, DecodeError) else "too large for this machine's memory"
