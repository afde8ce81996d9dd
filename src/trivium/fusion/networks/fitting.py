"""A fusion of `registry.FUSIONS` trained with a head on labelled rows, and used from NumPy.

Trained with AdamW on shuffled batches, modalities dropped at random; the epoch is the one with the least loss on rows
held out. Numbers are standardised as `blocks.BlockScaler` does, without its weights.
"""

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from trivium.fusion.blocks import (
    LARGEST,
    Blocks,
    BlockScaler,
    Booleans,
    Integers,
    Numbers,
    Targets,
    contributions_of,
    folds_of,
)
from trivium.fusion.networks.registry import LATE, build_fusion

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

HELD_OUT = 10  # one row in so many chooses the epoch
LEAST_BATCH = 32
ROWS_AT_ONCE = 2048  # of prediction
SMALLEST = 1e-9  # of a probability whose logarithm is taken


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkRecipe:
    """How a network is trained."""

    fusion: str  # of `registry.FUSIONS`
    dim: int = 64
    modality_dropout: float = 0.3
    epochs: int = 60
    patience: int = 10  # epochs without a better one, and then it ends
    batch: int = 128  # at most; of few rows a sixteenth, so that an epoch has steps enough
    learning_rate: float = 2e-3
    weight_decay: float = 0.05
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkFusion:
    """A trained fusion and head; what a row gets that has nothing known is `prior`."""

    scalers: Mapping[str, BlockScaler] = field(repr=False)
    fusion: "nn.Module" = field(repr=False)
    head: "nn.Module | None" = field(repr=False)  # None: the fusion itself gives probabilities
    prior: Numbers  # (c,)
    is_classes: bool

    def predict(self, blocks: Blocks, presence: Mapping[str, Booleans]) -> Numbers:
        """Return probabilities of classes (n, c), or numbers (n, 1)."""
        found = np.tile(self.prior, (len(next(iter(presence.values()))), 1))
        for rows, fused in self._passes(blocks, presence):
            if self.head is None:
                found[rows] = fused.numpy()
            elif self.is_classes:
                found[rows] = self.head(fused).softmax(dim=1).numpy()
            else:
                found[rows] = self.head(fused).numpy() + self.prior
        return found

    def fused(self, blocks: Blocks, presence: Mapping[str, Booleans]) -> Numbers:
        """Return fused vectors (n, d); zeros of a row that has nothing known."""
        found: Numbers | None = None
        n = len(next(iter(presence.values())))
        for rows, fused in self._passes(blocks, presence):
            if found is None:
                found = np.zeros((n, fused.shape[1]))
            found[rows] = fused.numpy()
        width = self.fusion.dim
        assert isinstance(width, int)
        return np.zeros((n, width)) if found is None else found

    def contributions(self, blocks: Blocks, presence: Mapping[str, Booleans]) -> dict[str, Numbers]:
        """Return what each modality added; see `contributions_of`."""
        return contributions_of(lambda has: self.predict(blocks, has), presence, self.scalers)

    def _passes(self, blocks: Blocks, presence: Mapping[str, Booleans]) -> "Iterator[tuple[Integers, Tensor]]":
        import torch

        names = tuple(self.scalers)
        usable = np.flatnonzero(np.any([presence[name] for name in names], axis=0))
        for start in range(0, len(usable), ROWS_AT_ONCE):
            rows = usable[start : start + ROWS_AT_ONCE]
            inputs = {name: torch.from_numpy(_standardised(self.scalers[name], blocks[name][rows])) for name in names}
            masks = {name: torch.from_numpy(presence[name][rows]) for name in names}
            with torch.no_grad():
                yield rows, self.fusion(inputs, masks)


def fit_network(
    blocks: Blocks,
    presence: Mapping[str, Booleans],
    scalers: Mapping[str, BlockScaler],
    targets: Targets,
    groups: Integers,
    recipe: NetworkRecipe,
) -> NetworkFusion:
    """Train a fusion and its head.

    Args:
        blocks: Rows (n, d) of each modality, by name; NaN where it is missing.
        presence: Which rows have which.
        scalers: Of the modalities that any row has.
        targets: Of all rows.
        groups: Rows that must not be apart in validation share a number, (n,).
        recipe: How.

    Raises:
        ValueError: If a fusion of probabilities is to predict numbers.
    """
    import torch

    if recipe.fusion in LATE and not targets.is_classes:
        raise ValueError(f"fusion '{recipe.fusion}' gives probabilities of classes, not numbers")
    names = tuple(scalers)
    is_late = recipe.fusion in LATE
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        widths = {name: blocks[name].shape[1] for name in names}
        fusion = build_fusion(recipe.fusion, widths, dim=targets.classes if is_late else recipe.dim)
        head = None if is_late else torch.nn.Linear(recipe.dim, targets.classes)
        made = NetworkFusion(
            scalers=scalers, fusion=fusion, head=head, prior=targets.mean, is_classes=targets.is_classes
        )
        usable = np.any([presence[name] for name in names], axis=0)
        inputs = {
            name: torch.from_numpy(_standardised(scalers[name], blocks[name][usable])).nan_to_num() for name in names
        }
        there = {name: torch.from_numpy(presence[name][usable]) for name in names}
        folds = folds_of(targets.labels, groups, count=HELD_OUT, seed=recipe.seed)[usable]
        _train(made, inputs, there, targets.of(usable), folds, recipe)
    return made


