"""Every kind of sound and video by its suffix: real files, made by libsndfile and FFmpeg, decoded in the sandbox."""

import io
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import soundfile

from trivium.encoders.base import DecodeError
from trivium.encoders.sandbox.heads import HEAD_BYTES, require_known_head
from trivium.encoders.sandbox.pool import DecodeSandbox
from trivium.encoders.sandbox.streams import SoundStream
from trivium.pipeline.suffixes import SUFFIXES

TONE_HZ = 440.0
SNDFILE: dict[str, list[tuple[str, str]]] = {
    ".aiff": [("AIFF", "PCM_16"), ("AIFF", "PCM_24")],
    ".aif": [("AIFF", "FLOAT")],
    ".aifc": [("AIFF", "ULAW")],
    ".caf": [("CAF", "PCM_16"), ("CAF", "ALAC_16"), ("CAF", "ALAC_24")],
    ".w64": [("W64", "PCM_16"), ("W64", "PCM_24")],
    ".au": [("AU", "PCM_16"), ("AU", "ULAW")],
    ".opus": [("OGG", "OPUS")],
    ".oga": [("OGG", "VORBIS")],
    ".ogg": [("OGG", "VORBIS")],
    ".wav": [("WAV", "PCM_16"), ("RF64", "PCM_24")],
    ".flac": [("FLAC", "PCM_24")],
    ".mp3": [("MP3", "MPEG_LAYER_III")],
}
TRACKS = {
    ".m4a": [("m4a", "aac"), ("m4a", "alac")],
    ".aac": [("aac", "aac")],
    ".wma": [("wma", "wmav2"), ("wma", "wmav1")],
    ".mp2": [("mp2", "mp2")],
}
VIDEOS: dict[str, list[dict[str, Any]]] = {
    ".avi": [{"codec": "mpeg4", "sound": "libmp3lame"}, {"codec": "mjpeg", "pixels": "yuvj420p", "sound": "pcm_s16le"}],
    ".wmv": [{"codec": "wmv2", "sound": "wmav2"}, {"codec": "msmpeg4", "sound": "wmav1"}],
    ".mts": [{"codec": "libx264", "sound": "ac3"}],
    ".m2ts": [{"codec": "libx264", "sound": "ac3"}],
    ".ts": [{"codec": "mpeg2video", "sound": "mp2", "fps": 25}],
    ".mpg": [{"codec": "mpeg2video", "sound": "mp2", "fps": 25}],
    ".mpeg": [{"codec": "mpeg1video", "sound": "mp2", "fps": 25}],
    ".3gp": [{"codec": "h263", "size": (176, 144), "sound": "aac", "fps": 25}, {"codec": "libx264", "sound": "aac"}],
    ".mp4": [{"codec": "libx264", "sound": "aac"}],
    ".m4v": [{"codec": "libx264"}],
    ".mov": [{"kind": "mov", "codec": "libx264", "sound": "pcm_s16le"}],
    ".mkv": [{"codec": "libx264", "sound": "flac"}],
    ".webm": [{"codec": "libvpx-vp9", "sound": "libopus", "rate_hz": 48_000}],
}
SCENES = [("red", 1.0), ("blue", 1.0)]


@pytest.fixture(scope="module")
def sandbox() -> Iterator[DecodeSandbox]:
    with DecodeSandbox(1) as pool:
        yield pool


@pytest.fixture
def videos(reference: Callable[[str], ModuleType]) -> ModuleType:
    return reference("videos")


def loudest_hz(sound: Any) -> float:
    waveform, rate_hz = sound
    return float(np.fft.rfftfreq(len(waveform), 1 / rate_hz)[np.abs(np.fft.rfft(waveform)).argmax()])


def sndfile_sound(form: str, subtype: str, seconds: float = 1.0) -> bytes:
    rate_hz = 48_000
    tone = 0.5 * np.sin(2 * np.pi * TONE_HZ * np.arange(round(seconds * rate_hz)) / rate_hz)
    file = io.BytesIO()
    soundfile.write(file, np.stack([tone, tone], axis=1), rate_hz, format=form, subtype=subtype)
    return file.getvalue()


def test_every_suffix_of_sounds_and_videos_is_tried_here() -> None:
    named = {suffix for suffix, kind in SUFFIXES.items() if kind in ("audio", "video")}
    assert named == SNDFILE.keys() | TRACKS.keys() | VIDEOS.keys()


@pytest.mark.parametrize(("form", "subtype"), sorted({entry for entries in SNDFILE.values() for entry in entries}))
def test_sounds_of_libsndfile(form: str, subtype: str, sandbox: DecodeSandbox) -> None:
    data = sndfile_sound(form, subtype)
    require_known_head("audio", data[:HEAD_BYTES])
    sound = sandbox.sound(data)
    assert isinstance(sound, tuple)
    assert len(sound[0]) / sound[1] == pytest.approx(1.0, abs=0.06)
    assert loudest_hz(sound) == pytest.approx(TONE_HZ, abs=2)
    assert float(np.sqrt(np.mean(sound[0] ** 2))) == pytest.approx(0.5 / 2**0.5, rel=0.05)


