"""Where workers come from: forks of one process that has the libraries loaded, or for tests a program of its own."""

import contextlib
import errno
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

from trivium.encoders.base import SandboxError
from trivium.encoders.machine import cpu_seconds_of
from trivium.encoders.sandbox.kinds import KINDS, DecodeKind
from trivium.encoders.sandbox.worker import ANSWER, END_SECONDS, LIVES, REQUEST

START_SECONDS = 60.0  # 0.3 on an idle machine
# -I: no PYTHON* variables, no user site, and neither the working directory nor the script's on the path. The parent's
# own path comes last, for packages that only it knows; this package comes first, for there may be another version.
BOOTSTRAP = (
    "import gc, sys; gc.disable(); sys.path.insert(0, sys.argv[2]); sys.path += sys.argv[3:]; "
    "from trivium.encoders.sandbox.worker import main; main(int(sys.argv[1]))"
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


class Template:
    """The parent's end of a template (`worker`): started when it is needed, and again if it dies."""

    def __init__(self, memory_bytes: int) -> None:
        self._command = template_command(memory_bytes)
        self._lock = threading.Lock()  # over all below
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._has_answered = False
        self._used = 0.0

    @property
    def pid(self) -> int | None:
        """Of the process, if it runs."""
        return None if self._process is None else self._process.pid

    def begin(self) -> None:
        """Start the process, if there is none; does not wait until it has loaded what takes long.

        Raises:
            SandboxError: If it cannot be started.
        """
        with self._lock:
            self._begin()

    def start(self, link: socket.socket, kind: DecodeKind) -> int:
        """Have a worker forked at one end of a socket; return its process id.

        Raises:
            SandboxError: If that fails.
        """
        with self._lock:
            answer = None
            if self._has_answered:  # it may have been killed since
                answer = self._asked(b"F", KINDS.index(kind), link)
            if answer is None:
                self._begin()
                answer = self._asked(b"F", KINDS.index(kind), link)
            if answer is None:
                raise SandboxError(f"a process to decode in ended at its start ({fate(self._fate)})")
        if answer < 0:
            raise SandboxError(cannot_start(-answer))
        return answer

    def kill(self, pid: int) -> None:
        """Kill a worker, from any thread. If nobody is there to do that, it has died with its template."""
        with self._lock:
            self._asked(b"K", pid)

    def dismiss(self, pid: int) -> None:
        """Kill a worker, and wait neither for that nor for its end."""
        with self._lock:
            if self._control is not None:
                with contextlib.suppress(OSError):  # else it has died with its template
                    self._control.sendall(REQUEST.pack(b"D", pid), getattr(socket, "MSG_NOSIGNAL", 0))

    def wait(self, pid: int) -> int | None:
        """Wait a moment for a worker's exit status, negative for a signal; None if it lives, or is lost."""
        with self._lock:
            status = self._asked(b"E", pid)
        return None if status == LIVES else status

    def cpu_seconds(self) -> float:
        """Return the processor's time that the process has used, and those before it."""
        with self._lock:
            return self._used + self._used_now()

    def close(self) -> None:
        """End the process, and with it all workers that are left."""
        with self._lock:
            self._end()

    def _begin(self) -> None:
        if self._process is not None:
            return
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                self._process = program(self._command, theirs)
            except BaseException:
                ours.close()
                raise
        self._control = ours
        self._has_answered = False

    def _asked(self, operation: bytes, number: int, link: socket.socket | None = None) -> int | None:
        """Ask, and return the answer; None if the process is gone, or is now."""
        if self._control is None:
            return None
        self._control.settimeout(START_SECONDS)
        message = REQUEST.pack(operation, number)
        try:
            if link is None:
                self._control.sendall(message, getattr(socket, "MSG_NOSIGNAL", 0))
            else:
                socket.send_fds(self._control, [message], [link.fileno()], getattr(socket, "MSG_NOSIGNAL", 0))
            answer = self._control.recv(ANSWER.size, socket.MSG_WAITALL)
            if len(answer) == ANSWER.size:
                self._has_answered = True
                return int(ANSWER.unpack(answer)[0])
        except TimeoutError:
            self._end()
            raise SandboxError(f"a process to decode in was not ready after {START_SECONDS:.0f} s") from None
        except OSError:
            pass
        except BaseException:  # an answer may be under way
            self._end()
            raise
        self._end(wait=True)
        return None

    def _used_now(self) -> float:
        return 0.0 if self._process is None else cpu_seconds_of(self._process.pid) or 0.0

    def _end(self, *, wait: bool = False) -> None:
        if self._process is None or self._control is None:
            return
        self._used += self._used_now()  # nobody knows it afterwards
        self._control.close()
        self._control = None
        if wait:  # for how it ended by itself
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(END_SECONDS)
        self._process.kill()
        self._fate = self._process.wait()
        self._process = None


class Programs:
    """Workers that are a program each, which speaks the protocol of `worker` on file descriptor 0: for tests."""

    def __init__(self, command: Sequence[str]) -> None:
        self._command = command
        self._processes: dict[int, subprocess.Popen[bytes]] = {}

    def begin(self) -> None:
        """Do nothing."""

    def start(self, link: socket.socket, kind: DecodeKind) -> int:  # noqa: ARG002
        """Start the program, which is not told for which kind; return its process id.

        Raises:
            SandboxError: If that fails.
        """
        process = program(self._command, link)
        self._processes[process.pid] = process
        return process.pid

    def kill(self, pid: int) -> None:
        """Kill one."""
        self._processes[pid].kill()

    def dismiss(self, pid: int) -> None:
        """Kill one, and wait for its end."""
        self._processes[pid].kill()
        self._processes[pid].wait()

    def wait(self, pid: int) -> int | None:
        """Wait a moment for the exit status of one; None if it lives."""
        try:
            return self._processes[pid].wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            return None

    def cpu_seconds(self) -> float:
        """Return 0: there is nothing beside the workers."""
        return 0.0

    def close(self) -> None:
        """Do nothing."""


Starts: TypeAlias = Template | Programs  # safe to use from several threads


def template_command(memory_bytes: int) -> list[str]:
    """Return the program whose forks may have so much address space."""
    package = str(Path(__file__).resolve().parents[3])
    path = [os.path.abspath(entry) for entry in sys.path if entry]
    return [sys.executable, "-I", "-c", BOOTSTRAP, str(memory_bytes), package, *path]


def program(command: Sequence[str], link: socket.socket) -> "subprocess.Popen[bytes]":
    """Start a program with a socket as its file descriptor 0, little of our environment, and nothing else of ours.

    Raises:
        SandboxError: If that fails.
    """
    try:
        return subprocess.Popen(
            command,
            stdin=link.fileno(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            env={name: os.environ[name] for name in KEPT_VARIABLES if name in os.environ} | FIXED_VARIABLES,
            start_new_session=True,  # Ctrl-C goes to the parent, which ends its workers
        )
    except OSError as error:
        raise SandboxError(cannot_start(error.errno or 0, error.strerror)) from error


def cannot_start(number: int, reason: str | None = None) -> str:
    """Say that no process can be started, why, and what may help."""
    told = f"cannot start a process to decode in: {reason or os.strerror(number)}"
    if number == errno.EAGAIN:
        return f"{told} (this user may have no more processes: see `ulimit -u`)"
    return f"{told} (see `ulimit -v`, or free some memory)" if number == errno.ENOMEM else told


def fate(status: int | None) -> str:
    """How a process ended, in words."""
    if status is None:
        return "it closed its socket and lives"
    if status >= 0:
        return f"exit status {status}"
    try:
        return f"signal {-status}, {signal.Signals(-status).name}"
    except ValueError:  # a real-time signal
        return f"signal {-status}"
