"""What a decoder that a file has taken over can do, tried from inside real workers, and that these decode as ever."""

import errno
import hashlib
import io
import json
import logging
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import soundfile
from PIL import Image

from trivium.encoders.base import SandboxError
from trivium.encoders.decoding.pictures import decode_image
from trivium.encoders.decoding.sounds import decode_audio
from trivium.encoders.sandbox import isolation, landlock, seccomp
from trivium.encoders.sandbox import mode as modes
from trivium.encoders.sandbox import starts as decode_starts
from trivium.encoders.sandbox.mode import judge, sandbox_mode
from trivium.encoders.sandbox.pool import DecodeSandbox

ATTACKS = Path(__file__).parents[2] / "reference" / "attacks.py"
NOBODY = 65534
needs_linux = pytest.mark.skipif(
    sys.platform != "linux" or not landlock.version(), reason="isolation is Linux's, by Landlock"
)
# What a system says that denies; and how a worker ends that makes a call of another ABI.
DENIED = {"EPERM", "EACCES", "ENOSYS", "not allowed to raise maximum limit"}
KILLED = "the decoder crashed on it (signal 31, SIGSYS)"
# A worker for drawings looks for fonts: it learns which files there are, and reads none but those.
LOOKED_AT = dict.fromkeys(("look at own file", "read a link"), "done")
READ = {*LOOKED_AT, "read own file", "read /etc/passwd", "list a folder"}
CLOSED_BY_LANDLOCK = {
    *("read own file", "read /etc/passwd", "list a folder", "write a file", "make a file", "truncate", "unlink"),
    *("rename", "symlink", "link", "mkdir", "rmdir", "mkfifo", "abstract socket", "TCP", "signal to the parent"),
    *("a program", "fork", "ptrace", "parent's memory", "parent's memory by /proc", "parent's environment"),
}
# What must succeed where nothing is locked, or the trials would show nothing.
POSSIBLE = {
    *("read own file", "read /etc/passwd", "list a folder", "write a file", "make a file", "truncate", "unlink"),
    *("rename", "symlink", "link", "chmod", "mkdir", "rmdir", "mkfifo", "path socket", "abstract socket", "TCP"),
    *("UDP", "netlink", "socket pair", "fork", "a program", "fork by clone", "signal to the parent", "parent's limits"),
    *(
        "memfd_create",
        "inotify_init1",
        "shmget",
        "unshare",
        "pidfd_open",
        "executable memory",
        "memory made executable",
    ),
}
DRAWING = b"""<svg xmlns="http://www.w3.org/2000/svg" width="60" height="30">
<rect width="60" height="30" fill="#eef"/><text x="3" y="20" font-size="12" font-family="serif">a lark</text></svg>"""


def pictures() -> dict[str, bytes]:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    found = {"image.svg": DRAWING}
    for kind in ("PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP", "AVIF"):
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, kind)
        found[f"image.{kind.lower()}"] = buffer.getvalue()
    try:
        from pillow_heif import from_pillow
    except ImportError:
        return found
    buffer = io.BytesIO()
    from_pillow(Image.fromarray(pixels)).save(buffer)
    return found | {"image.heic": buffer.getvalue()}


def sounds() -> dict[str, bytes]:
    found = {}
    for kind in ("WAV", "FLAC", "OGG", "MP3"):
        buffer = io.BytesIO()
        soundfile.write(
            buffer, 0.3 * np.random.default_rng(0).standard_normal((24_000, 2)).clip(-1, 1), 24_000, format=kind
        )
        found[f"audio.{kind.lower()}"] = buffer.getvalue()
    return found


def films(videos: ModuleType) -> dict[str, bytes]:
    scenes = (("red", 1.0), ("blue", 1.0))
    return {
        "video.mp4": videos.video(kind="mp4", scenes=scenes, sound="aac"),
        "video.webm": videos.video(kind="webm", scenes=scenes, codec="libvpx-vp9", sound="libopus"),
        "video.mkv": videos.video(kind="mkv", scenes=scenes, codec="mpeg2video", fps=25, sound="flac"),
        "video.mov": videos.video(kind="mov", scenes=scenes, codec="mjpeg", pixels="yuvj420p", sound="pcm_s16le"),
    }


@pytest.fixture(scope="module")
def media(request: pytest.FixtureRequest) -> dict[str, bytes]:
    found = pictures() | sounds()
    try:
        import av  # noqa: F401
    except ImportError:
        return found
    return found | films(request.getfixturevalue("reference")("videos"))


