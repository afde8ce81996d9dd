"""The child side of `sandbox`: decodes one file after another from a socket, under limits, until the socket closes.

A fork of `decode_template`, for `DecodeSandbox` only. A message in either direction is the length of a JSON object
(`LENGTH`), the object, and then the raw bytes that it announces:

- To the worker: ``{"modality", "size", "is_mapped", "side", "streams", "cpu_seconds", "seconds"}`` and the file's bytes
  or, if it is to be mapped, one byte that carries its descriptor.
- From the worker: ``{"ready": true}`` once, with what `isolate` says; then for each file ``{"shape": [h, w, 3]}`` and
  uint8 pixels, ``{"shape": [s], "rate_hz"}`` and float32 samples, or ``{"refused": reason}``. A long sound's answer has
  a ``peak`` too if ``streams``; its samples are decoded as they are taken. A video's answer is one such picture after
  the other, each with ``seconds``, then ``{"frames_end": true}``, then its sound track as a sound, or
  ``{"no_sound": true}``.

Importing this module does nothing; `serve` locks the process down for good. From then on nothing can be imported or
opened: a file comes through the socket, and what its kind takes was loaded before (`decode_kinds`).
"""

import contextlib
import json
import math
import mmap
import os
import resource
import signal
import socket
import struct
import time
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from trivium.encoders.base import DecodeError
from trivium.encoders.decoding.pictures import decode_image, strips
from trivium.encoders.decoding.sounds import (
    MAX_STREAM_SECONDS,
    STREAM_FRAMES,
    ScannedAudio,
    decode_audio,
    scan_audio,
    whole,
)
from trivium.encoders.sandbox.isolation import isolate
from trivium.encoders.sandbox.kinds import READS_FONTS, STARTS_THREADS, DecodeKind

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
            with _file(link, request["size"], is_mapped=request["is_mapped"]) as data:
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
def _file(link: socket.socket, size: int, *, is_mapped: bool) -> Iterator[bytes | mmap.mmap]:
    """Take a file as its bytes, or map the one whose descriptor comes."""
    if not is_mapped:
        yield _received(link, size)
        return
    _, (descriptor,), _, _ = socket.recv_fds(link, 1, 1)
    try:
        # Of this size: the call that asks for it, of a descriptor, could ask of any path too, and is denied.
        with mmap.mmap(descriptor, size, access=mmap.ACCESS_READ) as mapped:
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
    from trivium.encoders.decoding.videos import open_video  # PyAV is an extra, and few workers meet a video

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