@pytest.mark.parametrize(("kind", "codec"), [entry for entries in TRACKS.values() for entry in entries])
def test_sounds_of_pyav(kind: str, codec: str, sandbox: DecodeSandbox, videos: ModuleType) -> None:
    data = videos.sound(kind, codec)
    require_known_head("audio", data[:HEAD_BYTES])
    for sound in (sandbox.sound(data), sandbox.decode("audio", data)):
        assert isinstance(sound, tuple)
        assert len(sound[0]) / sound[1] == pytest.approx(1.0, abs=0.15)
        assert loudest_hz(sound) == pytest.approx(TONE_HZ, abs=2)


@pytest.mark.parametrize(("suffix", "made"), [(suffix, made) for suffix, all_ in VIDEOS.items() for made in all_])
def test_videos(suffix: str, made: dict[str, Any], sandbox: DecodeSandbox, videos: ModuleType) -> None:
    data = videos.video(**{"kind": suffix[1:].replace("m4v", "mp4"), "scenes": SCENES, "rate_hz": 44_100} | made)
    require_known_head("video", data[:HEAD_BYTES])
    video = sandbox.video(data, lambda pixels: pixels[-8:, -8:].mean(axis=(0, 1)))
    (first, red), *_, (last, blue) = video.frames
    assert (first < 0.2, last > 0.8) == (True, True)
    assert red.argmax() == 0
    assert blue.argmax() == 2
    if "sound" in made:
        assert isinstance(video.sound, tuple)
        assert len(video.sound[0]) / video.sound[1] == pytest.approx(2.0, abs=0.2)
        assert loudest_hz(video.sound) == pytest.approx(TONE_HZ, abs=2)


def test_a_long_sound_of_pyav_is_streamed(sandbox: DecodeSandbox, videos: ModuleType) -> None:
    sound = sandbox.sound(videos.sound("m4a", "aac", seconds=660.0, rate_hz=48_000, channels="mono"))
    assert isinstance(sound, SoundStream)
    assert sum(map(len, sound.chunks)) == sound.frames == pytest.approx(660 * 48_000, rel=0.001)


@pytest.mark.parametrize(("form", "subtype"), [("AIFF", "PCM_16"), ("W64", "PCM_16"), ("AU", "PCM_16")])
def test_a_sound_that_is_cut_off_is_noticed(form: str, subtype: str, sandbox: DecodeSandbox) -> None:
    data = sndfile_sound(form, subtype)
    notes: list[str] = []
    sound = sandbox.decode("audio", data[: len(data) // 2], partial=True, note=notes.append)
    assert len(sound[0]) == pytest.approx(24_000, abs=100)
    assert len(notes) == 1
    assert f"the header says {len(data):,} bytes, {len(data) // 2:,} are there" in notes[0]
    with pytest.raises(DecodeError, match="truncated: the header says"):
        sandbox.decode("audio", data[: len(data) // 2])


@pytest.mark.parametrize("kind", ["avi", "mts", "mpg", "wmv"])
def test_a_video_that_is_cut_off_is_taken_as_far_as_it_is_there(
    kind: str, sandbox: DecodeSandbox, videos: ModuleType
) -> None:
    made = {**VIDEOS[f".{kind}"][0], "scenes": [("red", 2.0), ("blue", 2.0)], "rate_hz": 44_100}
    data = videos.video(kind, **made)
    video = sandbox.video(data[: len(data) // 3], lambda pixels: pixels[-8:, -8:].mean(axis=(0, 1)), partial=True)
    assert video.frames[0][1].argmax() == 0
    assert video.frames[-1][0] < 2.0


def test_typescript_is_no_video(sandbox: DecodeSandbox) -> None:
    source = b"import { a } from './b';\nexport const G = 1;\n" * 20
    with pytest.raises(DecodeError, match="not a video: the content is neither MP4"):
        sandbox.video(source, lambda pixels: pixels)


def test_a_video_named_as_a_sound_gives_its_sound(sandbox: DecodeSandbox, videos: ModuleType) -> None:
    sound = sandbox.decode("audio", videos.video(scenes=SCENES, sound="aac"))
    assert loudest_hz(sound) == pytest.approx(TONE_HZ, abs=2)
    with pytest.raises(DecodeError, match="it holds no sound"):
        sandbox.decode("audio", videos.video(scenes=SCENES))


def test_a_sound_named_as_a_video_says_what_helps(sandbox: DecodeSandbox, videos: ModuleType) -> None:
    with pytest.raises(DecodeError, match=r"its name must say so \(\.m4a"):
        sandbox.video(videos.sound("m4a", "aac"), lambda pixels: pixels)
