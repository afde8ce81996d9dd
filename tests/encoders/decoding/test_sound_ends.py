"""Lengths that a sound's header says wrongly, or leaves open."""

import struct
from pathlib import Path

import numpy as np
import pytest

from trivium.encoders.base import DecodeError
from trivium.encoders.decoding.sound_ends import what_is_missing, with_its_length
from trivium.encoders.decoding.sounds import decode_audio, scan_audio
from trivium.encoders.decoding.sources import FileBytes

SAMPLES = (np.sin(np.arange(3000) / 9) * 20_000).astype("<i2")


def wave(size: int, content: bytes, *, magic: bytes = b"RIFF", order: str = "<") -> bytes:
    """16 bits, one channel, 8 kHz; the header says that the sound has ``size`` bytes."""
    form = struct.pack(f"{order}IHHIIHH", 16, 1, 1, 8000, 16_000, 2, 16)
    return (
        magic + struct.pack(f"{order}I", 36) + b"WAVEfmt " + form + b"data" + struct.pack(f"{order}I", size) + content
    )


@pytest.mark.parametrize("size", [0, 0xFFFF_FFFF])
@pytest.mark.parametrize("magic", [b"RIFF", b"RIFX"])
def test_a_length_of_nothing_or_all_ones_means_to_the_end(size: int, magic: bytes) -> None:
    order = ">" if magic == b"RIFX" else "<"
    notes = list[str]()
    data = wave(size, SAMPLES.astype(f"{order}i2").tobytes(), magic=magic, order=order)
    found, rate_hz = decode_audio(data, note=notes.append)
    assert rate_hz == 8000
    np.testing.assert_allclose(found, SAMPLES / 32_768, atol=1e-6)
    told = ["its header says that it holds no sound: the 6,000 bytes behind the header are taken for it"]
    assert notes == ([] if size else told)


def test_the_same_of_a_file_that_is_not_held(tmp_path: Path) -> None:
    path = tmp_path / "recorder.wav"
    path.write_bytes(wave(0, SAMPLES.tobytes()))
    with path.open("rb") as file:
        sound = scan_audio(FileBytes(file.fileno(), path.stat().st_size), max_seconds=9, keep_frames=0)
        np.testing.assert_allclose(np.concatenate(list(sound.chunks())), SAMPLES / 32_768, atol=1e-6)


@pytest.mark.parametrize(
    "behind",
    [b"", b"\0", b"LIST" + struct.pack("<I", 4) + b"INFO", b"id3 " + struct.pack("<I", 3) + b"abc\0" + b"cue \0\0\0\0"],
    ids=["nothing", "a byte to make it even", "a list", "two chunks"],
)
def test_chunks_behind_an_empty_sound_are_no_sound(behind: bytes) -> None:
    data = wave(0, behind)
    assert with_its_length(data) == (data, "")
    with pytest.raises(DecodeError, match="the sound holds no samples"):
        decode_audio(data)


@pytest.mark.parametrize(
    ("data", "missing"),
    [
        (wave(6000, SAMPLES.tobytes()), ""),
        (wave(6002, SAMPLES.tobytes()), "the header says 6,002 bytes of sound, 6,000 are there"),
        (wave(0, b"")[:36], "the WAV file has no data"),
        (b"OggS" + bytes(30), "the Ogg stream has no last page"),
        (b"OggS\0\4" + bytes(20) + b"\3\7\7\7" + bytes(20), "the last Ogg page is cut off"),
        (b"OggS\0\4" + bytes(20) + b"\3\7\7\7" + bytes(21), ""),
        (b"fLaC", ""),
    ],
)
def test_what_is_missing(data: bytes, missing: str) -> None:
    assert what_is_missing(data) == missing
