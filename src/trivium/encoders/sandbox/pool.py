"""Decoding in processes of its own: a file that crashes, hangs or bloats the decoder costs that file, not the run.

libjpeg, libtiff, libsndfile and their kin are C, and read files from anywhere. Here they run in worker processes
(`process`) with limits on time and memory; what they send back is checked.
"""

import os
import threading
import weakref
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Literal, Self, TypeAlias, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

from trivium.encoders.base import DecodeError, Modality, SandboxError
from trivium.encoders.decoding.documents import is_document
from trivium.encoders.decoding.sounds import Note, Sound, untold
from trivium.encoders.decoding.texts import decode_text
from trivium.encoders.machine import cpu_seconds_of, usable_cores
from trivium.encoders.sandbox.kinds import DecodeKind, MediaKind
from trivium.encoders.sandbox.limits import Limits, limits_of
from trivium.encoders.sandbox.mode import SandboxMode, judge, sandbox_mode
from trivium.encoders.sandbox.process import (
    DecodeProcess,
    Request,
    WorkerFailed,
    frame_seconds,
    nonsense,
    stream_shape,
    tags_of,
)
from trivium.encoders.sandbox.starts import Programs, Starts, Template
from trivium.encoders.sandbox.streams import DecodedVideo, SoundStream, StreamedSamples
from trivium.encoders.several import listed
from trivium.encoders.tags.reading import FileTags

DecodedMedia: TypeAlias = NDArray[np.uint8] | Sound  # a picture is (h, w, 3)
OnTags: TypeAlias = Callable[[FileTags], None]
T = TypeVar("T")

MAX_VIDEO_FRAMES = 2_000  # as `video_pictures` has it, which brings PyAV's needs
# Of one worker: what has taken it over sees, and may forge, no more. A new one takes 12 ms, 0.4 of them for each file.
MAX_FILES = 32


