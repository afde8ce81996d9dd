"""How a command ends: signals that come while it works, faults that nobody expected, and streams that are gone."""

import contextlib
import errno
import os
import pty
import random
import re
import resource
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from trivium.encoders.base import SandboxError, Space, unit_rows
from trivium.pipeline.cli import ends
from trivium.pipeline.cli.ends import Interrupted, told
from trivium.pipeline.collection import Collection
from trivium.pipeline.records import NewItem, content_key
from trivium.pipeline.store.store import Store
from trivium.pipeline.store.writer import writing

PROGRAM = Path(__file__).with_name("interrupted.py")
# Two seconds are promised, and measured in docs/benchmarks.md; here beside any other work of the machine.
SOON_SECONDS = 20.0
TEXTS = 2000
VECTORS = 40_000


@dataclass(frozen=True)
class Ended:
    """How a program ended that was sent a signal."""

    status: int
    said: str
    seconds: float

    def require_orderly(self, number: int) -> None:
        assert self.status == 128 + number, self.said
        assert "interrupted; what was done is kept" in self.said
        assert "Traceback" not in self.said
        assert "Exception ignored" not in self.said
        assert self.seconds < SOON_SECONDS


@contextlib.contextmanager
def program(*arguments: str, module: Sequence[str] = (str(PROGRAM),)) -> Iterator["subprocess.Popen[bytes]"]:
    command = [sys.executable, *module, *arguments]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as run:
        yield run
        run.kill()


def wait_for(run: "subprocess.Popen[bytes]", word: bytes) -> bytes:
    """Read standard error until it says something; return all of it."""
    assert run.stderr is not None
    said = b""
    while word not in said:
        more = os.read(run.stderr.fileno(), 4096)
        assert more, f"no {word!r} in {said.decode()}"
        said += more
    return said


def send(run: "subprocess.Popen[bytes]", *numbers: int, pause: float = 0.0) -> Ended:
    began = time.perf_counter()
    for number in numbers:
        run.send_signal(number)
        time.sleep(pause)
    assert run.stderr is not None
    said = run.stderr.read()
    return Ended(run.wait(SOON_SECONDS), said.decode(), time.perf_counter() - began)


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    folder = tmp_path / "texts"
    folder.mkdir()
    for number in range(TEXTS):
        (folder / f"{number}.txt").write_text(f"text {number}")
    return folder


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_run_ends_and_what_it_committed_is_there(tmp_path: Path, texts: Path, number: signal.Signals) -> None:
    folder = tmp_path / "c"
    with program("in_steps", "index", str(folder), str(texts)) as run:
        wait_for(run, b"BEGUN")
        while not (folder / "collection.db").exists() or not items(folder):
            assert run.poll() is None
            time.sleep(0.02)
        ended = send(run, number)
    ended.require_orderly(number)
    assert 0 < items(folder) < TEXTS


def items(folder: Path) -> int:
    with contextlib.closing(Store(folder)) as store:
        return sum(store.counts().values())


@pytest.mark.parametrize(("work", "command"), [("deaf", "index"), ("in_c", "search")])
def test_what_hears_nothing_is_ended_all_the_same(tmp_path: Path, texts: Path, work: str, command: str) -> None:
    """A thread that never asks, and a main thread that a library does not give back."""
    folder = tmp_path / "c"
    if command == "search":
        made_up(folder, 10)
    with program(work, command, str(folder), str(texts) if command == "index" else "a text") as run:
        wait_for(run, b"BEGUN")
        ended = send(run, signal.SIGTERM)
    ended.require_orderly(signal.SIGTERM)


def test_a_second_ctrl_c_does_not_break_off_the_end(tmp_path: Path, texts: Path) -> None:
    with program("slow_to_end", "index", str(tmp_path / "c"), str(texts)) as run:
        wait_for(run, b"BEGUN")
        time.sleep(0.3)  # until the main thread waits: a pool does not join a thread that it has not done starting
        ended = send(run, *[signal.SIGINT] * 5, pause=0.05)
    ended.require_orderly(signal.SIGINT)
    assert "ENDING" in ended.said


