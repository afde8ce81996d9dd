"""What a worker sends as it is taken: a long sound; and a video, whose sound track may be one."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from trivium.encoders.base import DecodeError
from trivium.encoders.decoding.sounds import Sound
from trivium.encoders.sandbox.process import DecodeProcess, WorkerFailed

T = TypeVar("T")

STREAM_CHUNK_FRAMES = 1 << 20
STREAM_SECONDS = 60.0  # for a chunk, which takes some 20 ms


@dataclass(frozen=True, slots=True)
class SoundStream:
    """A long sound: what is known of it, and its samples as they are taken."""

    frames: int
    rate_hz: int
    peak: float  # largest distance from 0
    chunks: Iterable[NDArray[np.float32]]  # (s_i,), in all ``frames``; once

    def close(self) -> None:
        """Give up what was not taken."""
        if isinstance(self.chunks, StreamedSamples):
            self.chunks.close()


@dataclass(frozen=True, slots=True)
class DecodedVideo(Generic[T]):
    """A video's pictures with their times in seconds, as they were prepared, and its sound track if it has one."""

    frames: Sequence[tuple[float, T]]
    sound: Sound | SoundStream | None
    seconds: float  # as its header has it


class StreamedSamples:
    """What a worker sends as it is asked for; the worker is of this stream alone until then."""

    def __init__(
        self,
        worker: DecodeProcess,
        frames: int,
        *,
        give_back: Callable[[DecodeProcess], None],
        end: Callable[[DecodeProcess], None],
    ) -> None:
        self._give_back = give_back
        self._end = end
        self._worker: DecodeProcess | None = worker
        self._left = frames

    def __iter__(self) -> Iterator[NDArray[np.float32]]:
        """Return itself."""
        return self

    def __next__(self) -> NDArray[np.float32]:
        """Wait for the next part.

        Raises:
            DecodeError: If the worker crashes, or takes too long.
        """
        if self._worker is None:
            raise StopIteration
        try:
            chunk = self._worker.samples(min(self._left, STREAM_CHUNK_FRAMES), time.monotonic() + STREAM_SECONDS)
        except WorkerFailed as failure:
            self.close()
            raise DecodeError(failure.reason) from None
        except BaseException:
            self.close()
            raise
        self._left -= len(chunk)
        if not self._left:
            self._give_back(self._worker)
            self._worker = None
        return chunk

    def close(self) -> None:
        """End the worker, if it is still at work."""
        if self._worker is not None:
            self._end(self._worker)
            self._worker = None
