"""Training of projection heads on frozen features: pairs of any two modalities, full control of chance by one seed.

`HeadModule` is a head in torch, several members at once, as they are trained; `head.Head` is the same in NumPy, to use.
The losses are contrastive ones over batches in which an item may have many positives.
"""

import copy
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from trivium.encoders.base import Modality
from trivium.fusion.projections.head import LARGEST_INPUT

# exp of the learnt logarithm is the factor before the softmax: CLIP's bound, beyond which training diverges.
LARGEST_FACTOR = 100.0
FIRST_TEMPERATURE = 0.07  # CLIP
FIRST_BIAS = -10.0  # SigLIP: nearly all pairs of a batch do not belong together


@dataclass(frozen=True, slots=True, kw_only=True)
class PairSet:
    """Which items of two modalities belong together."""

    modalities: tuple[Modality, Modality]
    rows: NDArray[np.int64]  # (p, 2), positions among each modality's items
    weights: NDArray[np.float64]  # (p,): how often each is drawn in an epoch, 1.5 is once or twice


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How heads are trained. The defaults were chosen on Flickr8k's development split (docs/benchmarks.md)."""

    dim: int = 384  # of each member
    members: int = 1
    hidden: int = 0
    epochs: int = 10
    batch_pairs: int = 1024
    learning_rate: float = 3e-4  # small: training starts from the closed form
    weight_decay: float = 0.05
    input_dropout: float = 0.3
    dropout: float = 0.3
    loss: Literal["nce", "sigmoid"] = "nce"
    seed: int = 0


@dataclass(slots=True)
class Training:
    """What training gave."""

    states: Mapping[Modality, Mapping[str, NDArray[np.float32]]]  # of the best epoch, by `Head`'s names
    temperature: float
    best_epoch: int  # from 1
    losses: list[float] = field(default_factory=list)  # of each epoch, mean
    scores: list[float] = field(default_factory=list)  # what `validate` said of each epoch
    seconds: float = 0.0


Validate = Callable[[Mapping[Modality, Mapping[str, NDArray[np.float32]]]], float]


