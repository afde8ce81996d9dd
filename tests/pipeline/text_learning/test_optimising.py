"""Steps of an optimiser: the schedule, chance by step, going on where one was, rates by layer."""

import math

import pytest
import torch
from torch import nn

from trivium.pipeline.text_learning.optimising import OptimisedSteps, Optimiser, layer_rates
from trivium.pipeline.text_learning.starting import Start


def make(optimiser: Optimiser, *, steps: int = 10) -> tuple[nn.Linear, OptimisedSteps]:
    torch.manual_seed(0)
    module = nn.Linear(3, 1)
    groups = [{"params": list(module.named_parameters()), "lr": 0.1, "weight_decay": 0.0}]
    return module, OptimisedSteps(groups, optimiser=optimiser, steps=steps, seed=3)


def go(module: nn.Linear, steps: OptimisedSteps, count: int) -> list[float]:
    drawn = []
    for _ in range(count):
        steps.begin()
        x = torch.randn(4, 3)
        drawn.append(float(x[0, 0]))
        steps.step((module(x) - 1).square().mean())
    return drawn


@pytest.mark.parametrize("optimiser", ["sgd", "adamw"])
def test_going_on_is_as_if_nothing_had_been(optimiser: Optimiser) -> None:
    whole, steps = make(optimiser)
    drawn = go(whole, steps, 8)
    first, before = make(optimiser)
    assert go(first, before, 5) == drawn[:5]
    second, after = make(optimiser)
    second.load_state_dict(first.state_dict())
    after.restore(before.state(), done=5)
    assert go(second, after, 3) == drawn[5:]
    torch.testing.assert_close(second.weight, whole.weight, rtol=0, atol=0)


def test_the_rate_rises_and_falls_to_nothing() -> None:
    module, steps = make("sgd", steps=20)
    moved = []
    for _ in range(20):
        before = module.weight.detach().clone()
        steps.begin()
        steps.step(module.weight.sum() * 1e-3)  # the same gradient each time
        moved.append(float((module.weight.detach() - before).abs().max()))
    assert moved[0] < max(moved)
    assert moved[-1] < 0.4 * max(moved)  # momentum holds on
    assert steps.done == 20


def test_lower_layers_learn_more_slowly(start: Start) -> None:
    groups = layer_rates(start.network, rate=1.0, decay=0.5, weight_decay=0.1)
    rates = {name: (group["lr"], group["weight_decay"]) for group in groups for name, _ in group["params"]}
    assert set(rates) == {name for name, _ in start.network.named_parameters()}
    assert rates["layers.0.inner.weight"] == (0.5, 0.1)
    assert rates["layers.0.norm.bias"] == (0.5, 0.0)
    assert rates["tokens.weight"] == (0.25, 0.1)
    flat = layer_rates(nn.Linear(2, 2), rate=1.0, decay=0.5, weight_decay=0.1)
    assert all(math.isclose(group["lr"], 1.0) for group in flat)
