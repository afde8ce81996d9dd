"""What inner layers say: the same as hooks on the networks' own modules see, pooled here anew."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from torch import nn

from trivium.encoders import build_backbone
from trivium.encoders.image.efficientnet import build_efficientnet_lite0
from trivium.encoders.inner_layers import IMAGE_GROUPS, IMAGE_LAYERS, TEXT_LAYERS, TEXT_MAXIMUM, TEXT_STATES
from trivium.encoders.networks.weights import WEIGHTS, fetch
from trivium.encoders.text.minilm import build_minilm


@pytest.mark.weights
def test_of_a_picture(weights: dict[str, Path]) -> None:
    backbone = build_backbone("efficientnet-lite0")
    prepared = [np.random.default_rng(seed).integers(0, 256, (3, 224, 224), np.uint8) for seed in range(2)]
    network: Any = build_efficientnet_lite0(fetch(WEIGHTS["efficientnet-lite0"]))
    seen: dict[int, torch.Tensor] = {}

    def keep(group: int) -> Any:
        def hook(_: nn.Module, __: Any, output: torch.Tensor) -> None:
            seen[group] = output

        return hook

    for group in IMAGE_GROUPS.values():
        network.model.blocks[group].register_forward_hook(keep(group))
    with torch.inference_mode():  # timm's own way through, not the one that the export takes
        network.model((torch.from_numpy(np.stack(prepared)).float() - 127) / 128)
    found = backbone.features(prepared).layers
    assert {layer: rows.shape[1] for layer, rows in found.items()} == dict(IMAGE_LAYERS)
    for layer, group in IMAGE_GROUPS.items():
        of_positions = seen[group].flatten(2).numpy()  # (n, channels, positions)
        expected = np.concatenate([of_positions.mean(axis=2), of_positions.max(axis=2)], axis=1)
        assert_allclose(found[layer], expected, rtol=1e-3, atol=1e-3)


@pytest.mark.weights
def test_of_texts_of_different_lengths(weights: dict[str, Path]) -> None:
    """Padding counts for nothing, neither in a mean nor in a maximum."""
    backbone = build_backbone("minilm-l6")
    texts = ["dog", "A bird singing in the early morning, and nobody there to hear it."]
    prepared = [backbone.prepare(text) for text in texts]
    bert: Any = build_minilm(fetch(WEIGHTS["minilm-l6"])).bert
    found = backbone.features(prepared).layers
    assert {layer: rows.shape[1] for layer, rows in found.items()} == dict(TEXT_LAYERS)
    for row, ids in enumerate(prepared):
        with torch.inference_mode():  # alone: without a mask
            states = bert(input_ids=torch.from_numpy(ids)[None], output_hidden_states=True).hidden_states
        for layer, place in TEXT_STATES.items():
            assert_allclose(found[layer][row], states[place][0].numpy().mean(axis=0), atol=1e-4)
        assert_allclose(found[TEXT_MAXIMUM][row], states[-1][0].numpy().max(axis=0), atol=1e-4)
