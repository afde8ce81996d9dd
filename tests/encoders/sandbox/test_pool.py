"""Decoding in worker processes: the same results, and whatever happens to a worker costs one file."""

import contextlib
import errno
import gc
import io
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import textwrap
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import pytest
import soundfile
from numpy.testing import assert_array_equal
from PIL import Image

from assets import ASSETS
from trivium.encoders import DecodeError
from trivium.encoders.base import SandboxError
from trivium.encoders.decoding.pictures import decode_image
from trivium.encoders.decoding.sounds import MAX_FRAMES, decode_audio
from trivium.encoders.sandbox import pool as sandbox
from trivium.encoders.sandbox import starts as decode_starts
from trivium.encoders.sandbox.limits import Limits
from trivium.encoders.sandbox.pool import DecodeSandbox
from trivium.encoders.sandbox.starts import Template

Media: TypeAlias = Literal["image", "audio"]
needs_proc = pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="looks into /proc")

# A worker of a few lines; the body of its loop is given by the test, with the file as `data`.
STAND_IN = """
import json, os, signal, socket, struct, sys, time
link = socket.socket(fileno=0)
def say(header, raw=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    link.sendall(struct.pack("<I", len(text)) + text + raw)
def hear(size):
    parts = b""
    while len(parts) < size and (part := link.recv(size - len(parts))):
        parts += part
    return parts
say({"ready": True})
files = 0
while length := hear(4):
    request = json.loads(hear(*struct.unpack("<I", length)))
    data = hear(request["size"])
    files += 1
"""


def command_of(source: str) -> list[str]:
    return [sys.executable, "-I", "-S", "-c", source]


def stand_in(body: str) -> list[str]:
    return command_of(STAND_IN + textwrap.indent(textwrap.dedent(body), "    "))


def picture(kind: str, mode: str = "RGB", **options: Any) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (30, 20, 4), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(buffer, kind, **options)
    return buffer.getvalue()


def sound(kind: str, subtype: str | None = None, channels: int = 2, count: int = 24_000) -> bytes:
    samples = 0.3 * np.random.default_rng(0).standard_normal((count, channels))
    buffer = io.BytesIO()
    soundfile.write(buffer, samples.clip(-1, 1), 24_000, format=kind, subtype=subtype)
    return buffer.getvalue()


def blank_png(width: int, height: int) -> bytes:
    """A white picture of one bit a pixel: small as a file, 4 bytes a pixel as RGB."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    rows = zlib.compress((b"\0" + b"\xff" * ((width + 7) // 8)) * height)
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def drawing(body: str) -> bytes:
    return f'<svg xmlns="http://www.w3.org/2000/svg" width="40" height="40">{body}</svg>'.encode()


# 200 bytes that keep resvg busy for hours.
ENDLESS = drawing(
    '<filter id="f"><feTurbulence baseFrequency="0.05" numOctaves="9000000"/></filter>'
    '<rect width="40" height="40" filter="url(#f)"/>'
)


@pytest.fixture(scope="module")
def shared() -> Iterator[DecodeSandbox]:
    with DecodeSandbox(2) as made:
        yield made


def is_alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    return False


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def status_bytes(pid: int, name: str) -> int:
    """A figure of /proc/<pid>/status, 0 if the process is gone."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith(name):
                return int(line.split()[1]) * 1024
    return 0


# The same as in process


PICTURES = {
    **{kind: picture(kind) for kind in ("BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP")},
    "PNG with alpha": picture("PNG", "RGBA"),
    "PNG with 16 bits": picture("PNG", "I;16"),
    "TIFF of floats": picture("TIFF", "F"),
    "palette": picture("GIF", "P", transparency=3),
    "CMYK": picture("JPEG", "CMYK"),
    "SVG": (ASSETS / "penguin.svg").read_bytes(),
}
SOUNDS = {
    "WAV": sound("WAV", "PCM_16"),
    "WAV of floats": sound("WAV", "FLOAT", 1),
    "FLAC": sound("FLAC", "PCM_24", 3),
    "Vorbis": sound("OGG", "VORBIS"),
    "Opus": sound("OGG", "OPUS"),
    "MP3": sound("MP3"),
}


@pytest.mark.parametrize("data", PICTURES.values(), ids=PICTURES)
def test_pictures_are_the_same(data: bytes, shared: DecodeSandbox) -> None:
    found = shared.decode("image", data)
    assert found.dtype == np.uint8
    assert_array_equal(found, np.asarray(decode_image(data)))


