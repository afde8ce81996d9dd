"""How fast one kind of file is encoded here: the whole way that indexing goes, and the network alone beside it.

The *floor* is what no indexing can beat: the network alone, on inputs that are ready, in batches of the size that is
fastest here. It is measured before and after the whole way, and the faster of the two counts. Of videos it is that of
their pictures, though the whole way encodes their sound too.
"""

import contextlib
import itertools
import os
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trivium.encoders import engine
from trivium.encoders.base import DecodeError, Encoder, Prepared, Vectors
from trivium.encoders.engine import Stats
from trivium.encoders.files.reading import read_file
from trivium.encoders.machine import usable_cores
from trivium.encoders.sandbox.pool import DecodeSandbox
from trivium.encoders.text.backbone import MAX_DOCUMENT_CHARACTERS
from trivium.pipeline.bench.media import evenly
from trivium.pipeline.escaping import printable
from trivium.pipeline.ingest.contents import Claims, LoadedContents, batch_files, encode_files, loading_stats
from trivium.pipeline.ingest.loading import Loader
from trivium.pipeline.ingest.sources import MAX_FILE_BYTES
from trivium.pipeline.records import ItemKind, Part, content_key, modality_of
from trivium.pipeline.space.joint import JointSpace

READY_SHARE, FLOOR_SHARE, WHOLE_SHARE = 0.15, 0.15, 0.5  # of a modality's time; the floor is measured twice
MOST_READY: Mapping[ItemKind, int] = {"text": 1024, "image": 256, "audio": 128, "video": 16}
MOST_READY_BYTES = 256 << 20
BATCH_SIZES = (1, 8, 64, 256, 1024)
ROUNDS = 3  # in which two encoders take turns
LEAST_READY: Mapping[ItemKind, int] = {"text": 16, "image": 16, "audio": 16, "video": 1}
MOST_VIDEO_BYTES = 64 << 20  # a larger one may take a minute or more
BATCH_SECONDS = 1.0  # of the whole way: on a slow machine smaller batches than indexing has, or it would not end
UNDER_WAY = engine.BATCHES_AHEAD + 1  # batches that are still to be encoded when the time is over
LONG_SOUND = "so long that it is read as it is encoded, which is not measured"
SIZED = 32  # files whose size is told
COMPARED = 160  # vectors, with those of float32
NEIGHBOURS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """A sample of files that can be encoded, at least one, and what the network takes of them."""

    files: Sequence[str]
    inputs: Sequence[Prepared]  # in any order; a long text has several, and so has a video
    left_out: Mapping[str, str]  # path -> reason
    mean_size: float  # characters of a text, megapixels of a picture, seconds of a sound, megabytes of a video


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What was measured of one kind of file."""

    kind: ItemKind
    ready: Ready
    stats: Stats  # of the whole way
    files_done: int
    vectors_done: int  # by the network that the floor is of
    replicas: int  # devices that shared the work
    floor_by_batch: Mapping[int, float]  # vectors a second, of one device
    decoder_mib: float | None  # most memory that a process which decodes has held; None where that is not told

    @property
    def rate(self) -> float:
        """Files a second, the whole way."""
        return self.files_done / self.stats.seconds

    @property
    def best_batch(self) -> int:
        """Size of the batches that the floor was measured with."""
        return max(self.floor_by_batch, key=self.floor_by_batch.__getitem__)

    @property
    def share_of_floor(self) -> float:
        """How near the whole way comes to the floor; 1 is as fast."""
        floor = self.floor_by_batch[self.best_batch] * self.replicas
        return self.vectors_done / self.stats.seconds / floor

    @property
    def floor(self) -> float:
        """Files a second, if the network alone took time."""
        return self.rate / self.share_of_floor


@dataclass(frozen=True, slots=True, kw_only=True)
class Accuracy:
    """How far vectors are from those of float32 on a CPU, and how much slower that is."""

    mean_cosine: float
    least_cosine: float
    neighbours_kept: float  # of the 10 nearest among the sample; NaN if it is too small to tell
    among: int
    speed: float  # of the network alone, to float32


class NothingReadyError(Exception):
    """No file of a kind can be encoded; the message says why the first cannot."""


def measure(space: JointSpace, kind: ItemKind, files: Sequence[str], *, seconds: float) -> Measured:
    """Measure one kind of file.

    Args:
        space: Its networks are loaded here if they are not yet.
        kind: Which.
        files: At least one; read again from the first when all were read.
        seconds: About how long to take, beside loading the networks.

    Raises:
        NothingReadyError: If no file can be encoded.
    """
    modality = modality_of(kind, Part("content"))
    encoders = [space.encoder(modality, replica) for replica in range(space.replicas)]
    with DecodeSandbox() as sandbox:
        ready = prepare(space, kind, files, sandbox, seconds=READY_SHARE * seconds)
        by_batch = rates_by_batch(encoders[0], ready.inputs, seconds=FLOOR_SHARE * seconds)
        best = max(by_batch, key=by_batch.__getitem__)
        floor = by_batch[best] * len(encoders) * len(ready.files) / len(ready.inputs)
        batch_items = min(batch_files(space, kind), max(1, round(floor * BATCH_SECONDS)))
        files_done, vectors_done, stats = _whole_way(
            *(space, kind, ready.files, sandbox),
            batch_items=batch_items,
            seconds=max(WHOLE_SHARE * seconds - UNDER_WAY * batch_items / floor, 0),
        )
        decoder_mib = max(filter(None, map(_peak_mib, sandbox.pids)), default=None)
    again = rate_in_batches(encoders[0], ready.inputs, best, seconds=FLOOR_SHARE * seconds)
    by_batch[best] = max(by_batch[best], again)
    return Measured(
        kind=kind,
        ready=ready,
        stats=stats,
        files_done=files_done,
        vectors_done=vectors_done,
        replicas=len(encoders),
        floor_by_batch=by_batch,
        decoder_mib=decoder_mib,
    )


def prepare(
    space: JointSpace, kind: ItemKind, files: Sequence[str], sandbox: DecodeSandbox, *, seconds: float
) -> Ready:
    """Make a sample of files ready for the network: as many as fit into the time and the memory, but a few at least.

    Raises:
        NothingReadyError: If no file can be encoded.
    """
    stats, workers = Stats(), usable_cores()

    def load(path: str) -> tuple[str, LoadedContents | str]:
        try:
            if kind == "video" and os.path.getsize(path) > MOST_VIDEO_BYTES:
                return path, f"larger than {MOST_VIDEO_BYTES >> 20} MiB: measuring with it would take too long"
            contents = _load(space, kind, path, sandbox, stats)
        except (DecodeError, MemoryError) as error:
            return path, str(error) or "too large for this machine's memory"
        _give_up(contents)
        return path, contents if contents.prepared else LONG_SOUND

    good: list[str] = []
    inputs: list[Prepared] = []
    left_out: dict[str, str] = {}
    random = np.random.default_rng(0)
    sample = evenly(files, MOST_READY[kind])
    order: list[int] = random.permutation(len(sample)).tolist()  # neighbours are alike
    batches = engine.run(
        [sample[place] for place in order],
        load=load,
        encode=[lambda _: None],
        batch_items=1 if kind == "video" else workers,
        loaders=workers,
    )
    until = None
    with contextlib.closing(batches):
        for loaded, _ in batches:
            until = until or time.perf_counter() + seconds  # what is loaded once is there now
            for path, contents in loaded:
                if isinstance(contents, str):
                    left_out[path] = contents
                else:
                    good.append(path)
                    inputs += contents.prepared.values()
            is_full = sum(array.nbytes for array in inputs) > MOST_READY_BYTES
            if is_full or (time.perf_counter() > until and len(good) + len(left_out) >= LEAST_READY[kind]):
                break
    if not good:
        path, reason = next(iter(left_out.items()))
        raise NothingReadyError(f"the first, {printable(path)}: {printable(reason)}")
    sizes = [_size(kind, path, sandbox) for path in evenly(good, SIZED)]
    order = random.permutation(len(inputs)).tolist()  # texts of any length in every batch
    return Ready(
        files=good,
        inputs=[inputs[place] for place in order],
        left_out=left_out,
        mean_size=float(np.mean(sizes)),
    )


def rates_by_batch(encoder: Encoder, inputs: Sequence[Prepared], *, seconds: float) -> dict[int, float]:
    """Measure the network alone in batches of several sizes: vectors a second by size."""
    sizes = sorted({min(size, len(inputs)) for size in BATCH_SIZES})
    encoder.embed(inputs[:1])  # what is done once
    rates: dict[int, float] = {}
    for size in sizes:
        if rates and size > max(rates.values()) * seconds:  # one batch would take longer than all are to
            break
        rates[size] = rate_in_batches(encoder, inputs, size, seconds=seconds / len(sizes))
    return rates


def rate_in_batches(encoder: Encoder, inputs: Sequence[Prepared], size: int, *, seconds: float) -> float:
    """Measure the network alone in batches of one size: vectors a second."""
    done, place = 0, 0
    started = time.perf_counter()
    while (spent := time.perf_counter() - started) < seconds or not done:
        batch = inputs[place : place + size]
        encoder.embed(batch)
        done += len(batch)
        place = place + size if place + size < len(inputs) else 0
    return done / max(spent, 1e-9)


def compare(encoder: Encoder, reference: Encoder, ready: Ready, *, seconds: float) -> Accuracy | None:
    """Compare an encoder with the same in float32 on the same inputs; None if it gives the very same vectors."""
    few = ready.inputs[:NEIGHBOURS]
    if np.array_equal(encoder.embed(few), reference.embed(few)):
        return None
    inputs = ready.inputs[:COMPARED]
    ours, theirs = encoder.embed(inputs), reference.embed(inputs)
    cosines = np.einsum("nd,nd->n", ours.astype(np.float64), theirs.astype(np.float64))
    size = min(BATCH_SIZES[2], len(inputs))
    rates: dict[Encoder, list[float]] = {encoder: [], reference: []}
    for _ in range(ROUNDS):  # in turns: the machine may have other things to do
        for which, measured in rates.items():
            measured.append(rate_in_batches(which, inputs, size, seconds=seconds / 2 / ROUNDS))
    return Accuracy(
        mean_cosine=float(cosines.mean()),
        least_cosine=float(cosines.min()),
        neighbours_kept=_neighbours_kept(ours, theirs),
        among=len(inputs),
        speed=max(rates[encoder]) / max(rates[reference]),
    )


def _whole_way(
    space: JointSpace,
    kind: ItemKind,
    files: Sequence[str],
    sandbox: DecodeSandbox,
    *,
    batch_items: int,
    seconds: float,
) -> tuple[int, int, Stats]:
    """Load and encode files as indexing does, until the time is over; return how many, their vectors, and the stats."""
    stats = loading_stats(sandbox)
    number = itertools.count()

    def load(path: str) -> _File:
        contents = _load(space, kind, path, sandbox, stats)
        if kind != "video":  # files of one content, of which a small sample soon has many, are encoded each time
            contents.prepared = {
                content_key(key.modality, b"%d" % next(number)): prepared for key, prepared in contents.prepared.items()
            }
        return _File(contents, len(contents.prepared))

    batches = encode_files(
        _until(files, time.perf_counter() + seconds),
        load=load,
        space=space,
        kind=kind,
        sandbox=sandbox,
        stats=stats,
        size_bytes=os.path.getsize,
        most_files=batch_items,
    )
    with contextlib.closing(batches):
        counts = [file.inputs for batch in batches for file in batch.files]
    stats.end()
    return len(counts), sum(counts), stats


@dataclass(frozen=True, slots=True)
class _File:
    contents: LoadedContents
    inputs: int  # of the network that the floor is of


def _until(files: Sequence[str], until: float) -> Iterator[str]:
    for number, path in enumerate(itertools.cycle(files)):
        if number and time.perf_counter() > until:
            return
        yield path


def _load(space: JointSpace, kind: ItemKind, path: str, sandbox: DecodeSandbox, stats: Stats) -> LoadedContents:
    # Claims of its own: the same file, met again, is encoded again.
    loader = Loader(space, sandbox, Claims(()), stats=stats)
    return loader.contents(kind, loader.opened(path, kind))


def _give_up(contents: LoadedContents) -> None:
    """Close what would be read as it is encoded."""
    for sound in contents.sounds:
        if isinstance(sound.blocks, Generator):
            next(sound.blocks, None)  # what has not begun does not end: it would not let go of its file
            sound.blocks.close()


def _size(kind: ItemKind, path: str, sandbox: DecodeSandbox) -> float:
    if kind == "video":
        return os.path.getsize(path) / 1e6
    data = read_file(path, max_bytes=MAX_FILE_BYTES[kind])
    if kind == "text":
        return len(sandbox.text(data, most=MAX_DOCUMENT_CHARACTERS))
    if kind == "image":
        height, width, _ = sandbox.decode("image", data).shape
        return float(height * width / 1e6)
    waveform, rate_hz = sandbox.decode("audio", data)
    return len(waveform) / rate_hz


def _peak_mib(pid: int) -> float | None:
    """Return the most memory that a process has held, where the system tells."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:")), None)


def _neighbours_kept(ours: Vectors, theirs: Vectors) -> float:
    """Return the share of each vector's 10 nearest that are the same; NaN if there are too few to choose from."""
    if len(ours) < 2 * NEIGHBOURS:
        return float("nan")
    kept = [len(np.intersect1d(a, b)) / NEIGHBOURS for a, b in zip(_nearest(ours), _nearest(theirs), strict=True)]
    return float(np.mean(kept))


def _nearest(vectors: Vectors) -> NDArray[np.intp]:
    similarity = vectors @ vectors.T
    np.fill_diagonal(similarity, -np.inf)
    return np.argsort(-similarity, axis=1, kind="stable")[:, :NEIGHBOURS]
