"""What every encoder promises: items of one modality in, unit vectors of one space out.

A *backbone* is a frozen pretrained network: it turns items into `Features`. An *encoder* puts those
features into a `Space` whose vectors may be compared. Nothing here imports torch, so that code
which only handles vectors stays light.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol, TypeAlias, get_args, runtime_checkable

import numpy as np
from numpy.typing import NDArray

Modality = Literal["text", "image", "audio"]
MODALITIES: tuple[Modality, ...] = get_args(Modality)

# The hash of a picture that is as good as of one colour: all such look alike, and none is a copy (`image.looks`).
PLAIN_LOOKS = 0
Vectors: TypeAlias = NDArray[np.float32]  # (n, d), every row of length 1
Vector: TypeAlias = np.ndarray[tuple[int], np.dtype[np.float32]]  # (d,), of length 1
Prepared: TypeAlias = NDArray[Any]  # one decoded item, no batch axis

# Inner layers that are kept beside the pooled features, for heads to learn from. A last layer was trained for one task
# and drops what that task does not need: colours, textures, counts, single words. Those before it still have them.
# Chosen on Flickr8k's development split: with these, text to image found R@1 26.6 % instead of 22.3 %
# (docs/benchmarks.md, "What the heads are given"). Of sounds none helped.
# Of EfficientNet-Lite0: the group of blocks, numbered as timm does; each channel's mean and maximum over the picture.
IMAGE_GROUPS: Mapping[str, int] = {"blocks4": 4, "blocks5": 5, "blocks6": 6}
IMAGE_LAYERS: Mapping[str, int] = {"blocks4": 2 * 112, "blocks5": 2 * 192, "blocks6": 2 * 320}  # and their width
# Of MiniLM: BERT's hidden states, 0 is what the words are before the first layer; each number's mean over the tokens.
TEXT_STATES: Mapping[str, int] = {"state0": 0, "state5": 5}
TEXT_MAXIMUM = "maximum"  # and of the last one the maximum over the tokens
TEXT_LAYERS: Mapping[str, int] = {**dict.fromkeys(TEXT_STATES, 384), TEXT_MAXIMUM: 384}


@dataclass(frozen=True, slots=True, kw_only=True)
class Space:
    """The identity of a vector space: vectors may be compared only when their spaces are equal."""

    name: str  # e.g. "trivium-labels"
    dim: int  # numbers per vector
    revision: str  # hash over weights, preprocessing and projections

    def __str__(self) -> str:
        """Name and revision, as users meet them in messages."""
        return f"'{self.name}' (revision {self.revision})"


class WeightsError(Exception):
    """Weights that cannot be had, or are not the ones pinned."""


class DecodeError(Exception):
    """An item that cannot be read or decoded; ``reason`` is a plain sentence for its owner."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class UnreadableError(DecodeError):
    """An item whose bytes cannot be had just now: nothing is known of their content."""