def test_rotated_picture_is_the_same(shared: DecodeSandbox) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = picture("JPEG", exif=exif)
    assert shared.decode("image", data).shape == (20, 30, 3)
    assert_array_equal(shared.decode("image", data), np.asarray(decode_image(data)))


def test_picture_of_several_strips_is_the_same(shared: DecodeSandbox) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2500, 2000, 4), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "TIFF")
    white = Image.new("RGBA", (2000, 2500), "white")
    expected = Image.alpha_composite(white, Image.fromarray(pixels)).convert("RGB")
    assert_array_equal(shared.decode("image", buffer.getvalue()), np.asarray(expected))


@pytest.mark.parametrize("data", SOUNDS.values(), ids=SOUNDS)
def test_sounds_are_the_same(data: bytes, shared: DecodeSandbox) -> None:
    waveform, rate_hz = shared.decode("audio", data)
    expected, expected_rate_hz = decode_audio(data)
    assert (waveform.dtype, rate_hz) == (np.dtype(np.float32), expected_rate_hz)
    assert_array_equal(waveform, expected)


def test_result_can_be_written_to(shared: DecodeSandbox) -> None:
    assert shared.decode("image", PICTURES["PNG"]).flags.writeable
    assert shared.decode("audio", SOUNDS["WAV"])[0].flags.writeable


@pytest.mark.parametrize(
    ("modality", "data"),
    [
        ("image", b""),
        ("image", b"A text that somebody named photo.jpg.\n"),
        ("image", PICTURES["JPEG"][:200]),
        ("image", PICTURES["TIFF"][:-500]),
        ("image", blank_png(12_000, 12_000)[:200]),
        ("image", drawing("<oops")),
        ("image", SOUNDS["WAV"]),
        ("audio", b""),
        ("audio", PICTURES["PNG"]),
        ("audio", SOUNDS["WAV"][:-7]),
        ("audio", SOUNDS["FLAC"][:-700]),
        ("audio", SOUNDS["Opus"][:-700]),
    ],
)
def test_reasons_are_the_same(modality: Media, data: bytes, shared: DecodeSandbox) -> None:
    with pytest.raises(DecodeError) as expected:
        decode_image(data) if modality == "image" else decode_audio(data)
    with pytest.raises(DecodeError) as found:
        shared.decode(modality, data)
    assert found.value.reason == expected.value.reason


def test_a_refusal_costs_no_worker() -> None:
    with DecodeSandbox(1) as box:
        box.decode("image", PICTURES["PNG"])
        before = box.pids
        with pytest.raises(DecodeError, match="not a picture"):
            box.decode("image", b"A text that somebody named photo.jpg.")
        box.decode("image", PICTURES["PNG"])
        assert box.pids == before


def test_text_is_not_decoded_here(shared: DecodeSandbox) -> None:
    with pytest.raises(ValueError, match="modality must be 'image' or 'audio', got 'text'"):
        shared.decode("text", b"words")


def test_count_of_workers_is_checked() -> None:
    with pytest.raises(ValueError, match="workers must be at least 1, got 0"):
        DecodeSandbox(0)


def test_one_worker_per_core_started_when_needed() -> None:
    with DecodeSandbox() as box:
        assert box.pids == []
        box.decode("image", PICTURES["PNG"])
        box.decode("image", PICTURES["PNG"])
        assert len(box.pids) == 1


# Crashes


@pytest.mark.parametrize(
    ("action", "told"),
    [
        ("os.kill(os.getpid(), signal.SIGSEGV)", "signal 11, SIGSEGV"),
        ("os.abort()", "signal 6, SIGABRT"),
        pytest.param(
            "os.kill(os.getpid(), signal.SIGRTMIN + 1)",
            f"signal {getattr(signal, 'SIGRTMIN', 0) + 1}",
            marks=pytest.mark.skipif(not hasattr(signal, "SIGRTMIN"), reason="no real-time signals"),
        ),
        ("sys.exit(3)", "exit status 3"),
        ("sys.exit(0)", "exit status 0"),
    ],
)
def test_crash_costs_one_file(action: str, told: str) -> None:
    body = f"""
        if data == b"bad":
            {action}
        say({{"shape": [1, 1, 3]}}, data)
    """
    with DecodeSandbox(1, command=stand_in(body)) as box:
        for _ in range(3):
            assert box.decode("image", b"abc").tobytes() == b"abc"
            with pytest.raises(DecodeError) as error:
                box.decode("image", b"bad")
            assert error.value.reason == f"the decoder crashed on it ({told})"
        assert box.decode("image", b"abc").tobytes() == b"abc"


