"""The small types of the encoders: rows of length 1, spaces that differ, reasons that are kept."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.testing import assert_allclose
from numpy.typing import NDArray

import trivium
from trivium.encoders import MODALITIES, DecodeError, Features, Space, unit_rows


@given(
    arrays(
        np.float32,
        array_shapes(min_dims=2, max_dims=2, max_side=6),
        elements=st.integers(-4, 4).map(lambda number: number / 4),
    )
)
def test_rows_have_length_1_or_are_zero(matrix: NDArray[np.float32]) -> None:
    found = unit_rows(matrix)
    assert found.dtype == np.float32
    for row, scaled in zip(matrix, found, strict=True):
        length = np.sqrt(float((row * row).sum()))
        assert_allclose(scaled, row / length if length else row, atol=1e-6)


@pytest.mark.parametrize("size", [1e-44, 1e-30, 1e30, 3e38])
def test_rows_of_any_size(size: float) -> None:
    # Squares of these leave float32's range, and the smallest has two bits of precision itself.
    row = np.full((1, 4), size, np.float32)
    assert_allclose(unit_rows(row), np.full((1, 4), 0.5), atol=1e-6)


def test_no_rows() -> None:
    assert unit_rows(np.empty((0, 3), np.float32)).shape == (0, 3)


def test_the_argument_is_not_changed() -> None:
    matrix = np.array([[3, 4]], np.float32)
    unit_rows(matrix)
    assert matrix.tolist() == [[3, 4]]


def test_spaces_differ_by_every_field() -> None:
    space = Space(name="a", dim=2, revision="r")
    assert space == Space(name="a", dim=2, revision="r")
    others = [
        Space(name="b", dim=2, revision="r"),
        Space(name="a", dim=3, revision="r"),
        Space(name="a", dim=2, revision="s"),
    ]
    assert space not in others
    assert str(space) == "'a' (revision r)"


def test_decode_error_keeps_its_reason() -> None:
    error = DecodeError("too loud")
    assert (error.reason, str(error)) == ("too loud", "too loud")


def test_features_of_segments_are_means_of_all_arrays() -> None:
    rows = np.array([[1.0], [3.0], [7.0]], np.float32)
    found = Features(pooled=rows, logits={"a": rows * 2}, layers={"b": rows * 3}).means([(0, 2), (2, 3)])
    np.testing.assert_array_equal(found.pooled, [[2], [7]])
    np.testing.assert_array_equal(found.logits["a"], [[4], [14]])
    np.testing.assert_array_equal(found.layers["b"], [[6], [21]])


def test_features_need_no_logits() -> None:
    assert dict(Features(pooled=np.zeros((1, 2), np.float32)).logits) == {}


def test_modalities() -> None:
    assert MODALITIES == ("text", "image", "audio")


def test_trivium_has_no_other_names() -> None:
    with pytest.raises(AttributeError, match="module 'trivium' has no attribute 'nonsense'"):
        _ = trivium.nonsense
