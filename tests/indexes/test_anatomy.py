"""Positions of ids in an index, as bits."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from trivium.indexes.anatomy import Positions

SOME = st.sets(st.integers(0, 40) | st.integers(2**62, 2**62 + 5), max_size=30)


def array(ids: set[int]) -> np.ndarray:
    return np.array(sorted(ids), np.int64)


@given(held=SOME, some=SOME, others=SOME)
def test_positions(held: set[int], some: set[int], others: set[int]) -> None:
    order = sorted(held)
    places, gone = Positions.of(array(some), array(held)), Positions.of(array(others), array(held))
    assert [order[at] for at in places.positions()] == sorted(held & some)
    assert places.count == len(held & some)
    left = places.minus(gone)
    assert [order[at] for at in left.positions()] == sorted((held & some) - others)
    assert left.count == len((held & some) - others)
    selector = places.selector()
    assert [bool(selector.is_member(at)) for at in range(len(held))] == [id_ in some for id_ in order]


@given(st.integers(0, 40))
def test_everywhere(count: int) -> None:
    assert Positions.everywhere(count).positions().tolist() == list(range(count))
    assert Positions.everywhere(count).count == count
