"""Sound files to a mono waveform: any rate and channel count, bounded before allocation, damage noticed."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from trivium.encoders.base import DecodeError
from trivium.encoders.decoding.downmix import downmixed
from trivium.encoders.decoding.sound_ends import what_is_missing, with_its_length
from trivium.encoders.decoding.sources import Source, as_file

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
FORMATS = {"WAV", "WAVEX", "RF64", "W64", "FLAC", "OGG", "MP3", "MPEG", "AIFF", "CAF", "AU"}
SUBTYPES = {
    *("PCM_U8", "PCM_S8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW"),
    *("VORBIS", "OPUS", "MPEG_LAYER_I", "MPEG_LAYER_II", "MPEG_LAYER_III"),
    *("ALAC_16", "ALAC_20", "ALAC_24", "ALAC_32"),
}
FLOAT32_MAX = float(np.finfo(np.float32).max)
BLOCK_FRAMES = 1 << 18
Note: TypeAlias = Callable[[str], None]  # told what the owner of a file should know of it


def untold(note: str) -> None:
    """Tell nobody."""
    del note


@dataclass(frozen=True, slots=True)
class ScannedAudio:
    """A sound that was decoded once from end to end, and found sound."""

    frames: int
    rate_hz: int
    peak: float  # largest distance from 0 of the one channel that it is brought to
    chunks: Callable[[], Iterator[NDArray[np.float32]]]  # all of it, (s_i,); to be called once


def decode_audio(data: bytes, *, partial: bool = False, note: Note = untold) -> Sound:
    """Decode a sound file's bytes to one channel, the mean of all (`downmixed`).

    Args:
        data: The file.
        partial: Take what can be decoded of a file that is cut off or damaged further on; else it is refused.
        note: Told what of it is not there, and what its header says wrongly.

    Returns:
        The waveform, shape (s,), and its rate in Hz.

    Raises:
        DecodeError: If the content is no known sound, damaged, truncated, empty, not finite, or over a limit.
    """
    return whole(scan_audio(data, max_seconds=MAX_SECONDS, keep_frames=MAX_FRAMES, partial=partial, note=note))


def whole(sound: ScannedAudio) -> Sound:
    """Return a scanned sound in one piece, shape (s,), and its rate in Hz."""
    waveform = np.empty(sound.frames, np.float32)
    start = 0
    for chunk in sound.chunks():
        waveform[start : start + len(chunk)] = chunk
        start += len(chunk)
    return waveform, sound.rate_hz


def scan_audio(
    data: Source, *, max_seconds: float, keep_frames: int, partial: bool = False, note: Note = untold
) -> ScannedAudio:
    """Decode a sound from end to end to see whether it is whole, and how loud.

    Args:
        data: The file.
        max_seconds: Longer ones are refused.
        keep_frames: Up to as many are kept in memory; else ``chunks`` decodes again.
        partial: As of `decode_audio`.
        note: As of `decode_audio`.

    Raises:
        DecodeError: As `decode_audio` does.
    """
    import soundfile  # loads a library, which those who never meet a sound need not wait for

    missing = what_is_missing(data)
    if missing and not partial:
        raise DecodeError(f"truncated: {missing}")
    data, remark = with_its_length(data)
    kept: list[NDArray[np.float32]] | None = []
    ends: list[str] = []  # why it ends before its end
    frames, peak = 0, 0.0
    try:
        with soundfile.SoundFile(as_file(data)) as sound:
            _check_header(sound, max_seconds)
            expected, rate_hz = sound.frames, sound.samplerate
            for mono in _chunks(sound, ends.append if partial else None):
                frames += len(mono)
                check_length(frames, rate_hz, max_seconds)
                peak = max(peak, float(mono.max()), -float(mono.min()))
                if kept is not None:
                    kept.append(mono)
                    kept = kept if frames <= keep_frames else None
    except DecodeError:
        raise
    except soundfile.LibsndfileError as error:
        reason = f"truncated: {missing}" if missing else f"not a sound that can be decoded: {error.error_string}"
        raise DecodeError(reason) from error
    except Exception as error:
        raise DecodeError(f"damaged sound: {error or type(error).__name__}") from error
    if frames < expected and not ends and not missing and _length_is_exact(data, expected):
        if not partial and frames:
            lengths = f"the header says {expected / rate_hz:.2f} s, {frames / rate_hz:.2f} s are there"
            raise DecodeError(f"truncated: {lengths}")
        missing = "it is cut off"
    if not frames:
        raise DecodeError(ends[0] if ends else f"truncated: {missing}" if missing else "the sound holds no samples")
    if remark:
        note(remark)
    if ends or missing:
        note(what_was_decoded(frames / rate_hz, expected / rate_hz, ends[0] if ends else missing))
    return ScannedAudio(frames, rate_hz, peak, lambda: _again(data, partial) if kept is None else given_back(kept))


def what_was_decoded(seconds: float, of_seconds: float, reason: str) -> str:
    """Say how much of a sound or video is there; ``of_seconds`` may be as little, or anything, if nobody knows."""
    of = f" of {of_seconds:,.1f} s" if seconds < of_seconds <= MAX_STREAM_SECONDS else ""
    return f"only the first {seconds:,.1f} s{of} could be decoded: {reason}"


def _again(data: Source, partial: bool) -> Iterator[NDArray[np.float32]]:
    import soundfile

    with soundfile.SoundFile(as_file(data)) as sound:
        yield from _chunks(sound, untold if partial else None)


def given_back(chunks: list[NDArray[np.float32]]) -> Iterator[NDArray[np.float32]]:
    """Yield each chunk and forget it: joined, the sound takes its memory once."""
    chunks.reverse()
    while chunks:
        yield chunks.pop()


def _chunks(sound: "soundfile.SoundFile", on_end: Note | None) -> Iterator[NDArray[np.float32]]:
    """Decode block by block; where one fails, ``on_end`` is told why, and what was decoded of it comes as the last."""
    import soundfile

    is_last = False
    while not is_last:
        # Given to be filled, so that what precedes a failure can be told from what follows it: no sample is NaN.
        block = np.full((BLOCK_FRAMES, sound.channels), np.nan, np.float32)
        try:
            count = len(sound.read(out=block))
        except soundfile.LibsndfileError as error:
            if on_end is None:
                raise
            on_end(f"the decoder failed there: {error.error_string}")
            unfilled = np.isnan(block[:, 0])
            count, is_last = int(unfilled.argmax()) if unfilled.any() else BLOCK_FRAMES, True
        if not count:
            return
        mono = downmixed(block[:count])
        # Both are NaN where there is one.
        if not (mono.min() >= -FLOAT32_MAX and mono.max() <= FLOAT32_MAX):
            raise DecodeError("the sound holds NaN or infinity")
        yield mono.astype(np.float32)


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


def _length_is_exact(data: Source, frames: int) -> bool:
    """Whether the header states the length; an MP3 without a Xing or Info header, or a piped FLAC, does not."""
    if frames >= UNKNOWN_FRAMES:
        return False
    is_mpeg = data[:4] not in (b"RIFF", b"RIFX", b"RF64", b"riff", b"fLaC", b"OggS", b"FORM", b"caff", b".snd")
    return not is_mpeg or any(tag in data[: 1 << 18] for tag in (b"Xing", b"Info"))
