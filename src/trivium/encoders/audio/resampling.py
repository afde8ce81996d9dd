"""Sounds at the rate that a network was trained on: in one piece, or piece by piece as they are read."""

from collections.abc import Iterable, Iterator
from fractions import Fraction

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

RATE_HZ = 44_100  # aiSFX's


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