class Trainer:
    """Heads of several modalities and what is needed to train them."""

    def __init__(
        self,
        inputs: Mapping[Modality, NDArray[np.float32]],
        pairs: Sequence[PairSet],
        recipe: Recipe,
        *,
        start: Mapping[Modality, NDArray[np.float32]] | None = None,
        fixed: Mapping[Modality, NDArray[np.float32]] | None = None,
        device: str = "cpu",
    ) -> None:
        """Prepare training.

        Args:
            inputs: Standardised features of the modalities that are trained, shape (n_m, width_m).
            pairs: At least one set.
            recipe: How.
            start: Linear maps to begin with, shape (width_m, dim); random where none is given.
            fixed: Unit vectors of modalities that stay as they are, (n_m, dim); then there is one member.
            device: As torch names it.
        """
        self._recipe = recipe
        self._device = torch.device(device)
        self._random = np.random.default_rng(recipe.seed)
        # Of its own, not torch's global one, which others use too; dropout only knows the global one, so it is set.
        torch.manual_seed(recipe.seed)
        self._inputs: dict[Modality, Tensor] = {
            m: torch.from_numpy(np.ascontiguousarray(x)).to(self._device) for m, x in inputs.items()
        }
        self._fixed: dict[Modality, Tensor] = {
            m: torch.from_numpy(v).to(self._device).unsqueeze(0) for m, v in (fixed or {}).items()
        }
        self._heads = nn.ModuleDict(
            {
                modality: HeadModule(
                    x.shape[1],
                    recipe.dim,
                    members=recipe.members,
                    hidden=recipe.hidden,
                    input_dropout=recipe.input_dropout,
                    dropout=recipe.dropout,
                )
                for modality, x in inputs.items()
            }
        ).to(self._device)
        for modality, linear in (start or {}).items():
            with torch.no_grad():
                weight = self._heads[modality].get_parameter("linear_weight")
                weight.copy_(torch.from_numpy(linear).to(weight))
        self._factor = nn.Parameter(torch.tensor(math.log(1 / FIRST_TEMPERATURE), device=self._device))
        self._bias = nn.Parameter(torch.tensor(FIRST_BIAS, device=self._device))
        self._pairs = [_Positives(each, self._count(each.modalities), self._device) for each in pairs]

    def run(self, validate: Validate, *, progress: Callable[[int, int, float], None] | None = None) -> Training:
        """Train, and keep the epoch that `validate` scores best.

        Args:
            validate: Told each epoch's heads; larger is better.
            progress: Called with the epochs done, their number and the last score.
        """
        recipe = self._recipe
        optimiser = torch.optim.AdamW(
            [
                {"params": self._heads.parameters(), "weight_decay": recipe.weight_decay},
                {"params": [self._factor, self._bias], "weight_decay": 0.0},
            ],
            lr=recipe.learning_rate,
        )
        # Of an epoch; chance may draw a batch more or less.
        steps = sum(int(each.weights.sum() / recipe.batch_pairs) + 2 for each in self._pairs)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            # It divides by the length of the warm-up, which must not be nothing.
            *(optimiser, recipe.learning_rate),
            total_steps=max(20, steps * recipe.epochs + 1),
            pct_start=0.1,
        )
        started = time.perf_counter()
        training = Training(states={}, temperature=0.0, best_epoch=0)
        best = -math.inf
        for epoch in range(1, recipe.epochs + 1):
            self._heads.train()
            losses = []
            for each, chosen in self._batches():
                loss = self._loss(each, chosen)
                optimiser.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimiser.step()
                schedule.step()
                losses.append(float(loss.detach()))
            training.losses.append(float(np.mean(losses)))
            states = self.states()
            score = validate(states)
            training.scores.append(score)
            if score >= best:  # the last one, where nothing is held out and all score the same
                best = score
                training.states, training.best_epoch = copy.deepcopy(states), epoch
                training.temperature = 1 / min(math.exp(float(self._factor.detach())), LARGEST_FACTOR)
            if progress is not None:
                progress(epoch, recipe.epochs, score)
        training.seconds = time.perf_counter() - started
        return training

    def states(self) -> dict[Modality, dict[str, NDArray[np.float32]]]:
        """Return the heads as they are now, by `Head`'s names; they share memory with what is trained."""
        return {
            modality: {
                name.replace("_", "."): tensor.numpy(force=True)
                for name, tensor in self._heads[modality].named_parameters()
            }
            for modality in self._inputs
        }

    def _count(self, modalities: tuple[Modality, Modality]) -> tuple[int, int]:
        first, second = (len(self._inputs[m]) if m in self._inputs else self._fixed[m].shape[1] for m in modalities)
        return first, second

    def _batches(self) -> "Iterator[tuple[_Positives, NDArray[np.int64]]]":
        """Yield an epoch's batches of each set, the sets mixed: each pair once."""
        batches = []
        for each in self._pairs:
            times = np.floor(each.weights + self._random.random(len(each.weights))).astype(np.int64)
            order = self._random.permutation(np.repeat(np.arange(len(times)), times))
            if not len(order):
                continue
            count = max(1, round(len(order) / self._recipe.batch_pairs))
            batches += [(each, part) for part in np.array_split(order, count)]
        self._random.shuffle(batches)
        yield from batches

    def _loss(self, each: "_Positives", chosen: NDArray[np.int64]) -> Tensor:
        first, second = (np.unique(each.rows[chosen, side]) for side in (0, 1))
        positives = each.among(first, second)
        a, b = (self._vectors(m, items) for m, items in zip(each.modalities, (first, second), strict=True))
        scores = self._factor.exp().clamp(max=LARGEST_FACTOR) * torch.matmul(a, b.transpose(-1, -2))
        if self._recipe.loss == "sigmoid":
            return sigmoid_loss(scores, positives, bias=self._bias)
        return info_nce(scores, positives)

    def _vectors(self, modality: Modality, items: NDArray[np.int64]) -> Tensor:
        rows = torch.from_numpy(items).to(self._device)
        if modality in self._fixed:
            return self._fixed[modality][:, rows]
        vectors: Tensor = self._heads[modality](self._inputs[modality][rows])
        return vectors


