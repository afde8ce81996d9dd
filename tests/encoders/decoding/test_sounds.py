"""Sound files of every format, rate and state of damage: the right samples, or a DecodeError, and nothing else."""

import io
import struct
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import soundfile
from numpy.testing import assert_allclose
from numpy.typing import NDArray

from trivium.encoders import DecodeError
from trivium.encoders.decoding import sounds as audio_decoding
from trivium.encoders.decoding.sounds import decode_audio, scan_audio

# Format -> the largest error of a sample that its number of bits or its codec explains.
LOSSLESS = {
    ("WAV", "PCM_U8"): 1 / 128,
    ("WAV", "PCM_16"): 1e-4,
    ("WAV", "PCM_24"): 1e-6,
    ("WAV", "PCM_32"): 1e-6,
    ("WAV", "FLOAT"): 1e-7,
    ("WAV", "DOUBLE"): 1e-7,
    ("WAV", "ULAW"): 0.02,
    ("WAV", "ALAW"): 0.02,
    ("WAVEX", "PCM_16"): 1e-4,
    ("RF64", "PCM_16"): 1e-4,
    ("FLAC", "PCM_16"): 1e-4,
    ("FLAC", "PCM_24"): 1e-6,
}


def tone(count: int = 8000, channels: int = 1) -> NDArray[np.float32]:
    """Channel c is a sine of amplitude 0.5 / (c + 1)."""
    times = np.arange(count)[:, np.newaxis]
    made: NDArray[np.float32] = (np.sin(times * 0.05) * 0.5 / np.arange(1, channels + 1)).astype(np.float32)
    return made


def encoded(
    samples: NDArray[Any], kind: str, subtype: str | None = None, *, rate: int = 16_000, **options: Any
) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format=kind, subtype=subtype, **options)
    return buffer.getvalue()


def noise(count: int) -> NDArray[np.float32]:
    made: NDArray[np.float32] = 0.3 * np.random.default_rng(0).standard_normal(count, dtype=np.float32)
    return made


def mp3(count: int = 22_050, *, header: bool = True) -> bytes:
    """A constant-rate MP3, with or without the Info header that says how many frames there are."""
    level = 0.5 if header else 0.9  # at the lowest rate LAME has no room for the header
    made = encoded(noise(count), "MP3", rate=22_050, bitrate_mode="CONSTANT", compression_level=level)
    assert (b"Info" in made[:100]) == header
    return made


def wave(size: int, content: bytes = b"", *, rate: int = 44_100, bits: int = 16, channels: int = 1) -> bytes:
    """A WAV file by hand whose header says that there are ``size`` bytes of sound."""
    frame = channels * bits // 8
    form = struct.pack("<IHHIIHH", 16, 1, channels, rate, (rate * frame) & 0xFFFFFFFF, frame, bits)
    body = b"WAVEfmt " + form + b"data" + struct.pack("<I", size) + content
    return b"RIFF" + struct.pack("<I", (36 + size) & 0xFFFFFFFF) + body


# Formats


@pytest.mark.parametrize(("kind", "subtype"), LOSSLESS)
def test_lossless(kind: str, subtype: str) -> None:
    samples = tone()
    found, rate = decode_audio(encoded(samples, kind, subtype))
    assert found.dtype == np.float32
    assert rate == 16_000
    assert_allclose(found, samples[:, 0], atol=LOSSLESS[kind, subtype])


@pytest.mark.parametrize(("kind", "subtype"), [("OGG", "VORBIS"), ("OGG", "OPUS"), ("MP3", None)])
def test_lossy(kind: str, subtype: str | None) -> None:
    samples = tone(24_000)
    found, rate = decode_audio(encoded(samples, kind, subtype, rate=24_000))
    assert rate == 24_000
    assert len(found) == 24_000
    # A codec may shift phases; loudness and pitch must stay.
    assert_allclose(np.sqrt(np.mean(found**2)), np.sqrt(np.mean(samples**2)), rtol=0.1)
    assert np.abs(np.fft.rfft(found)).argmax() == pytest.approx(np.abs(np.fft.rfft(samples[:, 0])).argmax(), abs=1)


