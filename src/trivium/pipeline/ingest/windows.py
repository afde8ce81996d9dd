"""Stretches of sounds that have vectors of their own: they overlap by half, and the last ends where the sound does."""

import math
from collections.abc import Callable

import numpy as np

LONG_SECONDS = 60.0  # a shorter sound is heard through sooner than a player is set to a place in it
USUAL_SECONDS = 10.0  # of the windows of a long sound, and of a video's, where nothing is asked
MAX_WINDOWS = 100_000  # of one sound: a day of them two seconds long


def windows_of(
    duration: float, seconds: float | None, *, note: Callable[[str], None] = lambda _: None
) -> list[tuple[float, float]]:
    """Cut a duration into windows (start, stop) in seconds, as roles have them: three decimals.

    What happens where one window ends is in the middle of another. All are as long as is asked, but for the last: a
    rest of less than a quarter of that belongs to it, and a longer one has a window that ends with it. (A short window
    of its own would hold next to nothing, and be near to anything that is short or silent.)

    Args:
        duration: Of a sound.
        seconds: Of a window; None for none. Made longer if there would be more than `MAX_WINDOWS`.
        note: Told if so.

    Returns:
        The windows; none if one would be all of it.
    """
    if seconds is None or duration <= seconds:
        return []
    if _count(duration, seconds) >= MAX_WINDOWS:
        seconds = 2 * duration / MAX_WINDOWS
        note(f"its windows are {seconds:.3g} s long: of one sound there are at most {MAX_WINDOWS:,}")
    hop = seconds / 2
    starts = hop * np.arange(_count(duration, seconds))
    stops = starts + seconds
    if duration - stops[-1] < hop / 2:
        stops[-1] = duration
    else:
        starts, stops = np.append(starts, duration - seconds), np.append(stops, duration)
    if len(starts) == 1:
        return []
    return list(zip(np.round(starts, 3).tolist(), np.round(stops, 3).tolist(), strict=True))


def _count(duration: float, seconds: float) -> int:
    """Count the windows that begin at multiples of half their length and end within the sound."""
    return 1 + math.floor(round((duration - seconds) / (seconds / 2), 6))


def window_seconds(asked: float | None, sound_seconds: float) -> float | None:
    """Return how long the windows of a sound are, None if it has none.

    Args:
        asked: What the collection's owner said: 0 for none, None for nothing.
        sound_seconds: How long it is.
    """
    if asked is not None:
        return asked or None
    return USUAL_SECONDS if sound_seconds > LONG_SECONDS else None
