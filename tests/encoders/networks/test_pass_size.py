"""How batches are cut."""

import pytest

from trivium.encoders.networks.torch_runtime import MOST_NUMBERS, PassSize, next_size


def test_without_a_measure_there_is_no_limit_until_a_pass_fails() -> None:
    size = PassSize()
    assert size.rows(10) is None
    size.fitted(1000, used_bytes=1, free_bytes=1)
    assert size.rows(10) is None
    size.failed(1000)
    assert size.rows(10) == 50


def test_passes_grow_to_half_of_the_free_memory() -> None:
    size = PassSize(first=100)
    assert size.rows(10) == 10
    size.fitted(100, used_bytes=1000, free_bytes=100_000)
    assert size.rows(10) == 500
    size.fitted(50, used_bytes=5000, free_bytes=100_000)  # what is fixed weighs more in a smaller one
    assert size.rows(10) == 500
    size.fitted(5000, used_bytes=40_000, free_bytes=100_000)
    assert size.rows(10) == 625


def test_what_failed_is_not_tried_again() -> None:
    size = PassSize(first=100)
    size.failed(100)
    size.failed(80)  # of a thread that began before it knew
    assert size.rows(1) == 40
    size.fitted(40, used_bytes=1, free_bytes=10**12)
    assert size.rows(1) == 40


def test_limits() -> None:
    size = PassSize(first=5)
    assert size.rows(10) == 1  # one row is always tried
    size.fitted(10, used_bytes=1, free_bytes=10**15)
    assert size.rows(1) == MOST_NUMBERS
    size.failed(1)
    assert size.rows(10) == 1


@pytest.mark.parametrize(
    ("count", "limits", "expected"),
    [
        *[(1, {}, 1), (2, {}, 2), (3, {}, 4), (4, {}, 4), (5, {"least": 32}, 32), (33, {"least": 32}, 64)],
        *[(70, {"least": 32, "most": 77}, 77), (20, {"least": 32, "most": 24}, 24)],
    ],
)
def test_sizes(count: int, limits: dict[str, int], expected: int) -> None:
    assert next_size(count, **limits) == expected