def test_crash_while_the_answer_is_under_way() -> None:
    body = """
        say({"shape": [1000, 1000, 3]}, bytes(999_999))
        os.kill(os.getpid(), signal.SIGBUS)
    """
    with DecodeSandbox(1, command=stand_in(body)) as box, pytest.raises(DecodeError, match="SIGBUS"):
        box.decode("image", b"x")


def test_crash_while_the_file_is_under_way() -> None:
    """The kernel then reports a broken pipe; a program that wants to die of SIGPIPE must not."""
    command = command_of(STAND_IN.replace("files = 0", "os.abort()"))
    script = f"""
        import signal
        from trivium.encoders.sandbox.pool import DecodeError, DecodeSandbox
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        for size in (1, 10_000_000):
            try:
                DecodeSandbox(1, command={command!r}).decode("image", bytes(size))
            except DecodeError as error:
                print(error)
    """
    assert run(script).splitlines() == ["the decoder crashed on it (signal 6, SIGABRT)"] * 2


def test_earlier_file_is_to_blame() -> None:
    """A worker that has decoded before may be damaged, or may die of something else: the file is tried again."""
    body = """
        if files == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        say({"shape": [1, 1, 3]}, data)
    """
    with DecodeSandbox(1, command=stand_in(body)) as box:
        pids = []
        for _ in range(7):
            assert box.decode("image", b"abc").tobytes() == b"abc"
            pids += box.pids
        assert len(set(pids)) == 4  # files 1 and 2, 3 and 4, 5 and 6, 7


@needs_proc
def test_real_worker_killed_while_it_decodes() -> None:
    data = blank_png(10_000, 10_000)
    with DecodeSandbox(1) as box:
        done = threading.Event()

        def kill() -> None:
            while not done.wait(0.001):
                for pid in box.pids:
                    if status_bytes(pid, "VmRSS") > 80 << 20:  # it is at it
                        os.kill(pid, signal.SIGKILL)

        killer = threading.Thread(target=kill)
        killer.start()
        try:
            with pytest.raises(DecodeError, match=r"^the decoder was killed \(signal 9, SIGKILL\): did the mach"):
                box.decode("image", data)
        finally:
            done.set()
            killer.join()
        assert box.decode("image", PICTURES["PNG"]).shape == (30, 20, 3)


@needs_proc
def test_worker_killed_while_idle_is_replaced() -> None:
    with DecodeSandbox(1) as box:
        for _ in range(2):
            box.decode("audio", SOUNDS["FLAC"])
            (pid,) = box.pids
            os.kill(pid, signal.SIGKILL)
            wait_for(lambda pid=pid: not is_alive(pid))  # type: ignore[misc]
            assert len(box.decode("audio", SOUNDS["FLAC"])[0]) == 24_000
            assert pid not in box.pids


def test_worker_is_replaced_after_many_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "MAX_FILES", 2)
    with DecodeSandbox(1, command=stand_in('say({"shape": [1, 1, 3]}, data)')) as box:
        for expected in (1, 0, 1, 0):
            assert box.decode("image", b"abc").tobytes() == b"abc"
            assert len(box.pids) == expected


# Limits


def test_limits_grow_with_the_file() -> None:
    limits = Limits()
    assert limits.cpu_seconds("image", 0) == 10
    assert limits.cpu_seconds("image", 25 << 20) == 35
    assert limits.cpu_seconds("audio", 27 << 20) == 57
    assert limits.cpu_seconds("image", 1 << 40) == 120


def test_time_by_the_clock() -> None:
    limits = Limits(image_seconds=0.1, patience=2)
    with DecodeSandbox(1, limits=limits, command=stand_in("time.sleep(1000)")) as box:
        for data in (b"x", b"y"):
            with pytest.raises(DecodeError, match=r"^took longer than 0\.2 s to decode$"):
                box.decode("image", data)
            assert box.pids == []


def test_time_by_the_clock_is_not_renewed_by_drops() -> None:
    body = """
        say({"shape": [1000, 1000, 3]})
        while True:
            link.sendall(b"x")
            time.sleep(0.01)
    """
    limits = Limits(image_seconds=0.1, patience=2)
    with DecodeSandbox(1, limits=limits, command=stand_in(body)) as box, pytest.raises(DecodeError, match="longer"):
        box.decode("image", b"x")


def test_worker_that_does_not_listen() -> None:
    command = command_of(STAND_IN.replace("files = 0", "time.sleep(1000)"))
    limits = Limits(image_seconds=0.1, bytes_per_second=1e9, patience=2)
    with DecodeSandbox(1, limits=limits, command=command) as box, pytest.raises(DecodeError, match="took longer than"):
        box.decode("image", bytes(10_000_000))


