"""Self-attention against a slow NumPy version, torch's own with the same weights, and its gradient."""

from collections.abc import Callable
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import nn

from trivium.encoders.text.transformer import EncoderLayer, SelfAttention

T, D, HEADS = 5, 12, 3
MASK = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [1, 0, 0, 0, 0]])


def inputs() -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).normal(size=(3, T, D)))


def weights_of(module: nn.Module) -> dict[str, np.ndarray]:
    return {name: tensor.numpy() for name, tensor in module.state_dict().items()}


@pytest.fixture(params=["written out", "fused"])
def attention(request: pytest.FixtureRequest) -> SelfAttention:
    torch.manual_seed(0)
    return SelfAttention(D, heads=HEADS).double().train(request.param == "written out")


def test_attention_is_the_slow_one(attention: SelfAttention, reference: Callable[[str], ModuleType]) -> None:
    module, x = attention, inputs()
    slow = reference("text_networks")
    expected = [
        slow.self_attention(row.numpy(), mask.numpy(), weights_of(module), heads=HEADS)
        for row, mask in zip(x, MASK, strict=True)
    ]
    np.testing.assert_allclose(module(x, MASK).detach().numpy(), expected, rtol=1e-10)


def test_attention_is_that_of_torch(attention: SelfAttention) -> None:
    module, x = attention, inputs()
    theirs = nn.MultiheadAttention(D, HEADS, batch_first=True).double()
    with torch.no_grad():
        parts = (module.query, module.key, module.value)
        theirs.in_proj_weight.copy_(torch.cat([part.weight for part in parts]))
        theirs.in_proj_bias.copy_(torch.cat([part.bias for part in parts]))
        theirs.out_proj.weight.copy_(module.out.weight)
        theirs.out_proj.bias.copy_(module.out.bias)
        expected, _ = theirs(x, x, x, key_padding_mask=MASK == 0, need_weights=False)
        torch.testing.assert_close(module(x, MASK), expected, rtol=1e-10, atol=1e-12)


def test_padding_changes_nothing(attention: SelfAttention) -> None:
    module, x = attention, inputs()
    other = torch.where(MASK[:, :, None] == 1, x, 99.0)
    real = MASK == 1
    torch.testing.assert_close(module(x, MASK)[real], module(other, MASK)[real], rtol=0, atol=0)


def test_a_row_of_padding_alone_is_finite(attention: SelfAttention) -> None:
    assert torch.isfinite(attention(inputs(), torch.zeros(3, T, dtype=torch.int64))).all()


def test_the_layer_is_the_slow_one(reference: Callable[[str], ModuleType]) -> None:
    torch.manual_seed(1)
    layer, x = EncoderLayer(D, heads=HEADS, inner=20).double().eval(), inputs()
    slow = reference("text_networks")
    expected = [
        slow.encoder_layer(row.numpy(), mask.numpy(), weights_of(layer), heads=HEADS)
        for row, mask in zip(x, MASK, strict=True)
    ]
    np.testing.assert_allclose(layer(x, MASK).detach().numpy(), expected, rtol=1e-9, atol=1e-12)


def test_gradients() -> None:
    torch.manual_seed(2)
    x = torch.randn(2, 3, 4, dtype=torch.float64, requires_grad=True)
    mask = torch.tensor([[1, 1, 1], [1, 1, 0]])
    for module in (SelfAttention(4, heads=2), EncoderLayer(4, heads=2, inner=6)):
        module = module.double().eval()
        parameters = list(module.parameters())

        def run(x: torch.Tensor, *_: torch.Tensor, module: nn.Module = module) -> torch.Tensor:
            found: torch.Tensor = module(x, mask)
            return found

        assert torch.autograd.gradcheck(run, (x, *parameters))


def test_heads_divide_the_width() -> None:
    with pytest.raises(ValueError, match="multiple of heads, got 10 and 3"):
        SelfAttention(10, heads=3)
