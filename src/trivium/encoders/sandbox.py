"""Decoding in processes of its own: a file that crashes, hangs or bloats the decoder costs that file, not the run.

libjpeg, libtiff, libsndfile and their kin are C, and read files from anywhere. Here they run in worker processes with
limits on time and memory (`decode_worker`); what they send back is checked. Not by `multiprocessing`: that runs the
caller's script again, and pickles.
"""

import contextlib
import json
import math
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, Literal, Self, TypeAlias, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

from trivium.encoders.audio_decoding import MAX_FRAMES, MAX_STREAM_SECONDS, RATES_HZ, USUAL_RATE_HZ
from trivium.encoders.base import DecodeError, Modality
from trivium.encoders.cores import cpu_seconds_of, usable_cores
from trivium.encoders.decode_worker import LENGTH, MAX_HEADER_BYTES, OUT_OF_MEMORY, packed
from trivium.encoders.image_decoding import MAX_PIXELS

Sound: TypeAlias = tuple[NDArray[np.float32], int]  # (s,), rate in Hz
DecodedMedia: TypeAlias = NDArray[np.uint8] | Sound  # a picture is (h, w, 3)
MediaKind: TypeAlias = Modality | Literal["video"]
T = TypeVar("T")

STREAM_CHUNK_FRAMES = 1 << 20
STREAM_SECONDS = 60.0  # for a chunk, which takes some 20 ms
MAX_VIDEO_FRAMES = 2_000  # as `video_decoding` has it, which brings PyAV's needs
START_SECONDS = 60.0  # 0.3 on an idle machine
END_SECONDS = 1.0  # from a closed socket to the exit status
MAX_FILES = 1000  # of one worker, in case that a library leaks; a new one costs as much as 0.3 ms a file
# 12 megapixels are 36 MB; the default of 208 KiB takes twice as long.
SOCKET_BYTES = 1 << 20
# -I: no PYTHON* variables, no user site, and neither the working directory nor the script's on the path. The parent's
# own path comes last, for packages that only it knows; this package comes first, for there may be another version.
BOOTSTRAP = (
    "import sys; sys.path.insert(0, sys.argv[2]); sys.path += sys.argv[3:]; "
    "from trivium.encoders.decode_worker import main; main(int(sys.argv[1]))"
)
# Where shared libraries are, and (for the text in drawings) fonts.
KEPT_VARIABLES = (
    *("PATH", "HOME", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "DYLD_FALLBACK_LIBRARY_PATH"),
    *("XDG_CONFIG_HOME", "XDG_DATA_HOME", "FONTCONFIG_FILE", "FONTCONFIG_PATH"),
)
# Threads and arenas reserve address space, which is what the limit on memory counts.
FIXED_VARIABLES = {
    **{"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"},
    # glibc: large blocks go back to the system. By default it learns to keep them, and a worker that had seen large
    # pictures held 900 MB.
    **{"MALLOC_MMAP_THRESHOLD_": str(8 << 20), "MALLOC_TRIM_THRESHOLD_": str(32 << 20)},
}


class SandboxError(RuntimeError):
    """The workers themselves cannot run; no fault of any file."""


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

    def cpu_seconds(self, modality: "MediaKind", size_bytes: int, *, streams: bool = False) -> float:
        """Processor time for a file of this size."""
        base = {"image": self.image_seconds, "audio": self.audio_seconds, "video": self.video_seconds}
        seconds = base.get(modality, self.image_seconds)
        most = self.most_stream_seconds if streams else self.most_seconds
        return min(seconds + size_bytes / self.bytes_per_second, most)


