"""What decoding one file may take, in time and memory."""

from dataclasses import dataclass

from trivium.encoders.sandbox.kinds import MediaKind


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

    def cpu_seconds(self, modality: MediaKind, size_bytes: int, *, streams: bool = False) -> float:
        """Processor time for a file of this size."""
        base = {"image": self.image_seconds, "audio": self.audio_seconds, "video": self.video_seconds}
        seconds = base.get(modality, self.image_seconds)
        most = self.most_stream_seconds if streams else self.most_seconds
        return min(seconds + size_bytes / self.bytes_per_second, most)
