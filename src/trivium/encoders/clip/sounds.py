"""The audio tower of an open_clip model (CLAP) on sounds of any length: the mean over a sound's blocks."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from trivium.encoders.audio.backbone import blocks_within, decoded_sound
from trivium.encoders.base import Backbone, Features, Modality, Prepared
from trivium.encoders.clip.facts import SoundFacts
from trivium.encoders.clip.mel import ClipMel
from trivium.encoders.decoding.sounds import Sound
from trivium.encoders.files import stopping
from trivium.encoders.networks.contract import Network, device_kind
from trivium.encoders.sandbox.pool import SoundStream

BLOCKS_PER_PASS = {"cpu": 4, "gpu": 64}  # a GPU's network cuts them as its memory is


class ClipSounds(Backbone):
    """Sounds of any length, decoded as all sounds are."""

    modality: Modality = "audio"

    def __init__(self, facts: SoundFacts, network: Network, *, dim: int) -> None:
        # Here, in one thread: its modules import one another, and when two threads begin at once, that fails.
        import torchaudio  # noqa: F401

        self.dim = dim
        self._facts = facts
        self._network = network
        self._mel = ClipMel(facts)
        self._blocks_per_pass = BLOCKS_PER_PASS[device_kind(network.device)]

    def prepare(self, item: Any, /) -> Prepared:
        """Decode a sound to the log-mel frames of its blocks, (b, t, mel).

        Args:
            item: A path, a file's bytes, or a pair (waveform, rate in Hz) with a waveform (s,) or (s, channels).

        Raises:
            DecodeError: See `decode_audio`.
        """
        return self._mel.whole(*decoded_sound(item))

    def features(self, batch: Sequence[Prepared], /) -> Features:
        """Return embeddings (n, d), not normalised, each the mean over a sound's blocks."""
        ends = np.cumsum([len(prepared) for prepared in batch], dtype=np.intp)
        return self.block_features(batch).means(
            [(int(end) - len(prepared), int(end)) for end, prepared in zip(ends, batch, strict=True)]
        )

    def block_features(self, batch: Sequence[Prepared], /) -> Features:
        """Return embeddings (m, d) of all sounds' blocks, m in all, in order."""
        blocks = np.concatenate(batch) if batch else np.empty((0, 0, 0), np.float32)
        pooled = np.empty((len(blocks), self.dim), np.float32)
        for start in range(0, len(blocks), self._blocks_per_pass):  # blocks of many files in one pass
            stopping.check()
            rows = slice(start, start + self._blocks_per_pass)
            (pooled[rows],) = self._network(blocks[rows])
        return Features(pooled=pooled)

    def blocks(self, sound: Sound | SoundStream) -> Iterator[Prepared]:
        """Cut a sound into blocks as its samples are taken, some of them at a time."""
        if isinstance(sound, SoundStream):
            yield from self._mel.parts(sound)
        else:
            yield self._mel.whole(*sound)

    def windows(self, count: int, seconds: Sequence[tuple[float, float]]) -> list[tuple[int, int]]:
        """Say which of a sound's blocks, ``count`` in all, belong to windows (start, stop) in seconds: at least one.

        The last block may begin up to half its length earlier than is taken for granted here.
        """
        middle = self._facts.block_samples / 2
        return blocks_within((np.arange(count) * self._mel.hop_samples + middle) / self._facts.rate_hz, seconds)
