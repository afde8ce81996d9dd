"""A process that decodes, seen from the program that asks it: what it is asked and answers, may take, and how it ends.

What it says is checked: it may have been taken over by the file that it read. Not by `multiprocessing`: that runs the
caller's script again, and pickles. What runs in there is `worker`, and where it comes from `starts`.
"""

import contextlib
import fcntl
import json
import math
import os
import signal
import socket
import time
from collections.abc import Callable
from typing import Any, Literal, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from trivium.encoders.base import DecodeError, SandboxError
from trivium.encoders.decoding.sounds import (
    MAX_FRAMES,
    MAX_STREAM_SECONDS,
    RATES_HZ,
    STREAM_FRAMES,
    USUAL_RATE_HZ,
    Sound,
)
from trivium.encoders.machine import cpu_seconds_of
from trivium.encoders.sandbox import starts as decode_starts
from trivium.encoders.sandbox.kinds import DecodeKind, MediaKind, kind_of
from trivium.encoders.sandbox.limits import Limits
from trivium.encoders.sandbox.starts import Starts, fate
from trivium.encoders.sandbox.worker import (
    CHANGED,
    LENGTH,
    MAX_HEADER_BYTES,
    MAX_REASON_CHARACTERS,
    OUT_OF_MEMORY,
    packed,
)
from trivium.encoders.tags.reading import FileTags

T = TypeVar("T")
Asks: TypeAlias = Literal["", "tags", "tags only"]

# 12 megapixels are 36 MB; the default of 208 KiB takes twice as long.
SOCKET_BYTES = 1 << 20
MAX_CHARACTER_BYTES = 4  # of UTF-8
MAX_NOTES = 8  # of a file
PICTURE_KINDS = ("picture", "heif", "drawing")


