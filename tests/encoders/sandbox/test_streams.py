"""Long sounds taken piece by piece: the same blocks as of the whole, in the process and out of it."""

import io
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from trivium.encoders import DecodeError
from trivium.encoders.audio.backbone import AudioBackbone
from trivium.encoders.audio.log_mel import PEAK, RATE_HZ, LogMel, resampled_chunks
from trivium.encoders.audio.on_gpu import BLOCK_HOP_SAMPLES, BLOCK_SAMPLES, BLOCKS_PER_PART, FULL_SCALE, Samples
from trivium.encoders.decoding.sounds import STREAM_FRAMES, decode_audio, scan_audio, whole
from trivium.encoders.sandbox.limits import Limits
from trivium.encoders.sandbox.pool import DecodeSandbox
from trivium.encoders.sandbox.streams import SoundStream


class Nothing:
    """No network: only the front end is used."""

    device = "cpu"

    def __call__(self, *inputs: NDArray[np.float32]) -> tuple[NDArray[np.float32], ...]:
        raise AssertionError("not to be run")


@pytest.fixture(scope="module")
def aisfx() -> AudioBackbone:
    return AudioBackbone(Nothing(), LogMel())


def sweep(frames: int, rate_hz: int) -> NDArray[np.float32]:
    t = np.arange(frames) / rate_hz
    noise = np.random.default_rng(0).standard_normal(frames)
    return (0.3 * np.sin(2 * np.pi * (200 + 100 * np.sin(t)) * t) + 0.02 * noise).astype(np.float32)


def pieces(waveform: NDArray[np.float32], size: int) -> Iterator[NDArray[np.float32]]:
    return (waveform[start : start + size] for start in range(0, len(waveform), size))


@pytest.mark.parametrize("rate_hz", [RATE_HZ, 48_000, 22_050, 8_000, 44_101, 96_000])
@pytest.mark.parametrize("seconds", [2.4, 7.3])  # a stream is never shorter than a block
def test_blocks_of_a_stream_are_those_of_the_whole(aisfx: AudioBackbone, rate_hz: int, seconds: float) -> None:
    waveform = sweep(int(seconds * rate_hz), rate_hz)
    (expected,) = aisfx.blocks((waveform.copy(), rate_hz))
    stream = SoundStream(len(waveform), rate_hz, float(np.abs(waveform).max()), pieces(waveform, 30_011))
    blocks = list(aisfx.blocks(stream))
    found = np.concatenate(blocks)
    assert found.shape == expected.shape
    # A stream's level is taken before resampling, which moves the peak a little, and so all numbers alike.
    tolerance = 1e-5 if rate_hz == RATE_HZ else 0.02
    np.testing.assert_allclose(found, expected, atol=tolerance)
    assert np.std(found - expected) < tolerance / 3


@pytest.mark.parametrize("rate_hz", [RATE_HZ, 48_000, 8_000])
@pytest.mark.parametrize(("seconds", "blocks"), [(2.4, 1), (160.0, 136)])
def test_samples_of_a_stream_are_those_of_the_whole(rate_hz: int, seconds: float, blocks: int) -> None:
    waveform = sweep(int(seconds * rate_hz), rate_hz)
    front_end = Samples()
    peak = float(np.abs(waveform).max())
    whole_sound = front_end.whole(waveform.copy(), rate_hz)
    stream = SoundStream(len(waveform), rate_hz, peak, pieces(waveform, 100_003))
    found = list(front_end.parts(stream))
    parts = [front_end.count(part) for part in found]
    assert sum(parts) == blocks == front_end.count(whole_sound)
    assert all(count >= BLOCKS_PER_PART for count in parts[:-1])
    loudest = max(int(np.abs(part.astype(np.int32)).max()) for part in found)
    assert 0.9 * FULL_SCALE < loudest <= FULL_SCALE
    gain = 1.0 if rate_hz == RATE_HZ else _gain(found[0], whole_sound)
    start = 0
    for part, count in zip(found, parts, strict=True):
        length = (count - 1) * BLOCK_HOP_SAMPLES + BLOCK_SAMPLES
        same = part[:length] * gain - whole_sound[start * BLOCK_HOP_SAMPLES :][:length]
        assert np.abs(same).max() <= (
            1 if rate_hz == RATE_HZ else 0.03 * FULL_SCALE
        )  # what rises above the peak is cut
        assert np.abs(same).mean() < 2
        start += count


def _gain(part: NDArray[np.int16], whole_sound: NDArray[np.int16]) -> float:
    """A stream's level is taken before resampling, which moves the peak a little."""
    a, b = part.astype(np.float64), whole_sound[: len(part)].astype(np.float64)
    return float(a @ b / (a @ a))


