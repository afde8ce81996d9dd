"""Texts cut in the middle, and batches that have each text once."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trivium.pipeline.text_learning.token_batches import (
    as_tensors,
    batches_at_random,
    batches_in_order,
    cut,
)


def test_long_texts_lose_their_middle() -> None:
    ids = np.arange(10)
    assert cut(ids, most=10).tolist() == list(range(10))
    assert cut(ids, most=4).tolist() == [0, 1, 2, 3]
    assert cut(ids, most=4, head=1).tolist() == [0, 7, 8, 9]
    assert cut(ids, most=4, head=4).tolist() == [0, 1, 2, 3]


@given(lengths=st.lists(st.integers(1, 50), max_size=90), size=st.integers(1, 9), seed=st.integers(0, 5))
def test_each_text_is_in_one_batch(lengths: list[int], size: int, seed: int) -> None:
    for found in (list(batches_in_order(lengths, size=size)), batches_at_random(lengths, size=size, seed=(seed,))):
        places = [int(place) for batch in found for place in batch]
        assert sorted(places) == list(range(len(lengths)))
        assert all(len(batch) <= size for batch in found)


def test_batches_are_of_like_length_and_change_with_the_seed() -> None:
    lengths = list(np.random.default_rng(0).integers(1, 200, 640))
    found = batches_at_random(lengths, size=8, seed=(0, 1))
    spread = np.mean([np.ptp([lengths[place] for place in batch]) for batch in found])
    assert spread < 40  # of random ones it would be about 155
    again, other = (batches_at_random(lengths, size=8, seed=seed) for seed in ((0, 1), (0, 2)))
    assert [batch.tolist() for batch in found] == [batch.tolist() for batch in again]
    assert [batch.tolist() for batch in found] != [batch.tolist() for batch in other]
    assert spread > 0


@pytest.mark.parametrize(("most", "width"), [(None, 5), (4, 5), (5, 5), (12, 12), (100, 16)])
def test_lengths_are_rounded_up_to_few(most: int | None, width: int) -> None:
    tokens, mask = as_tensors([np.arange(1, 6), np.arange(1, 3)], torch.device("cpu"), most=most)
    assert tokens.tolist() == [[1, 2, 3, 4, 5] + [0] * (width - 5), [1, 2] + [0] * (width - 2)]
    assert mask.sum(dim=1).tolist() == [5, 2]
    assert mask.shape == tokens.shape


@pytest.mark.parametrize("size", [1, 3])
def test_the_order_is_by_length(size: int) -> None:
    found = [int(place) for batch in batches_in_order([3, 1, 2], size=size) for place in batch]
    assert found == [1, 2, 0]