class WorkerFailed(Exception):
    """A worker that gave no usable answer; ``is_final`` if another would not either."""

    def __init__(self, reason: str, *, is_final: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.is_final = is_final


class Request:
    """What a worker is asked."""

    def __init__(
        self,
        modality: MediaKind,
        source: bytes | int,
        limits: Limits,
        *,
        side: int | None = None,
        streams: bool = False,
        partial: bool = False,
        asks: Asks = "",
        most: int = 0,
    ) -> None:
        if isinstance(source, int) and fcntl.fcntl(source, fcntl.F_GETFL) & os.O_ACCMODE != os.O_RDONLY:
            # A worker could change the file through it, whatever it may open.
            raise ValueError(f"the descriptor {source} must be open for reading only")
        self.source = source
        self.kind: DecodeKind = kind_of(modality, source)
        self.limits = limits
        size = os.fstat(source).st_size if isinstance(source, int) else len(source)
        self.cpu_seconds = limits.cpu_seconds(modality, size, streams=streams)
        self.seconds = self.cpu_seconds * limits.patience
        self.notes: list[str] = []  # what its owner should know of the file
        self.told: FileTags | None = None
        self.header: dict[str, Any] = {
            **{"modality": modality, "size": size, "is_open": isinstance(source, int), "side": side},
            **{"partial": partial, "max_pixels": limits.max_pixels, "most": most},
            # The worker's own alarm rings later than ours: it is for when we are gone.
            **{"streams": streams, "cpu_seconds": self.cpu_seconds, "seconds": 2 * self.seconds + 1},
            "asks": asks,
        }

    def gives_up_tags(self) -> bool:
        """Ask for the content alone, if the last answer ended before the tags came."""
        if self.header["asks"] != "tags" or self.told is not None:
            return False
        self.header["asks"] = ""
        self.told = FileTags({}, ["tags cannot be read: the decoder failed on them"])
        return True


class DecodeProcess:
    """One process and our end of its socket; used by one thread at a time."""

    def __init__(self, starts: Starts, kind: DecodeKind) -> None:
        self.kind: DecodeKind = kind
        self.files = 0
        self.isolation: dict[str, int] = {}  # what holds in it, once it is ready
        # A socket and no pipes: twice as fast, has time-outs, and a dead reader need not raise SIGPIPE.
        self._link, theirs = socket.socketpair()
        with theirs:
            for end in (self._link, theirs):
                for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
                    with contextlib.suppress(OSError):
                        end.setsockopt(socket.SOL_SOCKET, option, SOCKET_BYTES)
            try:
                self.pid = starts.start(theirs, kind)
            except BaseException:
                self._link.close()
                raise
        self._starts = starts
        self._used = 0.0
        self._notes: list[str] = []
        self._limits, self._cpu_seconds = Limits(), 0.0  # of the file that it is at

    def cpu_seconds(self) -> float:
        """Return the processor's time that it has used; of a dead one what was known before."""
        self._used = max(self._used, cpu_seconds_of(self.pid) or 0.0)
        return self._used

    def wait_until_ready(self) -> None:
        """Wait for its first word; `SandboxError` if that does not come."""
        deadline = time.monotonic() + decode_starts.START_SECONDS
        try:
            answer = self._header(deadline)
        except TimeoutError:
            raise SandboxError(
                f"a process to decode in was not ready after {decode_starts.START_SECONDS:.0f} s"
            ) from None
        except (OSError, EOFError):
            raise SandboxError(
                f"a process to decode in ended at its start ({fate(self._starts.wait(self.pid))})"
            ) from None
        except WorkerFailed:
            answer = {}
        if answer.pop("ready", None) is not True:
            raise SandboxError("a process to decode in gave a wrong first answer")
        self.isolation = answer

    def is_well(self) -> bool:
        """Whether it waits in silence: a dead one's socket is at its end, and a sane one says nothing unasked."""
        self._link.settimeout(0)
        try:
            self._link.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        except OSError:
            pass
        return False

    def ask(self, request: Request, take: "Callable[[DecodeProcess, dict[str, Any], float], T]") -> T:
        """Send a file, and have ``take`` read the answer until the deadline that it is given."""
        self.files += 1
        self._notes = request.notes = []  # of this answer, not of one before that failed
        self._limits, self._cpu_seconds = request.limits, request.cpu_seconds
        deadline = time.monotonic() + request.seconds
        try:
            self._send(packed(request.header), deadline)
            if isinstance(request.source, int):
                self._link.settimeout(_remaining(deadline))
                socket.send_fds(self._link, [b"f"], [request.source])
            else:
                self._send(request.source, deadline)
            if request.header["asks"] == "tags":
                request.told = None
                request.told = tags_of(self.header(deadline))
            answer = self.header(deadline)
            return take(self, answer, deadline)
        except TimeoutError:
            raise WorkerFailed(f"took longer than {request.seconds:.3g} s to decode", is_final=True) from None
        except (OSError, EOFError):
            raise self._death() from None

    def header(self, deadline: float) -> dict[str, Any]:
        """Take an answer that is no refusal, and the notes before it."""
        answer = self._header(deadline)
        while "note" in answer:
            if not isinstance(note := answer["note"], str) or len(self._notes) == MAX_NOTES:
                raise nonsense()
            self._notes.append(note[:MAX_REASON_CHARACTERS])
            answer = self._header(deadline)
        if isinstance(reason := answer.get("refused"), str) and reason:
            raise DecodeError(reason[:MAX_REASON_CHARACTERS])
        return answer

    def picture(self, answer: dict[str, Any], deadline: float) -> NDArray[np.uint8]:
        """Take a picture's pixels, (h, w, 3)."""
        pixels = np.empty(picture_shape(answer, self._limits.max_pixels), np.uint8)
        self._fill(pixels.data.cast("B"), deadline)
        return pixels

    def text(self, answer: dict[str, Any], deadline: float, *, most: int) -> str:
        """Take a document's text, of at most so many characters."""
        match answer.get("bytes"):
            case int(size) if type(size) is int and 0 < size <= most * MAX_CHARACTER_BYTES:
                data = bytearray(size)
                self._fill(memoryview(data), deadline)
                with contextlib.suppress(UnicodeDecodeError):
                    if len(text := data.decode()) <= most:
                        return text
        raise nonsense()

    def sound(self, answer: dict[str, Any], deadline: float) -> Sound:
        """Take a whole sound."""
        frames, rate_hz = sound_shape(answer)
        return self._samples(frames, deadline), rate_hz

    def samples(self, frames: int, deadline: float) -> NDArray[np.float32]:
        """Take the next part of a stream."""
        try:
            return self._samples(frames, deadline)
        except TimeoutError:
            raise WorkerFailed("took too long to decode") from None
        except (OSError, EOFError):
            raise self._death() from None

    def _samples(self, frames: int, deadline: float) -> NDArray[np.float32]:
        waveform = np.empty(frames, np.float32)
        self._fill(waveform.data.cast("B"), deadline)
        with np.errstate(invalid="ignore"):
            total = waveform.sum(dtype=np.float64)  # cannot overflow, and needs no memory
        if not math.isfinite(total):
            raise nonsense()
        return waveform

    def kill(self) -> None:
        """Kill it; whoever waits for its answer gets an error, and cleans up."""
        self._starts.kill(self.pid)

    def end(self) -> None:
        """Kill it and clean up."""
        self._starts.kill(self.pid)
        self._starts.wait(self.pid)
        self._link.close()

    def dismiss(self) -> None:
        """Kill it, and let its end be cleaned up whenever it comes."""
        self._starts.dismiss(self.pid)
        self._link.close()

    def _send(self, data: bytes, deadline: float) -> None:
        self._link.settimeout(_remaining(deadline))
        # Where a program wants to die of SIGPIPE, like cat, it is not for our sake.
        self._link.sendall(data, getattr(socket, "MSG_NOSIGNAL", 0))

    def _header(self, deadline: float) -> dict[str, Any]:
        length = bytearray(LENGTH.size)
        self._fill(memoryview(length), deadline)
        size = LENGTH.unpack(length)[0]
        if size > MAX_HEADER_BYTES:
            raise nonsense()
        text = bytearray(size)
        self._fill(memoryview(text), deadline)
        try:
            header = json.loads(text)
        except (ValueError, RecursionError):
            raise nonsense() from None
        if not isinstance(header, dict):
            raise nonsense()
        return header

    def _fill(self, view: memoryview, deadline: float) -> None:
        while view:
            self._link.settimeout(_remaining(deadline))
            if not (count := self._link.recv_into(view)):
                raise EOFError
            view = view[count:]

    def _death(self) -> WorkerFailed:
        """Say how it ended."""
        status = self._starts.wait(self.pid)
        if status == CHANGED:
            return WorkerFailed("changed while it was being read; run again when it is finished", is_final=True)
        if status == -signal.SIGXCPU:
            return WorkerFailed(f"took longer than {self._cpu_seconds:.3g} s to decode (processor time)", is_final=True)
        if status == OUT_OF_MEMORY:
            more = " (--max-megapixels raises that too)" if self.kind in PICTURE_KINDS else ""
            return WorkerFailed(
                f"needs more than {self._limits.memory_bytes / 2**30:.3g} GiB of memory to decode{more}"
            )
        if status == -signal.SIGKILL:
            return WorkerFailed(f"the decoder was killed ({fate(status)}): did the machine run out of memory?")
        return WorkerFailed(f"the decoder crashed on it ({fate(status)})")


def _remaining(deadline: float) -> float:
    if (seconds := deadline - time.monotonic()) <= 0:
        raise TimeoutError
    return seconds


def picture_shape(answer: dict[str, Any], max_pixels: int) -> tuple[int, int, int]:
    """Return a picture's (h, w, 3), or raise `WorkerFailed`."""
    match answer.get("shape"):
        case [height, width, 3] if type(height) is type(width) is int and min(height, width) > 0:
            if height * width <= max_pixels:
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


def tags_of(answer: dict[str, Any]) -> FileTags:
    """Return what a file says of itself, or raise `WorkerFailed`."""
    match answer.get("tags"), answer.get("problems"):
        case dict(tags), list(problems) if all(map(_is_tag, tags.values())) and _are_texts(problems):
            return FileTags(tags, problems)
    raise nonsense()


def _is_tag(value: object) -> bool:
    if isinstance(value, list):
        return _are_texts(value)
    return isinstance(value, str | int) or (isinstance(value, float) and math.isfinite(value))


def _are_texts(values: list[object]) -> bool:
    return all(isinstance(value, str) for value in values)


def nonsense() -> WorkerFailed:
    """Return the error of an answer that no sane worker gives."""
    return WorkerFailed("the decoder gave an answer that makes no sense")