def test_what_a_caller_has_ignored_stays_so(tmp_path: Path, texts: Path) -> None:
    """As `nohup trivium index ... &` does."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with program("in_steps", "index", str(tmp_path / "c"), str(texts)) as run:
            wait_for(run, b"BEGUN")
            run.send_signal(signal.SIGHUP)
            time.sleep(0.5)
            ended = send(run, signal.SIGTERM)
    finally:
        signal.signal(signal.SIGHUP, before)
    ended.require_orderly(signal.SIGTERM)


def test_who_uses_the_library_keeps_their_signals() -> None:
    before = [signal.getsignal(number) for number in ends.SIGNALS]
    from trivium.pipeline.cli.main import main

    with pytest.raises(SystemExit):
        main(["--help"])
    assert [signal.getsignal(number) for number in ends.SIGNALS] == before


def read_until(end: int, what: bytes, *, again: Callable[[], object] = lambda: None) -> None:
    """Read a terminal until it shows something; what makes it do so is done again where it was overlooked."""
    shown, deadline = b"", time.monotonic() + 60
    while what not in shown:
        assert time.monotonic() < deadline, shown
        if select.select([end], [], [], 2)[0]:
            shown += os.read(end, 4096)
        else:
            again()


def test_a_prompt_is_ended_by_all_but_ctrl_c(tmp_path: Path) -> None:
    made_up(tmp_path / "c", 10)
    end, theirs = pty.openpty()
    command = [sys.executable, str(PROGRAM), "in_c", "shell", str(tmp_path / "c")]
    environment = {**os.environ, "TERM": "dumb", "XDG_STATE_HOME": str(tmp_path)}
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment) as run:
        try:
            os.close(theirs)
            read_until(end, b"trivium> ")
            for _ in range(3):
                run.send_signal(signal.SIGINT)
                # One that comes just as the prompt begins to wait may be overlooked: people press it again.
                read_until(end, b"trivium> ", again=lambda: run.send_signal(signal.SIGINT))
            os.write(end, b"a text\n")
            read_until(end, b"BEGUN")
            run.send_signal(signal.SIGINT)  # an answer that takes long is not worth the session
            time.sleep(2 * ends.GRACE_SECONDS)
            assert run.poll() is None
            run.send_signal(signal.SIGTERM)
            assert run.wait(SOON_SECONDS) == 128 + signal.SIGTERM
        finally:
            run.kill()
    os.close(end)


def test_an_interrupt_without_a_signal(capsys: pytest.CaptureFixture[str]) -> None:
    """As one that the library's own user raises."""
    assert ends.ended(KeyboardInterrupt()) == 130
    assert ends.ended(Interrupted(signal.SIGTERM)) == 143
    assert ends.is_end(Interrupted(signal.SIGHUP))
    assert not ends.is_end(Interrupted(signal.SIGINT))
    assert capsys.readouterr().err.count("what was done is kept") == 2
    ends.answered()  # nobody watches: nothing to be told
    ends.spare_lines()