class DecodeSandbox:
    """A pool of decoding processes, started when they are needed; safe to use from several threads.

    As a context manager, or until `close`, or until it is collected or the interpreter ends.
    """

    def __init__(
        self,
        workers: int | None = None,
        *,
        limits: Limits | None = None,
        mode: SandboxMode | None = None,
        command: Sequence[str] | None = None,
    ) -> None:
        """Prepare a pool; nothing is started yet.

        Args:
            workers: The most processes at once; one per core when None.
            limits: What one file may take; the usual, and the pixels that TRIVIUM_MAX_MEGAPIXELS allows, if None.
            mode: Whether nothing is decoded (``strict``) where the system cannot isolate a worker, or that is said
                (``auto``); what TRIVIUM_SANDBOX says if None.
            command: A program that speaks the worker's protocol on file descriptor 0, for tests.

        Raises:
            ValueError: If ``workers`` is below 1.
            SandboxError: If TRIVIUM_SANDBOX or TRIVIUM_MAX_MEGAPIXELS says nothing that is known.
        """
        count = usable_cores() if workers is None else workers
        if count < 1:
            raise ValueError(f"workers must be at least 1, got {count}")
        self._limits = limits or limits_of()
        self._mode: SandboxMode = mode or sandbox_mode()
        self._starts: Starts = (
            Template(self._limits.memory_bytes) if command is None else Programs(listed(command, "command"))
        )
        self._slots = threading.BoundedSemaphore(count)
        self._count = count
        self._lock = threading.Lock()  # over the four below
        self._running: set[DecodeProcess] = set()
        self._used_by_ended = 0.0  # seconds of the processor's time
        self._idle: list[DecodeProcess] = []
        self._closed = False
        self._process = os.getpid()
        self._finalizer = weakref.finalize(self, _end_all, self._running, self._starts, self._process)

    @property
    def limits(self) -> Limits:
        """What one file may take."""
        return self._limits

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
            used = self._used_by_ended + sum(worker.cpu_seconds() for worker in self._running)
        return used + self._starts.cpu_seconds()

    def begin(self) -> None:
        """Load the libraries, in a process of their own, for a file that is about to come; does not wait for it.

        Raises:
            ValueError: If the sandbox is closed.
            SandboxError: If that process cannot be started.
        """
        self._check_open()
        self._starts.begin()

    def isolation(self) -> dict[str, int]:
        """Start a worker for pictures, and return what holds in it: by name, with a level, 0 for what does not.

        Raises:
            ValueError: If the sandbox is closed.
            SandboxError: As `decode` does.
        """
        with self._slots:
            worker = self._start("picture")
            self.end(worker)
            return dict(worker.isolation)

    @overload
    def decode(
        self,
        modality: Literal["image"],
        data: bytes | int,
        *,
        side: int | None = None,
        partial: bool = False,
        note: Note = untold,
        on_tags: OnTags | None = None,
    ) -> NDArray[np.uint8]: ...
    @overload
    def decode(
        self,
        modality: Literal["audio"],
        data: bytes | int,
        *,
        side: int | None = None,
        partial: bool = False,
        note: Note = untold,
        on_tags: OnTags | None = None,
    ) -> Sound: ...
    @overload
    def decode(
        self,
        modality: Modality,
        data: bytes | int,
        *,
        side: int | None = None,
        partial: bool = False,
        note: Note = untold,
        on_tags: OnTags | None = None,
    ) -> DecodedMedia: ...
    def decode(
        self,
        modality: Modality,
        data: bytes | int,
        *,
        side: int | None = None,
        partial: bool = False,
        note: Note = untold,
        on_tags: OnTags | None = None,
    ) -> DecodedMedia:
        """Decode a file in a worker, as `decode_image` (which takes ``side`` too) and `decode_audio` would.

        Args:
            modality: What it is.
            data: Its bytes, or the descriptor of a file that is open for reading and does not change.
            side: What a picture will be brought to.
            partial: Take what is there of a file that is cut off; else it is refused.
            note: Told what of it is not there, and what else its owner should know.
            on_tags: Told what the file says of itself, which is then read too.

        Returns:
            Pixels, uint8 of shape (h, w, 3); or a waveform, float32 of shape (s,), and its rate in Hz.

        Raises:
            DecodeError: If the file is refused, or the worker crashes on it or needs too much time or memory.
            ValueError: If the modality is text, or the sandbox is closed.
            SandboxError: If no worker can be started, or this process is a fork of the one that made the sandbox.
        """
        if modality not in ("image", "audio"):
            raise ValueError(f"modality must be 'image' or 'audio', got {modality!r}: text is decoded in process")
        request = Request(modality, data, self._limits, side=side, partial=partial, asks="tags" if on_tags else "")
        if modality == "image":
            return self._ask(request, DecodeProcess.picture, note, on_tags)
        return self._ask(request, DecodeProcess.sound, note, on_tags)

    def text(self, data: bytes, *, most: int) -> str:
        """Return a text file's text; of a PDF or Word document, which a worker decodes, as `decode_document` has it.

        Args:
            data: The file.
            most: How many characters are kept.

        Raises:
            DecodeError: If it is neither, or as `decode` does.
            SandboxError: As `decode` does.
        """
        if not is_document(data):
            return decode_text(data, most=most)

        def take(worker: DecodeProcess, answer: dict[str, Any], deadline: float) -> str:
            return worker.text(answer, deadline, most=most)

        return self._ask(Request("text", data, self._limits, most=most), take, untold)

    def tags(self, kind: MediaKind, source: bytes | int) -> FileTags:
        """Read what a file says of itself, and decode nothing.

        Args:
            kind: What it is.
            source: As of `sound`.

        Raises:
            SandboxError: As `decode` does. A file that no tags can be read of says so.
        """
        try:
            request = Request(kind, source, self._limits, asks="tags only")
            return self._ask(request, lambda _, answer, __: tags_of(answer))
        except DecodeError as error:
            return FileTags({}, [f"tags cannot be read: {error.reason}"])

    def sound(
        self, source: bytes | int, *, partial: bool = False, note: Note = untold, on_tags: OnTags | None = None
    ) -> "Sound | SoundStream":
        """Decode a sound of up to a day: whole, or as a stream if it is longer than `STREAM_FRAMES`.

        Args:
            source: A file's bytes, or the descriptor of a file that is open for reading and does not change; it must
                stay open until a stream is at its end.
            partial: As of `decode`.
            note: As of `decode`.
            on_tags: As of `decode`.

        Raises:
            DecodeError: As `decode` does. The whole file has been decoded once when this returns.
            SandboxError: As `decode` does.
        """
        request = Request("audio", source, self._limits, streams=True, partial=partial, asks="tags" if on_tags else "")
        return self._ask(request, self._sound_or_stream, note, on_tags)

    def video(
        self,
        source: bytes | int,
        prepare: Callable[[NDArray[np.uint8]], T],
        *,
        side: int | None = None,
        partial: bool = False,
        note: Note = untold,
        on_tags: OnTags | None = None,
    ) -> "DecodedVideo[T]":
        """Decode a video's pictures, one for each scene or every few seconds, and its sound track.

        Args:
            source: As of `sound`.
            prepare: Called with each picture's pixels, (h, w, 3), so that they need not all be held.
            side: What the pictures will be brought to.
            partial: As of `decode`.
            note: As of `decode`.
            on_tags: As of `decode`.

        Raises:
            DecodeError: As `decode` does.
            SandboxError: As `decode` does.
        """

        def take(worker: DecodeProcess, answer: dict[str, Any], deadline: float) -> "DecodedVideo[T]":
            frames: list[tuple[float, T]] = []
            while "frames_end" not in answer:
                if len(frames) == MAX_VIDEO_FRAMES:
                    raise nonsense()
                seconds = frame_seconds(answer)
                frames.append((seconds, prepare(worker.picture(answer, deadline))))
                answer = worker.header(deadline)
            if not frames:
                raise nonsense()
            length = frame_seconds(answer)
            answer = worker.header(deadline)
            sound = None if "no_sound" in answer else self._sound_or_stream(worker, answer, deadline)
            return DecodedVideo(frames, sound, length)

        request = Request(
            "video", source, self._limits, side=side, streams=True, partial=partial, asks="tags" if on_tags else ""
        )
        return self._ask(request, take, note, on_tags)

    def _sound_or_stream(self, worker: DecodeProcess, answer: dict[str, Any], deadline: float) -> "Sound | SoundStream":
        if "peak" not in answer:
            return worker.sound(answer, deadline)
        frames, rate_hz, peak = stream_shape(answer)
        return SoundStream(
            frames, rate_hz, peak, StreamedSamples(worker, frames, give_back=self.give_back, end=self.end)
        )

    def _ask(
        self,
        request: Request,
        take: Callable[[DecodeProcess, dict[str, Any], float], T],
        note: Note = untold,
        on_tags: OnTags | None = None,
    ) -> T:
        """Have a worker decode a file, and take its answer and its notes."""
        if os.getpid() != self._process:
            raise SandboxError("this sandbox belongs to the process that made it; make one after the fork")
        with self._slots:
            worker = self._take(request.kind)
            while True:
                is_fresh = not worker.files
                try:
                    taken = worker.ask(request, take)
                except DecodeError:
                    self.give_back(worker)
                    raise
                except WorkerFailed as failure:
                    self.end(worker)
                    if is_fresh or failure.is_final:
                        self._check_open()
                        if not request.gives_up_tags():
                            raise DecodeError(failure.reason) from None
                    # It may have died while idle, or of an earlier file: this one is blamed only by a fresh worker.
                    worker = self._start(request.kind)
                except BaseException:
                    self.end(worker)  # an answer may be under way
                    raise
                else:
                    if on_tags is not None and request.told is not None:
                        on_tags(request.told)
                    if not isinstance(taken.sound if isinstance(taken, DecodedVideo) else taken, SoundStream):
                        self.give_back(worker)
                    for text in request.notes:
                        note(text)
                    return taken

    def close(self) -> None:
        """End all workers; a `decode` in another thread ends with a ValueError."""
        with self._lock:
            self._closed = True
            running, idle = list(self._running), list(self._idle)
            self._idle.clear()
        for worker in running:
            worker.kill()
        for worker in idle:  # the thread that has a busy one cleans up after it
            self.end(worker)
        self._starts.close()

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close."""
        self.close()

    def _take(self, kind: DecodeKind) -> DecodeProcess:
        """Return an idle worker of a kind that is well, else a new one."""
        while True:
            with self._lock:
                worker = next((idle for idle in reversed(self._idle) if idle.kind == kind), None)
                if worker is not None:
                    self._idle.remove(worker)
            if worker is None:
                return self._start(kind)
            if worker.is_well():
                return worker
            self.end(worker)

    def _start(self, kind: DecodeKind) -> DecodeProcess:
        """Start a worker, and wait until it is ready."""
        self._check_open()
        worker = DecodeProcess(self._starts, kind)
        with self._lock:
            self._running.add(worker)
        try:
            worker.wait_until_ready()
            self._check_open()
            judge(worker.isolation, self._mode)
        except BaseException as error:
            self.end(worker)
            if isinstance(error, SandboxError):
                self._check_open()  # by `close`, as it started
            raise
        return worker

    def give_back(self, worker: DecodeProcess) -> None:
        """Take a worker back that has answered."""
        with self._lock:
            keeps = not self._closed and worker.files < MAX_FILES
            if keeps:
                self._idle.append(worker)
            # Those of other kinds wait too, but no more than may work.
            ended = self._idle.pop(0) if len(self._idle) > self._count else None if keeps else worker
            is_closed = self._closed
        if ended is not None:
            self._forget(ended, ended.end if is_closed else ended.dismiss)

    def end(self, worker: DecodeProcess) -> None:
        """End a worker, whatever it does."""
        self._forget(worker, worker.end)

    def _forget(self, worker: DecodeProcess, ending: Callable[[], None]) -> None:
        used = worker.cpu_seconds()  # nobody knows it afterwards
        ending()
        with self._lock:
            if worker in self._running:
                self._running.remove(worker)
                self._used_by_ended += used

    def _check_open(self) -> None:
        if self._closed:
            raise ValueError("the sandbox is closed")


def _end_all(workers: set[DecodeProcess], starts: Starts, process: int) -> None:
    if os.getpid() == process:  # in a fork they are not ours
        for worker in list(workers):
            worker.end()
        starts.close()
