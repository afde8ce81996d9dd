"""Windows of sounds: they overlap by half, cover all of it, and none is a sliver."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trivium.pipeline.ingest.windows import MAX_WINDOWS, windows_of


@given(st.floats(0.001, 5000), st.floats(0.1, 100))
def test_windows_cover_a_sound(duration: float, seconds: float) -> None:
    windows = windows_of(duration, seconds)
    if not windows:
        assert duration < 1.25 * seconds + 2e-3
        return
    starts, stops = zip(*windows, strict=True)
    assert starts[0] == 0
    assert stops[-1] == pytest.approx(duration, abs=1e-3)
    for (start, stop), (next_start, next_stop) in itertools.pairwise(windows):
        assert stop - start == pytest.approx(seconds, abs=2e-3)
        assert stop - next_start >= seconds / 2 - 2e-3  # what happens where one ends is well inside another
        assert next_start > start
        assert next_stop > stop
    assert seconds - 2e-3 <= stops[-1] - starts[-1] <= 1.25 * seconds + 2e-3


@pytest.mark.parametrize(
    ("duration", "seconds", "expected"),
    [
        (5.001, 5, []),  # one window of a millisecond, once, which was near to anything
        (5, 5, []),
        (4.9, 5, []),
        (6.2, 5, []),
        (6.3, 5, [(0, 5), (1.3, 6.3)]),
        (10, 5, [(0, 5), (2.5, 7.5), (5, 10)]),
        (10.001, 5, [(0, 5), (2.5, 7.5), (5, 10.001)]),
        (12, 5, [(0, 5), (2.5, 7.5), (5, 10), (7, 12)]),
        (20, None, []),
    ],
)
def test_where_windows_lie(duration: float, seconds: float | None, expected: list[tuple[float, float]]) -> None:
    assert windows_of(duration, seconds) == expected


def test_they_are_longer_where_there_would_be_too_many() -> None:
    notes = list[str]()
    windows = windows_of(86_400, 0.1, note=notes.append)
    assert 0.99 * MAX_WINDOWS < len(windows) <= MAX_WINDOWS
    assert windows[-1][1] == 86_400
    assert notes == ["its windows are 1.73 s long: of one sound there are at most 100,000"]
    assert len(windows_of(86_400, 2)) == 86_399
