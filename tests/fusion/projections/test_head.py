"""Heads in NumPy against the same heads in torch, and what is refused."""

from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trivium.encoders.base import Features
from trivium.fusion.projections.head import LARGEST_INPUT, Head, HeadInput, joined
from trivium.fusion.projections.training import HeadModule

RANDOM = np.random.default_rng(0)


def tensors(members: int = 2, width: int = 5, hidden: int = 7, dim: int = 3) -> dict[str, Any]:
    random = np.random.default_rng(1)
    found = {
        "mean": random.normal(size=width),
        "scale": random.uniform(0.5, 2, width),
        "centre": random.normal(size=members * dim) / 10,
        "linear.weight": random.normal(size=(members, width, dim)),
        "linear.bias": random.normal(size=(members, dim)),
    }
    if hidden:
        found["hidden.weight"] = random.normal(size=(members, width, hidden))
        found["hidden.bias"] = random.normal(size=(members, hidden))
        found["out.weight"] = random.normal(size=(members, hidden, dim))
    return {name: tensor.astype(np.float32) for name, tensor in found.items()}


@given(st.integers(1, 3), st.integers(0, 4), st.integers(1, 6))
def test_numpy_computes_what_torch_does(members: int, hidden: int, n: int) -> None:
    module = HeadModule(5, 3, members=members, hidden=hidden).eval()
    given = tensors(members, hidden=hidden)
    module.load_state_dict(
        {name.replace(".", "_"): torch.from_numpy(t) for name, t in given.items() if "." in name}, strict=True
    )
    x = np.random.default_rng(n).normal(scale=4, size=(n, 5)).astype(np.float32)
    standard = (x - given["mean"]) / given["scale"]
    with torch.inference_mode():
        expected = module(torch.from_numpy(standard)).numpy()  # (members, n, dim)
    whole = np.concatenate(list(expected), axis=1) / np.sqrt(members) - given["centre"]
    whole /= np.linalg.norm(whole, axis=1, keepdims=True)
    np.testing.assert_allclose(Head([HeadInput("pooled")], given)(Features(pooled=x)), whole, atol=1e-5)


def test_a_slow_reference_agrees(reference: Callable[[str], ModuleType]) -> None:
    given = tensors()
    x = RANDOM.normal(scale=3, size=(4, 5)).astype(np.float32)
    found = Head([HeadInput("pooled")], given)(Features(pooled=x))
    np.testing.assert_allclose(found, [reference("head").vector(row, given) for row in x], atol=1e-5)


def test_far_inputs_are_cut() -> None:
    given = {**tensors(1, hidden=0), "mean": np.zeros(5, np.float32), "scale": np.ones(5, np.float32)}
    head = Head([HeadInput("pooled")], given)
    at_limit, beyond = (np.full((1, 5), value, np.float32) for value in (LARGEST_INPUT, 1e6))
    np.testing.assert_array_equal(head(Features(pooled=at_limit)), head(Features(pooled=beyond)))


def test_inputs_side_by_side() -> None:
    features = Features(pooled=np.ones((2, 3), np.float32), logits={"a": np.array([[0, 2], [4, 0]], np.float32)})
    found = joined(features, [HeadInput("pooled"), HeadInput("a"), HeadInput("a", 2.0)])
    assert found.shape == (2, 7)
    np.testing.assert_array_equal(found[:, 3:5], [[0, 2], [4, 0]])
    np.testing.assert_allclose(found[:, 5], [1 / (1 + np.e), 1 / (1 + np.exp(-2))], rtol=1e-6)


def test_an_inner_layer_is_an_input() -> None:
    layers = {"b": np.array([[1, 2]], np.float32), "c": np.array([[3]], np.float32)}
    found = joined(Features(pooled=np.zeros((1, 1), np.float32), layers=layers), [HeadInput("c"), HeadInput("b")])
    np.testing.assert_array_equal(found, [[3, 1, 2]])


def test_what_does_not_fit_is_refused() -> None:
    head = Head([HeadInput("pooled"), HeadInput("classes")], tensors())
    with pytest.raises(ValueError, match="needs 'classes', the backbone has nothing but pooled features"):
        head(Features(pooled=np.ones((1, 5), np.float32)))
    one = np.ones((1, 5), np.float32)
    with pytest.raises(ValueError, match="needs 'classes', the backbone has inner, others"):
        head(Features(pooled=one, layers={"inner": one}, logits={"others": one}))
    with pytest.raises(ValueError, match="takes 5 numbers, the backbone gives 4"):
        Head([HeadInput("pooled")], tensors())(Features(pooled=np.ones((1, 4), np.float32)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mean": None}, "needs tensors mean"),
        ({"mean": np.zeros(4, np.float32)}, r"mean must have shape \(5,\), got \(4,\)"),
        ({"linear.weight": np.zeros((5, 3), np.float32)}, "linear.weight must have shape"),
        ({"centre": np.zeros(3, np.float32)}, r"centre must have shape \(6,\)"),
        ({"out.weight": None}, r"out.weight must have shape \(2, 7, 3\), got none"),
        ({"linear.bias": np.full((2, 3), np.nan, np.float32)}, "linear.bias holds NaN or infinity"),
        ({"scale": np.zeros(5, np.float32)}, "scale must be above 0"),
    ],
)
def test_tensors_are_checked(change: dict[str, Any], message: str) -> None:
    changed = {name: tensor for name, tensor in {**tensors(), **change}.items() if tensor is not None}
    with pytest.raises(ValueError, match=message):
        Head([HeadInput("pooled")], changed)


def test_gradients_of_the_module() -> None:
    torch.manual_seed(0)
    module = HeadModule(4, 3, members=2, hidden=5).double()
    x = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(module, (x,))
