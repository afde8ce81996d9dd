"""The child side of the sandbox: a template that loads the libraries once, and its forks, which decode under limits.

The template sees no file's bytes, and is never locked; it is started by `starts` only. A new worker is then a fork, a
few milliseconds away, and need not import anything, which it could not once it is locked. A request to the template is
an operation and a number (`REQUEST`), answered by one (`ANSWER`):

- ``F``: a worker for a kind of file, by its place in `KINDS`; one end of its socket comes with it. Answered by its
  process id, or minus the number of the error.
- ``K``: kill a worker that has not been asked for its end yet. Answered by 0.
- ``D``: kill a worker whose end nobody asks for. Not answered.
- ``E``: the end of a worker, waited for. Answered by its exit status, negative for a signal, or `LIVES`.

A worker decodes one file after another from its socket until that closes, for `DecodeSandbox` only. A message in
either direction is the length of a JSON object (`LENGTH`), the object, and then the raw bytes that it announces:

- To the worker: ``{"modality", "size", "is_open", "side", "streams", "partial", "asks", "max_pixels", "cpu_seconds",
  "seconds"}`` and the file's bytes or, if it is open, one byte that carries its descriptor.
- From the worker: ``{"ready": true}`` once, with what `isolate` says; then for each file ``{"shape": [h, w, 3]}`` and
  uint8 pixels, ``{"shape": [s], "rate_hz"}`` and float32 samples, or ``{"refused": reason}``. A long sound's answer has
  a ``peak`` too if ``streams``; its samples are decoded as they are taken. A video's answer is one such picture after
  the other, each with ``seconds``, then ``{"frames_end": true, "seconds"}``, then its sound track as a sound, or
  ``{"no_sound": true}``. A document's is ``{"bytes"}`` and its text in UTF-8, at most ``most`` characters of it. What
  its owner should know of a file precedes its last answer: ``{"note": text}``. Where the request ``asks`` for "tags",
  or "tags only", ``{"tags", "problems"}`` comes first, or is all.

Importing this module does nothing; `serve` locks the process down for good. From then on nothing can be imported or
opened: a file comes through the socket, and what its kind takes was loaded before (`kinds`).
"""

import contextlib
import errno
import gc
import json
import math
import os
import resource
import signal
import socket
import struct
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from trivium.encoders.base import DecodeError
from trivium.encoders.decoding.containers import HEAD_BYTES, demuxer_of
from trivium.encoders.decoding.pictures import decode_image, strips
from trivium.encoders.decoding.sounds import (
    MAX_FRAMES,
    MAX_SECONDS,
    MAX_STREAM_SECONDS,
    STREAM_FRAMES,
    Note,
    ScannedAudio,
    scan_audio,
    whole,
)
from trivium.encoders.decoding.sources import FileBytes, Source
from trivium.encoders.sandbox.isolation import isolate
from trivium.encoders.sandbox.kinds import KINDS, READS_FONTS, STARTS_THREADS, DecodeKind, load_libraries
from trivium.encoders.tags.reading import read_tags

REQUEST, ANSWER = struct.Struct("=cI"), struct.Struct("=i")
LIVES = 1 << 16  # no exit status
END_SECONDS = 1.0  # from a closed socket to the exit status
LOOK_SECONDS = 0.001

LENGTH = struct.Struct("<I")
MAX_HEADER_BYTES = 64 * 1024
MAX_REASON_CHARACTERS = 4000  # of up to 12 bytes each in JSON
CHANGED = 78  # the exit status when a file gave other samples the second time
OUT_OF_MEMORY = 77  # the exit status that says so
# Pillow's codecs, libsndfile, libheif, libavif, FFmpeg.
OUT_OF_MEMORY_WORDS = (
    *("out of memory error", "malloc () failed", "Memory allocation error", "Out of memory", "Cannot allocate memory"),
)
MAX_OPEN_FILES = 64


def main(memory_bytes: int) -> None:
    """Answer requests that come through file descriptor 0, until it closes; then all workers end too.

    Args:
        memory_bytes: Of each worker's address space, beside what the libraries of its kind take.
    """
    control = socket.socket(fileno=os.dup(0))
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in range(3):  # what a library prints must not end up between our messages
        os.dup2(null, descriptor)
    os.close(null)
    sys.dont_write_bytecode = True
    Image.MAX_IMAGE_PIXELS = None  # `decode_image` has its own limit, which users may raise
    for number in (signal.SIGALRM, signal.SIGXCPU):  # they end a worker, whatever the parent does with them
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    with contextlib.suppress(OSError):
        # When memory runs out, the kernel shall end a worker, which is replaced, and not the run.
        Path("/proc/self/oom_score_adj").write_text("1000")
    _Template(control, memory_bytes).answer_all()