class DecodeSandbox:
    """A pool of decoding processes, started when they are needed; safe to use from several threads.

    As a context manager, or until `close`, or until it is collected or the interpreter ends.
    """

    def __init__(
        self, workers: int | None = None, *, limits: Limits | None = None, command: Sequence[str] | None = None
    ) -> None:
        """Prepare a pool; nothing is started yet.

        Args:
            workers: The most processes at once; one per core when None.
            limits: What one file may take.
            command: A program that speaks the worker's protocol on file descriptor 0, for tests.

        Raises:
            ValueError: If ``workers`` is below 1.
        """
        count = usable_cores() if workers is None else workers
        if count < 1:
            raise ValueError(f"workers must be at least 1, got {count}")
        self._limits = limits or Limits()
        self._command = list(command) if command is not None else _worker_command(self._limits.memory_bytes)
        self._slots = threading.BoundedSemaphore(count)
        self._lock = threading.Lock()  # over the five below
        self._running: set[_Worker] = set()
        self._used_by_ended = 0.0  # seconds of the processor's time
        self._idle: list[_Worker] = []
        self._begun: list[_Worker] = []  # not yet known to be ready
        self._closed = False
        self._process = os.getpid()
        self._finalizer = weakref.finalize(self, _end_all, self._running, self._process)

    @property
    def pids(self) -> list[int]:
        """Process ids of the workers that run now."""
        with self._lock:
            return sorted(worker.pid for worker in self._running)

    def cpu_seconds(self) -> float | None:
        """Return how much of the processor's time decoding has taken; None where the system does not tell."""
        if cpu_seconds_of(os.getpid()) is None:
            return None
        with self._lock:
            return self._used_by_ended + sum(worker.cpu_seconds() for worker in self._running)

    def begin(self) -> None:
        """Start a process, if there is none, for a file that is about to come: meanwhile the caller does other things.

        Raises:
            ValueError: If the sandbox is closed.
            SandboxError: If none can be started.
        """
        if not self.pids:
            worker = self._begin()
            with self._lock:
                self._begun.append(worker)

    @overload
    def decode(self, modality: Literal["image"], data: bytes, *, side: int | None = None) -> NDArray[np.uint8]: ...
    @overload
    def decode(self, modality: Literal["audio"], data: bytes, *, side: int | None = None) -> Sound: ...
    @overload
    def decode(self, modality: Modality, data: bytes, *, side: int | None = None) -> DecodedMedia: ...
    def decode(self, modality: Modality, data: bytes, *, side: int | None = None) -> DecodedMedia:
        """Decode a file's bytes in a worker, as `decode_image` (which takes ``side`` too) and `decode_audio` would.

        Returns:
            Pixels, uint8 of shape (h, w, 3); or a waveform, float32 of shape (s,), and its rate in Hz.

        Raises:
            DecodeError: If the file is refused, or the worker crashes on it or needs too much time or memory.
            ValueError: If the modality is text, or the sandbox is closed.
            SandboxError: If no worker can be started, or this process is a fork of the one that made the sandbox.
        """
        if modality not in ("image", "audio"):
            raise ValueError(f"modality must be 'image' or 'audio', got {modality!r}: text is decoded in process")
        request = _Request(modality, data, self._limits, side=side)
        if modality == "image":
            return self._ask(request, _Worker.picture)
        return self._ask(request, _Worker.sound)

    def sound(self, source: bytes | int) -> "Sound | SoundStream":
        """Decode a sound of up to a day: whole, or as a stream if it is longer than `STREAM_FRAMES`.

        Args:
            source: A file's bytes, or the descriptor of a file that is open for reading and does not change; it must
                stay open until a stream is at its end.

        Raises:
            DecodeError: As `decode` does. The whole file has been decoded once when this returns.
            SandboxError: As `decode` does.
        """
        return self._ask(_Request("audio", source, self._limits, streams=True), self._sound_or_stream)

    def video(
        self, source: bytes | int, prepare: Callable[[NDArray[np.uint8]], T], *, side: int | None = None
    ) -> "DecodedVideo[T]":
        """Decode a video's pictures, one for each scene or every few seconds, and its sound track.

        Args:
            source: As of `sound`.
            prepare: Called with each picture's pixels, (h, w, 3), so that they need not all be held.
            side: What the pictures will be brought to.

        Raises:
            DecodeError: As `decode` does.
            SandboxError: As `decode` does.
        """

        def take(worker: "_Worker", answer: dict[str, Any], deadline: float) -> "DecodedVideo[T]":
            frames: list[tuple[float, T]] = []
            while "frames_end" not in answer:
                if len(frames) == MAX_VIDEO_FRAMES:
                    raise _nonsense()
                seconds = _frame_seconds(answer)
                frames.append((seconds, prepare(worker.picture(answer, deadline))))
                answer = worker.header(deadline)
            answer = worker.header(deadline)
            sound = None if "no_sound" in answer else self._sound_or_stream(worker, answer, deadline)
            return DecodedVideo(frames, sound)

        return self._ask(_Request("video", source, self._limits, side=side, streams=True), take)

    def _sound_or_stream(self, worker: "_Worker", answer: dict[str, Any], deadline: float) -> "Sound | SoundStream":
        if "peak" not in answer:
            return worker.sound(answer, deadline)
        frames, rate_hz, peak = _stream_shape(answer)
        return SoundStream(frames, rate_hz, peak, _StreamedSamples(self, worker, frames))

    def _ask(self, request: "_Request", take: "Callable[[_Worker, dict[str, Any], float], T]") -> T:
        """Have a worker decode a file, and take its answer."""
        if os.getpid() != self._process:
            raise SandboxError("this sandbox belongs to the process that made it; make one after the fork")
        with self._slots:
            worker = self._take()
            while True:
                is_fresh = not worker.files
                try:
                    taken = worker.ask(request, take)
                except DecodeError:
                    self.give_back(worker)
                    raise
                except _WorkerFailed as failure:
                    self.end(worker)
                    if is_fresh or failure.is_final:
                        self._check_open()
                        raise DecodeError(failure.reason) from None
                    # It may have died while idle, or of an earlier file: this one is blamed only by a fresh worker.
                    worker = self._start()
                except BaseException:
                    self.end(worker)  # an answer may be under way
                    raise
                else:
                    if not isinstance(taken.sound if isinstance(taken, DecodedVideo) else taken, SoundStream):
                        self.give_back(worker)
                    return taken

    def close(self) -> None:
        """End all workers; a `decode` in another thread ends with a ValueError."""
        with self._lock:
            self._closed = True
            running, idle = list(self._running), [*self._idle, *self._begun]
            self._idle.clear()
            self._begun.clear()
        for worker in running:
            worker.kill()
        for worker in idle:  # the thread that has a busy one cleans up after it
            self.end(worker)

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close."""
        self.close()

    def _take(self) -> "_Worker":
        """Return an idle worker that is well, else a new one."""
        while True:
            with self._lock:
                worker = self._idle.pop() if self._idle else None
                begun = self._begun.pop() if worker is None and self._begun else None
            if begun is not None:
                with contextlib.suppress(SandboxError):  # it may have been killed since it was begun
                    return self._start(begun)
            elif worker is None:
                return self._start()
            elif worker.is_well():
                return worker
            else:
                self.end(worker)

    def _begin(self) -> "_Worker":
        self._check_open()
        worker = _Worker(self._command)
        with self._lock:
            self._running.add(worker)
        return worker

    def _start(self, begun: "_Worker | None" = None) -> "_Worker":
        """Wait until a new worker is ready, or one that was begun before."""
        worker = begun or self._begin()
        try:
            worker.wait_until_ready()
            self._check_open()
        except BaseException:
            self.end(worker)
            raise
        return worker

    def give_back(self, worker: "_Worker") -> None:
        """Take a worker back that has answered."""
        with self._lock:
            if not self._closed and worker.files < MAX_FILES:
                self._idle.append(worker)
                return
        self.end(worker)

    def end(self, worker: "_Worker") -> None:
        """End a worker, whatever it does."""
        used = worker.cpu_seconds()  # nobody knows it afterwards
        worker.end()
        with self._lock:
            if worker in self._running:
                self._running.remove(worker)
                self._used_by_ended += used

    def _check_open(self) -> None:
        if self._closed:
            raise ValueError("the sandbox is closed")


@dataclass(frozen=True, slots=True)
class SoundStream:
    """A long sound: what is known of it, and its samples as they are taken."""

    frames: int
    rate_hz: int
    peak: float  # largest distance from 0
    chunks: Iterable[NDArray[np.float32]]  # (s_i,), in all ``frames``; once

    def close(self) -> None:
        """Give up what was not taken."""
        if isinstance(self.chunks, _StreamedSamples):
            self.chunks.close()


@dataclass(frozen=True, slots=True)
class DecodedVideo(Generic[T]):
    """A video's pictures with their times in seconds, as they were prepared, and its sound track if it has one."""

    frames: Sequence[tuple[float, T]]
    sound: Sound | SoundStream | None


