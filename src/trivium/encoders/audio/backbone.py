"""Networks of sounds, aiSFX (512-d, with category scores) among them: means over a sound's blocks."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from trivium.encoders.base import Backbone, DecodeError, Features, Modality, Prepared
from trivium.encoders.decoding.downmix import downmixed
from trivium.encoders.decoding.sounds import MAX_SECONDS, RATES_HZ, Sound, decode_audio
from trivium.encoders.files import stopping
from trivium.encoders.files.reading import item_bytes
from trivium.encoders.networks.contract import Arrays, Network
from trivium.encoders.networks.conversions import AISFX_HEADS
from trivium.encoders.sandbox.streams import SoundStream


class FrontEnd(Protocol):
    """How sounds are made ready for a network of blocks."""

    rate_hz: int
    block_samples: int
    hop_samples: int  # from one block to the next

    def whole(self, waveform: NDArray[np.float32], rate_hz: int) -> Prepared:
        """Prepare a sound of any length, which has at least one block; the waveform may be changed."""
        ...

    def parts(self, stream: SoundStream) -> Iterator[Prepared]:
        """Prepare a long sound as its samples are taken: some blocks at a time."""
        ...

    def count(self, prepared: Prepared) -> int:
        """Return how many blocks a sound or a part has."""
        ...

    def passes(self, batch: Sequence[Prepared]) -> Iterator[Arrays]:
        """Yield what the network takes, pass by pass: the blocks of all, in order."""
        ...


class AudioBackbone(Backbone):
    """A network of blocks on sounds of any length: the mean over a sound's blocks."""

    modality: Modality = "audio"
    has_windows = True

    def __init__(
        self, network: Network, front_end: FrontEnd, *, dim: int = 512, heads: Mapping[str, int] = AISFX_HEADS
    ) -> None:
        """Take a network.

        Args:
            network: Gives the embeddings of blocks, and for each head its scores.
            front_end: Makes the blocks.
            dim: Width of the embeddings; aiSFX's if nothing is said, as of ``heads``.
            heads: How many classes each has.
        """
        # Here, in one thread: its modules import one another, and when two threads begin at once, that fails.
        import torchaudio  # noqa: F401

        self.dim = dim
        self._heads = heads
        self._network = network
        self._front_end = front_end

    def prepare(self, item: Any, /) -> Prepared:
        """Decode a sound to what its front end makes of it.

        Args:
            item: A path, a file's bytes, or a pair (waveform, rate in Hz) with a waveform (s,) or (s, channels).

        Raises:
            DecodeError: See `decode_audio`.
        """
        return self._front_end.whole(*decoded_sound(item))

    def features(self, batch: Sequence[Prepared], /) -> Features:
        """Return embeddings (n, dim) and logits {head: (n, classes)}, each the mean over a clip's blocks."""
        counts = [self._front_end.count(prepared) for prepared in batch]
        ends = np.cumsum(counts, dtype=np.intp)
        return self.block_features(batch).means(
            [(int(end) - count, int(end)) for end, count in zip(ends, counts, strict=True)]
        )

    def block_features(self, batch: Sequence[Prepared], /) -> Features:
        """Return embeddings (m, dim) and logits {head: (m, classes)} of all clips' blocks, m in all, in order."""
        count = sum(self._front_end.count(prepared) for prepared in batch)
        pooled = np.empty((count, self.dim), np.float32)
        logits = {head: np.empty((count, classes), np.float32) for head, classes in self._heads.items()}
        start = 0
        for inputs in self._front_end.passes(batch):  # blocks of many files in one pass
            stopping.check()
            rows = slice(start, start + len(inputs[0]))
            pooled[rows], *scores = self._network(*inputs)
            for head, found in zip(logits.values(), scores, strict=True):
                head[rows] = found
            start = rows.stop
        return Features(pooled=pooled, logits=logits)

    def blocks(self, sound: Sound | SoundStream) -> Iterator[Prepared]:
        """Cut a sound into blocks as its samples are taken, some of them at a time.

        A stream's level is set from its peak before resampling, which moves it by a few per cent.
        """
        if isinstance(sound, SoundStream):
            yield from self._front_end.parts(sound)
        else:
            yield self._front_end.whole(*sound)

    def windows(self, count: int, seconds: Sequence[tuple[float, float]]) -> list[tuple[int, int]]:
        """Say which of a sound's blocks, ``count`` in all, belong to windows (start, stop) in seconds: at least one.

        The last block of CLAP may begin up to half its length earlier than is taken for granted here.
        """
        front = self._front_end
        middles = (np.arange(count) * front.hop_samples + front.block_samples / 2) / front.rate_hz
        found = []
        for start, stop in seconds:
            first, last = (int(place) for place in np.searchsorted(middles, (start, stop)))
            if first == last:  # a window shorter than a block's hop, or the end that fills no block
                first = min(first, count - 1)
                last = first + 1
            found.append((first, last))
        return found


def decoded_sound(item: Any) -> Sound:
    """Return the waveform (s,) and the rate in Hz of a path, a file's bytes, or a pair of them.

    Raises:
        DecodeError: See `decode_audio`.
    """
    return _checked_pair(*item) if isinstance(item, tuple) else decode_audio(item_bytes(item))


def _checked_pair(waveform: NDArray[np.floating[Any]], rate_hz: int) -> Sound:
    """Return a waveform (s,) or (s, channels) as one channel in float32, and its rate.

    Raises:
        DecodeError: If it is empty, not finite, too long, or of a rate that is not known.
    """
    values = np.asarray(waveform, dtype=np.float64)
    if values.ndim not in (1, 2) or not values.size:
        raise DecodeError(f"a waveform must have shape (s,) or (s, channels), none 0, got {values.shape}")
    if values.ndim == 2:
        values = downmixed(values)
    if not (np.abs(values) <= np.finfo(np.float32).max).all():
        raise DecodeError("the sound holds NaN or infinity")
    if not RATES_HZ[0] <= rate_hz <= RATES_HZ[1] or len(values) / rate_hz > MAX_SECONDS:
        raise DecodeError(f"{len(values)} samples at {rate_hz} Hz; known are {RATES_HZ} Hz and {MAX_SECONDS} s")
    return values.astype(np.float32), int(rate_hz)
