"""Sounds: aiSFX embeddings (512-d) and category scores, pooled over a clip's two-second blocks."""

from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from trivium.encoders.aisfx import HEADS
from trivium.encoders.audio_decoding import MAX_SECONDS, RATES_HZ, decode_audio
from trivium.encoders.base import Backbone, DecodeError, Features, Modality, Prepared
from trivium.encoders.files import item_bytes
from trivium.encoders.networks import Network
from trivium.encoders.sandbox import Sound, SoundStream

# The paper's front end (Ma & Lerch 2022, section 3; computed there with Essentia).
RATE_HZ = 44_100
FFT_SAMPLES, HOP_SAMPLES, MELS = 2048, 1024, 96
LOG_GAIN, LOG_FULL_SCALE = 10_000.0, 9.457798957824707  # maximum over the training spectrograms
# The loudest sample. The first batch norm's statistics say that the training spectrograms had mean 0.164; sounds
# scaled to a peak of 1 have 0.26, to 0.3 0.19, to 0.1 0.14 (docs/models.md, "The level of a sound").
PEAK = 0.2
BLOCK_FRAMES, BLOCK_HOP_FRAMES = 100, 50  # 2.3 s and 1.2 s
BLOCKS_PER_PASS = {"cpu": 8, "gpu": 4096}  # on a GPU the network cuts them itself, by its memory
FRAMES_PER_PASS = 2048  # of the front end, 48 s


