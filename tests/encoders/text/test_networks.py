"""Our Transformer and LSTM over token ids: the slow versions, MiniLM's own vectors, padding, learning."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from transformers import BertConfig, BertModel

from trivium.encoders.base import TEXT_STATES
from trivium.encoders.text.lstm import LstmText
from trivium.encoders.text.shapes import MINILM_SHAPE, LstmShape, TransformerShape
from trivium.encoders.text.transformer import TransformerText, build_minilm, masked_mean

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
def test_minilm_is_that_of_transformers(weights: dict[str, Path]) -> None:
    """Its weights in our Transformer: unit vectors to 1e-6, inner layers to 1e-6 of the largest number."""
    folder = weights["minilm-l6"]
    bert = BertModel(BertConfig.from_json_file(folder / "config.json"), add_pooling_layer=False).eval()
    missing, surplus = bert.load_state_dict(load_file(folder / "model.safetensors"), strict=False)
    assert not missing
    assert set(surplus) == {"pooler.dense.weight", "pooler.dense.bias", "embeddings.position_ids"}
    ours, random = build_minilm(folder), torch.Generator().manual_seed(0)
    for lengths in ([1], [2], [256], [128, 3], [256, 1, 77, 8], [5] * 9, [*range(1, 257, 51)]):
        ids = torch.randint(1, MINILM_SHAPE.vocabulary, (len(lengths), max(lengths)), generator=random)
        mask = (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).long()
        with torch.inference_mode():
            pooled, *inner = ours(ids * mask, mask)
            states = bert(input_ids=ids * mask, attention_mask=mask, output_hidden_states=True).hidden_states
        means = [masked_mean(states[place], mask) for place in (-1, *TEXT_STATES.values())]
        maximum = states[-1].masked_fill(mask[:, :, None] == 0, -torch.inf).amax(dim=1)
        unit = nn.functional.normalize
        torch.testing.assert_close(unit(pooled), unit(means[0]), rtol=0, atol=1e-6)
        for found, expected in zip(inner, (*means[1:], maximum), strict=True):
            torch.testing.assert_close(found, expected, rtol=0, atol=1e-6 * float(expected.abs().max()))


@pytest.mark.weights
def test_building_minilm_imports_no_transformers(weights: dict[str, Path]) -> None:
    code = (
        "import sys\nfrom pathlib import Path\nfrom trivium.encoders.text.transformer import build_minilm\n"
        f"build_minilm(Path({str(weights['minilm-l6'])!r}))\nassert 'transformers' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
