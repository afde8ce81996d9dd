"""Videos made on the spot: which pictures are taken and when, upright and in their colours; the sound in its place."""

import importlib.util
import itertools
import math
import re
import subprocess
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image

from trivium.encoders.base import DecodeError
from trivium.encoders.decoding import containers as video_container
from trivium.encoders.decoding import video_pictures
from trivium.encoders.decoding import videos as video_decoding
from trivium.encoders.decoding.sources import FileBytes
from trivium.encoders.decoding.video_pictures import Frame
from trivium.encoders.decoding.videos import open_video

pytest.importorskip("av", reason="PyAV comes with the extra 'video'")

SCENES = (("red", 2.0), ("green", 3.0), ("blue", 1.0))
KINDS: dict[str, dict[str, Any]] = {
    "mp4 h264 aac": {"kind": "mp4", "sound": "aac"},
    "mp4 h265 aac": {"kind": "mp4", "codec": "libx265", "options": {"x265-params": "log-level=0"}, "sound": "aac"},
    "mp4 mpeg4 mp3": {"kind": "mp4", "codec": "mpeg4", "sound": "libmp3lame"},
    "mov mjpeg pcm": {"kind": "mov", "codec": "mjpeg", "pixels": "yuvj420p", "sound": "pcm_s16le"},
    "mov prores alac": {"kind": "mov", "codec": "prores_ks", "pixels": "yuv422p10le", "sound": "alac"},
    "webm vp8 opus": {"kind": "webm", "codec": "libvpx", "sound": "libopus"},
    "webm vp9 opus": {"kind": "webm", "codec": "libvpx-vp9", "sound": "libopus"},
    "mkv mpeg2 ac3": {"kind": "mkv", "codec": "mpeg2video", "fps": 25, "sound": "ac3"},
    "mkv h264 flac": {"kind": "mkv", "sound": "flac"},
    "mkv av1 pcm": {"kind": "mkv", "codec": "libsvtav1", "options": {"preset": "12"}, "sound": "pcm_f32le"},
}


@pytest.fixture(scope="module")
def videos(request: pytest.FixtureRequest) -> ModuleType:
    found: ModuleType = request.getfixturevalue("reference")("videos")
    return found


def frames_of(data: bytes, *, side: int | None = None) -> list[Frame]:
    with open_video(data) as video:
        return list(video.frames(side=side))


def sound_of(data: bytes, *, keep_frames: int = 1 << 30) -> tuple[np.ndarray, int]:
    with open_video(data) as video:
        sound = video.sound(max_seconds=1000, keep_frames=keep_frames)
        assert sound is not None
        samples = np.concatenate(list(sound.chunks()))
        assert len(samples) == sound.frames
        assert samples.dtype == np.float32
        assert sound.peak == np.abs(samples).max()
        return samples, sound.rate_hz


