"""Files that are loaded: opened if they are no larger than those of their kind may be, held in memory or streamed."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from trivium.encoders.base import Encoder, Prepared
from trivium.encoders.decoding.pictures import MAX_PIXELS
from trivium.encoders.decoding.sounds import Sound
from trivium.encoders.engine import one_ahead
from trivium.encoders.files.reading import OpenedFile, open_file
from trivium.encoders.sandbox.limits import Limits
from trivium.encoders.sandbox.streams import SoundStream
from trivium.pipeline.records import ItemKind

# A text is read whole for its first 256 tokens; the largest scans have some hundred MB; a day of lossless sound 16 GB.
MAX_FILE_BYTES: Mapping[ItemKind, int] = {"text": 64 << 20, "image": 512 << 20, "audio": 16 << 30, "video": 64 << 30}


@dataclass(frozen=True, slots=True)
class Source:
    """A file that was read, or only hashed because it is large."""

    file: OpenedFile
    data: bytes | None
    sha256: bytes

    @property
    def data_or_descriptor(self) -> bytes | int:
        """What a decoder takes."""
        return self.file.descriptor if self.data is None else self.data


def open_media(path: str, kind: ItemKind, limits: Limits) -> OpenedFile:
    """Open a file; one of pictures may be the larger the more pixels they may have.

    Raises:
        DecodeError: If it is larger than files of its kind may be, or cannot be opened.
    """
    if kind != "image":
        return open_file(path, max_bytes=MAX_FILE_BYTES[kind])
    most = MAX_FILE_BYTES[kind] * max(limits.max_pixels, MAX_PIXELS) // MAX_PIXELS
    return open_file(path, max_bytes=most, remedy="--max-megapixels or TRIVIUM_MAX_MEGAPIXELS raises it")


def streamed(encoder: Encoder, sound: SoundStream, file: OpenedFile) -> Iterator[Prepared]:
    """Yield blocks; at the end see whether the file is still the one that was hashed."""
    try:
        yield from one_ahead(encoder.blocks(sound))
        file.require_unchanged()
    finally:
        sound.close()
        file.close()


def seconds_of(sound: Sound | SoundStream) -> float:
    """Return how long a sound is."""
    if isinstance(sound, SoundStream):
        return sound.frames / sound.rate_hz
    waveform, rate_hz = sound
    return len(waveform) / rate_hz