class SandboxError(RuntimeError):
    """The processes that decode cannot run, or not as they were asked to; no fault of any file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Features:
    """What a frozen backbone says about n items."""

    pooled: NDArray[np.float32]  # (n, d)
    logits: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)  # classifier head -> (n, c)
    # Inner layer -> (n, w): what it says of the whole item, pooled over positions, blocks or tokens. The last layer was
    # trained to tell classes apart and forgets colours, textures, single words; those before it have not yet.
    layers: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)

    @classmethod
    def joined(cls, parts: "Sequence[Features]") -> "Features":
        """Return the rows of several, one after the other; there is at least one."""
        first = parts[0]
        return cls(
            pooled=np.concatenate([part.pooled for part in parts]),
            logits={head: np.concatenate([part.logits[head] for part in parts]) for head in first.logits},
            layers={layer: np.concatenate([part.layers[layer] for part in parts]) for layer in first.layers},
        )

    def each(self, change: Callable[[NDArray[np.float32]], NDArray[np.float32]]) -> "Features":
        """Return features whose arrays are changed: (n, w) to (m, w)."""
        return Features(
            pooled=change(self.pooled),
            logits={head: change(rows) for head, rows in self.logits.items()},
            layers={layer: change(rows) for layer, rows in self.layers.items()},
        )

    def means(self, segments: Sequence[tuple[int, int]]) -> "Features":
        """Return one row for each segment (start, stop) of rows: their mean. No segment is empty."""
        return self.each(lambda rows: _segment_means(rows, segments))


class Passage(NamedTuple):
    """A part of a long text, ready to be embedded."""

    start: int  # characters
    stop: int
    prepared: Prepared


class Preparing(Protocol):
    """What backbones and encoders share: items of one modality are made ready for the network.

    What has a body, here and below, is for those that can do more to override.
    """

    modality: Modality  # what the items are
    # What pictures are brought to, in pixels: larger ones may be decoded smaller (`decode_image`).
    side: int | None = None
    has_windows: bool = False  # sounds can be cut into blocks, and those put together to windows of a sound

    def prepare(self, item: Any, /) -> Prepared:
        """Decode one item on the CPU; safe to call from several threads.

        Raises:
            DecodeError: If the item is unreadable, damaged, empty or over a size limit.
        """
        ...

    def prepare_all(self, items: Sequence[Any], /) -> list[Prepared]:
        """Prepare many items; the same as one by one, and faster where they can share work."""
        return [self.prepare(item) for item in items]

    def takes_file(self, data: bytes, /) -> bool:
        """Whether `prepare_file` takes this file's bytes, which are then decoded with its batch, on the device."""
        del data
        return False

    def prepare_file(self, content: Any, /) -> Prepared:
        """Prepare a file's bytes that it takes, or what was decoded of others; a part may be left to the device.

        That part waits in a larger form than what `prepare` gives, so this is not for the many pictures of a video.
        """
        return self.prepare(content)

    def passages(self, text: str, /) -> Sequence[Passage]:
        """Cut a text that is longer than one vector sees into passages; none if it is not."""
        del text
        return ()

    def blocks(self, sound: Any, /) -> Iterator[Prepared]:
        """Cut a sound, whole or streamed (`sandbox.streams.SoundStream`), into arrays of blocks as it is taken.

        This, and what follows from blocks, is there if ``has_windows``.
        """
        raise TypeError(f"{type(self).__name__} has no blocks of {type(sound).__name__}")


class Backbone(Preparing, Protocol):
    """A frozen pretrained network for one modality."""

    dim: int  # width of the pooled features

    def features(self, batch: Sequence[Prepared], /) -> Features:
        """Run the batch through the network, in passes of the best size; row i belongs to ``batch[i]``."""
        ...

    def block_features(self, batch: Sequence[Prepared], /) -> Features:
        """Return one row for each block of all sounds, in order."""
        raise TypeError(f"{type(self).__name__} has no blocks in {len(batch)} items")

    def windows(self, count: int, seconds: Sequence[tuple[float, float]], /) -> list[tuple[int, int]]:
        """Say which of ``count`` blocks belong to windows (start, stop) in seconds."""
        raise TypeError(f"{type(self).__name__} has no windows: {count} blocks, {len(seconds)} windows")


@runtime_checkable
class Encoder(Preparing, Protocol):
    """One modality's way into a space."""

    space: Space  # where the vectors lie

    def embed(self, batch: Sequence[Prepared], /) -> Vectors:
        """Return one unit vector per prepared item, shape (n, d), in order."""
        ...

    def embed_windows(self, blocks: Iterable[Prepared], seconds: Sequence[tuple[float, float]], /) -> Vectors:
        """Return the vector of a whole sound and one for each window (start, stop), shape (1 + windows, d)."""
        raise TypeError(f"{type(self).__name__} has no windows: {blocks!r}, {len(seconds)} windows")


def unit_rows(matrix: NDArray[np.floating[Any]]) -> Vectors:
    """Scale each row of ``matrix`` (n, d) to length 1; a zero row stays zero."""
    norms = np.linalg.norm(matrix.astype(np.float64), axis=1, keepdims=True)
    return np.asarray(matrix / np.where(norms > 0, norms, 1.0), dtype=np.float32)


def _segment_means(rows: NDArray[np.float32], segments: Sequence[tuple[int, int]]) -> NDArray[np.float32]:
    means = np.empty((len(segments), rows.shape[1]), np.float32)
    for place, (start, stop) in enumerate(segments):
        means[place] = rows[start:stop].mean(axis=0)
    return means