def colour_of(image: Image.Image) -> tuple[int, ...]:
    """Of its lower right quarter."""
    pixels = np.asarray(image)
    height, width = pixels.shape[:2]
    return tuple(
        pixels[height * 5 // 8 : height * 7 // 8, width * 5 // 8 : width * 7 // 8].mean((0, 1)).round().astype(int)
    )


def is_near(found: tuple[int, ...], colour: tuple[int, ...], *, by: int = 12) -> bool:
    return max(abs(a - b) for a, b in zip(found, colour, strict=True)) <= by


@pytest.mark.parametrize("kind", KINDS)
def test_each_scene_is_one_picture_in_its_colour(videos: ModuleType, kind: str) -> None:
    if kind.startswith("mkv av1") and not _has_encoder("libsvtav1"):
        pytest.skip("this PyAV has no AV1 encoder")
    data = videos.video(scenes=SCENES, **KINDS[kind])
    frames = frames_of(data)
    assert [frame.seconds for frame in frames] == [0.0, pytest.approx(2, abs=0.55), pytest.approx(5, abs=0.55)]
    for frame, (colour, _) in zip(frames, SCENES, strict=True):
        assert frame.image.size == (64, 48)
        assert frame.image.mode == "RGB"
        assert is_near(colour_of(frame.image), videos.COLOURS[colour])
        assert min(frame.image.getpixel((8, 8))) > 240  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", KINDS)
def test_the_sound_is_mono_at_its_rate(videos: ModuleType, kind: str) -> None:
    if kind.startswith("mkv av1") and not _has_encoder("libsvtav1"):
        pytest.skip("this PyAV has no AV1 encoder")
    data = videos.video(scenes=SCENES, **KINDS[kind])
    samples, rate_hz = sound_of(data)
    assert rate_hz == 48_000
    assert len(samples) == pytest.approx(6 * rate_hz, abs=0.05 * rate_hz)
    assert loudest_hz(samples[: 5 * rate_hz], rate_hz) == pytest.approx(videos.TONE_HZ, abs=1)
    assert np.abs(samples[rate_hz : 5 * rate_hz]).max() == pytest.approx(0.5, abs=0.05)
    again, _ = sound_of(data, keep_frames=1000)  # decoded a second time, not kept
    np.testing.assert_array_equal(samples, again)


def _has_encoder(name: str) -> bool:
    import av

    try:
        av.Codec(name, "w")
    except ValueError:  # of which PyAV's error is one
        return False
    return True


def loudest_hz(samples: np.ndarray, rate_hz: int) -> float:
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return float(spectrum.argmax() * rate_hz / len(samples))


# Which pictures


def test_what_does_not_change_gives_a_picture_every_ten_seconds(videos: ModuleType) -> None:
    seconds = [frame.seconds for frame in frames_of(videos.video(scenes=[("grey", 34.0)]))]
    assert seconds == [0.0, 10.0, 20.0, 30.0]


def test_scenes_without_key_frames_are_found_by_decoding_all(videos: ModuleType) -> None:
    """One key frame at the beginning: what lies further from it than 12 s makes the whole be decoded."""
    data = videos.video(
        scenes=[("red", 7.0), ("green", 6.0), ("blue", 7.0)],
        every_second=False,
        options={"g": "100000", "sc_threshold": "0"},
    )
    frames = frames_of(data)
    times = [frame.seconds for frame in frames]
    colours = [colour_of(frame.image) for frame in frames]
    begun = [
        next(t for t, found in zip(times, colours, strict=True) if is_near(found, videos.COLOURS[colour]))
        for colour in ("red", "green", "blue")
    ]
    assert begun == [0.0, pytest.approx(7, abs=1.1), pytest.approx(13, abs=1.1)]
    assert all(later - earlier <= 11 for earlier, later in itertools.pairwise(times))


def test_decoding_all_is_bounded(videos: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    scenes = [("red", 14.0), ("green", 14.0)]
    options = {"g": "100000", "sc_threshold": "0"}
    data = videos.video(scenes=scenes, every_second=False, options=options)
    assert len(frames_of(data)) >= 3
    monkeypatch.setattr(video_pictures, "FILLING_PIXELS", 64 * 48 * 20)
    assert [frame.seconds for frame in frames_of(data)] == [0.0]
    monkeypatch.undo()
    monkeypatch.setattr(video_pictures, "HELD_BYTES", 100)
    assert [frame.seconds for frame in frames_of(data)] == [0.0]


def test_scenes_of_less_than_a_second_are_passed_over(videos: ModuleType) -> None:
    """Key frames every 0.3 s, each in another colour than the one before: at most one picture a second."""
    scenes = [(colour, 0.3) for colour in ("red", "green", "blue", "grey")] * 8
    times = [f.seconds for f in frames_of(videos.video(scenes=scenes, codec="mjpeg", pixels="yuvj420p", kind="mov"))]
    assert 6 <= len(times) <= 10
    assert min(np.diff(times)) >= 1


def test_a_cut_just_after_a_picture_is_not_lost(videos: ModuleType) -> None:
    options = {"g": "1000", "forced-idr": "1", "sc_threshold": "0"}
    data = videos.video(scenes=[("red", 0.4), ("green", 5.0)], every_second=False, every_scene=True, options=options)
    frames = frames_of(data)
    assert [frame.seconds for frame in frames] == [0.0, 0.4]
    assert is_near(colour_of(frames[1].image), videos.COLOURS["green"])


def test_a_long_video_gets_fewer_pictures_a_minute(videos: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    data = videos.video(scenes=[(colour, 2.5) for colour in videos.COLOURS] * 4)
    assert len(frames_of(data)) == 16
    monkeypatch.setattr(video_pictures, "MAX_FRAMES", 10)
    times = [frame.seconds for frame in frames_of(data)]
    assert 5 <= len(times) <= 10
    assert times[-1] > 30  # and they are of all of it


def test_times_rise_and_are_unique_to_the_millisecond(videos: ModuleType) -> None:
    for kind in ("mp4 h264 aac", "webm vp9 opus", "mkv mpeg2 ac3"):
        times = [frame.seconds for frame in frames_of(videos.video(scenes=SCENES * 3, **KINDS[kind]))]
        assert times == sorted(set(times))
        assert times == [round(seconds, 3) for seconds in times]


# How they look


@pytest.mark.parametrize("rotation", [0, 90, 180, -90])
def test_pictures_are_brought_upright(videos: ModuleType, rotation: int) -> None:
    (frame,) = frames_of(videos.video(scenes=[("red", 1.0)], rotation=rotation))
    stored = Image.fromarray(videos.picture("red", (64, 48)))
    expected = stored.rotate(rotation, expand=True)  # counterclockwise, as the header's is
    assert frame.image.size == expected.size
    assert np.abs(np.asarray(frame.image, np.int16) - np.asarray(expected, np.int16)).mean() < 8


@pytest.mark.parametrize("matrix", video_pictures.TRANSPOSES)
def test_display_matrices(matrix: tuple[int, int, int, int]) -> None:
    """A pixel (x, y) from the middle goes to (a x + c y, b x + d y)."""
    a, b, c, d = matrix
    image = np.zeros((5, 5), np.uint8)
    image[1, 4] = 255  # x = 2, y = -1
    turned = np.asarray(Image.fromarray(image).transpose(video_pictures.TRANSPOSES[matrix]))
    assert turned[2 + b * 2 - d, 2 + a * 2 - c] == 255


@pytest.mark.parametrize(
    ("size", "aspect", "side", "expected"),
    [
        ((640, 360), None, 112, (398, 224)),
        ((640, 360), None, None, (640, 360)),  # never larger than it is
        ((360, 640), None, 64, (128, 228)),
        ((64, 48), Fraction(2), None, (128, 48)),
        ((64, 48), Fraction(1, 2), None, (32, 48)),
        ((64, 48), Fraction(1000), None, (64, 48)),  # no sensible pixel
    ],
)
def test_sizes(videos: ModuleType, size: Any, aspect: Fraction | None, side: int | None, expected: Any) -> None:
    (frame,) = frames_of(videos.video(scenes=[("red", 0.5)], size=size, aspect=aspect), side=side)
    assert frame.image.size == expected


@pytest.mark.parametrize("size", [(1, 1), (40_000, 1_000), (1, 10_000_000), (7680, 4320)])
@pytest.mark.parametrize("aspect", [None, 4, 0.25, math.inf, 0])
def test_pictures_stay_below_their_limit(size: tuple[int, int], aspect: Any) -> None:
    width, height = video_pictures.fitted_size(*size, aspect, shorter=448)
    assert min(width, height) >= 1
    assert width * height <= 1.01 * video_pictures.MAX_PICTURE_PIXELS


@pytest.mark.parametrize("kind", ["mp4 h264 aac", "mov mjpeg pcm"])
@pytest.mark.parametrize("size", [(64, 48), (960, 720)])
def test_colours_of_tv_of_hdtv_and_of_the_full_range(videos: ModuleType, kind: str, size: tuple[int, int]) -> None:
    """PyAV writes BT.601 and does not say so: what is as large as HDTV is taken for BT.709, which differs visibly."""
    (frame,) = frames_of(videos.video(scenes=[("green", 0.3)], size=size, **KINDS[kind]))
    by = 5 if size == (64, 48) or kind.startswith("mov") else 40
    assert is_near(colour_of(frame.image), videos.COLOURS["green"], by=by)


# The sound


def test_a_sound_that_begins_later_keeps_its_place(videos: ModuleType) -> None:
    samples, rate_hz = sound_of(videos.video("mkv", scenes=SCENES, sound="flac", sound_start=2.5))
    assert len(samples) == pytest.approx(6 * rate_hz, abs=0.05 * rate_hz)
    assert np.abs(samples[: int(2.4 * rate_hz)]).max() == 0
    assert np.abs(samples[int(2.6 * rate_hz) :]).max() > 0.4


@pytest.mark.parametrize(("channels", "rate_hz"), [("mono", 8_000), ("stereo", 44_100), ("5.1", 48_000)])
def test_channels_are_averaged(videos: ModuleType, channels: str, rate_hz: int) -> None:
    for sound in ("flac", "pcm_s16le"):
        data = videos.video("mkv", scenes=[("red", 1.0)], sound=sound, channels=channels, rate_hz=rate_hz)
        samples, found_hz = sound_of(data)
        assert found_hz == rate_hz
        np.testing.assert_allclose(samples, videos.tone(1.0, rate_hz), atol=1e-4)


def test_channels_that_cancel_out_are_no_silence(videos: ModuleType) -> None:
    for sound in ("flac", "aac"):
        samples, rate_hz = sound_of(videos.video("mkv", scenes=SCENES, sound=sound, opposite=True))
        assert loudest_hz(samples[rate_hz : 5 * rate_hz], rate_hz) == pytest.approx(videos.TONE_HZ, abs=1)
        assert np.abs(samples[rate_hz : 5 * rate_hz]).max() == pytest.approx(0.5, abs=0.05)


def test_videos_without_sound(videos: ModuleType) -> None:
    with open_video(videos.video()) as video:
        assert video.sound(max_seconds=10, keep_frames=10) is None


def test_sounds_that_are_too_long(videos: ModuleType) -> None:
    with open_video(videos.video(sound="aac")) as video:
        with pytest.raises(DecodeError, match=r"too long: 4 s \(.* samples a channel\), the limit is 4 s"):
            video.sound(max_seconds=3.5, keep_frames=10)


# What is refused


def test_a_video_in_a_file_and_in_memory_are_the_same(videos: ModuleType, tmp_path: Path) -> None:
    data = videos.video(scenes=SCENES, sound="aac")
    (tmp_path / "v.mp4").write_bytes(data)
    with (tmp_path / "v.mp4").open("rb") as file:
        with open_video(FileBytes(file.fileno(), len(data))) as video:
            assert video.seconds == 6
            assert [frame.seconds for frame in video.frames()] == [frame.seconds for frame in frames_of(data)]


@pytest.mark.parametrize(("kind", "share"), [*itertools.product(["mp4", "mov", "mkv"], [0.999, 0.9, 0.5, 0.1])])
def test_truncated_videos_are_refused(videos: ModuleType, kind: str, share: float) -> None:
    data = videos.video(kind, scenes=SCENES, sound="aac")
    with pytest.raises(DecodeError, match="truncated"), open_video(data[: int(len(data) * share)]):
        pass


# What is there of a video that is cut off

CUT: dict[str, dict[str, Any]] = {
    "mp4, its index first": {"kind": "mp4", "flags": "faststart"},
    "mp4 in fragments": {"kind": "mp4", "flags": "frag_keyframe+empty_moov"},
    "mkv": {"kind": "mkv"},
    "webm": {"kind": "webm", "codec": "libvpx-vp9"},
}


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
@pytest.mark.parametrize("kind", CUT)
def test_what_is_there_of_a_cut_video_is_taken(videos: ModuleType, kind: str, share: float) -> None:
    sound = "libopus" if kind == "webm" else "aac"
    data = videos.video(scenes=SCENES, sound=sound, **CUT[kind])
    whole, notes = frames_of(data), list[str]()
    with open_video(data[: int(share * len(data))], partial=True, note=notes.append) as video:
        frames = list(video.frames())
        track = video.sound(max_seconds=100, keep_frames=1 << 30)
    assert 0 < len(frames) <= len(whole)
    assert [frame.seconds for frame in frames] == [frame.seconds for frame in whole][: len(frames)]
    for frame, expected in zip(frames, whole, strict=False):
        np.testing.assert_array_equal(np.asarray(frame.image), np.asarray(expected.image))
    assert track is not None
    assert 0.5 < track.frames / track.rate_hz < 6
    told, *more = notes
    assert more == []
    of = "" if "fragments" in kind else r" of 6\.0 s"
    pattern = rf"only the first (\d\.\d) s{of} could be decoded: the header says [\d,]+ bytes, [\d,]+ are there"
    found = re.fullmatch(pattern, told)
    assert found is not None, told
    assert float(found[1]) == pytest.approx(track.frames / track.rate_hz, abs=1.5)
    with pytest.raises(DecodeError, match="truncated: the header says"), open_video(data[: int(share * len(data))]):
        pass


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_without_its_index_nothing_of_a_video_can_be_read(videos: ModuleType, share: float) -> None:
    data = videos.video(scenes=SCENES, sound="aac")
    with pytest.raises(DecodeError, match="truncated: there is no index of the video, and without it nothing can be"):
        with open_video(data[: int(share * len(data))], partial=True):
            pass


def test_an_index_that_is_itself_cut_off_is_none(videos: ModuleType) -> None:
    data = videos.video(flags="faststart")
    assert data.index(b"moov") < data.index(b"mdat")
    with pytest.raises(DecodeError, match="truncated: there is no index"), open_video(data[:200], partial=True):
        pass


def test_room_that_is_left_free_may_be_cut_off(videos: ModuleType) -> None:
    data = videos.video(scenes=SCENES, sound="aac") + b"\0\0\1\0free" + bytes(100)
    assert len(frames_of(data)) == 3
    with pytest.raises(DecodeError, match="truncated"):
        frames_of(data.replace(b"free" + bytes(100), b"meta" + bytes(100)))


def test_whole_videos_have_no_note(videos: ModuleType) -> None:
    for kind in CUT:
        notes = list[str]()
        with open_video(videos.video(scenes=SCENES, **CUT[kind]), partial=True, note=notes.append) as video:
            assert len(list(video.frames())) == 3
        assert notes == []


def test_a_recording_whose_length_is_left_open_is_read(videos: ModuleType) -> None:
    """As browsers record: the segment has no size, and the header no duration."""
    import io

    import av

    buffer = io.BytesIO()
    source: Any = av.open(io.BytesIO(videos.video("webm", scenes=SCENES, codec="libvpx")))
    with source, av.open(Unseekable(buffer), "w", format="webm", options={"live": "1"}) as container:
        stream = container.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                container.mux(packet)
    with open_video(buffer.getvalue()) as video:
        assert video.seconds == pytest.approx(6, abs=0.2)
        assert len(list(video.frames())) == 3


class Unseekable:
    def __init__(self, file: Any) -> None:
        self.write = file.write


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "not a video"),
        (b"\0\0\0\x20ftypheic" + bytes(40), "not a video"),
        (b"#EXTM3U\nhttp://example.org/1.ts\n", "not a video"),
        (b"RIFF\0\0\0\0AVI LIST", "damaged video"),
        (b"\0\0\0\x08moov" + b"\0\0\0\x08free", "without pictures"),
        (b"\x1a\x45\xdf\xa3\x80" + b"\x18\x53\x80\x67\x80", "damaged video"),
        (b"\x1a\x45\xdf\xa3\x80" + bytes(20), "no readable header"),
        (b"\x1a\x45\xdf\xa3", "no readable header"),
        (b"\0\0\0\x08mdat", "no index of the video"),
    ],
)
def test_what_is_no_video(data: bytes, reason: str) -> None:
    with pytest.raises(DecodeError, match=reason), open_video(data):
        pass