@pytest.mark.parametrize("rate", [8_000, 11_025, 22_050, 44_100, 44_101, 48_000, 96_000, 192_000])
@pytest.mark.parametrize("kind", ["WAV", "FLAC", "OGG"])
def test_rates(kind: str, rate: int) -> None:
    found, told = decode_audio(encoded(tone(4000), kind, rate=rate))
    assert (told, len(found)) == (rate, 4000)


@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100, 48_000])
def test_rates_of_mp3(rate: int) -> None:
    found, told = decode_audio(encoded(tone(20_000), "MP3", rate=rate))
    assert (told, len(found)) == (rate, 20_000)


@pytest.mark.parametrize("channels", [1, 2, 6, 64])
def test_channels_are_averaged(channels: int) -> None:
    samples = tone(1000, channels)
    found, _ = decode_audio(encoded(samples, "WAV", "FLOAT"))
    assert_allclose(found, samples.astype(np.float64).mean(axis=1), atol=1e-6)


@pytest.mark.parametrize("kind", ["FLAC", "OGG"])
def test_six_channels_of_other_formats(kind: str) -> None:
    samples = tone(8000, 6)
    found, _ = decode_audio(encoded(samples, kind))
    assert_allclose(found, samples.mean(axis=1), atol=1e-4 if kind == "FLAC" else 0.1)


def test_opposite_channels_are_no_silence() -> None:
    left = tone()
    found, _ = decode_audio(encoded(np.hstack([left, -left]), "WAV", "FLOAT"))
    assert_allclose(found, left[:, 0], atol=1e-6)


@pytest.mark.parametrize(("kind", "subtype"), [("OGG", "VORBIS"), ("OGG", "OPUS"), ("MP3", None), ("FLAC", None)])
def test_opposite_channels_of_other_formats(kind: str, subtype: str | None) -> None:
    """A codec adds noise of its own to the middle, which must not be taken for the sound."""
    left = tone(48_000)
    found, _ = decode_audio(encoded(np.hstack([left, -left]), kind, subtype, rate=48_000))
    assert_allclose(np.sqrt(np.mean(found**2)), np.sqrt(np.mean(left**2)), rtol=0.1)


def test_only_the_stretch_whose_phases_are_opposite_is_not_averaged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audio_decoding, "BLOCK_FRAMES", 1000)
    sound = noise(3000)
    other = np.concatenate([sound[:1000], -sound[1000:2000], sound[2000:] / 3])
    found, _ = decode_audio(encoded(np.stack([sound, other], axis=1), "WAV", "FLOAT"))
    assert_allclose(found[:2000], sound[:2000], atol=1e-6)
    assert_allclose(found[2000:], sound[2000:] * 2 / 3, atol=1e-6)


def test_one_sample() -> None:
    found, _ = decode_audio(encoded(tone(2)[1:], "WAV", "FLOAT"))
    assert found.shape == (1,)


def test_longer_than_one_block(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encoded(tone(8000), "FLAC")
    whole, _ = decode_audio(data)
    monkeypatch.setattr(audio_decoding, "BLOCK_FRAMES", 999)
    parts, _ = decode_audio(data)
    assert parts.tolist() == whole.tolist()


def test_other_chunks_before_the_sound() -> None:
    plain = encoded(tone(100), "WAV", "PCM_16")
    at = plain.index(b"data")
    odd = plain[:at] + b"note" + struct.pack("<I", 3) + b"abc\0" + plain[at:]
    assert decode_audio(odd)[0].tolist() == decode_audio(plain)[0].tolist()


def test_length_left_open_by_a_recorder() -> None:
    found, _ = decode_audio(wave(0xFFFFFFFF, tone(100)[:, 0].astype(np.float16).tobytes()))
    assert len(found) == 100


# Damage


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.99])
@pytest.mark.parametrize(
    ("kind", "subtype"), [("WAV", "PCM_16"), ("WAV", "FLOAT"), ("FLAC", None), ("OGG", "VORBIS"), ("OGG", "OPUS")]
)
def test_truncated(kind: str, subtype: str | None, share: float) -> None:
    data = encoded(noise(24_000), kind, subtype, rate=24_000)
    decode_audio(data)
    with pytest.raises(DecodeError, match=r"truncated|lost sync"):
        decode_audio(data[: int(len(data) * share)])


