"""Folders that are wholly there or not there, and that never take the place of another's."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from trivium.encoders.files import folders
from trivium.encoders.files.folders import OwnFolder, aside_of, check_target, marker_of, written_whole

NAMES = frozenset({"model.json", "numbers.bin", "part/more.bin"})


class RefusedError(Exception):
    """What the tests' kind of folder is refused with."""


def _names(folder: Path) -> frozenset[str] | None:
    return None if marker_of(folder, "model.json", formats=2, kinds={"mine"}) is None else NAMES


OWN = OwnFolder(what="model", marker="model.json", refused=RefusedError, names=_names)


def save(folder: Path, version: str) -> None:
    with written_whole(folder, OWN) as draft:
        (draft / "part").mkdir()
        for name in ("numbers.bin", "part/more.bin"):
            (draft / name).write_text(version)
        (draft / "model.json").write_text(json.dumps({"format": 1, "kind": "mine", "version": version}))


def version_of(folder: Path) -> str | None:
    """Return the version of a folder that is whole, None if it is not."""
    try:
        found = {(folder / name).read_text() for name in ("numbers.bin", "part/more.bin")}
        found.add(json.loads((folder / "model.json").read_text())["version"])
    except (OSError, ValueError):
        return None
    return found.pop() if len(found) == 1 else None


