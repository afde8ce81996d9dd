"""What decoding one file may take, of time, memory and pixels; and what users ask for beyond the usual."""

from dataclasses import dataclass

from trivium.encoders.base import SandboxError
from trivium.encoders.decoding.pictures import MAX_PIXELS
from trivium.encoders.machine import memory_bytes
from trivium.encoders.sandbox.kinds import MediaKind
from trivium.encoders.sandbox.mode import asked_megapixels

MOST_MEGAPIXELS = 4295  # of a JPEG


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What decoding one file may take; measured on two cores of 2.9 GHz."""

    # Processor time, which does not run while other programs have the machine. The slowest legal pictures, 100
    # megapixels of PNG with alpha, take 7 s; the slowest half-hour of stereo, Opus, takes 14 s.
    image_seconds: float = 10.0
    audio_seconds: float = 30.0
    # Pictures between key frames may have to be decoded for about a minute, and the sound track twice.
    video_seconds: float = 180.0
    # Beside it, for larger files.
    bytes_per_second: float = 1 << 20
    most_seconds: float = 120.0
    # Seconds by the clock to one of processor time: beside four other busy processes on two cores it was 2.7.
    patience: float = 4.0
    # Address space. 100 megapixels of WebP with alpha take 1.85 GiB, 0.12 of them for Python and the libraries.
    memory_bytes: int = 2 << 30

    # A day of MP3 takes 134 s: it is decoded twice.
    most_stream_seconds: float = 600.0
    max_pixels: int = MAX_PIXELS  # of a picture

    def cpu_seconds(self, modality: MediaKind, size_bytes: int, *, streams: bool = False) -> float:
        """Processor time for a file of this size."""
        base = {"image": self.image_seconds, "audio": self.audio_seconds, "video": self.video_seconds}
        seconds = base.get(modality, self.image_seconds)
        most = self.most_stream_seconds if streams else self.most_seconds
        return min(seconds + size_bytes / self.bytes_per_second, most)


def limits_of(max_megapixels: float | None = None) -> Limits:
    """Return the limits for pictures of so many megapixels; what TRIVIUM_MAX_MEGAPIXELS says if None, or the usual.

    Time and memory grow with them, memory to half of what this machine has at most.

    Raises:
        ValueError: If it is no number above 0, or more than the largest JPEG has.
        SandboxError: If TRIVIUM_MAX_MEGAPIXELS says such a thing.
    """
    usual = Limits()
    if max_megapixels is None:
        if (asked := asked_megapixels()) is None:
            return usual
        try:
            return limits_of(asked)
        except ValueError as error:
            raise SandboxError(f"TRIVIUM_MAX_MEGAPIXELS: {error}") from error
    if not 0 < max_megapixels <= MOST_MEGAPIXELS:
        raise ValueError(f"max_megapixels must be above 0 and at most {MOST_MEGAPIXELS}, got {max_megapixels}")
    times = max(1.0, max_megapixels * 1e6 / usual.max_pixels)
    most_memory = max(usual.memory_bytes, memory_bytes() // 2)
    return Limits(
        max_pixels=int(max_megapixels * 1e6),
        image_seconds=usual.image_seconds * times,
        most_seconds=usual.most_seconds * times,
        memory_bytes=min(int(usual.memory_bytes * times), most_memory),
    )
