"""The process that workers are forks of: it loads the libraries once, sees no file's bytes, and is never locked.

A new worker is then a fork, a few milliseconds away, and need not import anything, which it could not once it is
locked. Started by `decode_starts` only. A request is an operation and a number (`REQUEST`), answered by one (`ANSWER`):

- ``F``: a worker for a kind of file, by its place in `KINDS`; one end of its socket comes with it. Answered by its
  process id, or minus the number of the error.
- ``K``: kill a worker that has not been asked for its end yet. Answered by 0.
- ``D``: kill a worker whose end nobody asks for. Not answered.
- ``E``: the end of a worker, waited for. Answered by its exit status, negative for a signal, or `LIVES`.
"""

import contextlib
import errno
import gc
import os
import signal
import socket
import struct
import sys
import time
from pathlib import Path

from trivium.encoders.sandbox.kinds import KINDS, DecodeKind, load_libraries
from trivium.encoders.sandbox.worker import serve

REQUEST, ANSWER = struct.Struct("=cI"), struct.Struct("=i")
LIVES = 1 << 16  # no exit status
END_SECONDS = 1.0  # from a closed socket to the exit status
LOOK_SECONDS = 0.001


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
