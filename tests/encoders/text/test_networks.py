"""Our Transformer and LSTM over token ids: the slow versions, MiniLM's own vectors, padding, learning."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from trivium.encoders.text.lstm import LstmText
from trivium.encoders.text.minilm import build_minilm
from trivium.encoders.text.shapes import LstmShape, TransformerShape
from trivium.encoders.text.transformer import TransformerText, from_bert
from trivium.pipeline.text_learning.starting import MINILM_SHAPE

TRANSFORMER = TransformerShape(
    vocabulary=30, width=8, heads=2, layers=2, inner=16, positions=12, embedding=8, dim=8, projected=False
)
LSTM = LstmShape(vocabulary=30, embedding=6, width=5, layers=1, both_ways=True, pooling="mean", dim=10, projected=False)
IDS = torch.tensor([[3, 7, 9, 4], [5, 6, 0, 0], [8, 0, 0, 0]])
MASK = (IDS > 0).long()


def networks() -> list[nn.Module]:
    torch.manual_seed(0)
    return [
        TransformerText(TRANSFORMER).eval(),
        TransformerText(replace(TRANSFORMER, embedding=5, dim=3, projected=True)).eval(),
        LstmText(LSTM).eval(),
        LstmText(replace(LSTM, pooling="last", both_ways=False, layers=2, dim=3, projected=True)).eval(),
    ]


@pytest.mark.parametrize("number", range(4))
def test_a_text_has_one_vector_in_whatever_batch(number: int) -> None:
    network = networks()[number]
    (together,) = network(IDS, MASK)
    for row, length in enumerate((4, 2, 1)):
        (alone,) = network(IDS[row : row + 1, :length], MASK[row : row + 1, :length])
        torch.testing.assert_close(together[row : row + 1], alone, rtol=1e-5, atol=1e-6)
    assert not torch.allclose(together[0], together[1])


@pytest.mark.parametrize("number", range(4))
def test_order_of_words_matters(number: int) -> None:
    network = networks()[number]
    (forwards,), (backwards,) = network(IDS[:1], MASK[:1]), network(IDS[:1].flip(1), MASK[:1])
    assert not torch.allclose(forwards, backwards, atol=1e-4)


@pytest.mark.parametrize("number", range(4))
def test_a_tiny_batch_is_learnt_by_heart(number: int) -> None:
    network = networks()[number].train()
    (first,) = network(IDS, MASK)
    linear = nn.Linear(first.shape[1], 1)
    truth = torch.tensor([1.0, 0.0, 1.0])
    optimiser = torch.optim.AdamW([*network.parameters(), *linear.parameters()], lr=0.02)
    for _ in range(60):
        loss = nn.functional.binary_cross_entropy_with_logits(linear(network(IDS, MASK)[0])[:, 0], truth)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert loss.item() < 0.05


def test_the_lstm_is_the_slow_one(reference: Callable[[str], ModuleType]) -> None:
    slow = reference("text_networks")
    torch.manual_seed(3)
    for pooling in ("mean", "last"):
        network = LstmText(replace(LSTM, pooling=pooling)).double().eval()
        weights = {name: tensor.numpy() for name, tensor in network.state_dict().items()}
        (found,) = network(IDS, MASK)
        for row, length in enumerate((4, 2, 1)):
            words = weights["tokens.weight"][IDS[row, :length].numpy()]
            ways = [slow.lstm(words, weights, "forwards"), slow.lstm(words[::-1], weights, "backwards")]
            expected = np.concatenate([way.mean(axis=0) if pooling == "mean" else way[-1] for way in ways])
            np.testing.assert_allclose(found[row].detach().numpy(), expected, rtol=1e-10)


@pytest.mark.weights
def test_minilm_in_our_transformer_says_the_same(weights: dict[str, Path]) -> None:
    folder = weights["minilm-l6"]
    ours = TransformerText(MINILM_SHAPE).eval()
    ours.load_state_dict(from_bert(load_file(folder / "model.safetensors")))
    ids = torch.tensor([[101, 2023, 2003, 1037, 3231, 102], [101, 7592, 102, 0, 0, 0]])
    mask = (ids > 0).long()
    with torch.inference_mode():
        torch.testing.assert_close(ours(ids, mask)[0], build_minilm(folder)(ids, mask)[0], rtol=1e-4, atol=1e-5)
