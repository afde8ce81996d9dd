"""The contrastive losses against loops over single pairs, and their gradients."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from trivium.fusion.projections.losses import info_nce, sigmoid_loss


def one_way(scores: np.ndarray, positives: np.ndarray) -> float:
    rows = []
    for row, right in zip(scores, positives, strict=True):
        if right.any():
            total = math.log(sum(math.exp(s) for s in row))
            rows.append(-sum(s - total for s in row[right]) / right.sum())
    return float(sum(rows) / len(rows))


@st.composite
def batches(draw: st.DrawFn) -> tuple[Tensor, Tensor]:
    n, m = draw(st.integers(1, 5)), draw(st.integers(1, 5))
    random = np.random.default_rng(draw(st.integers(0, 1000)))
    positives = random.random((n, m)) < 0.4
    positives[0, 0] = True
    return torch.from_numpy(random.normal(size=(n, m)) * 3), torch.from_numpy(positives)


@given(batches())
def test_info_nce(batch: tuple[Tensor, Tensor]) -> None:
    scores, positives = batch
    s, p = scores.numpy(), positives.numpy()
    assert float(info_nce(scores, positives)) == pytest.approx((one_way(s, p) + one_way(s.T, p.T)) / 2, abs=1e-9)


@given(batches())
def test_members_are_averaged(batch: tuple[Tensor, Tensor]) -> None:
    scores, positives = batch
    both = info_nce(torch.stack([scores, 2 * scores]), positives)
    assert float(both) == pytest.approx(
        (float(info_nce(scores, positives)) + float(info_nce(2 * scores, positives))) / 2
    )


@given(batches())
def test_sigmoid_loss(batch: tuple[Tensor, Tensor]) -> None:
    scores, positives = batch
    expected = 0.0
    for s, right in zip(scores.numpy().ravel(), positives.numpy().ravel(), strict=True):
        expected += math.log1p(math.exp(-(1 if right else -1) * (s - 2)))
    found = sigmoid_loss(scores, positives, bias=torch.tensor(-2.0, dtype=torch.float64))
    assert float(found) == pytest.approx(expected / len(scores))


@pytest.mark.parametrize("loss", ["nce", "sigmoid"])
def test_gradients(loss: str) -> None:
    torch.manual_seed(0)
    scores = torch.randn(2, 3, 4, dtype=torch.float64, requires_grad=True)
    positives = torch.eye(3, 4, dtype=torch.bool)
    positives[0, 3] = True
    if loss == "nce":
        assert torch.autograd.gradcheck(lambda s: info_nce(s, positives), (scores,))
    else:
        bias = torch.tensor(-1.0, dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(lambda s, b: sigmoid_loss(s, positives, bias=b), (scores, bias))


def test_perfect_scores_cost_little() -> None:
    positives = torch.eye(4, dtype=torch.bool)
    assert float(info_nce(50.0 * positives, positives)) < 1e-6
    assert float(info_nce(-50.0 * positives, positives)) > 10
