"""Which pictures of a video are decoded, and which of those are taken: upright, scaled, where a scene begins."""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from trivium.encoders.base import DecodeError
from trivium.encoders.decoding.containers import MAX_PIXELS, too_many_pixels

MAX_FRAMES = 2_000  # pictures of one video: longer ones get fewer a minute
MAX_PICTURE_PIXELS = 8 * 448 * 448  # as it is given back; only very long ones are scaled further for it
LEAST_SECONDS = 1.0  # between two pictures, but for short scenes
MOST_SECONDS = 10.0  # between two pictures, where there are key frames or filling goes on
SPLIT_SECONDS = 12.0  # x264 and x265 place a key frame every 250 pictures, that is 10.4 s at 24 a second
FILLING_PIXELS = 40_000_000_000  # 20,000 pictures of 1920 x 1080, about a minute of processor time
HELD_BYTES = 64 << 20  # of coded pictures that may have to be decoded after all
SCENE_DIFFERENCE = 20.0  # of 255, mean over 16 x 16 pixels: 200 pairs of photos (Flickr8k) differ by 27.9 or more
THUMBNAIL = (16, 16)
MAX_DAMAGED_SHARE = 0.1  # of what was tried to be decoded
MAX_SQUEEZE = 4.0  # pixels that claim to be wider or higher than this many times are taken for square
UNSPECIFIED = 2  # colours, in ITU-T H.273
# How to bring a picture upright, by the signs of its display matrix (x' = a x + c y, y' = b x + d y; y runs downwards).
TRANSPOSES = {
    (0, 1, -1, 0): Image.Transpose.ROTATE_270,  # Pillow turns counterclockwise
    (-1, 0, 0, -1): Image.Transpose.ROTATE_180,
    (0, -1, 1, 0): Image.Transpose.ROTATE_90,
    (-1, 0, 0, 1): Image.Transpose.FLIP_LEFT_RIGHT,
    (1, 0, 0, -1): Image.Transpose.FLIP_TOP_BOTTOM,
    (0, 1, 1, 0): Image.Transpose.TRANSPOSE,
    (0, -1, -1, 0): Image.Transpose.TRANSVERSE,
}


class Frame(NamedTuple):
    """A picture of a video."""

    seconds: float  # from the video's beginning, three decimals
    image: Image.Image  # RGB, upright, of square pixels


