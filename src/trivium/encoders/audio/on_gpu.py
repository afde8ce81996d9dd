"""aiSFX with its front end on the device: 16-bit samples in, so that the processor only decodes and resamples.

The log-mel frames that it computes are those of `log_mel.LogMel`. Resampling stays on the processor, one sound at a
time. A sound waits as its samples, 88 kB a second, and is cut into blocks when its pass comes. They overlap by half, so
each sample crosses to the device twice: 180 kB for a second of sound, where its log-mel blocks would take 33 kB and
most of the processor's time.
"""

from collections.abc import Iterator, Sequence
from itertools import chain, islice

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from trivium.encoders.audio.log_mel import (
    BLOCK_FRAMES,
    BLOCK_HOP_FRAMES,
    FFT_SAMPLES,
    HOP_SAMPLES,
    LOG_FULL_SCALE,
    LOG_GAIN,
    MELS,
    PEAK,
    RATE_HZ,
    resampled,
    resampled_chunks,
    scaled,
)
from trivium.encoders.base import Prepared
from trivium.encoders.networks.contract import Arrays
from trivium.encoders.sandbox.streams import SoundStream

BLOCK_SAMPLES = (BLOCK_FRAMES - 1) * HOP_SAMPLES + FFT_SAMPLES
BLOCK_HOP_SAMPLES = BLOCK_HOP_FRAMES * HOP_SAMPLES
FULL_SCALE = 32_767  # of a sound's loudest sample
BLOCKS_PER_PASS = 512  # 106 MB of samples; the network cuts them further, by its memory
BLOCKS_PER_PART = 128  # of a stream, 150 s


class SampleBlocks(nn.Module):
    """Blocks of samples to whatever a network of log-mel blocks gives.

    The front end stays in float32 when the network is turned to half precision: energies go beyond float16.
    """

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        from torchaudio.functional import melscale_fbanks

        self.net = net
        self.register_buffer("weight_like", torch.zeros(()))  # tells the precision of the weights
        filters: Tensor = melscale_fbanks(FFT_SAMPLES // 2 + 1, 0.0, RATE_HZ / 2, MELS, RATE_HZ, mel_scale="htk")
        filters = filters / filters.sum(dim=0, keepdim=True).clamp(min=1e-12)  # (frequencies, mels)
        # Not buffers, which would be rounded with the weights; sent to a device once.
        self._constants = {"cpu": (torch.hann_window(FFT_SAMPLES), filters)}

    def forward(self, samples: Tensor, frames: Tensor) -> tuple[Tensor, ...]:
        """Map blocks (n, `BLOCK_SAMPLES`), and how many frames of each are of the sound, (n,), to the outputs."""
        window, filters = self._on(samples.device)
        x = samples.float() * (PEAK / FULL_SCALE)
        spectrum = torch.stft(
            x, FFT_SAMPLES, HOP_SAMPLES, window=window, center=False, return_complex=True
        )  # (n, frequencies, t)
        energy = spectrum.real.square() + spectrum.imag.square()
        log_mel = torch.log10(LOG_GAIN * (energy.transpose(1, 2) @ filters) + 1) / LOG_FULL_SCALE  # (n, t, mel)
        is_of_sound = torch.arange(BLOCK_FRAMES, device=samples.device) < frames.unsqueeze(1)  # (n, t)
        log_mel = torch.where(is_of_sound.unsqueeze(2), log_mel, 0)
        found: tuple[Tensor, ...] = self.net(log_mel.to(self.get_buffer("weight_like").dtype))
        return found

    def _on(self, device: torch.device) -> tuple[Tensor, Tensor]:
        name = str(device)
        if name not in self._constants:
            window, filters = self._constants["cpu"]
            self._constants[name] = (window.to(device), filters.to(device))
        return self._constants[name]


class Samples:
    """Sounds as their samples, int16, (s,), with the half windows of zeros that centred frames need at both ends."""

    rate_hz, block_samples, hop_samples = RATE_HZ, BLOCK_FRAMES * HOP_SAMPLES, BLOCK_HOP_FRAMES * HOP_SAMPLES

    @torch.inference_mode()
    def whole(self, waveform: NDArray[np.float32], rate_hz: int) -> Prepared:
        """Prepare a sound, its loudest sample `FULL_SCALE`."""
        samples = _rounded(scaled(resampled(waveform, rate_hz), FULL_SCALE))
        return np.pad(samples, FFT_SAMPLES // 2)

    def parts(self, stream: SoundStream) -> Iterator[Prepared]:
        """Prepare a long sound as its samples are taken: parts that overlap by what their blocks do."""
        gain = FULL_SCALE / max(stream.peak, 1e-9)
        edge = np.zeros(FFT_SAMPLES // 2, np.int16)
        chunks = (_rounded(chunk * gain) for chunk in resampled_chunks(stream.chunks, stream.rate_hz))
        held, count = np.empty(0, np.int16), 0
        for samples in chain([edge], chunks, [edge]):
            held = np.concatenate([held, samples])
            count = max(0, (len(held) - BLOCK_SAMPLES) // BLOCK_HOP_SAMPLES + 1)
            if count >= BLOCKS_PER_PART:
                yield held[: (count - 1) * BLOCK_HOP_SAMPLES + BLOCK_SAMPLES]
                held = held[count * BLOCK_HOP_SAMPLES :]
                count = 0
        if count:
            yield held

    def count(self, prepared: Prepared) -> int:
        """Return how many blocks there are: a last part that fills none is left out, unless it is all."""
        return max(0, len(prepared) - BLOCK_SAMPLES) // BLOCK_HOP_SAMPLES + 1

    def passes(self, batch: Sequence[Prepared]) -> Iterator[Arrays]:
        """Yield the blocks of many sounds and how many of their frames are of the sound, as `SampleBlocks` takes them.

        All are, but for a sound that fills no block.
        """
        blocks = ((block, frames) for prepared in batch for block, frames in self._blocks(prepared))
        while some := list(islice(blocks, BLOCKS_PER_PASS)):
            yield np.stack([block for block, _ in some]), np.array([frames for _, frames in some])

    def _blocks(self, prepared: Prepared) -> Iterator[tuple[NDArray[np.int16], int]]:
        frames = min(BLOCK_FRAMES, 1 + (len(prepared) - FFT_SAMPLES) // HOP_SAMPLES)
        if len(prepared) < BLOCK_SAMPLES:
            prepared = np.pad(prepared, (0, BLOCK_SAMPLES - len(prepared)))
        for number in range(self.count(prepared)):
            start = number * BLOCK_HOP_SAMPLES
            yield prepared[start : start + BLOCK_SAMPLES], frames  # a view


def _rounded(sound: Tensor) -> NDArray[np.int16]:
    """Round samples in place; resampling may have moved a stream's above its peak."""
    return sound.round_().clamp_(-FULL_SCALE, FULL_SCALE).to(torch.int16).numpy()