def listed(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


@pytest.fixture(params=["exchange", "aside"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways to take a place: with Linux's exchange of names, and without."""
    if request.param == "aside":
        monkeypatch.setattr(folders, "exchange", lambda *_: False)
    return str(request.param)


def test_a_folder_takes_the_place_of_one_that_was_there(tmp_path: Path, way: str) -> None:
    folder = tmp_path / "a" / "b"
    for version in ("old", "new", "newest"):
        save(folder, version)
        assert version_of(folder) == version
        assert listed(folder.parent) == ["b", "b/model.json", "b/numbers.bin", "b/part", "b/part/more.bin"], way


def test_a_system_that_cannot_exchange_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ENOSYS of an old kernel, EINVAL of a file system: the old folder steps aside then."""
    import ctypes
    import errno

    class Unable:
        def renameat2(self, *_: object) -> int:
            ctypes.set_errno(errno.EINVAL)
            return -1

    monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: Unable())
    save(tmp_path / "b", "old")
    save(tmp_path / "b", "new")
    assert version_of(tmp_path / "b") == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_after_an_error_nothing_has_changed(tmp_path: Path, way: str) -> None:
    folder = tmp_path / "b"
    save(folder, "old")

    def fail() -> None:
        with written_whole(folder, OWN) as draft:
            (draft / "model.json").write_text("half")
            raise RuntimeError("the disk is full")

    with pytest.raises(RuntimeError, match="full"):
        fail()
    assert version_of(folder) == "old", way
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_a_rename_that_fails_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folders, "exchange", lambda *_: False)
    save(tmp_path / "b", "old")
    rename = os.rename

    def fail(source: Path, target: Path) -> None:
        if source.name.endswith(".new"):
            raise OSError(28, "No space left on device")
        rename(source, target)

    monkeypatch.setattr(os, "rename", fail)
    with pytest.raises(OSError, match="No space left"):
        save(tmp_path / "b", "new")
    assert version_of(tmp_path / "b") == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_modes_are_as_the_umask_says(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        save(tmp_path / "b", "old")
    finally:
        os.umask(before)
    assert (tmp_path / "b").stat().st_mode & 0o777 == 0o777 & ~umask
    assert {(tmp_path / "b" / name).stat().st_mode & 0o777 for name in NAMES} == {0o666 & ~umask}


Plant = Callable[[Path], object]


def _plant_link(folder: Path) -> None:
    (folder / "numbers.bin").unlink()
    (folder / "numbers.bin").symlink_to("/etc/passwd")


def _plant_folder_link(folder: Path) -> None:
    shutil.rmtree(folder / "part")
    (folder / "part").symlink_to("/etc")


def _plant_pipe(folder: Path) -> None:
    (folder / "numbers.bin").unlink()
    os.mkfifo(folder / "numbers.bin")


@pytest.mark.parametrize(
    ("plant", "message"),
    [
        (lambda f: (f / "thesis.docx").write_text("mine"), r"holds 'thesis.docx', which no model has: move that away"),
        (lambda f: (f / ".git" / "objects").mkdir(parents=True), r"holds '.git', '.git/objects', which no model has"),
        (lambda f: (f / "part" / "model.json").write_text("x"), r"holds 'part/model.json'"),
        (lambda f: (f / "empty").mkdir(), r"holds 'empty'"),
        (lambda f: [(f / f"{n}.txt").touch() for n in range(5)], r"'0.txt', '1.txt', '2.txt' and 2 more, which"),
        (_plant_link, "holds 'numbers.bin'"),
        (_plant_folder_link, "holds 'part', which"),
        (_plant_pipe, "holds 'numbers.bin'"),
        (lambda f: (f / "a\x1bb").touch(), r"holds 'a\\x1bb'"),
        (lambda f: (f / "model.json").write_text("{}"), "exists and is no model: choose another folder"),
        (lambda f: (f / "model.json").write_text('{"format": 3, "kind": "mine"}'), "exists and is no model"),
        (lambda f: (f / "model.json").write_text('{"format": 1, "kind": "yours"}'), "exists and is no model"),
        (lambda f: (f / "model.json").write_text('{"format": true, "kind": "mine"}'), "exists and is no model"),
        (lambda f: (f / "model.json").unlink(), "exists and is no model"),
    ],
)
def test_what_is_not_wholly_ours_is_refused_and_stays(tmp_path: Path, plant: Plant, message: str) -> None:
    folder = tmp_path / "b"
    save(folder, "old")
    plant(folder)
    before = listed(tmp_path)
    with pytest.raises(RefusedError, match=message):
        check_target(folder, OWN)
    with pytest.raises(RefusedError, match=message):
        save(folder, "new")
    assert listed(tmp_path) == before


def test_what_comes_while_it_is_written_is_refused_and_stays(tmp_path: Path, way: str) -> None:
    folder = tmp_path / "b"
    save(folder, "old")

    def slow() -> None:
        with written_whole(folder, OWN) as draft:
            (draft / "model.json").write_text("{}")
            (folder / "thesis.docx").write_text("mine")

    with pytest.raises(RefusedError, match=r"thesis\.docx"):
        slow()
    assert version_of(folder) == "old", way
    assert (folder / "thesis.docx").read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_what_comes_at_the_last_moment_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    folder = tmp_path / "b"
    save(folder, "old")
    put = folders.put_in_place

    def late(draft: Path, folder: Path) -> Path | None:
        (folder / "thesis.docx").write_text("mine")
        return put(draft, folder)

    monkeypatch.setattr(folders, "put_in_place", late)
    with pytest.raises(
        RefusedError, match=r"is written; what was put into the old one meanwhile is kept in (.*)\.(new|old)"
    ):
        save(folder, "new")
    assert version_of(folder) == "new", way
    (kept,) = [path for path in tmp_path.iterdir() if path != folder]
    assert listed(kept) == ["thesis.docx"]


@pytest.mark.parametrize("name", [".", "..", "../..", "/", "", "../here", "../../above"])
def test_where_one_stands_and_above_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    here = tmp_path / "above" / "here"
    here.mkdir(parents=True)
    monkeypatch.chdir(here)
    with pytest.raises(RefusedError, match=r"is the folder that you are in, or one above it: name a new folder"):
        check_target(Path(name), OWN)


def test_homes_disks_links_and_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    save(tmp_path / "model", "old")
    (tmp_path / "link").symlink_to("model")
    (tmp_path / "file").touch()
    for path, message in (
        (tmp_path / "home", "is a home folder or a disk of its own: name a new folder in it"),
        (Path("/proc"), "is a home folder or a disk of its own"),
        (tmp_path / "link", "is a link: name the folder itself, or a new one"),
        (tmp_path / "file", "exists and is no model: choose another folder"),
    ):
        with pytest.raises(RefusedError, match=message):
            check_target(path, OWN)
    (tmp_path / "empty").mkdir()
    for free in ("empty", "new", "model", "new/er"):
        check_target(tmp_path / free, OWN)


def test_an_old_folder_that_stepped_aside_comes_back(tmp_path: Path) -> None:
    """As a run leaves it that is killed between two renames; and a next run that fails leaves it in its place."""
    folder = tmp_path / "b"
    save(folder, "old")
    folder.rename(aside_of(folder))

    def fail() -> None:
        with written_whole(folder, OWN):
            raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        fail()
    assert version_of(folder) == "old"
    aside_of(folder).mkdir()
    (aside_of(folder) / "diary.txt").touch()
    with pytest.raises(RefusedError, match=r"\.b\.old is in the way: move it elsewhere"):
        save(folder, "new")
    assert (aside_of(folder) / "diary.txt").exists()


KILLS = """
import os, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import test_folders as t
root, way = Path(sys.argv[2]), sys.argv[3]
if way == "aside":
    t.folders.exchange = lambda *_: False
STEPS = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.chmod", "os.scandir"}
for step in range(1, 1000):
    folder = root / str(step) / "b"
    t.save(folder, "old")
    child = os.fork()
    if not child:
        left = step
        def hook(event, arguments):
            global left
            if event in STEPS:
                left -= 1
                if not left:
                    os._exit(9)
        sys.addaudithook(hook)
        t.save(folder, "new")
        os._exit(0)
    killed = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    found = t.version_of(folder) or (not folder.exists() and t.version_of(t.aside_of(folder)))
    assert found in ("old", "new"), (step, t.listed(folder.parent))
    print(found, folder.exists())
    t.save(folder, "newest")  # a next run puts right what there is
    assert t.version_of(folder) == "newest", step
    assert not t.aside_of(folder).exists(), step
    if not killed:
        break
"""


@pytest.mark.parametrize("killed", ["exchange", "aside"])
def test_killed_at_any_step_one_of_the_two_is_whole(tmp_path: Path, killed: str) -> None:
    command = [sys.executable, "-c", KILLS, str(Path(__file__).parent), str(tmp_path), killed]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.split("\n")[:-1]
    assert len(lines) > 20
    assert {"old True", "new True"} <= set(lines)
    # Only where names cannot be exchanged there is a moment at which the old one waits aside.
    assert ("old False" in lines) == (killed == "aside")


def test_a_folder_may_lie_below_a_link(tmp_path: Path, way: str) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "models").symlink_to(tmp_path / "disk")
    for version in ("old", "new"):
        save(tmp_path / "models" / "b", version)
        assert version_of(tmp_path / "disk" / "b") == version
    assert os.listdir(tmp_path / "disk") == ["b"]