class _Template:
    def __init__(self, control: socket.socket, memory_bytes: int) -> None:
        self._control = control
        self._memory_bytes = memory_bytes
        self._own_bytes = _mapped_bytes()
        self._loaded: set[DecodeKind] = set()
        self._workers: set[int] = set()
        self._dismissed: set[int] = set()

    def answer_all(self) -> None:
        with contextlib.suppress(ConnectionError):  # the parent is gone
            while True:
                message, descriptors, _, _ = socket.recv_fds(self._control, REQUEST.size, 1)
                if len(message) < REQUEST.size:
                    return
                operation, number = REQUEST.unpack(message)
                if operation == b"D":
                    self._dismiss(number)
                else:
                    self._control.sendall(ANSWER.pack(self._answer(operation, number, descriptors)))
                self._dismissed = {pid for pid in self._dismissed if not os.waitpid(pid, os.WNOHANG)[0]}

    def _answer(self, operation: bytes, number: int, descriptors: list[int]) -> int:
        if operation == b"F":
            return self._fork(KINDS[number], descriptors[0])
        if number not in self._workers:  # its id may be another process's by now
            return 0 if operation == b"K" else LIVES
        if operation == b"K":
            os.kill(number, signal.SIGKILL)
            return 0
        return self._end_of(number)

    def _dismiss(self, pid: int) -> None:
        if pid in self._workers:
            os.kill(pid, signal.SIGKILL)
            self._workers.remove(pid)
            self._dismissed.add(pid)

    def _fork(self, kind: DecodeKind, descriptor: int) -> int:
        if kind not in self._loaded:
            load_libraries(kind)
            self._loaded.add(kind)
            gc.freeze()  # else each worker's collections would look through all of it, and copy it
        try:
            pid = os.fork()
        except OSError as error:
            os.close(descriptor)
            return -(error.errno or errno.EAGAIN)
        if not pid:
            try:
                gc.enable()  # which loading has no use for
                os.setsid()  # Linux shares the processor out by session too
                self._control.close()
                with socket.socket(fileno=descriptor) as link:
                    serve(link, kind, self._memory_bytes + max(_mapped_bytes() - self._own_bytes, 0))
                os._exit(0)
            finally:
                os._exit(1)  # an error, of which nobody would read the traceback
        os.close(descriptor)
        self._workers.add(pid)
        return pid

    def _end_of(self, pid: int) -> int:
        deadline = time.monotonic() + END_SECONDS
        while True:
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                self._workers.remove(pid)
                return os.waitstatus_to_exitcode(status)
            if time.monotonic() > deadline:
                return LIVES
            time.sleep(LOOK_SECONDS)


