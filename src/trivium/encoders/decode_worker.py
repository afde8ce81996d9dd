"""The child side of `sandbox`: decodes one file after another from a socket, under limits, until the socket closes.

Started by `DecodeSandbox` only. A message in either direction is the length of a JSON object (`LENGTH`), the object,
and then the raw bytes that it announces:

- To the worker: ``{"modality", "size", "side", "streams", "cpu_seconds", "seconds"}`` and the file's bytes, or with a
  size of null one byte that carries the file's descriptor.
- From the worker: ``{"ready": true}`` once; then for each file ``{"shape": [h, w, 3]}`` and uint8 pixels,
  ``{"shape": [s], "rate_hz"}`` and float32 samples, or ``{"refused": reason}``. A long sound's answer has a ``peak``
  too if ``streams``; its samples are decoded as they are taken. A video's answer is one such picture after the other,
  each with ``seconds``, then ``{"frames_end": true}``, then its sound track as a sound, or ``{"no_sound": true}``.

Importing this module does nothing; `main` locks the process down for good.
"""

import contextlib
import ctypes
import json
import math
import mmap
import os
import resource
import signal
import socket
import struct
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from trivium.encoders.audio_decoding import MAX_STREAM_SECONDS, ScannedAudio, decode_audio, scan_audio, whole
from trivium.encoders.base import DecodeError
from trivium.encoders.image_decoding import decode_image, strips

STREAM_FRAMES = 600 * 48_000  # ten minutes: longer sounds are streamed where that is asked for
LENGTH = struct.Struct("<I")
MAX_HEADER_BYTES = 64 * 1024
MAX_REASON_CHARACTERS = 4000  # of up to 12 bytes each in JSON
CHANGED = 78  # the exit status when a file gave other samples the second time
OUT_OF_MEMORY = 77  # the exit status that says so
OUT_OF_MEMORY_WORDS = ("out of memory error", "malloc () failed")  # Pillow's codecs, libsndfile
MAX_OPEN_FILES = 64


def packed(header: Mapping[str, Any]) -> bytes:
    """Make a message of a header; raw bytes may follow it."""
    text = json.dumps(header).encode()
    return LENGTH.pack(len(text)) + text


def main(memory_bytes: int) -> None:
    """Decode what comes through file descriptor 0, with at most ``memory_bytes`` of address space."""
    link = socket.socket(fileno=os.dup(0))
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in range(3):  # what a library prints must not end up between our messages
        os.dup2(null, descriptor)
    os.close(null)
    _lock_down(memory_bytes)
    try:
        link.sendall(packed({"ready": True}))
        while length := _received(link, LENGTH.size):
            request = json.loads(_received(link, LENGTH.unpack(length)[0]))
            _set_time(request["cpu_seconds"], request["seconds"])
            with _file(link, request["size"]) as data:
                _answer(link, request, data)
            signal.setitimer(signal.ITIMER_REAL, 0)
    except MemoryError:  # half an answer may be under way
        os._exit(OUT_OF_MEMORY)
    except ConnectionError:  # the parent is gone
        pass


def _lock_down(memory_bytes: int) -> None:
    """Give up what decoding does not need; what this system cannot limit stays as it is."""
    for number in (signal.SIGALRM, signal.SIGXCPU):  # they end us, whatever the parent does with them
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    sys.dont_write_bytecode = True
    with contextlib.suppress(OSError):
        # When memory runs out, the kernel shall end a worker, which is replaced, and not the run.
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write("1000")
    with contextlib.suppress(AttributeError):
        # New user and network namespaces (CLONE_NEWUSER, CLONE_NEWNET in Linux's sched.h): no network from here on.
        ctypes.CDLL(None).unshare(0x1000_0000 | 0x4000_0000)
    for kind, limit in (
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, MAX_OPEN_FILES),
    ):
        with contextlib.suppress(OSError, ValueError):  # over a limit that is already there, or unknown
            resource.setrlimit(kind, (limit, limit))


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
def _file(link: socket.socket, size: int | None) -> Iterator[bytes | mmap.mmap]:
    """Take a file as its bytes, or map the one whose descriptor comes."""
    if size is not None:
        yield _received(link, size)
        return
    _, (descriptor,), _, _ = socket.recv_fds(link, 1, 1)
    try:
        with mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ) as mapped:
            yield mapped
    finally:
        os.close(descriptor)


def _answer(link: socket.socket, request: Mapping[str, Any], data: bytes | mmap.mmap) -> None:
    try:
        if request["modality"] == "image":
            image = decode_image(bytes(data), side=request["side"])
            _send_picture(link, image)
            return
        if request["modality"] == "video":
            _answer_video(link, data, request["side"])
        elif request["streams"]:
            _send_sound(link, scan_audio(data, max_seconds=MAX_STREAM_SECONDS, keep_frames=STREAM_FRAMES))
        else:
            _send_waveform(link, *decode_audio(bytes(data)))
    except (ConnectionError, MemoryError):
        raise
    except DecodeError as error:
        _refuse(link, error, error.reason)
    except BaseException as error:  # a panic in resvg is no Exception
        _refuse(link, error, f"the decoder failed on it: {type(error).__name__}: {error}")


def _answer_video(link: socket.socket, data: bytes | mmap.mmap, side: int | None) -> None:
    from trivium.encoders.video_decoding import open_video  # PyAV is an extra, and few workers meet a video

    with open_video(data) as video:
        for frame in video.frames(side=side):
            _send_picture(link, frame.image, seconds=frame.seconds)
        link.sendall(packed({"frames_end": True}))
        sound = video.sound(max_seconds=MAX_STREAM_SECONDS, keep_frames=STREAM_FRAMES)
        if sound is None:
            link.sendall(packed({"no_sound": True}))
        else:
            _send_sound(link, sound)


def _send_picture(link: socket.socket, image: Image.Image, **told: float) -> None:
    link.sendall(packed({"shape": [image.height, image.width, 3], **told}))
    for _, strip in strips(image):
        link.sendall(strip.tobytes())


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
