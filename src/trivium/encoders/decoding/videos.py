"""Video files to pictures with their times and to a sound track: by PyAV, bounded in size, number and work.

A picture is taken where a scene begins, else every `MOST_SECONDS`. Encoders of videos put a key frame where a scene
begins and every few seconds, and those alone are decoded: a few in a thousand. Where they lie further apart than
`SPLIT_SECONDS`, all between them is decoded too, as far as `FILLING_PIXELS` goes (`video_pictures`).

PyAV comes with the extra ``video``. All decoding is on one thread: it runs in a worker (`sandbox`) beside others.
"""

import contextlib
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trivium.encoders.base import DecodeError
from trivium.encoders.decoding.containers import (
    Layout,
    as_decode_errors,
    codec_of,
    layout_of,
    open_container,
    packets_of,
    picture_stream,
    require_pyav,
    seconds_of,
    sound_stream,
)
from trivium.encoders.decoding.downmix import downmixed
from trivium.encoders.decoding.pictures import SCALED_MARGIN
from trivium.encoders.decoding.sounds import (
    BLOCK_FRAMES,
    FLOAT32_MAX,
    MAX_CHANNELS,
    RATES_HZ,
    USUAL_RATE_HZ,
    Note,
    ScannedAudio,
    check_length,
    given_back,
    untold,
    what_was_decoded,
)
from trivium.encoders.decoding.sources import Source
from trivium.encoders.decoding.video_pictures import MAX_DAMAGED_SHARE, MAX_FRAMES, Frame, Pictures

MAX_SECONDS = 86_400.0
USUAL_SIDE = 224
SHORTER_SECONDS = 1.0  # what a sound track may be shorter than the pictures without a note, where a file is cut off
MAX_SOUND_GAP_SECONDS = 0.1  # what is longer becomes silence, so that sound and pictures stay together