def test_processor_time() -> None:
    with DecodeSandbox(1, limits=Limits(image_seconds=0.5, patience=100)) as box:
        box.decode("image", PICTURES["PNG"])
        for _ in range(2):
            with pytest.raises(DecodeError, match=r"^took longer than 0\.5 s to decode \(processor time\)$"):
                box.decode("image", ENDLESS)
        box.decode("image", PICTURES["PNG"])


@needs_proc
def test_memory() -> None:
    with DecodeSandbox(1, limits=Limits(memory_bytes=256 << 20)) as box:
        box.decode("image", PICTURES["PNG"])
        data = blank_png(10_000, 10_000)
        assert len(data) < 100_000
        for _ in range(2):
            with pytest.raises(DecodeError, match=r"^needs more than 0\.25 GiB of memory to decode \(--max-megapi"):
                box.decode("image", data)
        with pytest.raises(DecodeError, match=r"^needs more than 0\.25 GiB of memory to decode \(--max-megapi"):
            box.decode("image", bytes(300 << 20))  # the file alone
        waveform, _ = box.decode("audio", SOUNDS["WAV"])
        assert len(waveform) == 24_000


@needs_proc
def test_memory_goes_back_to_the_system() -> None:
    with DecodeSandbox(1) as box:
        for kind in ("PNG", "WEBP"):
            buffer = io.BytesIO()
            Image.new("RGBA", (4000, 3000)).save(buffer, kind)
            box.decode("image", buffer.getvalue())
            box.decode("image", PICTURES["PNG"])  # now it is done with the one before
            assert status_bytes(box.pids[0], "VmHWM") > 150 << 20
            assert status_bytes(box.pids[0], "VmRSS") < 110 << 20


@needs_proc
def test_real_worker_is_locked_down(shared: DecodeSandbox) -> None:
    shared.decode("image", PICTURES["SVG"])
    shared.decode("audio", SOUNDS["MP3"])
    for pid in shared.pids:
        loaded = Path(f"/proc/{pid}/maps").read_text()
        assert "numpy" in loaded
        assert "torch" not in loaded
        limits = Path(f"/proc/{pid}/limits").read_text().splitlines()
        found = {line[:26].strip(): line[26:].split()[0] for line in limits}
        # Beside what the libraries of other kinds take, which one template may have loaded.
        assert 2 << 30 <= int(found["Max address space"]) < (2 << 30) + (256 << 20)
        assert found["Max file size"] == "0"
        assert found["Max core file size"] == "0"
        assert found["Max open files"] == "64"
        assert Path(f"/proc/{pid}/oom_score_adj").read_text().strip() == "1000"


def test_importing_the_worker_loads_nothing_heavy() -> None:
    found = run("""
        import sys
        import trivium.encoders.sandbox.worker
        print(sorted({"torch", "torchaudio", "torchvision", "resvg_py", "multiprocessing"} & set(sys.modules)))
    """)
    assert found.strip() == "[]"


# A worker that lies


@pytest.mark.parametrize("modality", ["image", "audio"])
@pytest.mark.parametrize(
    "answer",
    [
        {},
        [],
        "refused",
        {"refused": ""},
        {"refused": 5},
        {"ready": True},
        {"shape": []},
        {"shape": None},
        {"shape": "abc"},
        {"shape": [2, 3]},
        {"shape": [2, 3, 4]},
        {"shape": [0, 3, 3]},
        {"shape": [-1, -3, 3]},
        {"shape": [1.0, 1.0, 3]},
        {"shape": [True, True, 3]},
        {"shape": [10_001, 10_000, 3]},
        {"shape": [10**30, 1, 3]},
        {"shape": [0], "rate_hz": 8000},
        {"shape": [-5], "rate_hz": 8000},
        {"shape": [MAX_FRAMES + 1], "rate_hz": 8000},
        {"shape": [5], "rate_hz": 0},
        {"shape": [5], "rate_hz": 8000.5},
        {"shape": [5], "rate_hz": True},
        {"shape": [[5]], "rate_hz": 8000},
        {"shape": [5]},
    ],
)
def test_header_that_lies(answer: Any, modality: Media, liar: DecodeSandbox) -> None:
    with pytest.raises(DecodeError, match=r"^the decoder gave an answer that makes no sense$"):
        liar.decode(modality, json.dumps(answer).encode())


@pytest.mark.parametrize("text", [b"", b"{", b"\xff\xfe", b"NaN", b"[" * 60_000, b'{"shape": 1e999}', b"9" * 60_000])
def test_header_that_is_none(text: bytes, liar: DecodeSandbox) -> None:
    with pytest.raises(DecodeError, match=r"^the decoder gave an answer that makes no sense$"):
        liar.decode("image", text)


