"""What a GPU's network does around its passes, tried on a CPU."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from timm.layers.norm_act import BatchNormAct2d
from torch import Tensor, nn

from trivium.encoders import engine
from trivium.encoders.devices import PLAIN
from trivium.encoders.networks.torch_runtime import MOST_NUMBERS, PassSize, TorchNetwork, _filled, folded, next_size
from trivium.encoders.registry import BACKBONES, build_backbone

EXAMPLE = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class Doubled(torch.nn.Module):
    """Twice its input; out of memory beyond a number of rows."""

    def __init__(self, most_rows: int = 1000) -> None:
        super().__init__()
        self.most_rows = most_rows
        self.shapes: list[tuple[int, ...]] = []

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        self.shapes.append(tuple(x.shape))
        if len(x) > self.most_rows:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return 2 * x, x.sum(dim=1)

    @property
    def rows(self) -> list[int]:
        return [shape[0] for shape in self.shapes]


def numbers(rows: int, width: int = 2) -> NDArray[np.float32]:
    return np.arange(rows * width, dtype=np.float32).reshape(rows, width)


def test_a_batch_that_does_not_fit_is_halved_and_that_is_remembered() -> None:
    module = Doubled(most_rows=3)
    network = TorchNetwork(module, device=PLAIN)
    x = numbers(10)
    doubled, sums = network(x)
    np.testing.assert_array_equal(doubled, 2 * x)
    np.testing.assert_array_equal(sums, x.sum(axis=1))
    assert [rows for rows in module.rows if rows > 3] == [10, 5]  # each size failed once
    module.shapes.clear()
    np.testing.assert_array_equal(network(x)[0], 2 * x)
    assert max(module.rows) <= 3


def test_one_item_that_does_not_fit() -> None:
    with pytest.raises(MemoryError, match=f"one item is too large for the memory of {PLAIN}"):
        TorchNetwork(Doubled(most_rows=0), device=PLAIN)(np.ones((2, 2), np.float32))


def test_filling() -> None:
    ids, pixels = torch.tensor([[1, 2, 3], [4, 5, 0]]), torch.ones((1, 3, 2, 2), dtype=torch.uint8)
    assert _filled(ids, rows=4, length=5).tolist() == [[1, 2, 3, 0, 0], *3 * [[4, 5, 0, 0, 0]]]
    assert _filled(ids.float(), rows=2, length=3).tolist() == ids.tolist()
    found = _filled(pixels, rows=2, length=None)
    assert found.dtype == torch.uint8
    assert found.tolist() == np.ones((2, 3, 2, 2)).tolist()


@pytest.mark.parametrize("mode", ["eager", "graphs"])
def test_tensors_are_taken_beside_arrays(mode: Any) -> None:
    """Cut by memory, rounded, and run again where they overflow, as arrays are."""

    class Sum(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rows: list[int] = []

        def forward(self, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor]:
            assert x.dtype == y.dtype != torch.float32
            self.rows.append(len(x))
            if len(x) > 4:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return (x + y,)

    module = Sum()
    network = TorchNetwork(module, device=PLAIN, dtype=torch.float16, mode=mode)
    x, y = numbers(6), numbers(6) * 10_000
    (found,) = network(torch.from_numpy(x), y)
    np.testing.assert_allclose(found, x + y, rtol=2**-7)  # both rounded to the 8 bits of bfloat16
    assert max(module.rows[1:]) <= 4
    (found,) = network(x, torch.from_numpy(x))
    np.testing.assert_array_equal(found, 2 * x)


@pytest.mark.parametrize("rows", [1, 2, 3, 7, 8])
def test_fixed_shapes_are_padded_and_cut_again(rows: int) -> None:
    module = Doubled()
    network = TorchNetwork(module, device=PLAIN, mode="graphs", longest=77)
    x = numbers(rows, 40)
    doubled, sums = network(x)
    assert module.shapes == [({1: 1, 2: 2, 3: 4, 7: 8, 8: 8}[rows], 64)]
    np.testing.assert_array_equal(doubled[:, :40], 2 * x)  # this output keeps the length, which ours do not
    np.testing.assert_array_equal(sums, x.sum(axis=1))


def test_fixed_shapes_are_few() -> None:
    module = Doubled()
    network = TorchNetwork(module, device=PLAIN, mode="graphs", longest=77)
    for rows in range(1, 9):
        for width in (1, 31, 33, 64, 65, 77):
            network(numbers(rows, width))
    assert set(module.shapes) == {(rows, width) for rows in (1, 2, 4, 8) for width in (32, 64, 77)}


@pytest.mark.weights
def test_padding_changes_no_text(weights: dict[str, Path]) -> None:
    architecture = BACKBONES["minilm-l6"].architecture(weights["minilm-l6"])
    plain, fixed = (build_backbone("minilm-l6", device=PLAIN) for _ in range(2))
    network = TorchNetwork(architecture.build(), device=PLAIN, mode="graphs", longest=architecture.longest)
    fixed._network = network  # type: ignore[attr-defined]
    prepared = plain.prepare_all(["a dog", "two dogs and a cat on a mat", "word " * 60, "x"])
    np.testing.assert_allclose(fixed.features(prepared).pooled, plain.features(prepared).pooled, atol=1e-5)


class Overflowing(torch.nn.Module):
    """Larger than float16 goes, for large inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = torch.nn.Parameter(torch.tensor(1000.0))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor]:
        return (x * self.factor,)


