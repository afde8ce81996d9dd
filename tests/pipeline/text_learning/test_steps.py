"""Steps of an optimiser: the schedule, chance by step, going on where one was, rates by layer."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from trivium.encoders.files.writing import write_durably
from trivium.pipeline.text_learning import steps
from trivium.pipeline.text_learning.starting import Start
from trivium.pipeline.text_learning.steps import (
    CheckpointError,
    OptimisedSteps,
    Optimiser,
    as_tensors,
    batches_at_random,
    batches_in_order,
    cut,
    drop_checkpoint,
    layer_rates,
    load_checkpoint,
    save_checkpoint,
)


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


def test_long_texts_lose_their_middle() -> None:
    ids = np.arange(10)
    assert cut(ids, most=10).tolist() == list(range(10))
    assert cut(ids, most=4).tolist() == [0, 1, 2, 3]
    assert cut(ids, most=4, head=1).tolist() == [0, 7, 8, 9]
    assert cut(ids, most=4, head=4).tolist() == [0, 1, 2, 3]


@given(lengths=st.lists(st.integers(1, 50), max_size=90), size=st.integers(1, 9), seed=st.integers(0, 5))
def test_each_text_is_in_one_batch(lengths: list[int], size: int, seed: int) -> None:
    for found in (list(batches_in_order(lengths, size=size)), batches_at_random(lengths, size=size, seed=(seed,))):
        places = [int(place) for batch in found for place in batch]
        assert sorted(places) == list(range(len(lengths)))
        assert all(len(batch) <= size for batch in found)


def test_batches_are_of_like_length_and_change_with_the_seed() -> None:
    lengths = list(np.random.default_rng(0).integers(1, 200, 640))
    found = batches_at_random(lengths, size=8, seed=(0, 1))
    spread = np.mean([np.ptp([lengths[place] for place in batch]) for batch in found])
    assert spread < 40  # of random ones it would be about 155
    again, other = (batches_at_random(lengths, size=8, seed=seed) for seed in ((0, 1), (0, 2)))
    assert [batch.tolist() for batch in found] == [batch.tolist() for batch in again]
    assert [batch.tolist() for batch in found] != [batch.tolist() for batch in other]
    assert spread > 0


@pytest.mark.parametrize(("most", "width"), [(None, 5), (4, 5), (5, 5), (12, 12), (100, 16)])
def test_lengths_are_rounded_up_to_few(most: int | None, width: int) -> None:
    tokens, mask = as_tensors([np.arange(1, 6), np.arange(1, 3)], torch.device("cpu"), most=most)
    assert tokens.tolist() == [[1, 2, 3, 4, 5] + [0] * (width - 5), [1, 2] + [0] * (width - 2)]
    assert mask.sum(dim=1).tolist() == [5, 2]
    assert mask.shape == tokens.shape


@pytest.mark.parametrize("size", [1, 3])
def test_the_order_is_by_length(size: int) -> None:
    found = [int(place) for batch in batches_in_order([3, 1, 2], size=size) for place in batch]
    assert found == [1, 2, 0]


def test_the_newest_is_found(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    assert load_checkpoint(folder) is None
    for number in (1.0, 2.0):
        save_checkpoint(folder, {"weight": torch.full((2,), number)}, {"done": number})
    found = load_checkpoint(folder)
    assert found is not None
    assert found[0]["weight"].tolist() == [2.0, 2.0]
    assert found[1] == {"done": 2.0}
    assert len(list(folder.iterdir())) == 2
    drop_checkpoint(folder)
    assert not folder.exists()


def test_a_kill_before_the_rename_leaves_the_one_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_checkpoint(tmp_path, {"weight": torch.zeros(1)}, {"done": 1})
    real = write_durably

    def killed(path: Path, produce):
        if path.name == steps.STATE_FILE:
            raise KeyboardInterrupt
        return real(path, produce)

    monkeypatch.setattr(steps, "write_durably", killed)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(tmp_path, {"weight": torch.ones(1)}, {"done": 2})
    found = load_checkpoint(tmp_path)
    assert found is not None
    assert found[1] == {"done": 1}


def test_damage_is_told(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, {"weight": torch.zeros(8)}, {"done": 1})
    (file,) = tmp_path.glob("*.safetensors")
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    with pytest.raises(CheckpointError, match="is not what was written"):
        load_checkpoint(tmp_path)
    file.unlink()
    with pytest.raises(CheckpointError, match="cannot be used"):
        load_checkpoint(tmp_path)
    (tmp_path / "checkpoint.json").write_text('{"format": 9}')
    with pytest.raises(CheckpointError, match="has format 9, this Trivium reads format 1"):
        load_checkpoint(tmp_path)
