"""What a decoding process says, checked: it may have been taken over by the file that it read."""

import math
from typing import Any

from trivium.encoders.decoding.pictures import MAX_PIXELS
from trivium.encoders.decoding.sounds import MAX_FRAMES, MAX_STREAM_SECONDS, RATES_HZ, STREAM_FRAMES, USUAL_RATE_HZ


class WorkerFailed(Exception):
    """A worker that gave no usable answer; ``is_final`` if another would not either."""

    def __init__(self, reason: str, *, is_final: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.is_final = is_final


def picture_shape(answer: dict[str, Any]) -> tuple[int, int, int]:
    """Return a picture's (h, w, 3), or raise `WorkerFailed`."""
    match answer.get("shape"):
        case [height, width, 3] if type(height) is type(width) is int and min(height, width) > 0:
            if height * width <= MAX_PIXELS:
                return height, width, 3
    raise nonsense()


def sound_shape(answer: dict[str, Any]) -> tuple[int, int]:
    """Return a sound's frames and rate in Hz, or raise `WorkerFailed`."""
    match answer.get("shape"), answer.get("rate_hz"):
        case [int(frames)], int(rate_hz) if type(frames) is type(rate_hz) is int:  # not bool
            if 0 < frames <= MAX_FRAMES and RATES_HZ[0] <= rate_hz <= RATES_HZ[1]:
                return frames, rate_hz
    raise nonsense()


def stream_shape(answer: dict[str, Any]) -> tuple[int, int, float]:
    """Return a stream's frames, rate in Hz and peak, or raise `WorkerFailed`."""
    match answer.get("shape"), answer.get("rate_hz"), answer.get("peak"):
        case [int(frames)], int(rate_hz), float(peak) if type(frames) is type(rate_hz) is int:  # not bool
            is_long = STREAM_FRAMES < frames <= MAX_STREAM_SECONDS * USUAL_RATE_HZ
            if is_long and RATES_HZ[0] <= rate_hz <= RATES_HZ[1] and math.isfinite(peak) and peak >= 0:
                return frames, rate_hz, peak
    raise nonsense()


def frame_seconds(answer: dict[str, Any]) -> float:
    """Return when a video's picture is shown, or raise `WorkerFailed`."""
    match answer.get("seconds"):
        case float(seconds) | int(seconds) if 0 <= seconds <= MAX_STREAM_SECONDS * 1000:  # NaN is not
            return float(seconds)
    raise nonsense()


def nonsense() -> WorkerFailed:
    """Return the error of an answer that no sane worker gives."""
    return WorkerFailed("the decoder gave an answer that makes no sense")
