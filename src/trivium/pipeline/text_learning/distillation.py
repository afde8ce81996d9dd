"""Distillation: a small text encoder, the student, learns the vectors that a space's own, the teacher, gives to texts.

Source: Reimers, Gurevych, "Making monolingual sentence embeddings multilingual using knowledge distillation", EMNLP
2020 (the student's vectors are brought to the teacher's). The loss here is 1 - cosine: a space's vectors have length 1.
"""

import copy
import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from trivium.encoders.base import Vectors
from trivium.pipeline.progress import Progress
from trivium.pipeline.text_learning.starting import Start
from trivium.pipeline.text_learning.steps import (
    OptimisedSteps,
    TokenIds,
    as_tensors,
    batches_in_order,
    cut,
    half_precision,
    layer_rates,
    learn_epochs,
    tokenize,
    uncut,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class DistillationRecipe:
    """How a student learns."""

    epochs: int = 10
    batch_texts: int = 64
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    held_out: float = 0.05  # share of the texts, for the cosine that is told and chooses the epoch
    seed: int = 0


@dataclass(slots=True)
class Distillation:
    """What distillation gave."""

    losses: list[float] = field(default_factory=list)  # of each epoch, mean
    held_out_cosines: list[float] = field(default_factory=list)  # of each epoch, mean
    kept_epoch: int = 0
    texts: int = 0
    seconds: float = 0.0


def cosine_loss(vectors: Tensor, targets: Tensor) -> Tensor:
    """Return the mean of 1 - cosine of rows (n, d) with their unit targets (n, d)."""
    return 1 - (nn.functional.normalize(vectors, dim=-1) * targets).sum(dim=-1).mean()


def parts_of_texts(texts: Sequence[str], *, count: int, seed: int) -> list[str]:
    """Draw stretches of words from texts: a query is seldom a whole caption, and the teacher knows them too."""
    random = np.random.default_rng((seed, 7))
    found = []
    places: list[int] = random.integers(len(texts), size=count).tolist()
    for place in places:
        words = texts[place].split()
        length = int(random.integers(1, len(words) + 1)) if words else 0
        start = int(random.integers(0, len(words) - length + 1)) if words else 0
        if length:
            found.append(" ".join(words[start : start + length]))
    return list(dict.fromkeys(found))


def distil(
    start: Start,
    texts: Sequence[str],
    targets: Vectors,
    recipe: DistillationRecipe,
    *,
    device: str = "cpu",
    progress: Progress | None = None,
) -> Distillation:
    """Teach a student.

    Args:
        start: The student, whose network is changed; its vectors have the targets' width.
        texts: At least two.
        targets: The teacher's unit vectors of them, shape (n, d).
        recipe: How.
        device: As torch names it.
        progress: Called with the steps done and their number.

    Raises:
        ValueError: If there are too few texts, or the widths differ.
    """
    if len(texts) < 2 or targets.shape != (len(texts), start.config.shape.dim):
        raise ValueError(
            f"a student of {start.config.shape.dim} numbers needs targets ({len(texts)}, {start.config.shape.dim}) of "
            f"at least 2 texts, got {targets.shape}"
        )
    ids = [cut(of, most=start.config.max_tokens) for of in tokenize(uncut(start.tokenizer), texts)]
    order = np.random.default_rng((recipe.seed, 0)).permutation(len(ids))
    held = order[: max(1, round(recipe.held_out * len(ids)))]
    learnt = order[len(held) :]
    place = torch.device(device)
    network = start.network.to(place)
    wanted = torch.from_numpy(np.ascontiguousarray(targets, np.float32)).to(place)
    per_epoch = math.ceil(len(learnt) / recipe.batch_texts)
    steps = OptimisedSteps(
        layer_rates(network, rate=recipe.learning_rate, decay=1.0, weight_decay=recipe.weight_decay),
        optimiser="adamw",
        steps=per_epoch * recipe.epochs,
        seed=recipe.seed,
    )
    told, best, kept = Distillation(texts=len(texts)), -math.inf, None
    started = time.perf_counter()
    lengths = [len(ids[row]) for row in learnt]

    def loss(chosen: NDArray[np.int64]) -> Tensor:
        rows = learnt[chosen]
        with half_precision(place):
            (vectors,) = network(*as_tensors([ids[row] for row in rows], place))
        return cosine_loss(vectors.float(), wanted[torch.from_numpy(rows).to(place)])

    of_run = {"epochs": recipe.epochs, "size": recipe.batch_texts, "seed": recipe.seed}
    for epoch, mean in learn_epochs(network, steps, loss, lengths, **of_run, progress=progress):
        told.losses.append(mean)
        cosine = _mean_cosine(network, [ids[row] for row in held], wanted[torch.from_numpy(held).to(place)], place)
        told.held_out_cosines.append(cosine)
        if cosine > best:
            best, told.kept_epoch = cosine, epoch
            kept = copy.deepcopy(network.state_dict())
    if kept is not None:
        network.load_state_dict(kept)
    network.eval()
    told.seconds = time.perf_counter() - started
    return told


def distillation_record(recipe: DistillationRecipe, told: Distillation) -> dict[str, Any]:
    """Return how a student learnt, fit for JSON."""
    return {"recipe": asdict(recipe), **asdict(told)}


def _mean_cosine(network: nn.Module, ids: Sequence[TokenIds], targets: Tensor, place: torch.device) -> float:
    network.eval()
    found = 0.0
    with torch.inference_mode():
        for rows in batches_in_order([len(of) for of in ids], size=256):
            (vectors,) = network(*as_tensors([ids[row] for row in rows], place))
            of = targets[torch.from_numpy(rows).to(place)]
            found += float((1 - cosine_loss(vectors, of)) * len(rows))
    return found / len(ids)
