"""Files: a full disk is noticed, a damaged or foreign file is an error with a reason."""

import errno
from pathlib import Path
from typing import TYPE_CHECKING

import faiss
import numpy as np
import pytest

from trivium.indexes import KINDS, FaissIndex

if TYPE_CHECKING:
    from tests.indexes.conftest import Data


def content(index: FaissIndex) -> bytes:
    pieces: list[bytes] = []
    index.write(pieces.append)
    return b"".join(pieces)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("after", [0, 3])
def test_a_full_disk(kind: str, after: int, small: "Data") -> None:
    index = FaissIndex.build(kind, small.source, threads=1)
    room = [after]

    def write(data: bytes) -> None:
        if not room[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        room[0] -= 1

    with pytest.raises(OSError, match="No space left on device") as caught:
        index.write(write)
    assert caught.value.errno == errno.ENOSPC
    assert len(content(index)) > 300, "the index is as it was"


def test_an_interrupt_while_writing(small: "Data") -> None:
    def write(data: bytes) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        FaissIndex.build("flat", small.source).write(write)


def test_pieces_are_small(monkeypatch: pytest.MonkeyPatch, data: "Data") -> None:
    monkeypatch.setattr("trivium.indexes.faiss_file._PIECE_BYTES", 10_000)
    pieces: list[bytes] = []
    FaissIndex.build("flat", data.source).write(pieces.append)
    assert max(map(len, pieces)) == 10_000
    assert sum(map(len, pieces)) > 3000 * 32 * 4


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="index"):
        FaissIndex.read(tmp_path / "index", kind="flat", effort=None, dim=3)


@pytest.mark.parametrize("mapped", [True, False])
@pytest.mark.parametrize("size", [0, 1, 10, 60, 2000])
@pytest.mark.parametrize("kind", ["flat", "hnsw", "ivf-sq8"])
def test_a_file_cut_short(kind: str, size: int, mapped: bool, small: "Data", tmp_path: Path) -> None:
    path = tmp_path / "index"
    path.write_bytes(content(FaissIndex.build(kind, small.source, threads=1))[:size])
    with pytest.raises(ValueError, match=rf"{path} cannot be read as an index, FAISS says: ('|Index type)"):
        FaissIndex.read(path, kind=kind, effort=None, dim=16, mapped=mapped)


@pytest.mark.parametrize("mapped", [True, False])
def test_something_else(mapped: bool, tmp_path: Path) -> None:
    path = tmp_path / "index"
    path.write_bytes(b"\x89PNG" + bytes(1000))
    with pytest.raises(ValueError, match=r"cannot be read as an index, FAISS says: Index type .* not recognized"):
        FaissIndex.read(path, kind="flat", effort=None, dim=16, mapped=mapped)


def test_another_width(small: "Data", tmp_path: Path) -> None:
    path = tmp_path / "index"
    path.write_bytes(content(FaissIndex.build("flat", small.source)))
    with pytest.raises(ValueError, match=f"{path} holds vectors of width 16, expected 17"):
        FaissIndex.read(path, kind="flat", effort=None, dim=17)


@pytest.mark.parametrize("expected", KINDS)
@pytest.mark.parametrize("kind", KINDS)
def test_another_kind(kind: str, expected: str, small: "Data", tmp_path: Path) -> None:
    path = tmp_path / "index"
    path.write_bytes(content(FaissIndex.build(kind, small.source, threads=1)))
    if kind == expected:
        FaissIndex.read(path, kind=expected, effort=None if kind in ("flat", "fp16", "sq8") else 16, dim=16)
    else:
        with pytest.raises(ValueError, match=rf"{path} holds Index.*, an index of kind '{expected}' is Index"):
            FaissIndex.read(path, kind=expected, effort=None, dim=16)


def written(index: faiss.Index, path: Path) -> Path:
    faiss.write_index(index, str(path))
    return path


def test_no_ids(tmp_path: Path) -> None:
    path = written(faiss.IndexFlatIP(3), tmp_path / "index")
    with pytest.raises(ValueError, match="must hold an IndexIDMap, got IndexFlatIP"):
        FaissIndex.read(path, kind="flat", effort=None, dim=3)


def test_another_metric(tmp_path: Path) -> None:
    path = written(faiss.IndexIDMap(faiss.IndexFlatL2(3)), tmp_path / "index")
    with pytest.raises(ValueError, match="no index by inner product: FAISS's metric 1"):
        FaissIndex.read(path, kind="flat", effort=None, dim=3)


@pytest.mark.parametrize("ids", [[1, 3, 2], [1, 1, 2], [-1, 0, 2]])
def test_ids_that_do_not_rise(ids: list[int], tmp_path: Path) -> None:
    index = faiss.IndexIDMap(faiss.IndexFlatIP(3))
    index.add_with_ids(np.eye(3, dtype=np.float32), np.array(ids))
    path = written(index, tmp_path / "index")
    with pytest.raises(ValueError, match="has ids that do not rise from 0 on"):
        FaissIndex.read(path, kind="flat", effort=None, dim=3)


def test_many_ids_that_do_not_rise(tmp_path: Path) -> None:
    """Not each is looked at; a stretch of 1 % that does not rise is still found wherever it lies."""
    count = 100_000
    for start in (0, 31_415, 99_000):
        ids = np.arange(count)
        ids[start : start + 1000] = start
        index = faiss.IndexIDMap(faiss.IndexFlatIP(1))
        index.add_with_ids(np.ones((count, 1), np.float32), ids)
        path = written(index, tmp_path / "index")
        with pytest.raises(ValueError, match="has ids that do not rise from 0 on"):
            FaissIndex.read(path, kind="flat", effort=None, dim=1)


def test_bad_effort(small: "Data", tmp_path: Path) -> None:
    path = tmp_path / "index"
    path.write_bytes(content(FaissIndex.build("ivf-sq8", small.source, threads=1)))
    with pytest.raises(ValueError, match="must be nprobe, 1 or more, got -3"):
        FaissIndex.read(path, kind="ivf-sq8", effort=-3, dim=16)
    assert FaissIndex.read(path, kind="ivf-sq8", effort=None, dim=16).effort == 7, "the most there is"
