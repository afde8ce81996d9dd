"""Which sound files are worth training on: those that can be read, last a moment and are not silent."""

import numpy as np

from trivium.encoders.base import DecodeError
from trivium.encoders.decoding.sounds import decode_audio

MIN_SECONDS = 0.1
MAX_SECONDS = 120.0
# Of full scale; below it there is nothing but noise.
MIN_PEAK = 0.005


def is_heard(content: bytes) -> bool:
    """Tell whether a file's content is a sound of a sensible length in which something is to be heard."""
    try:
        samples, rate_hz = decode_audio(content)
    except DecodeError:
        return False
    lasts = MIN_SECONDS <= len(samples) / rate_hz <= MAX_SECONDS
    return lasts and bool(np.abs(samples).max(initial=0) >= MIN_PEAK)
