"""Sound files to a mono waveform: any rate and channel count, bounded before allocation, damage noticed."""

import io
import mmap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from trivium.encoders.base import DecodeError

if TYPE_CHECKING:
    import soundfile

Sound: TypeAlias = tuple[NDArray[np.float32], int]  # (s,), rate in Hz

MAX_SECONDS = 1800.0
# Half an hour at 48 kHz: what high rates, in which silence compresses to nothing, may come to.
USUAL_RATE_HZ = 48_000
MAX_FRAMES = int(MAX_SECONDS * USUAL_RATE_HZ)
# Longer sounds are streamed (`sandbox`), a day at most.
STREAM_FRAMES = 600 * 48_000  # ten minutes: longer sounds are streamed where that is asked for
MAX_STREAM_SECONDS = 86_400.0
UNKNOWN_FRAMES = 1 << 48  # libsndfile's word for a length that the header leaves open is far above
MAX_CHANNELS = 64
RATES_HZ = (1_000, 768_000)
# What libsndfile may parse; its rarer formats (MAT4, SD2, IMA ADPCM ...) have had memory-safety faults.
FORMATS = {"WAV", "WAVEX", "RF64", "FLAC", "OGG", "MP3", "MPEG"}
SUBTYPES = {
    *("PCM_U8", "PCM_S8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW"),
    *("VORBIS", "OPUS", "MPEG_LAYER_I", "MPEG_LAYER_II", "MPEG_LAYER_III"),
}
FLOAT32_MAX = float(np.finfo(np.float32).max)
BLOCK_FRAMES = 1 << 18
MAX_WAVE_CHUNKS = 1000


@dataclass(frozen=True, slots=True)
class ScannedAudio:
    """A sound that was decoded once from end to end, and found sound."""

    frames: int
    rate_hz: int
    peak: float  # largest distance from 0 of the one channel that it is brought to
    chunks: Callable[[], Iterator[NDArray[np.float32]]]  # all of it, (s_i,); to be called once


def decode_audio(data: bytes) -> Sound:
    """Decode a sound file's bytes to one channel, the mean of all.

    Returns:
        The waveform, shape (s,), and its rate in Hz.

    Raises:
        DecodeError: If the content is no known sound, damaged, truncated, empty, not finite, or over a limit.
    """
    return whole(scan_audio(data, max_seconds=MAX_SECONDS, keep_frames=MAX_FRAMES))


def whole(sound: ScannedAudio) -> Sound:
    """Return a scanned sound in one piece, shape (s,), and its rate in Hz."""
    waveform = np.empty(sound.frames, np.float32)
    start = 0
    for chunk in sound.chunks():
        waveform[start : start + len(chunk)] = chunk
        start += len(chunk)
    return waveform, sound.rate_hz


def scan_audio(data: bytes | mmap.mmap, *, max_seconds: float, keep_frames: int) -> ScannedAudio:
    """Decode a sound from end to end to see whether it is whole, and how loud.

    Args:
        data: The file.
        max_seconds: Longer ones are refused.
        keep_frames: Up to as many are kept in memory; else ``chunks`` decodes again.

    Raises:
        DecodeError: As `decode_audio` does.
    """
    import soundfile  # loads a library, which those who never meet a sound need not wait for

    _check_complete(data)
    kept: list[NDArray[np.float32]] | None = []
    frames, peak = 0, 0.0
    try:
        with soundfile.SoundFile(_file(data)) as sound:
            _check_header(sound, max_seconds)
            expected, rate_hz = sound.frames, sound.samplerate
            for mono in _chunks(sound):
                frames += len(mono)
                check_length(frames, rate_hz, max_seconds)
                peak = max(peak, float(mono.max()), -float(mono.min()))
                if kept is not None:
                    kept.append(mono)
                    kept = kept if frames <= keep_frames else None
    except DecodeError:
        raise
    except soundfile.LibsndfileError as error:
        raise DecodeError(f"not a sound that can be decoded: {error.error_string}") from error
    except Exception as error:
        raise DecodeError(f"damaged sound: {error or type(error).__name__}") from error
    if not frames:
        raise DecodeError("the sound holds no samples")
    if frames < expected and _length_is_exact(data, expected):
        raise DecodeError(f"truncated: the header says {expected / rate_hz:.2f} s, {frames / rate_hz:.2f} s are there")
    return ScannedAudio(frames, rate_hz, peak, lambda: _again(data) if kept is None else given_back(kept))


def _again(data: bytes | mmap.mmap) -> Iterator[NDArray[np.float32]]:
    import soundfile

    with soundfile.SoundFile(_file(data)) as sound:
        yield from _chunks(sound)


def given_back(chunks: list[NDArray[np.float32]]) -> Iterator[NDArray[np.float32]]:
    """Yield each chunk and forget it: joined, the sound takes its memory once."""
    chunks.reverse()
    while chunks:
        yield chunks.pop()


