"""Batch normalisation folded into convolutions: the same outputs, and nothing folded that must not be."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from timm.layers.norm_act import BatchNormAct2d
from torch import Tensor, nn

from trivium.encoders.networks.norm_folding import folded
from trivium.encoders.registry import BACKBONES

EXAMPLE = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def settled(module: nn.Module) -> nn.Module:
    """Give batch normalisations statistics that are not those of the start."""
    torch.manual_seed(0)
    module.train()
    for _ in range(20):
        module(torch.randn(4, 3, 8, 8) * 2 + 1)
    return module.eval()


def norms(module: nn.Module) -> int:
    return sum(isinstance(child, nn.BatchNorm1d | nn.BatchNorm2d) for child in module.modules())


def outputs(module: nn.Module) -> Tensor:
    with torch.inference_mode():
        found: Tensor = module(EXAMPLE)[0]
    return found


class Tuple(nn.Module):
    """One output, as all of ours are."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> tuple[Tensor]:
        return (self.layers(x),)


class Summed(Tuple):
    """Uses the convolution's output beside its normalisation, where no module sees it."""

    def forward(self, x: Tensor) -> tuple[Tensor]:
        convolved = self.layers[0](x)
        return (convolved + self.layers[1](convolved),)


def convolution(groups: int = 1) -> nn.Conv2d:
    return nn.Conv2d(3, 6, 3, groups=groups)


@pytest.mark.parametrize(
    ("make", "left"),
    [
        (lambda: Tuple(convolution(), nn.BatchNorm2d(6), nn.ReLU()), 0),
        (lambda: Tuple(convolution(groups=3), BatchNormAct2d(6), nn.Conv2d(6, 2, 1), nn.BatchNorm2d(2)), 0),
        (lambda: Tuple(convolution(), nn.ReLU(), nn.BatchNorm2d(6)), 1),
        (lambda: Tuple(convolution(), nn.BatchNorm2d(6, track_running_stats=False)), 1),
        (lambda: Tuple(nn.BatchNorm2d(3), convolution()), 1),
        (lambda: Summed(convolution(), nn.BatchNorm2d(6)), 1),
    ],
    ids=["plain", "with activation", "activation between", "no statistics", "norm first", "used twice"],
)
def test_outputs_stay(make: Callable[[], nn.Module], left: int) -> None:
    module = settled(make())
    before = outputs(module)
    changed = folded(module, [EXAMPLE])
    torch.testing.assert_close(outputs(changed), before, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(outputs(module), before, atol=0, rtol=0)  # the module itself is as it was
    assert norms(changed) == left


@pytest.mark.weights
@pytest.mark.parametrize(("name", "count"), [("efficientnet-lite0", 49), ("aisfx", 8)])
def test_our_networks(weights: dict[str, Path], name: str, count: int) -> None:
    architecture = BACKBONES[name].architecture(weights[name])
    module = architecture.build().eval()
    examples = [torch.from_numpy(np.array(example)) for example in architecture.examples()]
    changed = folded(module, examples)
    assert (norms(module), norms(changed)) == (count, 0)
    with torch.inference_mode():
        torch.testing.assert_close(changed(*examples), module(*examples), atol=1e-4, rtol=1e-4)