def test_what_overflows_float16_is_run_in_bfloat16() -> None:
    network = TorchNetwork(Overflowing(), device=PLAIN, dtype=torch.float16)
    x = np.array([[1.0], [100.0]], np.float32)
    np.testing.assert_allclose(network(x[:1])[0], [[1000]])
    np.testing.assert_allclose(network(x)[0], [[1000], [100_000]], rtol=2**-8)  # bfloat16 has 8 bits
    assert network(x)[0].dtype == np.float32


def test_integers_are_not_rounded() -> None:
    """Token ids above 2048 are no float16."""
    seen: list[torch.Tensor] = []

    class Seen(torch.nn.Module):
        def forward(self, ids: torch.Tensor) -> tuple[torch.Tensor]:
            seen.append(ids)
            return (ids.float(),)

    TorchNetwork(Seen(), device=PLAIN, dtype=torch.float16)(np.array([[49_407]]))
    assert seen[0].dtype == torch.int64
    assert seen[0].tolist() == [[49_407]]


def test_what_is_read_only_or_turned_is_taken() -> None:
    x = numbers(6).T
    x.flags.writeable = False
    np.testing.assert_array_equal(TorchNetwork(Doubled(), device=PLAIN)(x)[0], 2 * x)


def test_nothing_in_nothing_out() -> None:
    doubled, sums = TorchNetwork(Doubled(), device=PLAIN)(np.empty((0, 2), np.float32))
    assert (doubled.shape, sums.shape) == ((0, 2), (0,))


def test_two_replicas_share_the_work_in_order() -> None:
    replicas = [TorchNetwork(Doubled(most_rows=3), device=PLAIN) for _ in range(2)]
    encode: list[Any] = [lambda batch, replica=replica: replica(np.stack(batch))[1] for replica in replicas]
    jobs = list(numbers(100))
    found = list(engine.run(jobs, load=lambda job: job, encode=encode, batch_items=7, loaders=2))
    np.testing.assert_array_equal(np.concatenate([sums for _, sums in found]), numbers(100).sum(axis=1))
    assert all(replica._module.rows for replica in replicas)


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


def test_without_a_measure_there_is_no_limit_until_a_pass_fails() -> None:
    size = PassSize()
    assert size.rows(10) is None
    size.fitted(1000, used_bytes=1, free_bytes=1)
    assert size.rows(10) is None
    size.failed(1000)
    assert size.rows(10) == 50


def test_passes_grow_to_half_of_the_free_memory() -> None:
    size = PassSize(first=100)
    assert size.rows(10) == 10
    size.fitted(100, used_bytes=1000, free_bytes=100_000)
    assert size.rows(10) == 500
    size.fitted(50, used_bytes=5000, free_bytes=100_000)  # what is fixed weighs more in a smaller one
    assert size.rows(10) == 500
    size.fitted(5000, used_bytes=40_000, free_bytes=100_000)
    assert size.rows(10) == 625


def test_what_failed_is_not_tried_again() -> None:
    size = PassSize(first=100)
    size.failed(100)
    size.failed(80)  # of a thread that began before it knew
    assert size.rows(1) == 40
    size.fitted(40, used_bytes=1, free_bytes=10**12)
    assert size.rows(1) == 40


def test_limits() -> None:
    size = PassSize(first=5)
    assert size.rows(10) == 1  # one row is always tried
    size.fitted(10, used_bytes=1, free_bytes=10**15)
    assert size.rows(1) == MOST_NUMBERS
    size.failed(1)
    assert size.rows(10) == 1


@pytest.mark.parametrize(
    ("count", "limits", "expected"),
    [
        *[(1, {}, 1), (2, {}, 2), (3, {}, 4), (4, {}, 4), (5, {"least": 32}, 32), (33, {"least": 32}, 64)],
        *[(70, {"least": 32, "most": 77}, 77), (20, {"least": 32, "most": 24}, 24)],
    ],
)
def test_sizes(count: int, limits: dict[str, int], expected: int) -> None:
    assert next_size(count, **limits) == expected
