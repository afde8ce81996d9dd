"""The front end of aiSFX on the processor: sounds at its rate, in one piece or as they are read, to log-mel blocks.

Source: the paper's front end (Ma & Lerch 2022, section 3; computed there with Essentia).
"""

from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trivium.encoders.base import Prepared
from trivium.encoders.networks.contract import Arrays
from trivium.encoders.sandbox.streams import SoundStream

RATE_HZ = 44_100  # aiSFX's
FFT_SAMPLES, HOP_SAMPLES, MELS = 2048, 1024, 96
LOG_GAIN, LOG_FULL_SCALE = 10_000.0, 9.457798957824707  # maximum over the training spectrograms
# The loudest sample. The first batch norm's statistics say that the training spectrograms had mean 0.164; sounds
# scaled to a peak of 1 have 0.26, to 0.3 0.19, to 0.1 0.14 (docs/models.md, "The level of a sound").
PEAK = 0.2
BLOCK_FRAMES, BLOCK_HOP_FRAMES = 100, 50  # 2.3 s and 1.2 s
BLOCKS_PER_PASS = 8
FRAMES_PER_PASS = 2048  # of the front end, 48 s


def resampled(waveform: NDArray[np.float32], rate_hz: int) -> Tensor:
    """Return a whole sound at `RATE_HZ`, (s,), its largest sample about 1; the waveform may be changed."""
    from torchaudio.functional import resample

    sound = scaled(torch.from_numpy(waveform), 1.0)  # before resampling, which may overflow on huge samples
    ratio = _ratio(rate_hz, RATE_HZ)
    return sound if ratio == 1 else resample(sound, ratio.denominator, ratio.numerator)