# What is there of a file that is cut off

CUT = {
    "wav": lambda: encoded(noise(144_000), "WAV", rate=24_000),
    "rf64": lambda: encoded(noise(144_000), "RF64", rate=24_000),
    "flac": lambda: encoded(noise(144_000), "FLAC", rate=24_000),
    "vorbis": lambda: encoded(noise(144_000), "OGG", "VORBIS", rate=24_000),
    "opus": lambda: encoded(noise(144_000), "OGG", "OPUS", rate=24_000),
    "mp3": lambda: encoded(noise(144_000), "MP3", rate=24_000),
}


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
@pytest.mark.parametrize("kind", CUT)
def test_what_is_there_of_a_cut_sound_is_taken(kind: str, share: float) -> None:
    data = CUT[kind]()
    whole, rate_hz = decode_audio(data)
    cut, notes = data[: int(share * len(data))], list[str]()
    found, found_hz = decode_audio(cut, partial=True, note=notes.append)
    assert found_hz == rate_hz
    # An Ogg page has up to a second.
    assert share - 0.2 <= len(found) / len(whole) <= share + 0.02
    assert_allclose(found[:-4096], whole[: len(found) - 4096], atol=1e-6)
    (note,) = notes
    assert note.startswith(f"only the first {len(found) / rate_hz:.1f} s")
    if kind in ("flac", "mp3"):  # whose headers say how long it is
        assert " of 6.0 s could be decoded" in note
    with pytest.raises(DecodeError, match=r"truncated|lost sync"):
        decode_audio(cut)


@pytest.mark.parametrize("kind", CUT)
def test_whole_sounds_have_no_note(kind: str) -> None:
    notes = list[str]()
    whole, _ = decode_audio(CUT[kind]())
    found, _ = decode_audio(CUT[kind](), partial=True, note=notes.append)
    assert found.tolist() == whole.tolist()
    assert notes == []


@pytest.mark.parametrize("kind", CUT)
def test_the_same_is_there_when_it_is_decoded_twice(kind: str) -> None:
    data = CUT[kind]()
    cut = data[: len(data) // 2]
    kept = scan_audio(cut, max_seconds=60, keep_frames=1 << 30, partial=True)
    again = scan_audio(cut, max_seconds=60, keep_frames=0, partial=True)
    assert (again.frames, again.peak) == (kept.frames, kept.peak)
    assert np.concatenate(list(again.chunks())).tolist() == np.concatenate(list(kept.chunks())).tolist()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (CUT["wav"]()[:40], "truncated: the WAV file has no data"),
        (CUT["wav"]()[:44], "truncated: the header says 288,000 bytes of sound, 0 are there"),
        (CUT["vorbis"]()[:100], "truncated: the"),
        (CUT["flac"]()[:100], "lost sync|not a sound"),
        (CUT["mp3"]()[:50], "not a sound|truncated"),
    ],
    ids=["wav without data", "wav without samples", "ogg", "flac", "mp3"],
)
def test_where_nothing_is_there_the_reason_is_told(data: bytes, message: str) -> None:
    with pytest.raises(DecodeError, match=message):
        decode_audio(data, partial=True)


