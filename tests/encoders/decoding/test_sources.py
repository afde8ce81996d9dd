"""An open file as a decoder reads it: any stretch of any size, at no place but its own, and with a patch."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trivium.encoders.decoding.sources import FileBytes, as_file, patched

CONTENT = bytes(range(256)) * 4


@pytest.fixture(scope="module")
def descriptor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    path = tmp_path_factory.mktemp("sources") / "file"
    path.write_bytes(CONTENT)
    with path.open("rb") as file:
        yield file.fileno()


@given(start=st.integers(-1100, 1100), stop=st.integers(-1100, 1100))
def test_slices_are_those_of_bytes(descriptor: int, start: int, stop: int) -> None:
    source = FileBytes(descriptor, len(CONTENT))
    assert len(source) == len(CONTENT)
    assert source[start:stop] == CONTENT[start:stop]
    assert source[:] == CONTENT
    assert os.lseek(descriptor, 0, os.SEEK_CUR) == 0


@given(start=st.integers(0, 1024), stop=st.integers(0, 1024), place=st.integers(0, 1020), length=st.integers(1, 4))
def test_patches_are_seen_in_every_stretch(descriptor: int, start: int, stop: int, place: int, length: int) -> None:
    new = b"\xaa\xbb\xcc\xdd"[:length]
    expected = CONTENT[:place] + new + CONTENT[place + length :]
    for source in (patched(CONTENT, place, new), patched(FileBytes(descriptor, len(CONTENT)), place, new)):
        assert source[start:stop] == expected[start:stop]


@given(steps=st.lists(st.tuples(st.integers(-300, 1400), st.sampled_from((0, 1, 2)), st.integers(0, 700)), max_size=9))
def test_it_is_read_and_searched_as_bytes_are(descriptor: int, steps: list[tuple[int, int, int]]) -> None:
    files = [as_file(CONTENT), as_file(FileBytes(descriptor, len(CONTENT)))]
    for offset, whence, size in steps:
        offset = abs(offset) if whence == 0 else offset
        target = offset + (0, files[0].tell(), len(CONTENT))[whence]
        if target >= 0:
            assert [file.seek(offset, whence) for file in files] == [target] * 2
        assert files[1].read(size) == files[0].read(size)


def test_what_is_cut_off_meanwhile_is_left_out(tmp_path: Path) -> None:
    """A mapped file would kill the process that reads it."""
    path = tmp_path / "file"
    path.write_bytes(CONTENT)
    with path.open("rb") as file:
        source = FileBytes(file.fileno(), len(CONTENT))
        os.truncate(path, 100)
        assert source[50:200] == CONTENT[50:100]
        assert source[200:300] == b""
        assert as_file(source).read() == CONTENT[:100]