def resampled_chunks(chunks: Iterable[NDArray[np.float32]], rate_hz: int, *, to_hz: int = RATE_HZ) -> Iterator[Tensor]:
    """Resample chunk by chunk, as if it were done in one piece: each chunk is resampled with its neighbours' edges."""
    from torchaudio.functional import resample

    ratio = _ratio(rate_hz, to_hz)
    if ratio == 1:
        yield from map(torch.from_numpy, chunks)
        return
    up, down = ratio.numerator, ratio.denominator
    # The kernel reaches over 6 periods of the lower rate; whole periods of both rates, so that the samples fall alike.
    edge = down * -(-7 * max(1, -(-down // up)) // down)
    piece = down * -(-(1 << 19) // down)
    held, before = torch.empty(0), 0  # ``before``: samples at the start of ``held`` that are done
    for chunk in chunks:
        held = torch.cat([held, torch.from_numpy(chunk)])
        while len(held) >= before + piece + edge:
            done = resample(held[: before + piece + edge], down, up)
            yield done[before * up // down : (before + piece) * up // down]
            held = held[before + piece - edge :]
            before = edge
    if len(held) > before:
        yield resample(held, down, up)[before * up // down :]


def scaled(sound: Tensor, peak: float) -> Tensor:
    """Scale a waveform (s,) in place, so that its largest sample is ``peak``; silence stays silence."""
    largest = torch.maximum(sound.max(), -sound.min())
    return sound.mul_(peak / largest.clamp(min=1e-9))


def _ratio(rate_hz: int, to_hz: int) -> Fraction:
    # The resampling kernel grows with the terms of the ratio: 44,101 Hz would take gigabytes, and is 44,100.
    return Fraction(to_hz, rate_hz).limit_denominator(1000)


class LogMel:
    """Sounds as arrays of blocks, float32, (blocks, 100, 96)."""

    rate_hz, block_samples, hop_samples = RATE_HZ, BLOCK_FRAMES * HOP_SAMPLES, BLOCK_HOP_FRAMES * HOP_SAMPLES

    def __init__(self, *, blocks_per_pass: int = BLOCKS_PER_PASS) -> None:
        self._blocks_per_pass = blocks_per_pass

    @torch.inference_mode()
    def whole(self, waveform: NDArray[np.float32], rate_hz: int) -> Prepared:
        """Prepare a sound; at least one block, filled up with zeros if need be."""
        sound = scaled(resampled(waveform, rate_hz), PEAK)
        # Frames are centred on multiples of the hop, so half a window of zeros goes before and after.
        frames = 1 + len(sound) // HOP_SAMPLES
        sound = torch.nn.functional.pad(sound, (FFT_SAMPLES // 2, FFT_SAMPLES // 2))
        parts = []
        for start in range(0, frames, FRAMES_PER_PASS):  # the spectrum of half an hour at once would take 1 GB
            stop = min(start + FRAMES_PER_PASS, frames)
            parts.append(self._log_mel(sound[start * HOP_SAMPLES : (stop - 1) * HOP_SAMPLES + FFT_SAMPLES]))
        log_mel = torch.cat(parts)  # (t, mel)
        if len(log_mel) < BLOCK_FRAMES:
            log_mel = torch.nn.functional.pad(log_mel, (0, 0, 0, BLOCK_FRAMES - len(log_mel)))
        # A last part that does not fill a block is left out, as in the paper.
        return _cut(log_mel)

    def parts(self, stream: SoundStream) -> Iterator[Prepared]:
        """Prepare a long sound as its samples are taken."""
        held = np.empty((0, MELS), np.float32)
        for frames in self._stream_frames(stream):
            held = np.concatenate([held, frames])
            count = max(0, (len(held) - BLOCK_FRAMES) // BLOCK_HOP_FRAMES + 1)
            if count:
                yield _cut(torch.from_numpy(held[: (count - 1) * BLOCK_HOP_FRAMES + BLOCK_FRAMES]))
                held = held[count * BLOCK_HOP_FRAMES :]

    def count(self, prepared: Prepared) -> int:
        """Return how many blocks there are."""
        return len(prepared)

    def passes(self, batch: Sequence[Prepared]) -> Iterator[Arrays]:
        """Yield the blocks of many sounds, (b, 100, 96)."""
        blocks = np.concatenate(batch) if batch else np.empty((0, BLOCK_FRAMES, MELS), np.float32)
        for start in range(0, len(blocks), self._blocks_per_pass):
            yield (blocks[start : start + self._blocks_per_pass],)

    @cached_property
    def _front_end(self) -> torch.nn.Module:
        from torchaudio.transforms import MelSpectrogram

        mel: torch.nn.Module = MelSpectrogram(
            RATE_HZ,
            n_fft=FFT_SAMPLES,
            hop_length=HOP_SAMPLES,
            n_mels=MELS,
            f_max=RATE_HZ / 2,
            mel_scale="htk",
            norm=None,
            power=2.0,
            center=False,
        )
        filters = mel.get_buffer("mel_scale.fb")  # (frequencies, mels)
        filters /= filters.sum(dim=0, keepdim=True).clamp(min=1e-12)
        return mel

    @torch.inference_mode()
    def _stream_frames(self, stream: SoundStream) -> Iterator[NDArray[np.float32]]:
        """Yield the log-mel frames of a stream, (t_i, mel), as its samples are taken."""
        gain = PEAK / max(stream.peak, 1e-9)
        held = torch.zeros(FFT_SAMPLES // 2)
        for chunk in resampled_chunks(stream.chunks, stream.rate_hz):
            held = torch.cat([held, chunk * gain])
            frames = max(0, (len(held) - FFT_SAMPLES) // HOP_SAMPLES + 1)
            if frames:
                yield self._log_mel(held[: (frames - 1) * HOP_SAMPLES + FFT_SAMPLES]).numpy()
                held = held[frames * HOP_SAMPLES :]
        held = torch.cat([held, torch.zeros(FFT_SAMPLES // 2)])
        if len(held) >= FFT_SAMPLES:
            yield self._log_mel(held).numpy()

    def _log_mel(self, sound: Tensor) -> Tensor:
        """Return the frames of samples (s,), none of them centred, (t, mel)."""
        return torch.log10(LOG_GAIN * self._front_end(sound).T + 1) / LOG_FULL_SCALE


def _cut(log_mel: Tensor) -> Prepared:
    """Cut frames (t, mel) into overlapping blocks (b, 100, mel)."""
    return log_mel.unfold(0, BLOCK_FRAMES, BLOCK_HOP_FRAMES).transpose(1, 2).contiguous().numpy()