def test_damage_further_on_costs_what_follows_it() -> None:
    data = bytearray(CUT["flac"]())
    data[len(data) // 2 : len(data) // 2 + 20_000] = bytes(20_000)
    notes = list[str]()
    found, rate_hz = decode_audio(bytes(data), partial=True, note=notes.append)
    whole, _ = decode_audio(CUT["flac"]())
    assert 0.4 < len(found) / len(whole) < 0.52
    assert notes == [
        f"only the first {len(found) / rate_hz:.1f} s of 6.0 s could be decoded: the decoder failed there: Error : "
        "flac decoder lost sync."
    ]


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_ogg_cut_between_two_pages(subtype: str) -> None:
    data = encoded(noise(48_000), "OGG", subtype, rate=24_000)
    with pytest.raises(DecodeError, match="truncated: the Ogg stream has no last page"):
        decode_audio(data[: data.rindex(b"OggS")])


def test_truncated_wave_says_how_much() -> None:
    with pytest.raises(DecodeError, match="the header says 2,000 bytes of sound, 500 are there"):
        decode_audio(wave(2000, bytes(500)))


@pytest.mark.parametrize("kind", ["RF64", "RIFX"])
def test_truncated_kin_of_wave(kind: str) -> None:
    data = encoded(tone(), "WAV", endian="BIG") if kind == "RIFX" else encoded(tone(), kind)
    assert data[:4] == kind.encode()
    with pytest.raises(DecodeError, match="truncated"):
        decode_audio(data[: len(data) // 2])


@pytest.mark.parametrize("share", [0.3, 0.5, 0.99])
def test_truncated_mp3_with_a_header(share: float) -> None:
    data = mp3()
    assert len(decode_audio(data)[0]) == 22_050
    with pytest.raises(DecodeError, match="truncated"):
        decode_audio(data[: int(len(data) * share)])


@pytest.mark.parametrize("share", [1.0, 0.5])
def test_mp3_without_a_header_gives_what_is_there(share: float) -> None:
    """Without a count of frames a cut cannot be told from the end; what is decoded must come from the file."""
    data = mp3(header=False)
    data = data[: int(len(data) * share)]
    there = 0
    with soundfile.SoundFile(io.BytesIO(data)) as sound:
        while count := len(sound.read(1000)):
            there += count
    assert 10_000 < there < 25_000
    assert len(decode_audio(data)[0]) == there


@pytest.mark.parametrize("make", [lambda: encoded(noise(9000), "FLAC"), mp3, lambda: encoded(noise(9000), "OGG")])
def test_decoding_twice_gives_the_same(make: Callable[[], bytes]) -> None:
    data = make()
    assert decode_audio(data)[0].tolist() == decode_audio(data)[0].tolist()


@pytest.mark.parametrize("kind", ["WAV", "FLAC", "OGG", "MP3", "RF64"])
@pytest.mark.parametrize("length", [1, 4, 8, 12, 20, 36, 43])
def test_only_the_first_bytes(kind: str, length: int) -> None:
    with pytest.raises(DecodeError, match=r"truncated|not a sound"):
        decode_audio(encoded(tone(), kind)[:length])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not a sound that can be decoded"),
        (b"A text that somebody named sound.wav.\n" * 5, "not a sound that can be decoded: Format not recognised"),
        (bytes(1000), "not a sound that can be decoded"),
        (b"RIFF\x24\0\0\0WEBPVP8 " + bytes(40), "not a sound"),
        (wave(0), "the sound holds no samples"),
        (wave(0)[:36], "truncated: the WAV file has no data"),
        (wave(36_000 * 44_100 * 2), "truncated: the header says 3,175,200,000 bytes of sound, 0 are there"),
        (wave(100, bytes(100), rate=0), "not a sound that can be decoded"),
    ],
    ids=["empty", "text", "zeros", "WebP", "header only", "no data chunk", "10 hours in the header", "rate 0"],
)
def test_no_sound(data: bytes, message: str) -> None:
    with pytest.raises(DecodeError, match=message):
        decode_audio(data)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("subtype", ["FLOAT", "DOUBLE"])
def test_not_finite(bad: float, subtype: str) -> None:
    samples = tone(100).astype(np.float64)
    samples[50] = bad
    with pytest.raises(DecodeError, match="the sound holds NaN or infinity"):
        decode_audio(encoded(samples, "WAV", subtype))


def test_not_finite_as_float32() -> None:
    with pytest.raises(DecodeError, match="the sound holds NaN or infinity"):
        decode_audio(encoded(np.full(100, 1e300), "WAV", "DOUBLE"))


def test_loud_channels_do_not_overflow() -> None:
    data = encoded(np.full((100, 2), 3e38, np.float32), "WAV", "FLOAT")
    with np.errstate(over="ignore"):  # NumPy only warns, and only pytest makes that an error
        found, _ = decode_audio(data)
    assert_allclose(found, 3e38, rtol=1e-6)


@pytest.mark.parametrize("kind", ["MAT5", "PAF"])
def test_formats_that_are_not_read(kind: str) -> None:
    with pytest.raises(DecodeError, match=f"a kind of sound that is not read: {kind} with PCM_16"):
        decode_audio(encoded(tone(), kind, "PCM_16"))


@pytest.mark.parametrize("subtype", ["IMA_ADPCM", "MS_ADPCM", "GSM610"])
def test_subtypes_that_are_not_read(subtype: str) -> None:
    with pytest.raises(DecodeError, match=f"a kind of sound that is not read: WAV with {subtype}"):
        decode_audio(encoded(tone(), "WAV", subtype))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (wave(100, bytes(100), rate=999), "a sample rate of 999 Hz, known are 1000 to 768000"),
        (wave(100, bytes(100), rate=768_001), "a sample rate of 768001 Hz, known are 1000 to 768000"),
        (wave(1300, bytes(1300), channels=65), "65 channels, the limit is 64"),
        (
            wave(1_801_000, bytes(1_801_000), rate=1000, bits=8),
            r"too long: 1,801 s \(1,801,000 samples a channel\), the limit is 1,800 s",
        ),
    ],
)
def test_limits(data: bytes, message: str) -> None:
    with pytest.raises(DecodeError, match=message):
        decode_audio(data)