@pytest.fixture(scope="module")
def liar() -> Iterator[DecodeSandbox]:
    """Answers with the file as the header."""
    with DecodeSandbox(1, command=stand_in("say(data)")) as made:
        yield made


def test_header_without_end() -> None:
    command = stand_in('link.sendall(struct.pack("<I", 0xFFFFFFFF)); time.sleep(1000)')
    with DecodeSandbox(1, command=command) as box, pytest.raises(DecodeError, match="makes no sense"):
        box.decode("image", b"x")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_samples_that_are_not_finite(bad: float) -> None:
    samples = np.array([1, bad, 3], np.float32).tobytes()
    command = stand_in('say({"shape": [3], "rate_hz": 8000}, data)')
    with DecodeSandbox(1, command=command) as box:
        with pytest.raises(DecodeError, match="makes no sense"):
            box.decode("audio", samples)
        loud = np.array([3e38, 3e38, 3e38], np.float32)
        assert_array_equal(box.decode("audio", loud.tobytes())[0], loud)


def test_one_answer_too_many() -> None:
    """It must not be taken for the next file's."""
    with DecodeSandbox(1, command=stand_in('say({"shape": [1, 1, 3]}, data * 2)')) as box:
        for data in (b"abc", b"def", b"ghi"):
            assert box.decode("image", data).tobytes() == data


def test_socket_closed_by_a_worker_that_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode_starts, "END_SECONDS", 0.1)
    with DecodeSandbox(1, command=stand_in("link.close(); time.sleep(1000)")) as box:
        with pytest.raises(DecodeError, match=r"crashed on it \(it closed its socket and lives\)"):
            box.decode("image", b"x")
        assert box.pids == []