def test_kinds_that_are_not_read(videos: ModuleType) -> None:
    with pytest.raises(DecodeError, match="a kind of video that is not read: ffv1"):
        frames_of(videos.video("mkv", codec="ffv1"))
    data = videos.video("mkv", sound="wavpack")  # pictures of it are read, the sound is not
    with open_video(data) as video:
        assert video.sound(max_seconds=10, keep_frames=10) is None
        assert len(list(video.frames())) == 2


def test_a_sound_in_a_video_file(videos: ModuleType) -> None:
    import io

    import av

    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        videos._put_sound(
            container, container.add_stream("aac", rate=48_000, layout="mono"), 1.0, 0.0, "mono", 48_000, 1.0
        )
    with pytest.raises(DecodeError, match="a video without pictures"), open_video(buffer.getvalue()):
        pass


def test_too_many_pixels(videos: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video_container, "MAX_PIXELS", 64 * 48 - 1)
    with pytest.raises(DecodeError, match=r"too many pixels: 64 x 48, the limit is 3,071"), open_video(videos.video()):
        pass


def test_too_long(videos: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video_decoding, "MAX_SECONDS", 4.5)
    with pytest.raises(DecodeError, match=r"too long: 5 s, the limit is 4 s"), open_video(videos.video()):
        pass


