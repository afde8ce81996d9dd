"""The front end of an open_clip model's audio tower (CLAP): sounds of any length to log-mel frames of blocks.

They are as open_clip makes them. Source: Wu et al., "Large-scale Contrastive
Language-Audio Pretraining with Feature Fusion and Keyword-to-Caption Augmentation", ICASSP 2023; open_clip's
`audio/transform.py` and `audio/htsat.py`. A sound that is no longer than a block is repeated as often as it fits and
filled up with zeros. Of a longer one open_clip takes the first block (or, with fusion, a block at random beside three
places); here it is cut into blocks that overlap by half, the last of which ends where the sound does.
"""

import importlib
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trivium.encoders.audio.log_mel import resampled_chunks
from trivium.encoders.base import Prepared
from trivium.encoders.clip.facts import SoundFacts
from trivium.encoders.networks.contract import Arrays, DeviceKind
from trivium.encoders.sandbox.streams import SoundStream

BLOCKS_PER_PASS: Mapping[DeviceKind, int] = {"cpu": 4, "gpu": 64}  # a GPU's network cuts them as its memory is
SMALLEST = 1e-10  # of an energy, -100 dB
# Samples of floating-point files may be anything. Louder than this, a hundred times full scale, a sound is turned down.
MOST_PEAK = 100.0
BLOCKS_PER_PART = 8
TOLERANCE_DB = 0.05  # quiet frames are small differences of large numbers; other filters are decibels apart


class ClipMel:
    """Sounds as arrays of blocks, float32, (blocks, frames, mels)."""

    def __init__(self, facts: SoundFacts, *, blocks_per_pass: int = BLOCKS_PER_PASS["cpu"]) -> None:
        self._facts = facts
        self._blocks_per_pass = blocks_per_pass
        self.rate_hz, self.block_samples, self.hop_samples = (
            facts.rate_hz,
            facts.block_samples,
            facts.block_samples // 2,
        )

    @torch.inference_mode()
    def whole(self, waveform: NDArray[np.float32], rate_hz: int) -> Prepared:
        """Prepare a sound of any length."""
        gain = _gain(float(np.abs(waveform).max()))
        chunks = [waveform if gain == 1 else waveform * gain]
        sound = torch.cat(list(resampled_chunks(chunks, rate_hz, to_hz=self._facts.rate_hz)))
        spans = self._spans(len(sound))
        parts = []
        for few in range(0, len(spans), BLOCKS_PER_PART):  # all blocks of half an hour at once would take 700 MB
            blocks = [self._filled(sound[start:stop]) for start, stop in spans[few : few + BLOCKS_PER_PART]]
            parts.append(self._log_mel(torch.stack(blocks)))
        return np.concatenate(parts)

    @torch.inference_mode()
    def parts(self, stream: SoundStream) -> Iterator[Prepared]:
        """Prepare a long sound as its samples are taken, some blocks at a time."""
        size, hop = self._facts.block_samples, self.hop_samples
        gain = _gain(stream.peak)
        past, held = torch.empty(0), torch.empty(0)  # what the last block may need, and what is in no block yet
        blocks: list[Tensor] = []
        chunks = (chunk * gain for chunk in stream.chunks)
        for chunk in resampled_chunks(chunks, stream.rate_hz, to_hz=self._facts.rate_hz):
            held = torch.cat([held, chunk])
            while len(held) > size:  # not the last block, which is wherever the sound ends
                blocks.append(held[:size].clone())
                past, held = held[:hop], held[hop:]
                if len(blocks) == BLOCKS_PER_PART:
                    yield self._log_mel(torch.stack(blocks))
                    blocks = []
        blocks.append(self._filled(torch.cat([past, held])[-size:]))
        yield self._log_mel(torch.stack(blocks))

    def count(self, prepared: Prepared) -> int:
        """Return how many blocks there are."""
        return len(prepared)

    def passes(self, batch: Sequence[Prepared]) -> Iterator[Arrays]:
        """Yield the blocks of many sounds, (b, t, mel)."""
        blocks = np.concatenate(batch) if batch else np.empty((0, 0, 0), np.float32)
        for start in range(0, len(blocks), self._blocks_per_pass):
            yield (blocks[start : start + self._blocks_per_pass],)

    def _spans(self, length: int) -> list[tuple[int, int]]:
        size = self._facts.block_samples
        starts = [*range(0, length - size, self.hop_samples), max(0, length - size)]
        return [(start, start + size) for start in starts]

    def _filled(self, sound: Tensor) -> Tensor:
        size = self._facts.block_samples
        sound = sound.repeat(max(1, size // len(sound)))
        return torch.nn.functional.pad(sound, (0, size - len(sound)))

    @cached_property
    def _spectrum(self) -> torch.nn.Module:
        from torchaudio.transforms import MelSpectrogram

        facts = self._facts
        found: torch.nn.Module = MelSpectrogram(
            facts.rate_hz,
            n_fft=facts.fft_samples,
            hop_length=facts.hop_samples,
            f_min=facts.min_hz,
            f_max=facts.max_hz,
            n_mels=facts.mels,
            power=2.0,
            norm="slaney" if facts.is_slaney else None,
            mel_scale="slaney" if facts.is_slaney else "htk",
        )
        return found

    def _log_mel(self, blocks: Tensor) -> Prepared:
        """Map samples (b, s) to decibels (b, t, mel)."""
        energy = self._spectrum(blocks).transpose(1, 2)
        return (10 * torch.log10(energy.clamp(min=SMALLEST))).contiguous().numpy()


def _gain(peak: float) -> np.float32:
    """Return what turns a sound down; 1 for all usual ones, for the model was trained on the level that files have."""
    return np.float32(min(1.0, MOST_PEAK / max(peak, 1e-9)))


def facts_of_tower(tower: Any) -> SoundFacts:
    """Return how sounds become what an audio tower of open_clip takes.

    Raises:
        ValueError: If its own front end does something else.
    """
    cfg = tower.cfg
    facts = SoundFacts(
        rate_hz=int(cfg.sample_rate),
        block_samples=int(cfg.clip_samples),
        fft_samples=int(cfg.window_size),
        hop_samples=int(cfg.hop_size),
        mels=int(cfg.mel_bins),
        min_hz=float(cfg.fmin),
        max_hz=float(cfg.fmax),
        is_slaney=not cfg.enable_fusion,
    )
    # From silence to full scale, all frequencies.
    noise = torch.from_numpy(np.random.default_rng(0).uniform(-1, 1, facts.block_samples).astype(np.float32))
    noise *= torch.linspace(0, 1, facts.block_samples) ** 4
    ours = ClipMel(facts).whole(noise.numpy().copy(), facts.rate_hz)[0]
    with torch.inference_mode():
        if cfg.enable_fusion:
            transform = importlib.import_module("open_clip.audio.transform")  # not in the releases that most have
            theirs = transform._get_mel(noise, vars(cfg))
        else:
            encoder = tower.encoder.eval()
            theirs = encoder.logmel_extractor(encoder.spectrogram_extractor(noise.unsqueeze(0)))[0, 0]
    largest = float(np.abs(ours - theirs.numpy()).max())
    if not largest <= TOLERANCE_DB:
        raise ValueError(f"its log-mel frames are not those that are made here: {largest:.2g} dB apart")
    return facts
