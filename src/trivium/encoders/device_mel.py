"""aiSFX with its front end on the device: 16-bit samples in, so that the processor only decodes and resamples.

The log-mel frames that it computes are those of `audio.AiSFX`. Blocks overlap by half, so each sample is sent twice, in
two bytes: 180 kB for a second of sound, where its log-mel blocks would take 33 kB and most of the processor's time.
"""

import torch
from torch import Tensor, nn

# Of `audio.AiSFX`, whose module comments say why.
RATE_HZ, FFT_SAMPLES, HOP_SAMPLES, MELS = 44_100, 2048, 1024, 96
LOG_GAIN, LOG_FULL_SCALE = 10_000.0, 9.457798957824707
BLOCK_FRAMES, BLOCK_HOP_FRAMES = 100, 50
BLOCK_SAMPLES = (BLOCK_FRAMES - 1) * HOP_SAMPLES + FFT_SAMPLES
PEAK = 0.2
FULL_SCALE = 32_767  # of a sound's loudest sample


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
        """Map what `sample_blocks` gives, (n, `BLOCK_SAMPLES`) and (n,), to the network's outputs."""
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


def sample_blocks(sound: Tensor, *, peak: float | None = None) -> tuple[Tensor, Tensor]:
    """Cut a sound at 44,100 Hz into blocks of samples, as its log-mel frames would be cut.

    Args:
        sound: Samples (s,), of any level.
        peak: Its loudest sample, if this is a part of a longer one.

    Returns:
        At least one block, shape (b, `BLOCK_SAMPLES`), 16-bit, the sound's loudest sample `FULL_SCALE`; and how many of
        each block's frames are of the sound, (b,): all, but for a sound that fills no block.
    """
    largest = max(float(sound.abs().max()) if peak is None else peak, 1e-9)
    whole = (sound * (FULL_SCALE / largest)).round().clamp(-FULL_SCALE, FULL_SCALE).to(torch.int16)
    # Frames are centred on multiples of the hop; a last part that fills no block is left out, unless it is all.
    whole = nn.functional.pad(whole, (FFT_SAMPLES // 2, FFT_SAMPLES // 2))
    whole = nn.functional.pad(whole, (0, max(0, BLOCK_SAMPLES - len(whole))))
    blocks = whole.unfold(0, BLOCK_SAMPLES, BLOCK_HOP_FRAMES * HOP_SAMPLES).contiguous()
    return blocks, torch.full((len(blocks),), min(BLOCK_FRAMES, 1 + len(sound) // HOP_SAMPLES))
