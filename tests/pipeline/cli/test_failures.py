"""What fails as nobody expected is one message, on streams of any kind."""

import errno
import os
import re
import resource
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from trivium.encoders.base import SandboxError, Space, unit_rows
from trivium.pipeline.cli import failures, streams
from trivium.pipeline.cli.failures import told
from trivium.pipeline.collection import Collection
from trivium.pipeline.records import NewItem, content_key
from trivium.pipeline.store.store import Store
from trivium.pipeline.store.writer import writing

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
        (lambda: told(None), r"^unexpected AttributeError: .* \(pipeline/cli/failures\.py, line \d+\)"),  # type: ignore[arg-type]
    ],
)
def test_messages(make: Callable[[], object], words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        error = make()
        assert isinstance(error, BaseException)
        raise error

    monkeypatch.setattr(failures, "_address_space", lambda: None)
    assert re.search(words, told(raised(fail)))


def test_what_fails_near_the_limit_of_memory_fails_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A library that was half imported says anything."""
    error = AttributeError("module 'torch' has no attribute 'from_numpy'")
    monkeypatch.setattr(failures, "_address_space", lambda: (29 << 27, 30 << 27))
    assert told(error).startswith("not enough memory: module 'torch' has no")
    assert "may use 3.75 GiB, see `ulimit -v`" in told(error)
    monkeypatch.setattr(failures, "_address_space", lambda: (5 << 27, 30 << 27))
    assert told(error).startswith("unexpected AttributeError")


def test_the_limit_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    assert failures._address_space() is None
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1 << 40, 1 << 40))
    space = failures._address_space()
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
    streams.drop_output()