@settings(max_examples=20)
@given(st.sampled_from([48_000, 32_000, 11_025, 96_000]), st.integers(1, 2000), st.integers(1, 2_000_000))
def test_resampling_in_pieces_is_resampling(rate_hz: int, size_hint: int, frames: int) -> None:
    from torchaudio.functional import resample

    frames = min(frames, 700_000)
    waveform = sweep(frames, rate_hz)
    expected = whole_resampled = resample(torch.from_numpy(waveform), rate_hz, RATE_HZ).numpy()
    found = np.concatenate([piece.numpy() for piece in resampled_chunks(pieces(waveform, 1000 + size_hint), rate_hz)])
    assert abs(len(found) - len(whole_resampled)) <= 1  # where the end falls between two samples
    n = min(len(found), len(expected))
    np.testing.assert_allclose(found[:n], expected[:n], atol=2e-6)


def test_the_level_of_a_stream(aisfx: AudioBackbone) -> None:
    """Quiet and loud are the same sound, as for a whole one."""
    waveform = sweep(3 * RATE_HZ, RATE_HZ)
    found = []
    for gain in (1.0, 0.01):
        peak = float(np.abs(waveform).max()) * gain
        found.append(
            np.concatenate(list(aisfx.blocks(SoundStream(len(waveform), RATE_HZ, peak, iter([waveform * gain])))))
        )
    np.testing.assert_allclose(found[0], found[1], atol=1e-5)
    assert PEAK < 1


def encoded(waveform: NDArray[np.float32], rate_hz: int, kind: str = "FLAC") -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, waveform, rate_hz, format=kind)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["WAV", "FLAC", "OGG", "MP3"])
def test_a_sound_scanned_without_keeping_it_is_the_sound(kind: str) -> None:
    data = encoded(sweep(100_000, 8_000), 8_000, kind)
    expected, rate_hz = decode_audio(data)
    scanned = scan_audio(data, max_seconds=60, keep_frames=0)
    found, _ = whole(scanned)
    np.testing.assert_array_equal(found, expected)
    assert (scanned.frames, scanned.rate_hz, scanned.peak) == (len(expected), rate_hz, float(np.abs(expected).max()))


@pytest.fixture(scope="module")
def long_sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An hour and a bit at 8 kHz: more samples than are held in memory."""
    path = tmp_path_factory.mktemp("long") / "long.flac"
    minute = sweep(8_000 * 60, 8_000)
    with soundfile.SoundFile(path, "w", 8_000, 1, format="FLAC") as file:
        left = STREAM_FRAMES + 12_345
        while left:
            part = minute[:left]
            file.write(part)
            left -= len(part)
    return path


def test_a_long_sound_is_streamed_from_its_file(long_sound: Path) -> None:
    with DecodeSandbox(1) as sandbox, open(long_sound, "rb") as file:
        stream = sandbox.sound(file.fileno())
        assert isinstance(stream, SoundStream)
        (busy,) = sandbox.pids
        chunks = iter(stream.chunks)
        first = next(chunks)
        # The stream has a worker of its own: others are decoded meanwhile.
        waveform, rate_hz = sandbox.sound(encoded(sweep(900, 8_000), 8_000))  # type: ignore[misc]
        assert (len(waveform), rate_hz) == (900, 8_000)
        assert len(sandbox.pids) == 2
        assert busy in sandbox.pids
        frames, peak = len(first), float(np.abs(first).max())
        for chunk in chunks:
            frames += len(chunk)
            peak = max(peak, float(np.abs(chunk).max()))
        assert (stream.frames, stream.rate_hz) == (STREAM_FRAMES + 12_345, 8_000) == (frames, 8_000)
        assert stream.peak == pytest.approx(peak)
        np.testing.assert_allclose(first[:1000], sweep(1000, 8_000), atol=1e-4)


def test_a_stream_that_is_given_up_ends_its_worker(long_sound: Path) -> None:
    with DecodeSandbox(1) as sandbox, open(long_sound, "rb") as file:
        stream = sandbox.sound(file.fileno())
        assert isinstance(stream, SoundStream)
        stream.close()
        assert sandbox.pids == []
        assert list(stream.chunks) == []


def test_a_worker_that_dies_in_the_middle_costs_the_stream(long_sound: Path) -> None:
    with DecodeSandbox(1) as sandbox, open(long_sound, "rb") as file:
        stream = sandbox.sound(file.fileno())
        assert isinstance(stream, SoundStream)
        chunks = iter(stream.chunks)
        next(chunks)
        os.kill(sandbox.pids[0], 9)
        with pytest.raises(DecodeError, match="the decoder was killed"):
            list(chunks)
        assert sandbox.pids == []


def test_damage_is_found_before_anything_is_streamed(long_sound: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.flac"
    data = long_sound.read_bytes()
    cut.write_bytes(data[: len(data) // 2])
    with (
        DecodeSandbox(1) as sandbox,
        open(cut, "rb") as file,
        pytest.raises(DecodeError, match=r"truncated|damaged|decoded"),
    ):
        sandbox.sound(file.fileno())


def test_what_takes_too_long_to_scan(long_sound: Path) -> None:
    limits = Limits(audio_seconds=0.01, bytes_per_second=1e12, patience=1.0)
    with DecodeSandbox(1, limits=limits) as sandbox, open(long_sound, "rb") as file:
        with pytest.raises(DecodeError, match="took longer than"):
            sandbox.sound(file.fileno())
