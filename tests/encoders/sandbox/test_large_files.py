"""Files that are larger than the memory a worker may have: read where they are needed, by every kind of decoder."""

import struct
import time
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from trivium.encoders.base import DecodeError
from trivium.encoders.sandbox.limits import Limits
from trivium.encoders.sandbox.pool import DecodeSandbox
from trivium.encoders.sandbox.streams import SoundStream

GIB = 1 << 30


def write_sparse(path: Path, start: bytes, size: int, *, end: bytes = b"") -> None:
    """Write a file of which the most is a hole: decoders see zeros."""
    with path.open("wb") as file:
        file.write(start)
        file.truncate(size - len(end))
        file.seek(size - len(end))
        file.write(end)


def wave_header(size: int, *, channels: int, rate_hz: int) -> bytes:
    """Of float64 samples."""
    frame = 8 * channels
    form = struct.pack("<IHHIIHH", 16, 3, channels, rate_hz, rate_hz * frame, frame, 64)
    return b"RIFF" + struct.pack("<I", 36 + size) + b"WAVEfmt " + form + b"data" + struct.pack("<I", size)


@pytest.fixture(scope="module")
def videos(request: pytest.FixtureRequest) -> ModuleType:
    pytest.importorskip("av", reason="PyAV comes with the extra 'video'")
    found: ModuleType = request.getfixturevalue("reference")("videos")
    return found


@pytest.mark.parametrize("before", [False, True], ids=["behind", "before"])
def test_a_video_with_two_gib_of_free_room(videos: ModuleType, tmp_path: Path, before: bool) -> None:
    data = videos.video(scenes=[("red", 2.0), ("green", 2.0)], sound="aac")
    free = struct.pack(">I4sQ", 1, b"free", 2 * GIB)
    path = tmp_path / "large.mp4"
    if before:  # as where an editor left room; the index says where the samples were, so it is moved too
        write_sparse(path, free, 2 * GIB, end=b"")
        with path.open("ab") as file:
            file.write(_moved(data, 2 * GIB))
    else:
        write_sparse(path, data + free, len(data) + 2 * GIB)
    assert path.stat().st_size == len(data) + 2 * GIB
    with DecodeSandbox(1) as sandbox, path.open("rb") as file:
        decoded = sandbox.video(file.fileno(), np.copy)
        expected = sandbox.video(data, np.copy)
    assert [seconds for seconds, _ in decoded.frames] == [0.0, 2.0]
    for (_, found), (_, whole) in zip(decoded.frames, expected.frames, strict=True):
        np.testing.assert_array_equal(found, whole)
    assert isinstance(decoded.sound, tuple)
    assert isinstance(expected.sound, tuple)
    np.testing.assert_array_equal(decoded.sound[0], expected.sound[0])


def _moved(data: bytes, by: int) -> bytes:
    """Add to the places of samples in an index, which have 32 bits: `stco` of ISO/IEC 14496-12."""
    moved, at = bytearray(data), 0
    while (at := data.find(b"stco", at + 1)) >= 0:
        count = int.from_bytes(data[at + 8 : at + 12])
        for place in range(at + 12, at + 12 + 4 * count, 4):
            moved[place : place + 4] = (int.from_bytes(data[place : place + 4]) + by).to_bytes(4)
    return bytes(moved)


def test_a_sound_behind_two_and_a_half_gib_of_other_chunks(tmp_path: Path) -> None:
    path = tmp_path / "large.wav"
    samples = np.linspace(-1, 1, 4000)
    header = wave_header(samples.nbytes, channels=1, rate_hz=8000)
    before, data = header[:36], header[36:]
    junk = b"JUNK" + struct.pack("<I", 5 * GIB // 4)  # libsndfile passes over no larger chunk than 2 GiB
    size = len(header) + 2 * (len(junk) + 5 * GIB // 4) + samples.nbytes
    write_sparse(path, before + junk, size, end=data + samples.tobytes())
    with path.open("r+b") as file:
        file.seek(len(before) + len(junk) + 5 * GIB // 4)
        file.write(junk)
    with DecodeSandbox(1) as sandbox, path.open("rb") as file:
        sound = sandbox.sound(file.fileno())
    assert isinstance(sound, tuple)
    np.testing.assert_allclose(sound[0], samples, atol=1e-6)


@pytest.mark.slow  # 8 s each
@pytest.mark.parametrize(
    "limits", [Limits(), Limits(memory_bytes=512 << 20)], ids=["the usual limits", "a quarter of the memory"]
)
def test_a_sound_of_two_and_a_half_gib(tmp_path: Path, limits: Limits) -> None:
    channels, rate_hz, samples = 64, 8000, 5 * GIB // 2 // 512
    path = tmp_path / "large.wav"
    end = np.repeat(np.linspace(-1, 1, 4000), channels).tobytes()
    header = wave_header(512 * samples, channels=channels, rate_hz=rate_hz)
    write_sparse(path, header, len(header) + 512 * samples, end=end)
    assert path.stat().st_size > 2.5 * GIB
    with DecodeSandbox(1, limits=limits) as sandbox, path.open("rb") as file:
        sound = sandbox.sound(file.fileno())
    assert isinstance(sound, tuple)
    waveform, found_hz = sound
    assert (len(waveform), found_hz) == (samples, rate_hz)
    assert not waveform[:-4000].any()
    np.testing.assert_allclose(waveform[-4000:], np.linspace(-1, 1, 4000), atol=1e-6)


@pytest.mark.slow  # 15 s: it is decoded twice
def test_a_sound_of_two_and_a_half_gib_that_is_streamed(tmp_path: Path) -> None:
    samples, rate_hz = 5 * GIB // 2 // 8, 44_100
    path = tmp_path / "long.wav"
    end = np.linspace(-1, 1, 4000).tobytes()
    header = wave_header(8 * samples, channels=1, rate_hz=rate_hz)
    write_sparse(path, header, len(header) + 8 * samples, end=end)
    with DecodeSandbox(1) as sandbox, path.open("rb") as file:
        sound = sandbox.sound(file.fileno())
        assert isinstance(sound, SoundStream)
        assert (sound.frames, sound.rate_hz, sound.peak) == (samples, rate_hz, 1.0)
        *_, last = sound.chunks
    np.testing.assert_allclose(last[-4000:], np.linspace(-1, 1, 4000), atol=1e-6)


def test_a_picture_is_read_in_pieces(tmp_path: Path) -> None:
    """A file that does not fit into the memory of its worker, of which a tenth is the picture."""
    path = tmp_path / "large.bmp"
    pixels = np.random.default_rng(0).integers(0, 255, (600, 500, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    with path.open("ab") as file:
        file.truncate(300 << 20)
    with DecodeSandbox(1, limits=Limits(memory_bytes=256 << 20)) as sandbox, path.open("rb") as file:
        np.testing.assert_array_equal(sandbox.decode("image", file.fileno()), pixels)


def test_a_large_file_that_is_no_media_is_refused_at_once(tmp_path: Path) -> None:
    path = tmp_path / "hole"
    for magic in (b"OggS", b"fLaC", b"RIFF\0\0\0\0WAVE", b"ID3"):
        write_sparse(path, magic, 3 * GIB)
        started = time.monotonic()
        with DecodeSandbox(1) as sandbox, path.open("rb") as file, pytest.raises(DecodeError) as error:
            sandbox.sound(file.fileno())
        assert "crashed" not in error.value.reason
        assert time.monotonic() - started < 30
