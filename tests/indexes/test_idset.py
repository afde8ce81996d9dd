"""Sets of ids: sorted, unique, and what is derived from them kept no longer than its owner."""

import gc
from weakref import ref

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trivium.indexes import IdSet

IDS = st.lists(st.integers(0, 30) | st.integers(2**62, 2**62 + 30), max_size=20)


class Owner:
    """Something that can be referred to weakly."""


@given(IDS, IDS)
def test_a_set_of_ids(ids: list[int], others: list[int]) -> None:
    some = IdSet(np.array(ids, np.int64))
    assert some.ids.tolist() == sorted(set(ids))
    assert some.ids.dtype == np.int64
    assert len(some) == len(set(ids))
    assert some.contains(np.array(others, np.int64)).tolist() == [other in ids for other in others]


def test_contains_keeps_the_shape() -> None:
    some = IdSet(np.array([5, 3, 3]))
    assert some.contains(np.array([[3, 4], [5, -1]])).tolist() == [[True, False], [True, False]]
    assert IdSet(np.empty(0, np.int64)).contains(np.zeros((2, 3), np.int64)).shape == (2, 3)


def test_it_is_not_changed_from_outside() -> None:
    ids = np.array([1, 2, 3])
    some = IdSet(ids)
    ids[0] = 7
    assert some.ids.tolist() == [1, 2, 3]
    with pytest.raises(ValueError, match="read-only"):
        some.ids[0] = 7


def test_what_it_shows() -> None:
    assert repr(IdSet(np.array([4, 4, 5]))) == "IdSet of 2 ids"


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (np.zeros((2, 2), np.int64), r"ids must have shape \(n,\), got \(2, 2\)"),
        (np.array([1.0]), "ids must be integers, got float64"),
        (np.array([3, -2]), "ids must be 0 or more and fit 64 bits, got -2 to 3"),
        (np.array([2**63], np.uint64), "ids must be 0 or more and fit 64 bits, got 9223372036854775808"),
    ],
)
def test_bad_ids(ids: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        IdSet(ids)


def test_an_empty_list_has_no_type_to_complain_of() -> None:
    assert len(IdSet(np.array([]))) == 0


def test_derived_once_for_each_owner_and_version() -> None:
    some, owner, other = IdSet(np.array([1, 2])), Owner(), Owner()
    calls: list[int] = []

    def derive(ids: IdSet) -> int:
        calls.append(len(ids))
        return len(calls)

    assert [some.cached(owner, 1, derive), some.cached(owner, 1, derive)] == [1, 1]
    assert some.cached(other, 1, derive) == 2
    assert some.cached(owner, 2, derive) == 3
    assert some.cached(owner, 1, derive) == 4
    assert calls == [2, 2, 2, 2]


def test_derived_things_go_with_their_owner() -> None:
    some, owner = IdSet(np.array([1, 2])), Owner()
    watched = ref(some.cached(owner, 1, lambda _: Owner()))
    gc.collect()
    assert watched() is not None
    del owner
    gc.collect()
    assert watched() is None