def test_damaged_pictures_are_refused_unless_they_are_few(videos: ModuleType) -> None:
    """Thirty key frames, of which some are blanked; what libavcodec conceals would not be noticed.

    The first is decoded twice: what follows it is no longer recognised as key frames, and tried after it.
    """
    import io

    import av

    data = videos.video(scenes=[("red", 30.0)], fps=1)
    opened: Any = av.open(io.BytesIO(data))
    with opened as container:
        places = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.pos is not None]
    assert len(places) == 30

    def damaged(count: int) -> bytes:
        broken = bytearray(data)
        for place, size in places[1 : 1 + count]:
            broken[place : place + size] = b"\xff" * size
        return bytes(broken)

    assert [frame.seconds for frame in frames_of(damaged(2))] == [0.0, 10.0, 20.0]
    with pytest.raises(DecodeError, match=r"damaged video: 20 of 31 pictures could not be decoded"):
        frames_of(damaged(20))
    with pytest.raises(DecodeError, match=r"truncated"):
        frames_of(damaged(2)[:-20])


def test_without_pyav(videos: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    data = videos.video()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DecodeError, match=r"PyAV is needed \(pip install 'trivium\[video\]'\)"), open_video(data):
        pass


MUTANTS = """
import sys
from pathlib import Path
from trivium.encoders.base import DecodeError
from trivium.encoders.decoding.videos import open_video
for path in sorted(Path(sys.argv[1]).iterdir()):
    try:
        with open_video(path.read_bytes()) as video:
            sizes = [frame.image.size for frame in video.frames()]
            sound = video.sound(max_seconds=100, keep_frames=1 << 20)
            assert sizes and (sound is None or sum(map(len, sound.chunks())) == sound.frames)
        print("read")
    except DecodeError as error:
        assert error.reason
        print("refused")
"""


@pytest.mark.parametrize("kind", ["mp4 h264 aac", "webm vp9 opus", "mkv mpeg2 ac3", "mov mjpeg pcm"])
def test_damage_is_read_or_refused(
    videos: ModuleType, kind: str, tmp_path: Path, reference: Callable[[str], ModuleType]
) -> None:
    """In a process of its own: a crash would be one of that."""
    data = videos.video(scenes=[("red", 1.0), ("green", 1.0)], **KINDS[kind])
    for number, mutant in enumerate(itertools.islice(reference("mutants").each_mutant(data, 1, 40), 40)):
        (tmp_path / f"{number:02}").write_bytes(mutant)
    run = subprocess.run([sys.executable, "-c", MUTANTS, str(tmp_path)], capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, run.stderr[-2000:]
    assert len(run.stdout.split()) == 40
    assert "refused" in run.stdout