class AiSFX(Backbone):
    """The sound-effects network on clips of any length."""

    modality: Modality = "audio"
    dim = 512

    def __init__(self, network: Network) -> None:
        # Here, in one thread: its modules import one another, and when two threads begin at once, that fails.
        import torchaudio  # noqa: F401

        self._network = network
        self._blocks_per_pass = BLOCKS_PER_PASS["cpu" if network.device.startswith("cpu") else "gpu"]

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

    def prepare(self, item: Any, /) -> Prepared:
        """Decode a sound to log-mel blocks, float32, shape (blocks, 100, 96).

        Args:
            item: A path, a file's bytes, or a pair (waveform, rate in Hz) with a waveform (s,) or (s, channels).

        Raises:
            DecodeError: See `decode_audio`.
        """
        waveform, rate_hz = _checked_pair(*item) if isinstance(item, tuple) else decode_audio(item_bytes(item))
        return self._blocks(waveform, rate_hz)

    def features(self, batch: Sequence[Prepared], /) -> Features:
        """Return embeddings (n, 512) and logits {head: (n, classes)}, each the mean over a clip's blocks."""
        ends = np.cumsum([len(blocks) for blocks in batch], dtype=np.intp)
        return self.block_features(batch).means(
            [(int(end) - len(blocks), int(end)) for end, blocks in zip(ends, batch, strict=True)]
        )

    def block_features(self, batch: Sequence[Prepared], /) -> Features:
        """Return embeddings (m, 512) and logits {head: (m, classes)} of all clips' blocks, m in all, in order."""
        count = sum(len(blocks) for blocks in batch)
        pooled = np.empty((count, self.dim), np.float32)
        logits = {head: np.empty((count, classes), np.float32) for head, classes in HEADS.items()}
        blocks = np.concatenate(batch) if count else np.empty((0, BLOCK_FRAMES, MELS), np.float32)
        for start in range(0, count, self._blocks_per_pass):  # blocks of many files in one pass
            rows = slice(start, start + self._blocks_per_pass)
            pooled[rows], *scores = self._network(blocks[rows])
            for head, found in zip(logits.values(), scores, strict=True):
                head[rows] = found
        return Features(pooled=pooled, logits=logits)

    def blocks(self, sound: Sound | SoundStream) -> Iterator[Prepared]:
        """Cut a sound into blocks as its samples are taken, arrays of shape (b_i, 100, 96).

        A stream's level is set from its peak before resampling, which moves it by a few per cent.
        """
        if not isinstance(sound, SoundStream):
            yield self._blocks(*sound)
            return
        held = np.empty((0, MELS), np.float32)
        for frames in self._stream_frames(sound):
            held = np.concatenate([held, frames])
            count = max(0, (len(held) - BLOCK_FRAMES) // BLOCK_HOP_FRAMES + 1)
            if count:
                yield _cut(torch.from_numpy(held[: (count - 1) * BLOCK_HOP_FRAMES + BLOCK_FRAMES]))
                held = held[count * BLOCK_HOP_FRAMES :]

    def windows(self, count: int, seconds: Sequence[tuple[float, float]]) -> list[tuple[int, int]]:
        """Say which of a sound's blocks, ``count`` in all, belong to windows (start, stop) in seconds: at least one."""
        centres = (np.arange(count) * BLOCK_HOP_FRAMES + BLOCK_FRAMES / 2) * HOP_SAMPLES / RATE_HZ
        found = []
        for start, stop in seconds:
            first, last = (int(place) for place in np.searchsorted(centres, (start, stop)))
            if first == last:  # a window shorter than a block's hop, or the end that fills no block
                first = min(first, count - 1)
                last = first + 1
            found.append((first, last))
        return found

    @torch.inference_mode()
    def _stream_frames(self, stream: SoundStream) -> Iterator[NDArray[np.float32]]:
        """Yield the log-mel frames of a stream, (t_i, mel), as its samples are taken."""
        gain = PEAK / max(stream.peak, 1e-9)
        held = torch.zeros(FFT_SAMPLES // 2)
        for chunk in _resampled(stream.chunks, stream.rate_hz):
            held = torch.cat([held, chunk * gain])
            frames = max(0, (len(held) - FFT_SAMPLES) // HOP_SAMPLES + 1)
            if frames:
                yield self._log_mel(held[: (frames - 1) * HOP_SAMPLES + FFT_SAMPLES]).numpy()
                held = held[frames * HOP_SAMPLES :]
        held = torch.cat([held, torch.zeros(FFT_SAMPLES // 2)])
        if len(held) >= FFT_SAMPLES:
            yield self._log_mel(held).numpy()

    def _log_mel(self, sound: torch.Tensor) -> torch.Tensor:
        """Return the frames of samples (s,), none of them centred, (t, mel)."""
        return torch.log10(LOG_GAIN * self._front_end(sound).T + 1) / LOG_FULL_SCALE

    @torch.inference_mode()
    def _blocks(self, waveform: NDArray[np.float32], rate_hz: int) -> Prepared:
        from torchaudio.functional import resample

        sound = _scaled(torch.from_numpy(waveform), 1.0)  # before resampling, which may overflow on huge samples
        ratio = _ratio(rate_hz)
        if ratio != 1:
            sound = resample(sound, ratio.denominator, ratio.numerator)
        sound = _scaled(sound, PEAK)
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


def _cut(log_mel: torch.Tensor) -> Prepared:
    """Cut frames (t, mel) into overlapping blocks (b, 100, mel)."""
    return log_mel.unfold(0, BLOCK_FRAMES, BLOCK_HOP_FRAMES).transpose(1, 2).contiguous().numpy()


def _ratio(rate_hz: int) -> Fraction:
    # The resampling kernel grows with the terms of the ratio: 44,101 Hz would take gigabytes, and is 44,100.
    return Fraction(RATE_HZ, rate_hz).limit_denominator(1000)


def _resampled(chunks: Iterable[NDArray[np.float32]], rate_hz: int) -> Iterator[torch.Tensor]:
    """Resample chunk by chunk, as if it were done in one piece: each chunk is resampled with its neighbours' edges."""
    from torchaudio.functional import resample

    ratio = _ratio(rate_hz)
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


def _scaled(sound: torch.Tensor, peak: float) -> torch.Tensor:
    """Scale a waveform (s,) in place, so that its largest sample is ``peak``; silence stays silence."""
    largest = torch.maximum(sound.max(), -sound.min())
    return sound.mul_(peak / largest.clamp(min=1e-9))


def _checked_pair(waveform: NDArray[np.floating[Any]], rate_hz: int) -> tuple[NDArray[np.float32], int]:
    values = np.asarray(waveform, dtype=np.float64)
    if values.ndim not in (1, 2) or not values.size:
        raise DecodeError(f"a waveform must have shape (s,) or (s, channels), none 0, got {values.shape}")
    if values.ndim == 2:
        values = values.mean(axis=1)
    if not (np.abs(values) <= np.finfo(np.float32).max).all():
        raise DecodeError("the sound holds NaN or infinity")
    if not RATES_HZ[0] <= rate_hz <= RATES_HZ[1] or len(values) / rate_hz > MAX_SECONDS:
        raise DecodeError(f"{len(values)} samples at {rate_hz} Hz; known are {RATES_HZ} Hz and {MAX_SECONDS} s")
    return values.astype(np.float32), int(rate_hz)
