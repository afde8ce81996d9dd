"""One process that decodes, seen from the program that asks it: what it is started with, asked, and how it ends.

Not by `multiprocessing`: that runs the caller's script again, and pickles. What runs in there is `decode_worker`.
"""

import contextlib
import json
import math
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from trivium.encoders.audio_decoding import Sound
from trivium.encoders.base import DecodeError
from trivium.encoders.cores import cpu_seconds_of
from trivium.encoders.decode_answers import WorkerFailed, nonsense, picture_shape, sound_shape
from trivium.encoders.decode_limits import Limits, MediaKind
from trivium.encoders.decode_worker import LENGTH, MAX_HEADER_BYTES, OUT_OF_MEMORY, packed

T = TypeVar("T")

START_SECONDS = 60.0  # 0.3 on an idle machine
END_SECONDS = 1.0  # from a closed socket to the exit status
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


class DecodeProcess:
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
        """Wait for its first word; `SandboxError` if that does not come."""
        deadline = time.monotonic() + START_SECONDS
        try:
            ready = self._header(deadline) == {"ready": True}
        except TimeoutError:
            raise SandboxError(f"a process to decode in was not ready after {START_SECONDS:.0f} s") from None
        except (OSError, EOFError):
            raise SandboxError(f"a process to decode in ended at its start ({_fate(self._exit_status())})") from None
        except WorkerFailed:
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

    def ask(self, request: Request, take: "Callable[[DecodeProcess, dict[str, Any], float], T]") -> T:
        """Send a file, and have ``take`` read the answer until the deadline that it is given."""
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
            raise WorkerFailed(f"took longer than {request.seconds:.3g} s to decode", is_final=True) from None
        except (OSError, EOFError):
            raise self._death(request.limits, request.cpu_seconds) from None

    def header(self, deadline: float) -> dict[str, Any]:
        """Take an answer that is no refusal."""
        answer = self._header(deadline)
        if isinstance(reason := answer.get("refused"), str) and reason:
            raise DecodeError(reason)
        return answer

    def picture(self, answer: dict[str, Any], deadline: float) -> NDArray[np.uint8]:
        """Take a picture's pixels, (h, w, 3)."""
        pixels = np.empty(picture_shape(answer), np.uint8)
        self._fill(pixels.data.cast("B"), deadline)
        return pixels

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
            raise WorkerFailed(f"the decoder crashed on it ({_fate(self._exit_status())})") from None

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
        self._process.kill()

    def end(self) -> None:
        """Kill it and clean up."""
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

    def _exit_status(self) -> int | None:
        """As in `subprocess`: negative for a signal. None if it lives on."""
        try:
            return self._process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            return None

    def _death(self, limits: Limits, cpu_seconds: float) -> WorkerFailed:
        status = self._exit_status()
        if status == -signal.SIGXCPU:
            return WorkerFailed(f"took longer than {cpu_seconds:.3g} s to decode (processor time)", is_final=True)
        if status == OUT_OF_MEMORY:
            return WorkerFailed(f"needs more than {limits.memory_bytes / 2**30:.3g} GiB of memory to decode")
        return WorkerFailed(f"the decoder crashed on it ({_fate(status)})")


def worker_command(memory_bytes: int) -> list[str]:
    """Return the program of a worker that may have so much address space."""
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