# The start


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("import no_such_module", r"ended at its start \(exit status 1\)"),
        ("import os; os.abort()", r"ended at its start \(signal 6, SIGABRT\)"),
        (STAND_IN.replace('"ready"', '"steady"'), "gave a wrong first answer"),
        (STAND_IN.replace('{"ready": True}', 'b"{"'), "gave a wrong first answer"),
        ("import time; time.sleep(1000)", "was not ready after 1 s"),
    ],
)
def test_worker_that_does_not_start(source: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if "was not ready" in message:
        monkeypatch.setattr(decode_starts, "START_SECONDS", 1.0)
    with DecodeSandbox(1, command=command_of(source)) as box:
        with pytest.raises(SandboxError, match=message):
            box.decode("image", b"x")
        assert box.pids == []


def test_program_that_is_not_there() -> None:
    with DecodeSandbox(1, command=["/no/such/program"]) as box:
        for _ in range(3):
            with pytest.raises(SandboxError, match="cannot start a process to decode in: No such file"):
                box.decode("image", b"x")


def test_what_a_worker_inherits(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SECRET", "1")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    body = """
        found = [sorted(os.environ), os.getcwd(), os.getsid(0) == os.getpid(), sorted(os.listdir("/proc/self/fd"))]
        say({"refused": json.dumps(found)})
    """
    with DecodeSandbox(1, command=stand_in(body)) as box, pytest.raises(DecodeError) as error:
        box.decode("image", b"x")
    variables, folder, leads_session, descriptors = json.loads(error.value.reason)
    assert {"MALLOC_ARENA_MAX", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"} <= set(variables)
    assert not {"SECRET", "PYTHONPATH"} & set(variables)
    assert folder == "/"
    assert leads_session
    assert descriptors == ["0", "1", "2", "3"]  # 3 is the listing itself


def run(script: str, *, cwd: Path | None = None, options: tuple[str, ...] = ("-P",)) -> str:
    """What a script prints that runs in a process of its own."""
    command = [sys.executable, *options, "-c", textwrap.dedent(script)]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60, cwd=cwd).stdout


def test_modules_in_the_working_directory_are_not_imported(tmp_path: Path) -> None:
    for name in ("numpy", "PIL", "soundfile", "json", "socket", "trivium"):
        (tmp_path / f"{name}.py").write_text("import os; os.abort()")
    (tmp_path / "picture.png").write_bytes(PICTURES["PNG"])
    script = """
        import sys
        from pathlib import Path
        from trivium.encoders.sandbox.pool import DecodeSandbox
        sys.path.append(str(Path.cwd()))
        with DecodeSandbox(1) as box:
            print(box.decode("image", Path("picture.png").read_bytes()).shape)
    """
    assert run(script, cwd=tmp_path).strip() == "(30, 20, 3)"


def test_packages_that_only_the_parent_knows(tmp_path: Path) -> None:
    """A path by PYTHONPATH or by hand, as in a checkout that is not installed; also with a colon in it."""
    folder = tmp_path / "a:b"
    folder.mkdir()
    (folder / "trivium").symlink_to(Path(sandbox.__file__).parents[2])
    script = f"""
        import sys
        sys.path.insert(0, {str(folder)!r})
        from trivium.encoders.sandbox.pool import DecodeSandbox
        with DecodeSandbox(1) as box:
            print(box.decode("image", {PICTURES["PNG"]!r}).shape)
    """
    assert run(script).strip() == "(30, 20, 3)"


def test_script_without_a_main_guard(tmp_path: Path) -> None:
    path = tmp_path / "script.py"
    path.write_text(
        "print('once')\n"
        "from trivium.encoders.sandbox.pool import DecodeSandbox\n"
        f"print(DecodeSandbox(2).decode('image', {PICTURES['PNG']!r}).shape)\n"
    )
    found = subprocess.run([sys.executable, path], capture_output=True, text=True, check=True, timeout=60)
    assert found.stdout.splitlines() == ["once", "(30, 20, 3)"]
    assert found.stderr == ""


# Threads


def test_eight_threads_at_once(shared: DecodeSandbox) -> None:
    items: list[tuple[Media, bytes]] = [
        *(("image", data) for data in PICTURES.values()),
        *(("audio", data) for data in SOUNDS.values()),
        ("image", b"bad"),
    ] * 4

    def decode(item: tuple[Media, bytes]) -> object:
        with contextlib.suppress(DecodeError):
            return shared.decode(*item)
        return None

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(decode, items))
    assert len(shared.pids) == 2
    for (modality, data), result in zip(items, found, strict=True):
        if data == b"bad":
            assert result is None
        elif modality == "image":
            assert_array_equal(result, np.asarray(decode_image(data)))
        else:
            assert isinstance(result, tuple)
            assert_array_equal(result[0], decode_audio(data)[0])


def test_threads_beside_crashes() -> None:
    body = """
        if data[:1] == b"x":
            os.abort()
        say({"shape": [1, 1, 3]}, data)
    """
    items = [b"xyz" if number % 3 == 0 else b"%03d" % number for number in range(100)]
    with DecodeSandbox(4, command=stand_in(body)) as box:

        def decode(data: bytes) -> bytes:
            try:
                return box.decode("image", data).tobytes()
            except DecodeError as error:
                return b"xyz" if "SIGABRT" in error.reason else error.reason.encode()

        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(decode, items)) == items
        assert len(box.pids) <= 4


def test_interrupt_while_decoding() -> None:
    """Ctrl-C reaches the caller at once, and the half-asked worker is not used again."""
    command = stand_in("time.sleep(1000) if data == b'slow' else say({'shape': [1, 1, 3]}, data)")
    with DecodeSandbox(1, command=command) as box:
        timer = threading.Timer(0.5, os.kill, [os.getpid(), signal.SIGINT])
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            box.decode("image", b"slow")
        timer.join()
        assert box.decode("image", b"abc").tobytes() == b"abc"


# The end


@needs_proc
def test_close() -> None:
    box = DecodeSandbox(1)
    box.decode("image", PICTURES["PNG"])
    (pid,) = box.pids
    box.close()
    assert not is_alive(pid)
    assert box.pids == []
    with pytest.raises(ValueError, match="the sandbox is closed"):
        box.decode("image", PICTURES["PNG"])
    box.close()


def test_close_before_any_file() -> None:
    DecodeSandbox(1).close()


def test_close_while_decoding() -> None:
    box = DecodeSandbox(1, command=stand_in("time.sleep(1000)"))
    with ThreadPoolExecutor(3) as pool:
        pending = [pool.submit(box.decode, "image", b"x") for _ in range(3)]
        wait_for(lambda: bool(box.pids))
        time.sleep(0.1)
        box.close()
        for future in pending:
            with pytest.raises(ValueError, match="the sandbox is closed"):
                future.result(timeout=10)
    assert box.pids == []


def test_close_while_a_worker_starts() -> None:
    box = DecodeSandbox(1, command=[sys.executable, "-c", "import time; time.sleep(1000)"])
    with ThreadPoolExecutor(1) as pool:
        pending = pool.submit(box.decode, "image", b"x")
        wait_for(lambda: bool(box.pids))
        box.close()
        with pytest.raises(ValueError, match="the sandbox is closed"):
            pending.result(timeout=10)


@needs_proc
def test_workers_end_with_their_sandbox() -> None:
    box = DecodeSandbox(1)
    box.decode("image", PICTURES["PNG"])
    (pid,) = box.pids
    del box
    gc.collect()
    assert not is_alive(pid)


LEAVE_BEHIND = f"""
    import os, sys
    from trivium.encoders.sandbox.pool import DecodeSandbox
    box = DecodeSandbox(1)
    box.decode("image", {PICTURES["PNG"]!r})
    print(*box.pids, flush=True)
"""


@needs_proc
@pytest.mark.parametrize("end", ["", "sys.exit(1)", "os._exit(0)", "os.kill(os.getpid(), 9)", "1 / 0"])
def test_workers_end_with_the_parent(end: str) -> None:
    script = textwrap.dedent(LEAVE_BEHIND) + end
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=60)
    pid = int(result.stdout)
    wait_for(lambda: not is_alive(pid))


@needs_proc
def test_busy_worker_ends_with_the_parent() -> None:
    """At the latest when its time is over, for a decoder does not look at its socket."""
    script = f"""
        import threading, time
        from trivium.encoders.sandbox.limits import Limits
        from trivium.encoders.sandbox.pool import DecodeSandbox
        box = DecodeSandbox(1, limits=Limits(image_seconds=0.5))
        threading.Thread(target=box.decode, args=("image", {ENDLESS!r}), daemon=True).start()
        while not box.pids:
            time.sleep(0.01)
        time.sleep(0.5)
        print(*box.pids, flush=True)
        import os
        os.kill(os.getpid(), 9)
    """
    command = [sys.executable, "-c", textwrap.dedent(script)]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    pid = int(result.stdout)
    wait_for(lambda: not is_alive(pid))


def test_fork_of_the_parent(monkeypatch: pytest.MonkeyPatch) -> None:
    with DecodeSandbox(1, command=stand_in('say({"shape": [1, 1, 3]}, data)')) as box:
        box.decode("image", b"abc")
        with monkeypatch.context() as patch:
            patch.setattr(os, "getpid", lambda: -1)
            with pytest.raises(SandboxError, match="belongs to the process that made it"):
                box.decode("image", b"abc")
        assert box.decode("image", b"abc").tobytes() == b"abc"


@needs_proc
def test_nothing_leaks_over_200_restarts() -> None:
    def held() -> tuple[int, int]:
        children = [int(pid) for path in Path("/proc/self/task").glob("*/children") for pid in path.read_text().split()]
        return len(os.listdir("/proc/self/fd")), len(children)

    with DecodeSandbox(1, command=stand_in("os.abort()")) as box:
        before = held()
        for _ in range(200):
            with pytest.raises(DecodeError, match="SIGABRT"):
                box.decode("image", b"x")
        assert held() == before


def test_the_stand_in_speaks_the_protocol() -> None:
    """What the tests above rest on."""
    ours, theirs = socket.socketpair()
    with ours, theirs, subprocess.Popen(stand_in("say({'size': len(data)}, data)"), stdin=theirs.fileno()) as process:
        ours.settimeout(20)
        text = json.dumps({"size": 3}).encode()
        ours.sendall(struct.pack("<I", len(text)) + text + b"abc")
        theirs.close()
        ours.shutdown(socket.SHUT_WR)
        with ours.makefile("rb") as reader:
            assert reader.read() == b'\x0f\0\0\0{"ready": true}\x0b\0\0\0{"size": 3}abc'
        assert process.wait() == 0


@needs_proc
def test_the_processor_time_of_workers_that_run_and_of_those_that_ended() -> None:
    """Each takes some tenths of a second to start."""
    with DecodeSandbox(1) as box:
        assert box.cpu_seconds() == 0
        box.decode("image", picture("PNG"))
        first = box.cpu_seconds()
        assert first is not None
        assert first > 0.02
        starts = box._starts
        assert isinstance(starts, Template)
        assert starts.pid is not None
        os.kill(starts.pid, signal.SIGKILL)
        wait_for(lambda: not any(map(is_alive, box.pids)))
        box.decode("image", picture("PNG"))
        second = box.cpu_seconds()
        assert second is not None
        assert second > first + 0.02
    ended = box.cpu_seconds()
    assert ended is not None
    assert ended >= second


def test_where_the_system_tells_no_processor_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "cpu_seconds_of", lambda _: None)
    with DecodeSandbox(1) as box:
        assert box.cpu_seconds() is None
        box.decode("image", picture("PNG"))
    assert box.cpu_seconds() is None


# The process that workers are forks of


def template_pid(box: DecodeSandbox) -> int | None:
    assert isinstance(box._starts, Template)
    return box._starts.pid


def test_a_template_that_was_begun_is_the_one_that_is_forked() -> None:
    with DecodeSandbox(2) as box:
        box.begin()
        pid = template_pid(box)
        assert pid is not None
        box.begin()
        assert box.pids == []
        box.decode("image", PICTURES["PNG"])
        box.begin()  # it is still there
        assert template_pid(box) == pid


@needs_proc
def test_a_template_that_died_is_replaced_and_its_workers_died_with_it() -> None:
    with DecodeSandbox(1) as box:
        for _ in range(2):
            box.decode("image", PICTURES["PNG"])
            pid, workers = template_pid(box), box.pids
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
            wait_for(lambda workers=workers: not any(map(is_alive, workers)))  # type: ignore[misc]
            assert box.decode("image", PICTURES["PNG"]).shape == (30, 20, 3)
            assert template_pid(box) != pid
            assert not set(workers) & set(box.pids)


@needs_proc
def test_a_template_is_ended() -> None:
    box = DecodeSandbox(1)
    box.begin()
    pid = template_pid(box)
    assert pid is not None
    box.close()
    assert not is_alive(pid)
    with pytest.raises(ValueError, match="closed"):
        box.begin()


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("import no_such_module", r"ended at its start \(exit status 1\)"),
        ("import os; os.abort()", r"ended at its start \(signal 6, SIGABRT\)"),
        ("import time; time.sleep(1000)", "was not ready after 1 s"),
    ],
)
def test_a_template_that_does_not_start(source: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode_starts, "BOOTSTRAP", source)
    if "was not ready" in message:
        monkeypatch.setattr(decode_starts, "START_SECONDS", 1.0)
    with DecodeSandbox(1) as box:
        for _ in range(2):
            with pytest.raises(SandboxError, match=message):
                box.decode("image", b"x")
        assert (box.pids, template_pid(box)) == ([], None)


def test_a_worker_that_cannot_be_forked(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where a user may have no more processes."""
    fail = "import os, errno\ndef fork(): raise OSError(errno.EAGAIN, 'no more')\nos.fork = fork\n"
    monkeypatch.setattr(decode_starts, "BOOTSTRAP", fail + decode_starts.BOOTSTRAP)
    with DecodeSandbox(1) as box:
        for _ in range(2):
            with pytest.raises(SandboxError, match=r"cannot start a process to decode in: .*see `ulimit -u`"):
                box.decode("image", PICTURES["PNG"])


@pytest.mark.parametrize("reason", [errno.EAGAIN, errno.ENOMEM])
def test_a_template_for_which_there_is_nothing_left(reason: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(reason, os.strerror(reason))

    monkeypatch.setattr(subprocess, "Popen", fail)
    with DecodeSandbox(1) as box, pytest.raises(SandboxError, match=r"cannot start a process .*\(.*`ulimit -[uv]`"):
        box.decode("image", b"x")


def test_a_new_worker_is_a_fork() -> None:
    """Which takes no imports: it is there long before a Python would be."""
    with DecodeSandbox(1) as box:
        box.decode("image", PICTURES["PNG"])
        before = box._starts.cpu_seconds()
        pids = set()
        for _ in range(sandbox.MAX_FILES * 3):
            box.decode("image", PICTURES["PNG"])
            pids |= set(box.pids)
        assert len(pids) >= 3
        assert box._starts.cpu_seconds() < before + 0.5


def test_workers_of_other_kinds_wait_but_not_many() -> None:
    with DecodeSandbox(1) as box:
        box.decode("image", PICTURES["PNG"])
        first = box.pids
        box.decode("audio", SOUNDS["WAV"])
        assert len(box.pids) == 1
        assert box.pids != first


def test_descriptors_that_can_be_written_to_are_not_handed_over(tmp_path: Path) -> None:
    path = tmp_path / "sound.wav"
    path.write_bytes(SOUNDS["WAV"])
    with DecodeSandbox(1) as box:
        for flags in (os.O_RDWR, os.O_WRONLY):
            descriptor = os.open(path, flags)
            with pytest.raises(ValueError, match="must be open for reading only"):
                box.sound(descriptor)
            os.close(descriptor)
        assert box.pids == []


def test_pictures_of_each_kind_are_decoded_by_their_descriptors(tmp_path: Path) -> None:
    for name in ("strawberry.jpg", "teacup.webp", "penguin.svg"):
        path = ASSETS / name
        with DecodeSandbox(1) as box, path.open("rb") as file:
            by_descriptor = box.decode("image", file.fileno())
            np.testing.assert_array_equal(by_descriptor, box.decode("image", path.read_bytes()))