def decoded_here(name: str, data: bytes) -> str:
    digest = hashlib.sha256()
    if name.startswith("image"):
        digest.update(np.asarray(decode_image(data)).tobytes())
    elif name.startswith("audio"):
        digest.update(decode_audio(data)[0].tobytes())
    else:
        from trivium.encoders.decoding.videos import open_video

        with open_video(data) as video:
            for frame in video.frames():
                digest.update(np.asarray(frame.image).tobytes())
            sound = video.sound(max_seconds=100, keep_frames=1 << 30)
            assert sound is not None
            for chunk in sound.chunks():
                digest.update(chunk.tobytes())
    return digest.hexdigest()


@pytest.fixture(scope="module")
def attacked(media: dict[str, bytes]) -> Callable[..., dict[str, Any]]:
    """Run `attacks` as a user, with or without namespaces, locked or bare; once each."""
    known: dict[tuple[str, ...], dict[str, Any]] = {}

    def run(user: str, *how: str) -> dict[str, Any]:
        if (user, *how) in known:
            return known[user, *how]
        # Not below pytest's own folder, which other users cannot enter.
        folder = Path(tempfile.mkdtemp(prefix="trivium-attacks-"))
        try:
            (folder / "media").mkdir()
            for name, data in media.items():
                (folder / "media" / name).write_bytes(data)
            if user == "nobody":
                for path in (folder, *folder.rglob("*")):
                    os.chown(path, NOBODY, NOBODY)
            command = [*as_user(user), sys.executable, str(ATTACKS), str(folder), *how]
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300, env=environment())
            assert done.returncode == 0, done.stderr
            known[user, *how] = json.loads(done.stdout)
        finally:
            shutil.rmtree(folder)
        return known[user, *how]

    return run


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(Path(isolation.__file__).parents[3]), "PYTHONDONTWRITEBYTECODE": "1"}


def as_user(user: str) -> list[str]:
    """A command that runs another as a user, who may read whatever root may: else it might find no Python."""
    if user == "own":
        return []
    if os.getuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("only root can become another user, by setpriv")
    reading = ["--inh-caps=-all,+dac_read_search", "--ambient-caps=-all,+dac_read_search"]
    return ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", *reading]


CASES = [(user, how) for user in ("own", "nobody") for how in ((), ("no-namespaces",))]


@needs_linux
@pytest.mark.parametrize(("user", "how"), CASES)
def test_all_is_denied(user: str, how: tuple[str, ...], attacked: Callable[..., dict[str, Any]]) -> None:
    found = attacked(user, *how)
    assert found["isolation"].items() >= {"no_capabilities": 1, "no_new_privileges": 1, "seccomp": 1}.items()
    assert found["isolation"]["landlock"] == landlock.version()
    assert found["isolation"]["namespaces"] == (not how)
    for kind, outcomes in found["tried"].items():
        let_through = {
            name: came
            for name, came in outcomes.items()
            if came not in DENIED and not (name == "x32" and came == KILLED)
        }
        assert let_through == (LOOKED_AT if kind == "drawing" else {}), kind
        assert len(outcomes) > (5 if kind == "sound" else 100)


@needs_linux
@pytest.mark.parametrize(("user", "how"), CASES)
def test_and_media_decode_as_they_do_here(
    user: str, how: tuple[str, ...], media: dict[str, bytes], attacked: Callable[..., dict[str, Any]]
) -> None:
    assert attacked(user, *how)["decoded"] == {name: decoded_here(name, data) for name, data in media.items()}


@needs_linux
@pytest.mark.parametrize("user", ["own", "nobody"])
def test_what_is_denied_is_possible_in_a_process_that_is_not_locked(
    user: str, attacked: Callable[..., dict[str, Any]]
) -> None:
    tried = attacked(user, "bare")["tried"]["picture"]
    assert {name: tried[name] for name in POSSIBLE} == dict.fromkeys(POSSIBLE, "done")


@needs_linux
def test_without_landlock_drawings_alone_can_read(attacked: Callable[..., dict[str, Any]]) -> None:
    tried = attacked("own", "no-landlock")["tried"]
    for kind, outcomes in tried.items():
        read = {name for name, came in outcomes.items() if came == "done"}
        # Its own environment, of a few paths, can be read by root alone.
        assert read - {"read own environment"} == (READ if kind == "drawing" else set()), kind