def _mapped_bytes() -> int:
    """Return this process's address space; 0 where the system does not tell, as only Linux does."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGESIZE")
    except OSError:
        return 0


def packed(header: Mapping[str, Any]) -> bytes:
    """Make a message of a header; raw bytes may follow it."""
    text = json.dumps(header).encode()
    return LENGTH.pack(len(text)) + text


def serve(link: socket.socket, kind: DecodeKind, memory_bytes: int) -> None:
    """Lock this process down, then decode what comes until the socket closes.

    Args:
        link: One end of a socket.
        kind: Of the files.
        memory_bytes: The most address space.
    """
    holds = _lock_down(kind, memory_bytes)
    try:
        link.sendall(packed({"ready": True, **holds}))
        while length := _received(link, LENGTH.size):
            request = json.loads(_received(link, LENGTH.unpack(length)[0]))
            _set_time(request["cpu_seconds"], request["seconds"])
            with _file(link, request["size"], is_open=request["is_open"]) as data:
                _answer(link, request, data)
            signal.setitimer(signal.ITIMER_REAL, 0)
    except MemoryError:  # half an answer may be under way
        os._exit(OUT_OF_MEMORY)
    except ConnectionError:  # the parent is gone
        pass


def _lock_down(kind: DecodeKind, memory_bytes: int) -> dict[str, int]:
    """Give up what decoding does not need; return what holds. What this system cannot limit stays as it is."""
    starts_threads = kind in STARTS_THREADS
    limits = [
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, MAX_OPEN_FILES),
    ]
    if not starts_threads:  # they count
        limits.append((resource.RLIMIT_NPROC, 0))
    for limited, limit in limits:
        with contextlib.suppress(OSError, ValueError):  # over a limit that is already there, or unknown
            resource.setrlimit(limited, (limit, limit))
    return isolate(reads_fonts=kind in READS_FONTS, starts_threads=starts_threads)


def _set_time(cpu_seconds: float, seconds: float) -> None:
    """Let the kernel end this process when it takes too long: by processor time, and by the clock if nobody waits."""
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(time.process_time() + cpu_seconds), hard))
    signal.setitimer(signal.ITIMER_REAL, seconds)


def _received(link: socket.socket, size: int) -> bytes:
    """Read so many bytes; none if the parent is gone. Not buffered: a descriptor comes with its own byte."""
    parts = bytearray(size)
    view = memoryview(parts)
    while view:
        if not (count := link.recv_into(view)):
            return b""
        view = view[count:]
    return bytes(parts)


@contextlib.contextmanager
def _file(link: socket.socket, size: int, *, is_open: bool) -> Iterator[Source]:
    """Take a file as its bytes, or as the descriptor that comes."""
    if not is_open:
        yield _received(link, size)
        return
    _, (descriptor,), _, _ = socket.recv_fds(link, 1, 1)
    try:
        # Of this size: the call that asks for it, of a descriptor, could ask of any path too, and is denied.
        yield FileBytes(descriptor, size)
    finally:
        os.close(descriptor)


def _answer(link: socket.socket, request: Mapping[str, Any], data: Source) -> None:
    def note(text: str) -> None:
        link.sendall(packed({"note": text[:MAX_REASON_CHARACTERS]}))

    partial = request["partial"]
    try:
        if request["asks"]:
            link.sendall(packed(asdict(read_tags(request["modality"], data))))
            if request["asks"] == "tags only":
                return
        if request["modality"] == "image":
            image = decode_image(
                data, side=request["side"], max_pixels=request["max_pixels"], partial=partial, note=note
            )
            _send_picture(link, image)
        elif request["modality"] == "text":
            from trivium.encoders.decoding.documents import decode_document  # an extra too

            _send_text(link, decode_document(data[:], most=request["most"]))
        elif request["modality"] == "video":
            _answer_video(link, data, request["side"], partial=partial, note=note)
        else:
            seconds, keep = (MAX_STREAM_SECONDS, STREAM_FRAMES) if request["streams"] else (MAX_SECONDS, MAX_FRAMES)
            scan = scan_audio
            if demuxer_of(data[:HEAD_BYTES]) is not None:  # a sound in a container of videos
                from trivium.encoders.decoding.videos import scan_track as scan
            sound = scan(data, max_seconds=seconds, keep_frames=keep, partial=partial, note=note)
            _send_sound(link, sound) if request["streams"] else _send_waveform(link, *whole(sound))
    except (ConnectionError, MemoryError):
        raise
    except DecodeError as error:
        _refuse(link, error, error.reason)
    except BaseException as error:  # a panic in resvg is no Exception
        _refuse(link, error, f"the decoder failed on it: {type(error).__name__}: {error}")


def _answer_video(link: socket.socket, data: Source, side: int | None, *, partial: bool, note: Note) -> None:
    from trivium.encoders.decoding.videos import open_video  # PyAV is an extra, and few workers meet a video

    with open_video(data, partial=partial, note=note) as video:
        for frame in video.frames(side=side):
            _send_picture(link, frame.image, seconds=frame.seconds)
        link.sendall(packed({"frames_end": True, "seconds": video.seconds}))
        sound = video.sound(max_seconds=MAX_STREAM_SECONDS, keep_frames=STREAM_FRAMES)
        if sound is None:
            link.sendall(packed({"no_sound": True}))
        else:
            _send_sound(link, sound)


def _send_picture(link: socket.socket, image: Image.Image, **told: float) -> None:
    link.sendall(packed({"shape": [image.height, image.width, 3], **told}))
    for _, strip in strips(image):
        link.sendall(strip.tobytes())


def _send_text(link: socket.socket, text: str) -> None:
    data = text.encode("utf-8", "replace")
    link.sendall(packed({"bytes": len(data)}))
    link.sendall(data)


def _send_sound(link: socket.socket, sound: ScannedAudio) -> None:
    if sound.frames <= STREAM_FRAMES:
        _send_waveform(link, *whole(sound))
        return
    link.sendall(packed({"shape": [sound.frames], "rate_hz": sound.rate_hz, "peak": sound.peak}))
    signal.setitimer(signal.ITIMER_REAL, 0)  # the parent takes it when it likes
    try:
        for chunk in sound.chunks():
            link.sendall(chunk.data.cast("B"))
    except DecodeError:  # it was sound the first time: the file has changed, and samples are announced
        os._exit(CHANGED)


def _send_waveform(link: socket.socket, waveform: NDArray[np.float32], rate_hz: int) -> None:
    link.sendall(packed({"shape": list(waveform.shape), "rate_hz": rate_hz}))
    link.sendall(waveform.data.cast("B"))


def _refuse(link: socket.socket, error: BaseException, reason: str) -> None:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, MemoryError) or any(words in str(cause) for words in OUT_OF_MEMORY_WORDS):
            raise MemoryError
        cause = cause.__cause__ or cause.__context__
    link.sendall(packed({"refused": reason[:MAX_REASON_CHARACTERS]}))
