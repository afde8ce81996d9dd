"""What was loaded of files to vectors, portion by portion; what fails costs itself only."""

import threading
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import TypeVar

import numpy as np

from trivium.encoders.base import DecodeError, Encoder, Modality, Prepared, Vectors, unit_rows
from trivium.encoders.networks.contract import DeviceKind
from trivium.pipeline.records import ContentKey

F = TypeVar("F")
# Made and committed together: a stop loses no more of a text with thousands of passages. 256 take a small machine 5 s.
PORTION_VECTORS: Mapping[DeviceKind, int] = {"cpu": 256, "gpu": 16_384}


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
    means: dict[ContentKey, Sequence[ContentKey]] = field(default_factory=dict)  # made from others' vectors
    first_line: str | None = None  # of a text
    reads_on: bool = False  # the file, when it is encoded
    note: str = ""  # what its owner should know of it


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


@dataclass(frozen=True, slots=True)
class Portion:
    """Some contents of a file whose others follow."""

    contents: LoadedContents


def portions_of(
    batch: Sequence[F],
    *,
    most: int,
    contents: Callable[[F], LoadedContents | None],
    without: Callable[[F, LoadedContents], F],
) -> Iterator[list[F | Portion]]:
    """Cut a batch of files so that about ``most`` vectors are made at a time; a file comes with the last of its own.

    Args:
        batch: What was loaded, in order.
        most: Vectors; more only where they need each other, as the pictures of a video and their mean do.
        contents: Of a file; None of one that failed.
        without: Returns a file with other contents: what is left.
    """
    portion: list[F | Portion] = []
    size = 0
    for file in batch:
        loaded = contents(file)
        if portion and size + _count(loaded) > most:
            yield portion
            portion, size = [], 0
        while loaded is not None and not loaded.means and len(loaded.prepared) > most:
            rows = iter(loaded.prepared.items())
            yield [Portion(LoadedContents(prepared=dict(islice(rows, most))))]
            loaded = replace(loaded, prepared=dict(rows))
            file = without(file, loaded)
        portion.append(file)
        size += _count(loaded)
    if portion:
        yield portion


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
            failures |= dict.fromkeys((key for key in sound.keys if key is not None), _reason(error))
        else:
            for wanted, row in zip(sound.keys, rows, strict=True):
                if wanted is not None:
                    _keep(wanted, row, vectors, failures)
    return vectors, failures


def _count(loaded: LoadedContents | None) -> int:
    return 0 if loaded is None else len(loaded.prepared)


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
            failures[prepared[0][0]] = _reason(error)
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


def _reason(error: DecodeError | MemoryError) -> str:
    return error.reason if isinstance(error, DecodeError) else "too large for this machine's memory"
