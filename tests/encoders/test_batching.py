"""Encoding in batches: the order and every row must not depend on how the items fall into batches."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from trivium.encoders import DecodeError, Encoder, Modality, Space, Vectors, encode
from trivium.encoders.base import Prepared


class Counter(Encoder):
    """Encodes the number i as the row (i, 1), and remembers its batches."""

    modality: Modality = "text"
    space = Space(name="numbers", dim=2, revision="1")

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.prepared = 0

    def prepare(self, item: Any, /) -> Prepared:
        if item < 0:
            raise DecodeError(f"{item} is negative")
        self.prepared += 1
        return np.array([item, 1], np.float32)

    def embed(self, batch: Sequence[Prepared], /) -> Vectors:
        self.batches.append(len(batch))
        return np.stack(batch)


@given(st.lists(st.integers(0, 100), max_size=20), st.integers(1, 25))
def test_order_is_kept(numbers: list[int], batch_size: int) -> None:
    encoder = Counter()
    found = encode(encoder, iter(numbers), batch_size=batch_size)
    assert found.shape == (len(numbers), 2)
    assert found.dtype == np.float32
    assert found[:, 0].tolist() == numbers
    assert all(size == batch_size for size in encoder.batches[:-1])
    assert sum(encoder.batches) == len(numbers)


def test_no_items() -> None:
    encoder = Counter()
    assert encode(encoder, []).shape == (0, 2)
    assert encoder.batches == []


def test_progress() -> None:
    seen: list[int] = []
    encode(Counter(), range(7), batch_size=3, progress=seen.append)
    assert seen == [3, 6, 7]


def test_no_more_than_one_batch_is_held() -> None:
    encoder = Counter()
    seen: list[int] = []

    def numbers() -> Iterator[int]:
        for number in range(6):
            seen.append(encoder.prepared - sum(encoder.batches))
            yield number

    encode(encoder, numbers(), batch_size=2)
    assert max(seen) <= 2


@pytest.mark.parametrize("batch_size", [0, -3])
def test_batch_size_below_1(batch_size: int) -> None:
    with pytest.raises(ValueError, match=f"batch_size must be at least 1, got {batch_size}"):
        encode(Counter(), [1], batch_size=batch_size)


def test_a_bad_item_is_told() -> None:
    with pytest.raises(DecodeError, match="-1 is negative"):
        encode(Counter(), [1, -1])


@given(st.lists(st.integers(-3, 3), max_size=20), st.integers(1, 25))
def test_bad_items_cost_no_more_than_themselves(numbers: list[int], batch_size: int) -> None:
    failed: dict[int, str] = {}
    done: list[int] = []
    found = encode(
        Counter(),
        numbers,
        batch_size=batch_size,
        progress=done.append,
        on_error=lambda place, error: failed.update({place: error.reason}),
    )
    assert found[:, 0].tolist() == [number for number in numbers if number >= 0]
    assert failed == {place: f"{number} is negative" for place, number in enumerate(numbers) if number < 0}
    assert done[-1:] == ([len(numbers)] if numbers else [])


def test_media_that_cannot_be_decoded(tmp_path: Path) -> None:
    """Pictures are decoded by workers, one by one."""

    class Sides(Counter):
        modality: Modality = "image"

        def prepare(self, item: Any, /) -> Prepared:
            return np.array([len(item), len(item[0])], np.float32)

    files = [tmp_path / name for name in ("a.png", "b.png", "gone.png", "c.png")]
    for file, size in zip(files, [(2, 1), (3, 4), None, (5, 6)], strict=True):
        if size is not None:
            Image.new("RGB", size).save(file)
    files[1].write_text("no picture")
    failed: dict[int, str] = {}
    found = encode(Sides(), files, batch_size=2, on_error=lambda place, error: failed.update({place: error.reason}))
    assert found.tolist() == [[1, 2], [6, 5]]
    assert sorted(failed) == [1, 2]
    assert "not a picture" in failed[1]
    assert "gone" in failed[2]
    with pytest.raises(DecodeError, match="not a picture"):
        encode(Sides(), files[:2])
