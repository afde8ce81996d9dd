"""The user's cache: private folders, files that are whole or not there, and seals that no damage passes."""

import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trivium.encoders.files.user_cache import (
    cache_folder,
    close_to_others,
    private_folder,
    read_sealed,
    write_private,
    write_sealed,
)


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_a_relative_place_is_meant_from_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TRIVIUM_CACHE", "own/cache")
    assert cache_folder() == tmp_path / "own" / "cache"


def test_what_is_private_is_for_its_owner(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        write_private(tmp_path / "a" / "b" / "file", b"content")
    finally:
        os.umask(before)
    assert [mode(tmp_path / name) for name in ("a", "a/b", "a/b/file")] == [0o777, 0o700, 0o600]
    (tmp_path / "a" / "b").chmod(0o755)
    assert private_folder(tmp_path / "a" / "b") == tmp_path / "a" / "b"
    assert mode(tmp_path / "a" / "b") == 0o700


@pytest.mark.parametrize(("given", "left"), [(0o644, 0o600), (0o755, 0o700), (0o600, 0o600), (0o400, 0o400)])
def test_others_rights_are_taken(tmp_path: Path, given: int, left: int) -> None:
    (tmp_path / "x").touch()
    (tmp_path / "x").chmod(given)
    close_to_others(tmp_path / "x")
    assert mode(tmp_path / "x") == left


def test_what_is_somebody_elses_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x").touch(0o644)
    (tmp_path / "x").chmod(0o644)
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    close_to_others(tmp_path / "x")
    assert mode(tmp_path / "x") == 0o644


def test_no_link_is_written_through(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"theirs")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file").symlink_to(victim)
    write_private(tmp_path / "folder" / "file", b"ours")
    assert victim.read_bytes() == b"theirs"
    assert (tmp_path / "folder" / "file").read_bytes() == b"ours"
    assert not (tmp_path / "folder" / "file").is_symlink()


def test_a_full_disk_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_private(tmp_path / "file", b"before")

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        write_private(tmp_path / "file", b"after")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_bytes() == b"before"


@given(content=st.binary(max_size=300), place=st.integers(0, 10**6), bit=st.integers(0, 7), cut=st.integers(1, 400))
def test_no_damage_passes_a_seal(content: bytes, place: int, bit: int, cut: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file"
        assert read_sealed(path) is None
        write_sealed(path, content)
        assert read_sealed(path) == content
        sound = path.read_bytes()
        data = bytearray(sound)
        data[place % len(data)] ^= 1 << bit
        for damaged in (bytes(data), sound[:-cut], sound[cut:], sound + b"x", bytes(len(sound))):
            path.write_bytes(damaged)
            assert read_sealed(path) is None