@needs_linux
def test_without_seccomp_files_stay_closed(attacked: Callable[..., dict[str, Any]]) -> None:
    """Landlock alone, for an ordinary user on a system without namespaces."""
    tried = attacked("nobody", "no-seccomp", "no-namespaces")["tried"]["picture"]
    assert {tried[name] for name in CLOSED_BY_LANDLOCK} <= {"EACCES", "EPERM", "EAGAIN"}
    assert {tried[name] for name in ("chmod", "path socket", "UDP")} == {"done"}  # as docs/sandbox.md says


NO_MORE = """
import resource, sys
from trivium.encoders.base import SandboxError
from trivium.encoders.sandbox.pool import DecodeSandbox
resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
try:
    DecodeSandbox(1).decode("image", b"x")
except SandboxError as error:
    print(error)
"""


@needs_linux
def test_a_user_who_may_have_no_more_processes() -> None:
    command = [*as_user("nobody"), sys.executable, "-c", NO_MORE]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, env=environment())
    assert done.stderr == ""
    assert re.fullmatch(r"cannot start a process to decode in: .*\(.*see `ulimit -u`\)\n", done.stdout)


# What is said where the system lacks something


@pytest.fixture
def untold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(modes, "_told", threading.Event())


WHOLE = dict.fromkeys(isolation.NEEDED, 1)


@pytest.mark.parametrize(
    ("lacks", "told"),
    [
        (["seccomp"], r"it lacks seccomp\..* may speak to other programs, on some systems by the network"),
        (["landlock"], r"it lacks landlock\..* may read any file that you may read, if it is a drawing"),
        (["landlock", "seccomp"], r"it lacks landlock and seccomp\..* may read, change and delete your files"),
        (["no_new_privileges"], r"it lacks no_new_privileges\..* may gain the rights of a program"),
    ],
)
def test_what_lacks_is_said_once_or_refused(
    lacks: list[str], told: str, untold: None, caplog: pytest.LogCaptureFixture
) -> None:
    found = WHOLE | dict.fromkeys(lacks, 0)
    with pytest.raises(SandboxError, match=f"{told}.*Nothing is decoded"):
        judge(found, "strict")
    with caplog.at_level(logging.WARNING):
        judge(found, "auto")
        judge(found, "auto")
    (message,) = caplog.messages
    assert re.search(told, message)
    assert "TRIVIUM_SANDBOX=strict" in message


def test_nothing_is_said_where_nothing_lacks(untold: None, caplog: pytest.LogCaptureFixture) -> None:
    judge(WHOLE, "strict")
    judge({**WHOLE, "namespaces": 0}, "auto")
    assert caplog.messages == []