class Video:
    """A video whose header was read; made by `open_video`."""

    def __init__(
        self,
        data: Source,
        *,
        layout: Layout,
        picture: int | None,
        sound: int | None,
        start: float,
        seconds: float,
        partial: bool,
        note: Note,
    ) -> None:
        self._data = data
        self._kind = layout.demuxer
        self._partial = partial
        self._note = note
        self._ends = [layout.missing] if layout.missing else []  # why it ends before its end
        self._reached = 0.0  # seconds that there are pictures of
        self._picture = picture  # the streams' indexes
        self._sound = sound
        self._start = start
        self.seconds = seconds
        self._whole_seconds = seconds if layout.tells_length else 0.0  # if anybody knows

    def frames(self, *, side: int | None = None) -> Iterator[Frame]:
        """Decode pictures as they are taken, by rising time; at least one and at most `MAX_FRAMES`.

        Of a file that is cut off, what is there; how much that is, is told after the last.

        Args:
            side: What they will be brought to, if that is known: the shorter side has `SCALED_MARGIN` times that, or
                what the video has if that is less.

        Raises:
            DecodeError: If none can be decoded, too many cannot, or one has too many pixels.
        """
        shorter = SCALED_MARGIN * (USUAL_SIDE if side is None else side)
        with as_decode_errors(), open_container(self._data, self._kind) as container:
            assert self._picture is not None
            stream = container.streams[self._picture]
            found = Pictures(stream, start=self._start, seconds=self.seconds, shorter=shorter)
            count = 0
            for frame in found.taken(packets_of(container, stream, self._on_end)):
                yield frame
                count += 1
                if count == MAX_FRAMES:
                    return
        if not count:
            reason = f"truncated: {self._ends[0]}, and" if self._ends else "damaged video:"
            raise DecodeError(f"{reason} no picture of it can be decoded")
        self._reached = found.reached
        if self._ends:
            self._note(what_was_decoded(found.reached, self._whole_seconds, self._ends[0]))

    @property
    def _on_end(self) -> Note | None:
        return self._ends.append if self._partial else None

    def sound(self, *, max_seconds: float, keep_frames: int) -> ScannedAudio | None:
        """Decode the sound track from end to end, as `scan_audio` does a sound; its first sample is at 0 seconds.

        Returns:
            The sound; None if there is none, or nothing in it.

        Raises:
            DecodeError: If too much of it cannot be decoded, it is not finite, or over a limit.
        """
        if self._sound is None:
            return None
        kept: list[NDArray[np.float32]] | None = []
        frames, peak, rate_hz = 0, 0.0, 0
        for rate_hz, chunk in self._sound_chunks(max_seconds):  # noqa: B007 (one rate throughout)
            frames += len(chunk)
            peak = max(peak, float(chunk.max()), -float(chunk.min()))
            if kept is not None:
                kept.append(chunk)
                kept = kept if frames <= keep_frames else None
        seconds = frames / rate_hz if frames else 0.0
        if self._picture is None and self._ends:
            self._note(what_was_decoded(seconds, self._whole_seconds, self._ends[0]))
        elif self._ends and seconds < self._reached - SHORTER_SECONDS:
            self._note(f"of its sound track, {what_was_decoded(seconds, self._whole_seconds, self._ends[-1])}")
        if not frames:
            return None

        def again() -> Iterator[NDArray[np.float32]]:
            for _, chunk in self._sound_chunks(max_seconds):
                yield chunk

        return ScannedAudio(frames, rate_hz, peak, again if kept is None else partial(given_back, kept))

    def _sound_chunks(self, max_seconds: float) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """Yield the rate in Hz and the next samples, (s_i,), about `BLOCK_FRAMES` at a time."""
        assert self._sound is not None
        held: list[NDArray[np.float32]] = []
        count, total, rate_hz = 0, 0, 0
        with as_decode_errors(), open_container(self._data, self._kind) as container:
            stream = container.streams[self._sound]
            packets = packets_of(container, stream, self._on_end)
            for rate_hz, samples in _samples(stream, packets, start=self._start):
                if count >= BLOCK_FRAMES or (held and held[0].shape[1] != samples.shape[1]):
                    yield rate_hz, _mono(held)
                    held, count = [], 0
                held.append(samples)
                count, total = count + len(samples), total + len(samples)
                check_length(total, rate_hz, max_seconds)
        if held:
            yield rate_hz, _mono(held)


@contextlib.contextmanager
def open_video(data: Source, *, partial: bool = False, note: Note = untold) -> Iterator[Video]:
    """Read a video's header.

    Args:
        data: The file; it must stay as it is until the end of the context.
        partial: Take what can be decoded of a file that is cut off; else it is refused.
        note: Told how much that is.

    Raises:
        DecodeError: If it is no video that is read, cut off, too long, has too many pixels, or PyAV is missing.
    """
    layout = layout_of(data)
    if layout.missing and not partial:
        raise DecodeError(f"truncated: {layout.missing}")
    require_pyav()
    with as_decode_errors(), open_container(data, layout.demuxer) as container:
        stream = picture_stream(container)
        picture = stream.index  # a closed container's streams are not to be looked at
        track = sound_stream(container)
        sound = None if track is None else track.index
        start = 0.0 if container.start_time is None else container.start_time / 1e6
        seconds = seconds_of(container, stream, start)
    if seconds > MAX_SECONDS:
        raise DecodeError(f"too long: {seconds:,.0f} s, the limit is {MAX_SECONDS:,.0f} s; cut it into parts")
    yield Video(
        data,
        layout=layout,
        picture=picture,
        sound=sound,
        start=start,
        seconds=seconds,
        partial=partial,
        note=note,
    )