def made_up(folder: Path, count: int) -> None:
    """Make a collection of so many texts that are not there."""
    store = Store.create(folder, Space(name="slow", dim=8, revision="1"), source="slow")
    keys = [content_key("text", f"{number}".encode()) for number in range(count)]
    found = [
        NewItem(path=f"/none/{number}.txt", modality="text", fingerprint="1-1-1-1", contents={"content": key})
        for number, key in enumerate(keys)
    ]
    with contextlib.closing(store), writing(store) as writer:
        writer.commit(found, keys, unit_rows(np.random.default_rng(1).normal(size=(count, 8))))


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(
    "command",
    [
        ["index", "C", "TEXTS"],
        ["search", "C", "a text"],
        ["info", "C"],
        ["verify", "C", "--read-data", "--media"],
        ["rebuild", "C", "--index", "hnsw"],
        ["rebuild", "C", "--index", "ivf-sq8"],
        ["compact", "C"],
        ["export", "C", "OUT.parquet"],
        ["export", "C", "OUT.npy"],
        ["remove", "C", "/none"],
        ["spaces"],
    ],
    ids=" ".join,
)
def test_any_command_at_any_time(tmp_path: Path, texts: Path, command: list[str], number: signal.Signals) -> None:
    """Where the signal comes after the end, the command has done its work; a collection is sound either way."""
    folder = tmp_path / "c"
    made_up(folder, VECTORS)
    names = {"C": str(folder), "TEXTS": str(texts), "OUT.parquet": str(tmp_path / "o.parquet")}
    names["OUT.npy"] = str(tmp_path / "o.npy")
    pick = random.Random(repr((command, number)))
    took = []
    for _ in range(6):
        with program("in_steps", *(names.get(word, word) for word in command)) as run:
            wait_for(run, b"READY")
            with contextlib.suppress(subprocess.TimeoutExpired):
                run.wait(pick.uniform(0.0, 3.0))
            if run.poll() is None:
                ended = send(run, number)
                if ended.status in (0, -number):  # it was done, and about to end
                    assert "Traceback" not in ended.said
                else:
                    ended.require_orderly(number)
                took.append(ended.seconds)
            elif command[0] != "export":  # there, a file of an earlier round may be there
                assert run.returncode == 0
    with Collection.open(folder) as collection:
        assert command[0] == "remove" or collection.info().vectors >= VECTORS
    if took:
        print(f"\n{' '.join(command)}: {len(took)} interrupts, the slowest took {max(took):.2f} s")


PROGRAM = Path(__file__).with_name("interrupted.py")


def raised(make: Callable[[], object]) -> BaseException:
    try:
        make()
    except BaseException as error:
        return error
    raise AssertionError("nothing was raised")


def from_memory() -> None:
    try:
        raise MemoryError
    except MemoryError as error:
        raise AttributeError("module 'torch' has no attribute 'from_numpy'") from error