def _file(data: bytes | mmap.mmap) -> Any:  # soundfile reads both, its types know neither
    if isinstance(data, bytes):
        return io.BytesIO(data)
    data.seek(0)
    return data


def _chunks(sound: "soundfile.SoundFile") -> Iterator[NDArray[np.float32]]:
    # read() and not blocks(): that pads a short read with whatever lay in memory.
    while len(block := sound.read(BLOCK_FRAMES, dtype="float32", always_2d=True)):
        mono = _mean(block)
        # Both are NaN where there is one.
        if not (mono.min() >= -FLOAT32_MAX and mono.max() <= FLOAT32_MAX):
            raise DecodeError("the sound holds NaN or infinity")
        yield mono.astype(np.float32)


def _mean(block: Any) -> NDArray[np.float64]:
    """Average channels, float32 (s, c) to (s,), in float64: the mean of two large float32 samples may overflow."""
    channels = block.shape[1]
    if channels >= 8:
        mean: NDArray[np.float64] = block.mean(axis=1, dtype=np.float64)
        return mean
    # The same sums in the same order, and several times as fast: NumPy is slow along short rows.
    total: NDArray[np.float64] = block[:, 0].astype(np.float64)
    for channel in range(1, channels):
        total += block[:, channel]
    total /= channels
    return total


def _check_header(sound: "soundfile.SoundFile", max_seconds: float) -> None:
    if sound.format not in FORMATS or sound.subtype not in SUBTYPES:
        raise DecodeError(f"a kind of sound that is not read: {sound.format} with {sound.subtype}")
    if not 1 <= sound.channels <= MAX_CHANNELS:
        raise DecodeError(f"{sound.channels} channels, the limit is {MAX_CHANNELS}")
    if not RATES_HZ[0] <= sound.samplerate <= RATES_HZ[1]:
        raise DecodeError(f"a sample rate of {sound.samplerate} Hz, known are {RATES_HZ[0]} to {RATES_HZ[1]}")
    if sound.frames < UNKNOWN_FRAMES:
        check_length(sound.frames, sound.samplerate, max_seconds)


def check_length(frames: int, rate_hz: int, max_seconds: float) -> None:
    """Refuse a sound that is too long, by its time or its samples.

    Raises:
        DecodeError: If so.
    """
    max_frames = int(max_seconds * USUAL_RATE_HZ)
    if frames > max_frames or frames / rate_hz > max_seconds:
        raise DecodeError(
            f"too long: {frames / rate_hz:,.0f} s ({frames:,} samples a channel), the limit is {max_seconds:,.0f} s "
            f"and {max_frames:,}; cut it into parts"
        )


def _length_is_exact(data: bytes | mmap.mmap, frames: int) -> bool:
    """Whether the header states the length; an MP3 without a Xing or Info header, or a piped FLAC, does not."""
    if frames >= UNKNOWN_FRAMES:
        return False
    is_mpeg = data[:4] not in (b"RIFF", b"RIFX", b"RF64", b"fLaC", b"OggS")
    return not is_mpeg or any(tag in data[: 1 << 18] for tag in (b"Xing", b"Info"))


def _check_complete(data: bytes | mmap.mmap) -> None:
    """Notice a cut-off file where libsndfile would quietly return what is left."""
    if data[:4] in (b"RIFF", b"RIFX", b"RF64") and data[8:12] == b"WAVE":
        _check_wave(data, "big" if data[:4] == b"RIFX" else "little")
    elif data[:4] == b"OggS":
        last = data.rfind(b"OggS")
        # Byte 5 of a page header holds its flags, 4 is "end of stream" (RFC 3533).
        if last + 27 > len(data) or not data[last + 5] & 4:
            raise DecodeError("truncated: the Ogg stream has no last page")
        segments = data[last + 26]
        table = data[last + 27 : last + 27 + segments]
        if last + 27 + segments + sum(table) > len(data):
            raise DecodeError("truncated: the last Ogg page is cut off")


def _check_wave(data: bytes | mmap.mmap, order: Literal["little", "big"]) -> None:
    position, long_size = 12, 0
    for _ in range(MAX_WAVE_CHUNKS):
        if position + 8 > len(data):
            break
        name, size = data[position : position + 4], int.from_bytes(data[position + 4 : position + 8], order)
        position += 8
        if name == b"ds64":  # RF64: the sizes that do not fit into 32 bits (EBU Tech 3306)
            long_size = int.from_bytes(data[position + 8 : position + 16], "little")
        if name == b"data":
            size = long_size if size == 0xFFFFFFFF else size  # 0 where there is no ds64
            # Recorders that stream leave all ones, and mean "to the end of the file".
            if position + size > len(data):
                raise DecodeError(
                    f"truncated: the header says {size:,} bytes of sound, {len(data) - position:,} are there"
                )
            return
        position += size + size % 2
    raise DecodeError("truncated: the WAV file has no data")
