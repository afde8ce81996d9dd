"""Sound files to a mono waveform: any rate and channel count, bounded before allocation, damage noticed."""

import io

import numpy as np
import soundfile
from numpy.typing import NDArray

from trivium.encoders.base import DecodeError

MAX_SECONDS = 1800.0
MAX_CHANNELS = 64
RATES_HZ = (1_000, 768_000)
# What libsndfile may parse; its rarer formats (MAT4, SD2, IMA ADPCM ...) have had memory-safety faults.
FORMATS = {"WAV", "WAVEX", "RF64", "FLAC", "OGG", "MP3", "MPEG"}
SUBTYPES = {
    *("PCM_U8", "PCM_S8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW"),
    *("VORBIS", "OPUS", "MPEG_LAYER_I", "MPEG_LAYER_II", "MPEG_LAYER_III"),
}
BLOCK_FRAMES = 1 << 18


def decode_audio(data: bytes) -> tuple[NDArray[np.float32], int]:
    """Decode a sound file's bytes to one channel, the mean of all.

    Returns:
        The waveform, shape (s,), and its rate in Hz.

    Raises:
        DecodeError: If the content is no known sound, damaged, truncated, empty, not finite, or over a limit.
    """
    _check_complete(data)
    try:
        with soundfile.SoundFile(io.BytesIO(data)) as sound:
            _check_header(sound)
            blocks = []
            for block in sound.blocks(BLOCK_FRAMES, dtype="float32", always_2d=True):
                if not np.isfinite(block).all():
                    raise DecodeError("the sound holds NaN or infinity")
                blocks.append(block.mean(axis=1, dtype=np.float32))
            expected, rate = sound.frames, sound.samplerate
    except DecodeError:
        raise
    except soundfile.LibsndfileError as error:
        raise DecodeError(f"not a sound that can be decoded: {error.error_string}") from error
    except Exception as error:
        raise DecodeError(f"damaged sound: {error or type(error).__name__}") from error
    waveform = np.concatenate(blocks) if blocks else np.empty(0, np.float32)
    if not len(waveform):
        raise DecodeError("the sound holds no samples")
    if len(waveform) < expected:
        raise DecodeError(f"truncated: the header says {expected / rate:.2f} s, {len(waveform) / rate:.2f} s are there")
    return waveform, rate


def _check_header(sound: soundfile.SoundFile) -> None:
    if sound.format not in FORMATS or sound.subtype not in SUBTYPES:
        raise DecodeError(f"a kind of sound that is not read: {sound.format} with {sound.subtype}")
    if not 1 <= sound.channels <= MAX_CHANNELS:
        raise DecodeError(f"{sound.channels} channels, the limit is {MAX_CHANNELS}")
    if not RATES_HZ[0] <= sound.samplerate <= RATES_HZ[1]:
        raise DecodeError(f"a sample rate of {sound.samplerate} Hz, known are {RATES_HZ[0]} to {RATES_HZ[1]}")
    seconds = sound.frames / sound.samplerate
    if seconds > MAX_SECONDS:
        raise DecodeError(f"too long: {seconds:,.0f} s, the limit is {MAX_SECONDS:,.0f} s; cut it into parts")


def _check_complete(data: bytes) -> None:
    """Notice a cut-off file where libsndfile would quietly return what is left."""
    if data[:4] == b"RIFF" and data[8:12] == b"WAVE":
        _check_wave(data)
    elif data[:4] == b"OggS":
        last = data.rfind(b"OggS")
        # Byte 5 of a page header holds its flags, 4 is "end of stream" (RFC 3533).
        if last + 27 > len(data) or not data[last + 5] & 4:
            raise DecodeError("truncated: the Ogg stream has no last page")
        segments = data[last + 26]
        table = data[last + 27 : last + 27 + segments]
        if last + 27 + segments + sum(table) > len(data):
            raise DecodeError("truncated: the last Ogg page is cut off")


def _check_wave(data: bytes) -> None:
    position = 12
    while position + 8 <= len(data):
        name, size = (
            data[position : position + 4],
            int.from_bytes(data[position + 4 : position + 8], "little"),
        )
        position += 8
        if name == b"data":
            # Recorders that stream leave 0 or all ones, and mean "to the end of the file".
            if size not in (0, 0xFFFFFFFF) and position + size > len(data):
                raise DecodeError(
                    f"truncated: the header says {size:,} bytes of sound, {len(data) - position:,} are there"
                )
            return
        position += size + size % 2
    raise DecodeError("truncated: the WAV file has no data")