def with_parameters(made: NetworkFusion, tensors: Mapping[str, np.ndarray]) -> NetworkFusion:
    """Put kept parameters into a fusion that was built anew.

    Raises:
        ValueError: If they are not those of this fusion.
    """
    import torch

    modules = _modules(made)
    own = {key: torch.from_numpy(np.array(of)) for key, of in tensors.items() if key.partition(".")[0] in modules}
    try:
        modules.load_state_dict(own)
    except RuntimeError as error:
        raise ValueError(f"the kept parameters are not those of this fusion: {error}") from error
    modules.eval()
    return made


def parameters_of(made: NetworkFusion) -> dict[str, np.ndarray]:
    """Return all parameters by name, as `with_parameters` takes them."""
    return {key: tensor.numpy() for key, tensor in _modules(made).state_dict().items()}


def _modules(made: NetworkFusion) -> "nn.ModuleDict":
    import torch

    return torch.nn.ModuleDict({"fusion": made.fusion} | ({} if made.head is None else {"head": made.head}))


def _standardised(scaler: BlockScaler, rows: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    """Return rows whose numbers have a deviation of 1, cut as `BlockScaler` does; float32 and in place, for speed."""
    found = rows.astype(np.float32)
    found -= scaler.mean.astype(np.float32)
    found /= scaler.deviation.astype(np.float32)
    return np.clip(found, -LARGEST, LARGEST, out=found)


def _train(
    made: NetworkFusion,
    inputs: "Mapping[str, Tensor]",
    there: "Mapping[str, Tensor]",
    targets: Targets,
    folds: Integers,
    recipe: NetworkRecipe,
) -> None:
    import torch

    from trivium.fusion.networks.contract import drop_modalities

    modules = _modules(made)
    optimiser = torch.optim.AdamW(modules.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
    loss_of = _loss(made, targets)
    batch = min(recipe.batch, max(LEAST_BATCH, len(folds) // 16))
    own = torch.from_numpy(np.flatnonzero(folds != 0))
    held = torch.from_numpy(np.flatnonzero(folds == 0))
    least, best, since = np.inf, copy.deepcopy(modules.state_dict()), 0
    for _ in range(recipe.epochs):
        modules.train()
        order = own[torch.randperm(len(own))]
        for rows in torch.split(order, batch):
            kept = drop_modalities({name: mask[rows] for name, mask in there.items()}, share=recipe.modality_dropout)
            optimiser.zero_grad()
            torch.autograd.backward(loss_of(made.fusion({name: x[rows] for name, x in inputs.items()}, kept), rows))
            optimiser.step()
        modules.eval()
        if not len(held):
            best = copy.deepcopy(modules.state_dict())
            continue
        with torch.no_grad():
            masks = {name: mask[held] for name, mask in there.items()}
            loss = float(loss_of(made.fusion({name: x[held] for name, x in inputs.items()}, masks), held))
        since += 1
        if loss < least:
            least, best, since = loss, copy.deepcopy(modules.state_dict()), 0
        if since >= recipe.patience:
            break
    modules.load_state_dict(best)
    modules.eval()


def _loss(made: NetworkFusion, targets: Targets) -> "Callable[[Tensor, Tensor], Tensor]":
    import torch

    weights = torch.from_numpy(targets.weights / targets.weights.mean()).float()
    labels = torch.from_numpy(targets.labels)
    values = torch.from_numpy(targets.values).float()

    def loss(fused: "torch.Tensor", rows: "torch.Tensor") -> "torch.Tensor":
        if made.head is None:
            each = -fused[torch.arange(len(rows)), labels[rows]].clamp(min=SMALLEST).log()
        elif made.is_classes:
            each = torch.nn.functional.cross_entropy(made.head(fused), labels[rows], reduction="none")
        else:
            each = (made.head(fused) - values[rows]).square().sum(dim=1)
        return (weights[rows] * each).mean()

    return loss
