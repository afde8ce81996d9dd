"""The front end of aiSFX, slow and obvious: one FFT per frame, one triangle per mel band, one block at a time."""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

# Ma & Lerch 2022, section 3; 0.2 is what Trivium scales the loudest sample to.
RATE_HZ, FFT, HOP, MELS = 44_100, 2048, 1024, 96
GAIN, FULL_SCALE, PEAK = 10_000.0, 9.457798957824707, 0.2
BLOCK, BLOCK_HOP = 100, 50


def mel_of(hz: float) -> float:
    """HTK's mel scale (The HTK Book, section 5.4)."""
    return float(2595.0 * np.log10(1.0 + hz / 700.0))


def hz_of(mel: float) -> float:
    """The inverse of `mel_of`."""
    return float(700.0 * (10.0 ** (mel / 2595.0) - 1.0))


def filters() -> Array:
    """Triangles that rise from one band's centre to the next one's and fall to the one after; each sums to 1."""
    corners = [hz_of(mel) for mel in np.linspace(mel_of(0.0), mel_of(RATE_HZ / 2), MELS + 2)]
    bank = np.zeros((MELS, FFT // 2 + 1))
    for band in range(MELS):
        low, centre, high = corners[band : band + 3]
        for bin_ in range(FFT // 2 + 1):
            hz = bin_ * RATE_HZ / FFT
            if low < hz <= centre:
                bank[band, bin_] = (hz - low) / (centre - low)
            elif centre < hz < high:
                bank[band, bin_] = (high - hz) / (high - centre)
        if bank[band].sum() > 0:
            bank[band] /= bank[band].sum()
    return bank


def log_mel_blocks(waveform: Array) -> Array:
    """Map a waveform (s,) at 44,100 Hz to blocks (n, 100, 96)."""
    sound = np.asarray(waveform, np.float64)
    loudest = np.abs(sound).max()
    if loudest > 0:
        sound = sound / loudest * PEAK
    padded = np.concatenate([np.zeros(FFT // 2), sound, np.zeros(FFT // 2)])  # frames are centred on their time
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(FFT) / FFT)
    bank = filters()
    frames = []
    for start in range(0, len(sound) + 1, HOP):
        power = np.abs(np.fft.rfft(padded[start : start + FFT] * hann)) ** 2
        frames.append(np.log10(GAIN * (bank @ power) + 1.0) / FULL_SCALE)
    while len(frames) < BLOCK:
        frames.append(np.zeros(MELS))
    blocks = []
    for start in range(0, len(frames) - BLOCK + 1, BLOCK_HOP):
        blocks.append(np.stack(frames[start : start + BLOCK]))
    return np.stack(blocks)