class Pictures:
    """Chooses what to decode, and what to take of that; for one pass through one stream."""

    def __init__(self, stream: Any, *, start: float, seconds: float, shorter: int) -> None:
        self._stream = stream
        self._start = start
        self._shorter = shorter
        # Twice: what is passed over as too near may still give one, if its scene lasts (`taken`).
        self._least = max(LEAST_SECONDS, 2 * seconds / MAX_FRAMES)
        self._most = max(MOST_SECONDS, 2 * self._least)
        self._split = max(SPLIT_SECONDS, self._most)
        self._decoder = stream.codec_context
        self._decoder.thread_count = 1
        self._decoder.skip_frame = "NONREF"  # what no other picture is made from is not needed to fill gaps
        # Decoders count the margins that they add, so this is only for pictures that grow far beyond the header's.
        self._decoder.options = {"max_pixels": str(2 * MAX_PIXELS)}
        self._scaler = _scaler()
        self.reached = 0.0  # seconds of the last picture that was there to be decoded
        self._filling_pixels = FILLING_PIXELS
        self._tried, self._failed = 0, 0
        self._considered = -math.inf  # seconds
        self._taken = -math.inf
        self._thumbnail: NDArray[np.int16] | None = None

    def taken(self, packets: Iterator[Any]) -> Iterator[Frame]:
        """Decode what is needed of a stream's packets, and take what shows something new.

        Raises:
            DecodeError: If too many pictures cannot be decoded, or one has too many pixels.
        """
        held: list[Any] = []  # a key frame and what follows it
        held_bytes, key_seconds = 0, math.inf
        is_pending = is_filling = False
        for packet in packets:
            seconds = self._seconds(packet.pts if packet.pts is not None else packet.dts)
            if not packet.size or seconds is None:
                continue
            self.reached = max(self.reached, seconds)
            if packet.is_keyframe:
                if is_filling:
                    yield from self._chosen(self._decoded(None))
                held, held_bytes, key_seconds = [packet], packet.size, seconds
                is_filling = False
                is_pending = not (is_due := seconds >= self._considered + self._least)
                if is_due:
                    yield from self._chosen(self._alone(packet))
                continue
            if is_filling:
                yield from self._filled([packet])
                is_filling = self._filling_pixels > 0
                continue
            if is_pending and held and seconds >= key_seconds + self._least:  # the scene is no short one
                is_pending = False
                yield from self._chosen(self._alone(held[0]), is_due=True)
            if not held or self._filling_pixels <= 0:
                continue
            held.append(packet)
            held_bytes += packet.size
            if seconds >= key_seconds + self._split:
                yield from self._filled(held)
                is_filling = self._filling_pixels > 0
                held = []
            elif held_bytes > HELD_BYTES:
                held = []
        if is_filling:
            yield from self._chosen(self._decoded(None))
        if self._failed > MAX_DAMAGED_SHARE * self._tried:
            raise DecodeError(f"damaged video: {self._failed:,} of {self._tried:,} pictures could not be decoded")

    def _filled(self, packets: list[Any]) -> Iterator[Frame]:
        """Decode packets, as long as `FILLING_PIXELS` have not been decoded so."""
        for packet in packets:
            frames = self._decoded(packet)
            self._filling_pixels -= sum(frame.width * frame.height for frame in frames)
            yield from self._chosen(frames)
            if self._filling_pixels <= 0:
                self._decoder.flush_buffers()
                return

    def _alone(self, packet: Any) -> list[Any]:
        """Decode a key frame by itself."""
        failed = self._failed
        frames = [*self._decoded(packet), *self._decoded(None)]
        if not frames:
            self._failed = failed + 1
        return frames[:1]

    def _decoded(self, packet: Any) -> list[Any]:
        """Decode a packet; None gives what the decoder still holds, and makes it ready for another key frame."""
        from av.error import InvalidDataError

        self._tried += packet is not None
        try:
            frames: list[Any] = self._decoder.decode(packet)
        except (InvalidDataError, EOFError):
            self._failed += packet is not None
            frames = []
        if packet is None:
            self._decoder.flush_buffers()
        for frame in frames:
            if frame.width * frame.height > MAX_PIXELS:
                raise too_many_pixels(frame)
        return [frame for frame in frames if not frame.is_corrupt]

    def _chosen(self, frames: list[Any], *, is_due: bool = False) -> Iterator[Frame]:
        for frame in frames:
            seconds = self._seconds(frame.pts)
            if seconds is None or seconds <= self._considered:
                continue
            if not is_due and seconds < self._considered + self._least:
                continue
            self._considered = seconds
            image = self._image(frame)
            if self._is_new(seconds, image):
                yield Frame(seconds, image)

    def _is_new(self, seconds: float, image: Image.Image) -> bool:
        thumbnail = np.asarray(image.resize(THUMBNAIL, Image.Resampling.BOX), np.int16)
        if self._thumbnail is not None and seconds < self._taken + self._most:
            if np.abs(thumbnail - self._thumbnail).mean() < SCENE_DIFFERENCE:
                return False
        self._thumbnail, self._taken = thumbnail, seconds
        return True

    def _image(self, frame: Any) -> Image.Image:
        width, height = fitted_size(frame.width, frame.height, self._stream.sample_aspect_ratio, shorter=self._shorter)
        scaled = self._scaler(frame, width, height)
        image = Image.fromarray(scaled.to_ndarray())
        transpose = _transpose(frame)
        return image if transpose is None else image.transpose(transpose)

    def _seconds(self, timestamp: int | None) -> float | None:
        """Return the time since the video's beginning, with the three decimals that are stored."""
        if timestamp is None:
            return None
        return round(max(0.0, float(timestamp * self._stream.time_base) - self._start), 3)


def _transpose(frame: Any) -> Image.Transpose | None:
    for data in frame.side_data:
        if data.type.name == "DISPLAYMATRIX":
            matrix = np.frombuffer(bytes(data), np.int32)
            if len(matrix) == 9:
                a, b, c, d = (float(matrix[place]) for place in (0, 1, 3, 4))
                largest = max(abs(a), abs(b), abs(c), abs(d), 1.0)
                return TRANSPOSES.get(tuple(round(value / largest) for value in (a, b, c, d)))  # type: ignore[arg-type]
    return None


def fitted_size(width: int, height: int, aspect: Any, *, shorter: int) -> tuple[int, int]:
    """Return the size to scale to: square pixels, the shorter side as asked for if there is as much."""
    squeeze = float(aspect) if aspect else 1.0
    wide = width * (squeeze if 1 / MAX_SQUEEZE <= squeeze <= MAX_SQUEEZE else 1.0)
    factor = min(1.0, shorter / min(wide, height), math.sqrt(MAX_PICTURE_PIXELS / (wide * height)))
    fitted = max(1, round(wide * factor))
    return fitted, min(max(1, round(height * factor)), MAX_PICTURE_PIXELS // fitted)


def _scaler() -> Any:
    """Return what scales frames to RGB; it keeps its tables from one to the next."""
    from av.video.reformatter import Colorspace, Interpolation, VideoReformatter

    reformatter = VideoReformatter()

    def scale(frame: Any, width: int, height: int) -> Any:
        # What does not say its colours has those of HDTV if it is as large (ITU-R BT.709), else those of TV (BT.601).
        is_hd = frame.colorspace == UNSPECIFIED and frame.height >= 720
        return reformatter.reformat(
            frame,
            width=width,
            height=height,
            format="rgb24",
            src_colorspace=Colorspace.ITU709 if is_hd else None,
            interpolation=Interpolation.AREA,
        )

    return scale
