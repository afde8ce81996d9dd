"""The kinds: names FAISS understands, estimates that hold, ladders that rise."""

import faiss
import numpy as np
import pytest

from trivium.indexes import KINDS, ArraySource, FaissIndex, kind_named
from trivium.indexes.kinds import lists


def test_unknown_kind() -> None:
    with pytest.raises(
        ValueError, match="unknown index kind 'ivf'; known: flat, fp16, sq8, hnsw, hnsw-sq8, ivf-flat, "
    ):
        kind_named("ivf")


@pytest.mark.parametrize("name", KINDS)
def test_named(name: str) -> None:
    kind = kind_named(name)
    assert kind.name == name
    assert kind.summary
    assert kind.is_exact == (name == "flat")
    assert (kind.effort_name is None) == (name in ("flat", "fp16", "sq8"))


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("dim", [1, 7, 30, 64, 512])
def test_faiss_makes_every_kind_for_every_width(name: str, dim: int) -> None:
    index = faiss.index_factory(dim, KINDS[name].factory(100, dim), faiss.METRIC_INNER_PRODUCT)
    assert index.d == dim


@pytest.mark.parametrize("name", KINDS)
def test_bytes_per_vector(name: str) -> None:
    """The estimate against the file, less what does not grow with the vectors: centres of codes, headers."""
    count, dim = 8000, 64
    vectors = np.random.default_rng(0).standard_normal((count, dim)).astype(np.float32)
    index = FaissIndex.build(name, ArraySource(np.arange(count), vectors), threads=1)
    pieces: list[bytes] = []
    index.write(pieces.append)
    fixed = 72 * dim + 1000
    assert sum(map(len, pieces)) == pytest.approx(index.size_bytes, rel=0.02, abs=fixed)
    assert index.size_bytes == pytest.approx(KINDS[name].bytes_per_vector(dim, count) * count)


@pytest.mark.parametrize("name", KINDS)
def test_resident_bytes(name: str) -> None:
    """All but what the refine step alone reads: 8 bits a number."""
    kind = KINDS[name]
    left_in_file = kind.bytes_per_vector(512, 10**6) - kind.resident_bytes_per_vector(512, 10**6)
    assert left_in_file == (512 if kind.candidates > 1 else 0)


@pytest.mark.parametrize("name", ["ivf-rabitq", "ivf-pq"])
def test_2_bits_take_a_third_of_8(name: str) -> None:
    small, large = (KINDS[name].resident_bytes_per_vector(512, 10**6) for name in (name, "ivf-sq8"))
    assert small < 0.35 * large


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("most", [1, 2, 15, 16, 17, 100, 5000])
def test_efforts(name: str, most: int) -> None:
    efforts = KINDS[name].efforts(most)
    if KINDS[name].effort_name is None:
        assert efforts == ()
        return
    assert list(efforts) == sorted(set(efforts))
    assert efforts[0] >= 1
    if KINDS[name].effort_name == "nprobe":
        assert efforts[-1] == most, "the last effort looks at every list"
    steps = np.array(efforts, float)
    assert (steps[1:] <= 2 * steps[:-1]).all()


def test_lists() -> None:
    assert [lists(count) for count in (0, 1, 39, 77, 78, 1000)] == [1, 1, 1, 1, 2, 25]
    assert lists(1_000_000) == 1600