@pytest.mark.parametrize(
    ("patch", "lacks"),
    [
        ("landlock.restrict = lambda _: 0", "landlock"),
        ("seccomp.restrict = lambda **_: False", "seccomp"),
    ],
)
def test_a_system_without(patch: str, lacks: str, untold: None, monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    """The worker says so at its start, before any file."""
    without = "import sys; sys.path.insert(0, sys.argv[2]); from trivium.encoders.sandbox import landlock, seccomp\n"
    without += f"{patch}\n"
    monkeypatch.setattr(decode_starts, "BOOTSTRAP", without + decode_starts.BOOTSTRAP)
    data = pictures()["image.png"]
    with DecodeSandbox(1) as box:
        for _ in range(2):
            assert box.decode("image", data).shape == (40, 60, 3)
    (message,) = caplog.messages
    assert lacks in message
    monkeypatch.setenv("TRIVIUM_SANDBOX", "strict")
    with DecodeSandbox(1) as box, pytest.raises(SandboxError, match=f"{lacks}.*Nothing is decoded"):
        box.decode("image", data)
    assert box.pids == []


def test_the_mode(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRIVIUM_SANDBOX", raising=False)
    assert sandbox_mode() == "auto"
    with modes.asked_for("strict"):
        assert sandbox_mode() == "strict"
        with modes.asked_for(None):
            assert sandbox_mode() == "strict"
    assert "TRIVIUM_SANDBOX" not in os.environ
    monkeypatch.setenv("TRIVIUM_SANDBOX", "stirct")
    with pytest.raises(SandboxError, match="TRIVIUM_SANDBOX must be one of auto, strict, got 'stirct'"):
        DecodeSandbox(1)


# The filter itself


def run_filter(code: bytes, *, architecture: int, number: int, arguments: tuple[int, ...] = ()) -> int:
    """Do what the kernel's machine does with a filter; return its verdict."""
    data = struct.pack("=IIQ6Q", number, architecture, 0, *arguments, *[0] * (6 - len(arguments)))
    steps = list(seccomp.INSTRUCTION.iter_unpack(code))
    place = value = 0
    while True:
        operation, if_true, if_false, operand = steps[place]
        place += 1
        if operation == seccomp.RETURN:
            return int(operand)
        if operation == seccomp.LOAD:
            (value,) = struct.unpack_from("=I", data, operand)
        elif operation == seccomp.AND:
            value &= operand
        else:
            holds = value == operand if operation == seccomp.EQUALS else value >= operand
            place += if_true if holds else if_false


@pytest.mark.parametrize("name", seccomp.MACHINES)
def test_the_filter_of_each_architecture(name: str) -> None:
    machine = seccomp.MACHINES[name]
    code = seccomp.program(machine, {**seccomp.COMPUTING, **seccomp.READING, **seccomp.THREADING})
    other = next(known for known in seccomp.MACHINES.values() if known != machine)

    def verdict(call: str, *arguments: int) -> int:
        number = seccomp.NUMBERS[call][machine.column]
        return run_filter(code, architecture=machine.architecture, number=number, arguments=arguments)

    fails = seccomp.FAIL | errno.EPERM
    assert verdict("recvfrom") == verdict("exit_group") == verdict("futex") == seccomp.ALLOW
    assert verdict("mmap", 0, 4096, 3) == verdict("mprotect", 0, 4096, 1) == seccomp.ALLOW
    assert verdict("mmap", 0, 4096, 7) == verdict("mprotect", 0, 4096, 4) == fails
    assert verdict("openat", 0, 0, os.O_CLOEXEC) == seccomp.ALLOW
    for flags in (os.O_WRONLY, os.O_RDWR, os.O_CREAT, os.O_TRUNC, os.O_APPEND, 3):
        assert verdict("openat", 0, 0, flags) == fails
    assert verdict("clone", 0x3D0F00) == seccomp.ALLOW  # what the C library asks for
    for flag in (0x20000, 0x2000, 0x4000, 0x8000, 0x1000_0000, 0x4000_0000):
        assert verdict("clone", 0x3D0F00 | flag) == fails
    assert verdict("clone", signal.SIGCHLD) == fails
    assert verdict("fcntl", 0, 1030) == seccomp.ALLOW
    assert verdict("fcntl", 0, 4) == fails  # F_SETFL
    assert verdict("prlimit64", 0) == seccomp.ALLOW
    assert verdict("prlimit64", 1) == fails
    assert verdict("clone3") == seccomp.FAIL | errno.ENOSYS
    number = seccomp.NUMBERS["recvfrom"][machine.column]
    assert run_filter(code, architecture=other.architecture, number=number) == seccomp.KILL
    assert run_filter(code, architecture=machine.architecture, number=seccomp.X32 | number) == seccomp.KILL
    allowed = {numbers[machine.column] for numbers in seccomp.NUMBERS.values()}
    for number in set(range(500)) - allowed:
        assert run_filter(code, architecture=machine.architecture, number=number) == fails


@pytest.mark.parametrize(
    ("header", "column"),
    [("x86_64-linux-gnu/asm/unistd_64.h", 0), ("asm-generic/unistd.h", 1)],
)
def test_the_numbers_are_the_kernels(header: str, column: int) -> None:
    path = Path("/usr/include") / header
    if not path.exists():
        pytest.skip(f"no {path}")
    known = dict(re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)", path.read_text()))
    renamed = {"newfstatat": "fstatat"} if column else {}
    for name, numbers in seccomp.NUMBERS.items():
        if numbers[column] >= 0:
            assert known[renamed.get(name, name)] == str(numbers[column]), name


def test_font_places(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("XDG_DATA_HOME", "XDG_CONFIG_HOME", "FONTCONFIG_FILE", "FONTCONFIG_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "/home/me")
    own = ["/home/me/.fonts", "/home/me/.local/share/fonts", "/home/me/.config/fontconfig"]
    assert isolation.font_places() == [*isolation.FONTS, *own]
    monkeypatch.delenv("HOME")
    assert isolation.font_places() == list(isolation.FONTS)
    monkeypatch.setenv("FONTCONFIG_FILE", "/srv/fonts.conf")
    assert isolation.font_places() == [*isolation.FONTS, "/srv/fonts.conf"]