class _StreamedSamples:
    """What a worker sends as it is asked for; the worker is of this stream alone until then."""

    def __init__(self, sandbox: DecodeSandbox, worker: "_Worker", frames: int) -> None:
        self._sandbox = sandbox
        self._worker: _Worker | None = worker
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
        except _WorkerFailed as failure:
            self.close()
            raise DecodeError(failure.reason) from None
        except BaseException:
            self.close()
            raise
        self._left -= len(chunk)
        if not self._left:
            self._sandbox.give_back(self._worker)
            self._worker = None
        return chunk

    def close(self) -> None:
        """End the worker, if it is still at work."""
        if self._worker is not None:
            self._sandbox.end(self._worker)
            self._worker = None


class _Request:
    """What a worker is asked."""

    def __init__(
        self,
        modality: MediaKind,
        source: bytes | int,
        limits: Limits,
        *,
        side: int | None = None,
        streams: bool = False,
    ) -> None:
        self.source = source
        self.limits = limits
        size = os.fstat(source).st_size if isinstance(source, int) else len(source)
        self.cpu_seconds = limits.cpu_seconds(modality, size, streams=streams)
        self.seconds = self.cpu_seconds * limits.patience
        self.header = {
            **{"modality": modality, "size": None if isinstance(source, int) else size, "side": side},
            # The worker's own alarm rings later than ours: it is for when we are gone.
            **{"streams": streams, "cpu_seconds": self.cpu_seconds, "seconds": 2 * self.seconds + 1},
        }