class _Positives:
    """A set of pairs, ready to tell which items of a batch belong together."""

    def __init__(self, pairs: PairSet, counts: tuple[int, int], device: torch.device) -> None:
        self.modalities = pairs.modalities
        self.rows, first = np.unique(pairs.rows, axis=0, return_index=True)  # by first, then second
        self.weights = pairs.weights[first]
        self._starts = np.searchsorted(self.rows[:, 0], np.arange(counts[0] + 1))
        self._place = np.full(counts[1], -1, np.int64)
        self._device = device

    def among(self, first: NDArray[np.int64], second: NDArray[np.int64]) -> Tensor:
        """Return which of some items belong together, shape (a, b): all their pairs, not only those of the batch."""
        self._place[second] = np.arange(len(second))
        lengths = self._starts[first + 1] - self._starts[first]
        owners = np.repeat(np.arange(len(first)), lengths)
        offsets = np.arange(len(owners)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        places = self._place[self.rows[np.repeat(self._starts[first], lengths) + offsets, 1]]
        self._place[second] = -1
        found = np.zeros((len(first), len(second)), np.bool_)
        found[owners[places >= 0], places[places >= 0]] = True
        return torch.from_numpy(found).to(self._device)


class HeadModule(nn.Module):
    """Standardised inputs to unit vectors of each member: unit(x A + b + relu(x H + h) O)."""

    def __init__(
        self,
        width: int,
        dim: int,
        *,
        members: int = 1,
        hidden: int = 0,
        input_dropout: float = 0.0,
        dropout: float = 0.0,
    ) -> None:
        """Make a head of random weights, whose hidden layer adds nothing at first.

        Args:
            width: Numbers of the input.
            dim: Numbers of each member's vectors.
            members: How many heads, each with weights of its own.
            hidden: Units of the hidden layer; none if 0.
            input_dropout: Share of the input's numbers that a pass of training leaves out.
            dropout: The same of the hidden layer's.
        """
        super().__init__()
        self.linear_weight = nn.Parameter(torch.randn(members, width, dim) / math.sqrt(width))
        self.linear_bias = nn.Parameter(torch.zeros(members, dim))
        self.has_hidden = hidden > 0
        if self.has_hidden:
            self.hidden_weight = nn.Parameter(torch.randn(members, width, hidden) * math.sqrt(2 / width))
            self.hidden_bias = nn.Parameter(torch.zeros(members, hidden))
            self.out_weight = nn.Parameter(torch.randn(members, hidden, dim) * 0.01 / math.sqrt(hidden))
        self.input_dropout = nn.Dropout(input_dropout)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Map standardised inputs (n, width) to unit vectors (members, n, dim)."""
        x = x.clamp(-LARGEST_INPUT, LARGEST_INPUT).expand(len(self.linear_weight), -1, -1)
        x = self.input_dropout(x)  # each member loses other numbers
        y = torch.baddbmm(self.linear_bias.unsqueeze(1), x, self.linear_weight)
        if self.has_hidden:
            hidden = torch.relu(torch.baddbmm(self.hidden_bias.unsqueeze(1), x, self.hidden_weight))
            y = y + torch.bmm(self.dropout(hidden), self.out_weight)
        return nn.functional.normalize(y, dim=-1)


def info_nce(scores: Tensor, positives: Tensor) -> Tensor:
    """Return the mean loss of telling each row's positives, and each column's, from all others of the batch.

    Args:
        scores: Cosines divided by the temperature, shape (..., n, m).
        positives: True where row and column belong together, shape (n, m); rows and columns without any do not count.

    Source:
        van den Oord et al., "Representation learning with contrastive predictive coding", 2018; in both directions as
        in Radford et al., "Learning transferable visual models from natural language supervision" (CLIP), 2021; many
        positives as in Khosla et al., "Supervised contrastive learning", NeurIPS 2020 (L_out).
    """
    return (_one_way(scores, positives) + _one_way(scores.transpose(-1, -2), positives.T)) / 2


def sigmoid_loss(scores: Tensor, positives: Tensor, *, bias: Tensor) -> Tensor:
    """Return the loss of telling for each pair by itself whether it belongs together, summed over columns.

    Args:
        scores: Cosines divided by the temperature, shape (..., n, m).
        positives: True where row and column belong together, shape (n, m).
        bias: Added to the scores; learnt, far below 0 at first, since few pairs belong together.

    Source:
        Zhai et al., "Sigmoid loss for language image pre-training" (SigLIP), ICCV 2023.
    """
    signs = torch.where(positives, 1.0, -1.0)
    return -torch.nn.functional.logsigmoid(signs * (scores + bias)).sum(dim=-1).mean()


def _one_way(scores: Tensor, positives: Tensor) -> Tensor:
    counts = positives.sum(dim=1)  # (n,)
    likelihoods = scores.log_softmax(dim=-1)
    of_positives = torch.where(positives, likelihoods, 0.0).sum(dim=-1)  # (..., n)
    has_any = counts > 0
    return -(of_positives[..., has_any] / counts[has_any]).mean()