def deep() -> None:
    deep()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (MemoryError, r"^not enough memory: MemoryError"),
        (from_memory, r"^not enough memory: module 'torch' has no attribute"),
        (lambda: ImportError("libtorch_cpu.so: failed to map segment from shared object"), r"^not enough memory: libt"),
        (lambda: RuntimeError("std::bad_alloc"), r"^not enough memory: std::bad_alloc"),
        (lambda: OSError(errno.ENOMEM, "Cannot allocate memory"), r"^not enough memory: \[Errno 12\]"),
        (lambda: OSError(errno.EMFILE, "Too many open files"), r"Too many open files: .*ulimit -n"),
        (
            lambda: OSError(errno.EAGAIN, "Resource temporarily unavailable"),
            r"unavailable: too many processes.*ulimit -u",
        ),
        (lambda: OSError(errno.ENOSPC, "No space left on device"), r"^\[Errno 28\] No space left on device$"),
        (lambda: RuntimeError("can't start new thread"), r"^no thread can be started: .*ulimit -u.*memory"),
        (lambda: SandboxError("a process to decode in ended at its start"), r"^a process to decode in ended at its st"),
        (deep, r"^something is nested too deeply: maximum recursion depth"),
        (lambda: KeyError("x"), r"^unexpected KeyError: 'x'\. That is a fault of Trivium's: .*TRIVIUM_TRACEBACK=1"),
        (lambda: told(None), r"^unexpected AttributeError: .* \(pipeline/cli/ends\.py, line \d+\)"),  # type: ignore[arg-type]
    ],
)
def test_messages(make: Callable[[], object], words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        error = make()
        assert isinstance(error, BaseException)
        raise error

    monkeypatch.setattr(ends, "_address_space", lambda: None)
    assert re.search(words, told(raised(fail)))


def test_what_fails_near_the_limit_of_memory_fails_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A library that was half imported says anything."""
    error = AttributeError("module 'torch' has no attribute 'from_numpy'")
    monkeypatch.setattr(ends, "_address_space", lambda: (29 << 27, 30 << 27))
    assert told(error).startswith("not enough memory: module 'torch' has no")
    assert "may use 3.75 GiB, see `ulimit -v`" in told(error)
    monkeypatch.setattr(ends, "_address_space", lambda: (5 << 27, 30 << 27))
    assert told(error).startswith("unexpected AttributeError")


def test_the_limit_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ends._address_space() is None
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1 << 40, 1 << 40))
    space = ends._address_space()
    assert space is not None
    assert 1 << 20 < space[0] < space[1] == 1 << 40


def test_a_traceback_for_a_report(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    told(KeyError("x"))
    assert capsys.readouterr().err == ""
    monkeypatch.setenv("TRIVIUM_TRACEBACK", "1")
    told(raised(lambda: dict[str, str]()["x"]))
    assert "Traceback (most recent call last)" in capsys.readouterr().err


@pytest.fixture(scope="module")
def collection(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One text, of a file whose name few terminals can show."""
    folder = tmp_path_factory.mktemp("failures") / "c"
    key = content_key("text", b"A street.")
    item = NewItem(
        path="/none/Stra\u00dfe \u65e5\u672c.txt", modality="text", fingerprint="1-1-1-1", contents={"content": key}
    )
    store = Store.create(folder, Space(name="slow", dim=8, revision="1"), source="slow")
    with closing(store), writing(store) as writer:
        writer.commit([item], [key], unit_rows(np.ones((1, 8))))
    return folder


def run(
    *arguments: object, shell: str = "exec {}", environment: dict[str, str] | None = None, text: str = ""
) -> "subprocess.CompletedProcess[bytes]":
    command = " ".join(f"'{word}'" for word in (sys.executable, PROGRAM, *arguments))
    return subprocess.run(
        ["bash", "-c", shell.format(command)],
        input=text.encode(),
        capture_output=True,
        timeout=120,
        check=False,
        env={**os.environ, **(environment or {})},
    )


@pytest.mark.parametrize(
    ("work", "words"),
    [
        (
            "fails",
            rb"unexpected ZeroDivisionError: something that nobody expected \(pipeline/\w+/\w+\.py, line \d+\)\. That",
        ),
        ("without_threads", rb"no thread can be started"),
    ],
)
def test_a_command_that_fails_says_so_in_one_line(collection: Path, work: str, words: bytes) -> None:
    done = run(work, "search", collection, "a street")
    assert done.returncode == 1
    assert re.search(b"trivium: " + words, done.stderr)
    assert b"Traceback" not in done.stderr


def test_a_shell_goes_on_after_it(collection: Path) -> None:
    done = run("fails", "shell", collection, text="a street\n:info\n")
    assert done.returncode == 0
    assert b"unexpected ZeroDivisionError" in done.stderr
    assert b"1 (1 text) items" in done.stdout
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize("encoding", ["latin-1", "ascii"])
def test_any_encoding_of_the_terminal_will_do(collection: Path, encoding: str) -> None:
    done = run("in_steps", "search", collection, "street", environment={"PYTHONIOENCODING": encoding})
    assert done.returncode == 0, done.stderr
    assert done.stdout.rstrip().endswith("Stra\u00dfe \u65e5\u672c.txt".encode(encoding, "backslashreplace"))


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&- <&-"])
def test_streams_may_be_closed(tmp_path: Path, closed: str) -> None:
    """And no file of the collection takes their place."""
    (tmp_path / "a.txt").write_text("A street.")
    done = run("in_steps", "index", tmp_path / "c", tmp_path / "a.txt", shell="exec {} " + closed)
    assert (done.returncode, done.stderr.count(b"Traceback")) == (0, 0)
    assert b"trivium: " not in done.stdout  # messages do not change to where results are
    with Collection.open(tmp_path / "c") as made:
        assert made.info().items == {"text": 1}


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_output_that_cannot_be_written_is_a_failure(collection: Path) -> None:
    done = run("in_steps", "info", collection, "--json", shell="exec {} > /dev/full")
    assert done.returncode == 1
    assert done.stderr == b"READY\ntrivium: [Errno 28] No space left on device\n"


def test_output_that_has_no_file_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    ends.drop_output()
