"""Which sound files are worth training on: those that can be read, last a moment and are not silent."""

import io

import numpy as np
import soundfile

MIN_SECONDS = 0.1
MAX_SECONDS = 120.0
# Of full scale; below it there is nothing but noise.
MIN_PEAK = 0.005


def is_heard(content: bytes) -> bool:
    """Tell whether a file's content is a sound of a sensible length in which something is to be heard."""
    try:
        with soundfile.SoundFile(io.BytesIO(content)) as sound:
            if not MIN_SECONDS <= len(sound) / sound.samplerate <= MAX_SECONDS:
                return False
            samples = sound.read(dtype="float32")
    except soundfile.LibsndfileError:
        return False
    return bool(np.abs(samples).max(initial=0) >= MIN_PEAK)
