"""Videos in the sandbox: what comes back is what decoding here gives; damage costs the video and not the worker."""

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from trivium.encoders.base import DecodeError
from trivium.encoders.decoding.videos import open_video
from trivium.encoders.sandbox.pool import DecodeSandbox
from trivium.encoders.sandbox.streams import SoundStream

pytest.importorskip("av", reason="PyAV comes with the extra 'video'")

SCENES = (("red", 2.0), ("green", 3.0), ("blue", 1.0))
KINDS: dict[str, dict[str, Any]] = {
    "mp4": {"kind": "mp4", "sound": "aac"},
    "webm": {"kind": "webm", "codec": "libvpx-vp9", "sound": "libopus"},
    "mkv": {"kind": "mkv", "codec": "mpeg2video", "fps": 25, "sound": "flac"},
    "mov": {"kind": "mov", "codec": "mjpeg", "pixels": "yuvj420p", "sound": "pcm_s16le"},
}
MUTANTS = 25


@pytest.fixture(scope="module")
def videos(request: pytest.FixtureRequest) -> ModuleType:
    found: ModuleType = request.getfixturevalue("reference")("videos")
    return found


@pytest.fixture(scope="module")
def box() -> Iterator[DecodeSandbox]:
    with DecodeSandbox(1) as box:
        yield box


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mapped", [False, True])
def test_what_comes_back_is_what_was_decoded(
    box: DecodeSandbox, videos: ModuleType, tmp_path: Path, kind: str, mapped: bool
) -> None:
    data = videos.video(scenes=SCENES, **KINDS[kind])
    (tmp_path / "v").write_bytes(data)
    with (tmp_path / "v").open("rb") as file:
        decoded = box.video(file.fileno() if mapped else data, np.copy, side=20)
    with open_video(data) as video:
        expected = list(video.frames(side=20))
        sound = video.sound(max_seconds=100, keep_frames=1 << 30)
        assert sound is not None
        samples = np.concatenate(list(sound.chunks()))
    assert [seconds for seconds, _ in decoded.frames] == [frame.seconds for frame in expected]
    assert expected[0].image.size == (53, 40)
    for (_, pixels), frame in zip(decoded.frames, expected, strict=True):
        np.testing.assert_array_equal(pixels, np.asarray(frame.image))
    assert isinstance(decoded.sound, tuple)
    np.testing.assert_array_equal(decoded.sound[0], samples)
    assert decoded.sound[1] == sound.rate_hz


def test_no_sound(box: DecodeSandbox, videos: ModuleType) -> None:
    decoded = box.video(videos.video(), np.copy)
    assert (len(decoded.frames), decoded.sound) == (2, None)


def test_a_long_sound_track_is_streamed(box: DecodeSandbox, videos: ModuleType) -> None:
    """It begins after an hour, before which there is silence."""
    data = videos.video(
        "mkv", scenes=[("grey", 3602.0)], fps=1, sound="flac", sound_start=3601, rate_hz=8_000, channels="mono"
    )
    decoded = box.video(data, lambda pixels: None)
    assert len(decoded.frames) == 301  # 12 s apart: fewer a minute than of a short one
    assert isinstance(decoded.sound, SoundStream)
    samples = np.concatenate(list(decoded.sound.chunks))
    assert len(samples) == decoded.sound.frames == 3602 * 8_000
    assert np.abs(samples[: 3601 * 8_000]).max() == 0
    np.testing.assert_allclose(samples[3601 * 8_000 :], videos.tone(1.0, 8_000), atol=1e-4)


def test_refusals_leave_the_worker_well(box: DecodeSandbox, videos: ModuleType) -> None:
    data = videos.video("mkv", scenes=SCENES, sound="flac")
    box.video(data, np.copy)
    before = box.pids
    with pytest.raises(DecodeError, match="truncated"):
        box.video(data[:-100], np.copy)
    with pytest.raises(DecodeError, match="not a video"):
        box.video(b"a text", np.copy)
    blanked = bytearray(videos.video(scenes=[("red", 30.0)], fps=1))  # refused when some pictures were sent
    start = blanked.index(b"mdat")
    middle = start + (blanked.index(b"moov") - start) // 2
    blanked[middle : blanked.index(b"moov") - 4] = b"\xff" * (blanked.index(b"moov") - 4 - middle)
    taken: list[Any] = []
    with pytest.raises(DecodeError, match="damaged video"):
        box.video(bytes(blanked), taken.append)
    assert taken
    assert len(box.video(data, np.copy).frames) == 3
    assert box.pids == before


@pytest.mark.parametrize("kind", KINDS)
def test_few_mutants(box: DecodeSandbox, videos: ModuleType, kind: str, reference: Callable[[str], ModuleType]) -> None:
    data = videos.video(scenes=[("red", 1.0), ("green", 1.0)], **KINDS[kind])
    reasons = []
    for mutant in itertools.islice(reference("mutants").each_mutant(data, 5, MUTANTS), MUTANTS):
        try:
            box.video(mutant, np.copy)
        except DecodeError as error:
            reasons.append(error.reason)
    assert reasons
    assert not [reason for reason in reasons if reason.startswith(("the decoder", "took longer"))]