class _WorkerFailed(Exception):
    """A worker that gave no usable answer; ``is_final`` if another would not either."""

    def __init__(self, reason: str, *, is_final: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.is_final = is_final


class _Worker:
    """One process and our end of its socket; used by one thread at a time."""

    def __init__(self, command: Sequence[str]) -> None:
        self.files = 0
        # A socket and no pipes: twice as fast, has time-outs, and a dead reader need not raise SIGPIPE.
        self._link, theirs = socket.socketpair()
        with theirs:
            for end in (self._link, theirs):
                for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
                    with contextlib.suppress(OSError):
                        end.setsockopt(socket.SOL_SOCKET, option, SOCKET_BYTES)
            try:
                self._process: subprocess.Popen[bytes] = subprocess.Popen(
                    command,
                    stdin=theirs.fileno(),
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    cwd="/",
                    env={name: os.environ[name] for name in KEPT_VARIABLES if name in os.environ} | FIXED_VARIABLES,
                    start_new_session=True,  # Ctrl-C goes to the parent, which ends its workers
                )
            except OSError as error:
                self._link.close()
                raise SandboxError(f"cannot start a process to decode in: {error.strerror or error}") from error
        self.pid = self._process.pid
        self._used = 0.0

    def cpu_seconds(self) -> float:
        """Return the processor's time that it has used; of a dead one what was known before."""
        self._used = max(self._used, cpu_seconds_of(self.pid) or 0.0)
        return self._used

    def wait_until_ready(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        try:
            ready = self._header(deadline) == {"ready": True}
        except TimeoutError:
            raise SandboxError(f"a process to decode in was not ready after {START_SECONDS:.0f} s") from None
        except (OSError, EOFError):
            raise SandboxError(f"a process to decode in ended at its start ({_fate(self._exit_status())})") from None
        except _WorkerFailed:
            ready = False
        if not ready:
            raise SandboxError("a process to decode in gave a wrong first answer")

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

    def ask(self, request: "_Request", take: "Callable[[_Worker, dict[str, Any], float], T]") -> T:
        self.files += 1
        deadline = time.monotonic() + request.seconds
        try:
            self._send(packed(request.header), deadline)
            if isinstance(request.source, int):
                self._link.settimeout(_remaining(deadline))
                socket.send_fds(self._link, [b"f"], [request.source])
            else:
                self._send(request.source, deadline)
            answer = self.header(deadline)
            return take(self, answer, deadline)
        except TimeoutError:
            raise _WorkerFailed(f"took longer than {request.seconds:.3g} s to decode", is_final=True) from None
        except (OSError, EOFError):
            raise self._death(request.limits, request.cpu_seconds) from None

    def header(self, deadline: float) -> dict[str, Any]:
        """Take an answer that is no refusal."""
        answer = self._header(deadline)
        if isinstance(reason := answer.get("refused"), str) and reason:
            raise DecodeError(reason)
        return answer

    def picture(self, answer: dict[str, Any], deadline: float) -> NDArray[np.uint8]:
        pixels = np.empty(_picture_shape(answer), np.uint8)
        self._fill(pixels.data.cast("B"), deadline)
        return pixels

    def sound(self, answer: dict[str, Any], deadline: float) -> Sound:
        frames, rate_hz = _sound_shape(answer)
        return self._samples(frames, deadline), rate_hz

    def samples(self, frames: int, deadline: float) -> NDArray[np.float32]:
        """Take the next part of a stream."""
        try:
            return self._samples(frames, deadline)
        except TimeoutError:
            raise _WorkerFailed("took too long to decode") from None
        except (OSError, EOFError):
            raise _WorkerFailed(f"the decoder crashed on it ({_fate(self._exit_status())})") from None

    def _samples(self, frames: int, deadline: float) -> NDArray[np.float32]:
        waveform = np.empty(frames, np.float32)
        self._fill(waveform.data.cast("B"), deadline)
        with np.errstate(invalid="ignore"):
            total = waveform.sum(dtype=np.float64)  # cannot overflow, and needs no memory
        if not math.isfinite(total):
            raise _nonsense()
        return waveform

    def kill(self) -> None:
        self._process.kill()

    def end(self) -> None:
        self._process.kill()
        self._process.wait()
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
            raise _nonsense()
        text = bytearray(size)
        self._fill(memoryview(text), deadline)
        try:
            header = json.loads(text)
        except (ValueError, RecursionError):
            raise _nonsense() from None
        if not isinstance(header, dict):
            raise _nonsense()
        return header

    def _fill(self, view: memoryview, deadline: float) -> None:
        while view:
            self._link.settimeout(_remaining(deadline))
            if not (count := self._link.recv_into(view)):
                raise EOFError
            view = view[count:]

    def _exit_status(self) -> int | None:
        """As in `subprocess`: negative for a signal. None if it lives on."""
        try:
            return self._process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            return None

    def _death(self, limits: Limits, cpu_seconds: float) -> _WorkerFailed:
        status = self._exit_status()
        if status == -signal.SIGXCPU:
            return _WorkerFailed(f"took longer than {cpu_seconds:.3g} s to decode (processor time)", is_final=True)
        if status == OUT_OF_MEMORY:
            return _WorkerFailed(f"needs more than {limits.memory_bytes / 2**30:.3g} GiB of memory to decode")
        return _WorkerFailed(f"the decoder crashed on it ({_fate(status)})")


def _end_all(workers: set[_Worker], process: int) -> None:
    if os.getpid() == process:  # in a fork they are not ours
        for worker in list(workers):
            worker.end()


def _worker_command(memory_bytes: int) -> list[str]:
    package = str(Path(__file__).resolve().parents[2])
    path = [os.path.abspath(entry) for entry in sys.path if entry]
    return [sys.executable, "-I", "-c", BOOTSTRAP, str(memory_bytes), package, *path]


def _remaining(deadline: float) -> float:
    if (seconds := deadline - time.monotonic()) <= 0:
        raise TimeoutError
    return seconds


def _fate(status: int | None) -> str:
    """How a process ended, in words."""
    if status is None:
        return "it closed its socket and lives"
    if status >= 0:
        return f"exit status {status}"
    try:
        return f"signal {-status}, {signal.Signals(-status).name}"
    except ValueError:  # a real-time signal
        return f"signal {-status}"


def _picture_shape(answer: dict[str, Any]) -> tuple[int, int, int]:
    match answer.get("shape"):
        case [height, width, 3] if type(height) is type(width) is int and min(height, width) > 0:
            if height * width <= MAX_PIXELS:
                return height, width, 3
    raise _nonsense()


def _sound_shape(answer: dict[str, Any]) -> tuple[int, int]:
    match answer.get("shape"), answer.get("rate_hz"):
        case [int(frames)], int(rate_hz) if type(frames) is type(rate_hz) is int:  # not bool
            if 0 < frames <= MAX_FRAMES and RATES_HZ[0] <= rate_hz <= RATES_HZ[1]:
                return frames, rate_hz
    raise _nonsense()


def _stream_shape(answer: dict[str, Any]) -> tuple[int, int, float]:
    match answer.get("shape"), answer.get("rate_hz"), answer.get("peak"):
        case [int(frames)], int(rate_hz), float(peak) if type(frames) is type(rate_hz) is int:  # not bool
            is_possible = 0 < frames <= MAX_STREAM_SECONDS * USUAL_RATE_HZ and RATES_HZ[0] <= rate_hz <= RATES_HZ[1]
            if is_possible and math.isfinite(peak) and peak >= 0:
                return frames, rate_hz, peak
    raise _nonsense()


def _frame_seconds(answer: dict[str, Any]) -> float:
    match answer.get("seconds"):
        case float(seconds) | int(seconds) if math.isfinite(seconds) and seconds >= 0:
            return float(seconds)
    raise _nonsense()


def _nonsense() -> _WorkerFailed:
    return _WorkerFailed("the decoder gave an answer that makes no sense")