def scan_track(
    data: Source, *, max_seconds: float, keep_frames: int, partial: bool = False, note: Note = untold
) -> ScannedAudio:
    """Do what `scan_audio` does for a sound in a container of videos: M4A, WMA, or AAC as it is streamed.

    Raises:
        DecodeError: As `scan_audio` does, or if PyAV is missing.
    """
    layout = layout_of(data)
    if layout.missing and not partial:
        raise DecodeError(f"truncated: {layout.missing}")
    require_pyav()
    with as_decode_errors(), open_container(data, layout.demuxer) as container:
        track = sound_stream(container)
        if track is None:
            kinds = ", ".join(map(codec_of, container.streams.audio))
            raise DecodeError(f"a kind of sound that is not read: {kinds}" if kinds else "it holds no sound")
        index = track.index
        start = 0.0 if container.start_time is None else container.start_time / 1e6
        seconds = seconds_of(container, track, start)
    check_length(int(seconds * USUAL_RATE_HZ), USUAL_RATE_HZ, max_seconds)
    sound = Video(
        data,
        layout=layout,
        picture=None,
        sound=index,
        start=start,
        seconds=seconds,
        partial=partial,
        note=note,
    ).sound(max_seconds=max_seconds, keep_frames=keep_frames)
    if sound is None:
        raise DecodeError("the sound holds no samples")
    return sound


def _samples(stream: Any, packets: Iterator[Any], *, start: float) -> Iterator[tuple[int, NDArray[Any]]]:
    """Yield the rate in Hz and samples, (s_i, c), unit floats, with silence where there are none."""
    from av.error import InvalidDataError

    decoder = stream.codec_context
    decoder.thread_count = 1
    rate_hz, written, tried, failed = 0, 0, 0, 0
    for packet in packets:
        tried += 1
        try:
            frames = decoder.decode(packet)
        except (InvalidDataError, EOFError):
            failed += 1
            continue
        for frame in frames:
            if not frame.samples:
                continue
            rate_hz = rate_hz or frame.sample_rate
            if frame.sample_rate != rate_hz or not RATES_HZ[0] <= rate_hz <= RATES_HZ[1]:
                raise DecodeError(
                    f"a sound track at {frame.sample_rate} Hz after {rate_hz} Hz: known are {RATES_HZ[0]} to "
                    f"{RATES_HZ[1]}, and one throughout"
                )
            if frame.pts is not None:
                place = round((float(frame.pts * stream.time_base) - start) * rate_hz)
                if place - written > MAX_SOUND_GAP_SECONDS * rate_hz:
                    for silence in _silence(place - written, channels=frame.layout.nb_channels):
                        written += len(silence)
                        yield rate_hz, silence
            samples = _unit_samples(frame)
            written += len(samples)
            yield rate_hz, samples
    if failed > MAX_DAMAGED_SHARE * tried:
        raise DecodeError(f"damaged video: {failed:,} of {tried:,} parts of its sound could not be decoded")


def _silence(count: int, *, channels: int) -> Iterator[NDArray[np.float32]]:
    while count > 0:
        yield np.zeros((min(count, BLOCK_FRAMES), channels), np.float32)
        count -= BLOCK_FRAMES


def _unit_samples(frame: Any) -> NDArray[Any]:
    """Return a frame's samples, (s, c), float32 or float64: integers are brought to -1 to 1."""
    channels = frame.layout.nb_channels
    if not 1 <= channels <= MAX_CHANNELS:
        raise DecodeError(f"{channels} channels, the limit is {MAX_CHANNELS}")
    values: NDArray[Any] = frame.to_ndarray()  # (c, s), or (1, s c) with the channels of a sample side by side
    values = values.T if frame.format.is_planar else values.reshape(-1, channels)
    if values.dtype.kind == "u":
        return (values.astype(np.float32) - 128) / 128
    if values.dtype.kind == "i":
        unit: NDArray[np.float64] = values / 2.0 ** (8 * values.dtype.itemsize - 1)
        return unit
    return values


def _mono(parts: list[NDArray[Any]]) -> NDArray[np.float32]:
    """Join parts, (s_i, c), and mix them to one channel, (s,).

    Raises:
        DecodeError: If they are not finite.
    """
    mono = downmixed(np.concatenate(parts))
    if not (mono.min() >= -FLOAT32_MAX and mono.max() <= FLOAT32_MAX):
        raise DecodeError("the sound holds NaN or infinity")
    return mono.astype(np.float32)