def test_limits_are_inclusive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audio_decoding, "MAX_SECONDS", 1.0)
    assert len(decode_audio(wave(2000, bytes(2000), rate=1000))[0]) == 1000
    with pytest.raises(DecodeError, match=r"too long: 1 s \(1,001 samples a channel\), the limit is 1 s"):
        decode_audio(wave(2002, bytes(2002), rate=1000))


def test_flac_of_open_length_is_not_called_too_long() -> None:
    """A FLAC written to a pipe has 0 in the 36 bits of its frame count: unknown (RFC 9639, section 8.2)."""
    data = bytearray(encoded(tone(), "FLAC"))
    data[21] &= 0xF0
    data[22:26] = bytes(4)
    reason = ""
    try:
        decode_audio(bytes(data))
    except DecodeError as error:
        reason = error.reason
    assert "too long" not in reason


@pytest.mark.parametrize(
    ("kind", "subtype"),
    [("WAV", "PCM_16"), ("WAV", "FLOAT"), ("RF64", "PCM_16"), ("FLAC", None), ("OGG", "VORBIS"), ("MP3", None)],
)
def test_mutants_are_decoded_or_refused(
    kind: str, subtype: str | None, reference: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audio_decoding, "MAX_SECONDS", 60.0)  # a mutant may claim any length
    data = encoded(noise(6000), kind, subtype)
    refused = 0
    for mutant in [data, *reference("mutants").mutants(data, seed=len(kind))]:
        try:
            found, _ = decode_audio(mutant)
        except DecodeError:
            refused += 1
        else:
            assert found.ndim == 1
            assert len(found) > 0
            assert np.isfinite(found).all()
    assert 0 < refused < 61
