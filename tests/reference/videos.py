"""Small videos made on the spot: colours that change at known times, a tone that begins at a known time."""

import tempfile
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.frame import PictureType
from numpy.typing import NDArray

FORMATS = {
    **{"mp4": "mp4", "mov": "mov", "webm": "webm", "mkv": "matroska", "avi": "avi", "wmv": "asf", "3gp": "3gp"},
    **{"mts": "mpegts", "m2ts": "mpegts", "ts": "mpegts", "mpg": "mpeg", "mpeg": "mpeg"},
    **{"m4a": "ipod", "wma": "asf", "aac": "adts", "mp2": "mp2"},
}
COLOURS = {"red": (200, 30, 30), "green": (30, 160, 30), "blue": (30, 30, 200), "grey": (120, 120, 120)}
TONE_HZ = 440.0


def video(
    kind: str = "mp4",
    *,
    scenes: Sequence[tuple[Any, float]] = (("red", 2.0), ("green", 3.0)),
    size: tuple[int, int] = (64, 48),
    fps: int = 10,
    codec: str = "libx264",
    pixels: str = "yuv420p",
    every_second: bool = True,
    every_scene: bool = False,
    options: dict[str, str] | None = None,
    rotation: int = 0,
    aspect: Fraction | None = None,
    sound: str | None = None,
    sound_start: float = 0.0,
    channels: str = "stereo",
    rate_hz: int = 48_000,
    opposite: bool = False,
    flags: str = "",
    tags: Mapping[str, str] | None = None,
) -> bytes:
    """Make a video of scenes (colour, seconds), each of one colour with a white upper left quarter.

    Args:
        kind: One of `FORMATS`.
        scenes: What it shows; instead of a colour there may be a picture of the video's size.
        size: Width and height.
        fps: Pictures a second.
        codec: Encoder of the pictures.
        pixels: Their form.
        every_second: Put a key frame every second, beside those that the encoder puts; else as the encoder likes.
        every_scene: Put a key frame where a scene begins.
        options: For the encoder.
        rotation: Degrees counterclockwise, as a note in the header.
        aspect: How many times as wide as high a pixel is.
        sound: Encoder of a sound track as long as the video, of one tone; none if None.
        sound_start: When it begins, in seconds.
        channels: Of the sound.
        rate_hz: Of the sound.
        opposite: Whether each second channel is the negative of those beside it.
        flags: Of the muxer of MP4, which places the index by them.
        tags: Of the container; in MP4 whatever their names.
    """
    file = tempfile.NamedTemporaryFile()  # the muxer reads what it wrote to put the index before it
    wanted = [*([flags] if flags else []), *(["use_metadata_tags"] if kind in ("mp4", "mov") and tags else [])]
    muxing = {"movflags": "+".join(wanted)} if wanted else {}
    if kind in ("mts", "m2ts"):
        muxing["mpegts_m2ts_mode"] = "1"
    with file, av.open(file.name, "w", format=FORMATS[kind], options=muxing) as container:
        container.metadata.update(tags or {})
        stream: Any = container.add_stream(codec, rate=fps, options=options or {})
        stream.width, stream.height = size
        stream.pix_fmt = pixels
        if aspect is not None:
            stream.codec_context.sample_aspect_ratio = aspect
        if rotation:
            stream.set_display_rotation(rotation)
        if every_second:
            stream.gop_size = fps
        track: Any = None
        if sound is not None:
            track = container.add_stream(sound, rate=rate_hz, layout=channels)
            track.bit_rate = 128_000
        number = 0
        for colour, seconds in scenes:
            shown = picture(colour, size) if isinstance(colour, str) else np.asarray(colour)
            for shown_before in range(round(seconds * fps)):
                frame = av.VideoFrame.from_ndarray(shown, format="rgb24")
                if every_scene and not shown_before:
                    frame.pict_type = PictureType.I
                frame.pts = number
                number += 1
                container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if track is not None:
            gain = -1.0 if opposite else 1.0
            _put_sound(container, track, number / fps - sound_start, sound_start, channels, rate_hz, gain)
        container.close()
        return Path(file.name).read_bytes()


def sound(kind: str, codec: str, *, seconds: float = 1.0, rate_hz: int = 44_100, channels: str = "stereo") -> bytes:
    """Make a sound of one tone, by PyAV: one of `FORMATS`."""
    file = tempfile.NamedTemporaryFile()
    with file, av.open(file.name, "w", format=FORMATS[kind]) as container:
        track: Any = container.add_stream(codec, rate=rate_hz, layout=channels)
        track.bit_rate = 128_000
        _put_sound(container, track, seconds, 0.0, channels, rate_hz, 1.0)
        container.close()
        return Path(file.name).read_bytes()


def picture(colour: str, size: tuple[int, int]) -> NDArray[np.uint8]:
    """A colour with a white upper left quarter, (h, w, 3)."""
    width, height = size
    shown = np.full((height, width, 3), COLOURS[colour], np.uint8)
    shown[: height // 2, : width // 2] = 255
    return shown


def tone(seconds: float, rate_hz: int) -> NDArray[np.float32]:
    """The tone, (s,)."""
    times = np.arange(round(seconds * rate_hz)) / rate_hz
    return (0.5 * np.sin(2 * np.pi * TONE_HZ * times)).astype(np.float32)


def _put_sound(
    container: Any, track: Any, seconds: float, start: float, channels: str, rate_hz: int, gain: float
) -> None:
    samples = np.tile(tone(seconds, rate_hz), (av.AudioLayout(channels).nb_channels, 1))
    samples[1::2] *= gain
    size = track.codec_context.frame_size or 1024
    for place in range(0, samples.shape[1], size):
        piece = np.ascontiguousarray(samples[:, place : place + size])
        frame = av.AudioFrame.from_ndarray(piece, format="fltp", layout=channels)
        frame.sample_rate = rate_hz
        frame.pts = place + round(start * rate_hz)
        frame.time_base = Fraction(1, rate_hz)
        container.mux(track.encode(frame))
    container.mux(track.encode(None))
