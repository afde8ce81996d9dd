"""Aligning frozen encoders: features of all items once, projection heads in closed form or trained, a space folder.

    tables -> items and pairs -> frozen features (cached) -> closed form -> training -> calibration -> space folder

The validation pairs are held out by picture and sound; they choose the epoch and fit the calibration. What they say of
the heads is therefore a little too good: `trivium evaluate` on a table of its own says how good the space is.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from trivium.encoders.base import MODALITIES, Features, Modality, Vectors, unit_rows
from trivium.fusion.projections.closed_form import canonical_maps, ridge_map
from trivium.fusion.projections.head import LARGEST_INPUT, POOLED, Head, HeadInput, joined
from trivium.fusion.projections.training import PairSet, Recipe, Trainer, Training
from trivium.pipeline.align.pairs import PSEUDO_SHARE, Material, Pairs, Two, pseudo_pairs
from trivium.pipeline.align.validation import Validation, calibrate, used_places
from trivium.pipeline.features.frozen import encode_items
from trivium.pipeline.progress import Bars
from trivium.pipeline.space.config import SpaceError
from trivium.pipeline.space.joint import JointSpace
from trivium.pipeline.space.relevance import Relevance

Method = Literal["closed-form", "trained"]
# Of the canonical correlations: how much is added to the covariances of texts and of others, and the power of the
# correlations; chosen on Flickr8k's development split (docs/benchmarks.md, "Aligning on your own data").
RIDGE: Mapping[Modality, float] = {"text": 0.3, "image": 4.0, "audio": 3.0}
POWER = 0.5
PSEUDO = " (by like texts)"
MIN_DEVIATION = 1e-2  # of an input, as a share of the mean one: what hardly varies is not blown up


class AlignmentError(SpaceError):
    """Tables or encoders that nothing can be aligned from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is to be aligned, and how."""

    # Of the heads that are made; all that the backbone says but for its classes where nothing is named.
    inputs: Mapping[Modality, tuple[HeadInput, ...]] = field(default_factory=dict)
    kept: tuple[Modality, ...] = ()  # whose vectors stay as the space has them
    method: Method = "trained"
    pseudo_share: float = PSEUDO_SHARE  # see `pseudo_pairs`; 0 makes none
    recipe: Recipe = field(default_factory=Recipe)
    device: str = "cpu"  # where heads are trained, as torch names it


@dataclass(frozen=True, slots=True, kw_only=True)
class Aligned:
    """Heads, and what was seen on the way."""

    heads: Mapping[Modality, Head]
    relevance: Relevance
    recall: Mapping[str, Mapping[str, float]]  # of the validation pairs: "text->image": {"R@1": ...}
    closed_form_recall: Mapping[str, Mapping[str, float]]
    training: Training | None
    pairs: Mapping[str, tuple[int, int]]  # trained on, and held out
    seconds: Mapping[str, float]


def features_of(
    space: JointSpace, material: Material, *, progress: Bars | None = None
) -> tuple[dict[Modality, Features], dict[Modality, dict[int, str]]]:
    """Encode all items with the frozen backbones of a space.

    Args:
        space: Its projections are not used.
        material: Its items.
        progress: Called with what is encoded, the items done and their number.

    Returns:
        A row for each item, zeros for those that failed; and why they did.
    """
    found: dict[Modality, Features] = {}
    failures: dict[Modality, dict[int, str]] = {}
    for modality, items in material.items.items():
        told = None if progress is None else partial(progress, modality)
        frozen = encode_items(space, modality, items, progress=told)
        failures[modality] = dict(frozen.failures)
        if not len(frozen.places):
            raise AlignmentError(
                f"none of {len(items):,} items of {modality} could be encoded: {_first(frozen.failures)}"
            )
        found[modality] = _spread(frozen.features, frozen.places, len(items))
    return found, failures


def align(
    space: JointSpace,
    material: Material,
    features: Mapping[Modality, Features],
    plan: Plan,
    *,
    progress: Callable[[int, int, float], None] | None = None,
) -> Aligned:
    """Make the heads of a space.

    Args:
        space: Whose backbones the features come from, and whose vectors stay for what is kept.
        material: Items and pairs, without those that failed.
        features: A row for each item.
        plan: How.
        progress: Called with the epochs done, their number and the last validation score.

    Raises:
        AlignmentError: If there are no pairs, or what is kept cannot be kept.
    """
    trained, held_out = _chosen_pairs(material, features, plan)
    fixed = _kept_vectors(space, features, plan)
    made: list[Modality] = [
        m for m in MODALITIES if m in features and m not in plan.kept and any(m in two for two in trained)
    ]
    if not made:
        raise AlignmentError("all modalities are kept: nothing is left to align")
    started = time.perf_counter()
    given: dict[Modality, tuple[HeadInput, ...]] = {
        m: plan.inputs.get(m) or tuple(map(HeadInput, (POOLED, *sorted(features[m].layers)))) for m in made
    }
    standard: dict[Modality, _Standard] = {
        m: _Standard.of(joined(features[m], given[m]), used_places(m, trained)) for m in made
    }
    inputs: dict[Modality, NDArray[np.float32]] = {m: standard[m].apply(joined(features[m], given[m])) for m in made}
    dim = next(iter(fixed.values())).shape[1] if fixed else plan.recipe.dim
    start = _closed_form(inputs, fixed, trained, dim)
    validation = Validation(held_out)

    def vectors(states: Mapping[Modality, Mapping[str, NDArray[np.float32]]]) -> dict[Modality, Vectors]:
        found = validation.picked(fixed)
        for modality, rows in validation.picked(inputs).items():
            head = _head(states[modality], standard[modality], given[modality])
            found[modality] = head.plain_of_standard(rows)
        return found

    states: Mapping[Modality, Mapping[str, NDArray[np.float32]]]
    states = {m: {"linear.weight": start[m][np.newaxis], "linear.bias": np.zeros((1, dim), np.float32)} for m in made}
    closed_form_recall = validation.recall(vectors(states))
    seconds = {"closed form": time.perf_counter() - started}
    training = None
    if plan.method == "trained":
        recipe = plan.recipe if not fixed else _one_member(plan.recipe, dim)
        trainer = Trainer(
            inputs,
            [PairSet(modalities=two, rows=pairs.rows, weights=pairs.weights) for two, pairs in trained.items()],
            recipe,
            start=start,
            fixed=fixed,
            device=plan.device,
        )
        training = trainer.run(lambda now: validation.score(vectors(now)), progress=progress)
        states = training.states
        seconds["training"] = training.seconds
    heads: dict[Modality, Head] = {
        m: _head(states[m], standard[m], given[m], centred_on=inputs[m][used_places(m, trained)]) for m in made
    }
    if fixed:  # the space that stays has its own origin
        heads = {m: _head(states[m], standard[m], given[m]) for m in made}
    started = time.perf_counter()
    final = dict(fixed)
    for modality, head in heads.items():
        final[modality] = head(features[modality])
    relevance = calibrate(final, held_out, seed=plan.recipe.seed)
    seconds["calibration"] = time.perf_counter() - started
    return Aligned(
        heads=heads,
        relevance=relevance,
        recall=validation.recall(validation.picked(final)),
        closed_form_recall=closed_form_recall,
        training=training,
        pairs={
            f"{a}-{b}{'' if (a, b) in material.pairs else PSEUDO}": (
                len(trained[a, b].rows) if (a, b) in trained else 0,
                len(held_out.get((a, b), ())),
            )
            for a, b in {**material.pairs, **trained}
        },
        seconds=seconds,
    )


def _chosen_pairs(
    material: Material, features: Mapping[Modality, Features], plan: Plan
) -> tuple[dict[Two, Pairs], dict[Two, NDArray[np.int64]]]:
    """Return the pairs to train on, and the rows of those that are held out."""
    trained = {two: pairs.chosen(~pairs.is_held_out) for two, pairs in material.pairs.items()}
    trained = {two: pairs for two, pairs in trained.items() if len(pairs.rows)}
    if plan.pseudo_share and "text" in features:
        trained |= pseudo_pairs(trained, features["text"].pooled, share=plan.pseudo_share)
    if not trained:
        raise AlignmentError("there are no pairs of two modalities to train on")
    held_out = {two: pairs.rows[pairs.is_held_out] for two, pairs in material.pairs.items()}
    return trained, {two: rows for two, rows in held_out.items() if len(rows)}


def _kept_vectors(space: JointSpace, features: Mapping[Modality, Features], plan: Plan) -> dict[Modality, Vectors]:
    fixed: dict[Modality, Vectors] = {
        modality: space.projection(modality, features[modality].pooled.shape[1])(features[modality])
        for modality in plan.kept
        if modality in features
    }
    if plan.kept and not fixed:  # heads would make a space of their own, and the kept vectors lie in another
        raise AlignmentError(f"nothing in the tables belongs to what is kept ({', '.join(plan.kept)})")
    return fixed


@dataclass(frozen=True, slots=True)
class _Standard:
    """Brings inputs to mean 0 and deviation 1."""

    mean: NDArray[np.float32]
    scale: NDArray[np.float32]

    @classmethod
    def of(cls, x: NDArray[np.float32], rows: NDArray[np.int64]) -> "_Standard":
        deviation = x[rows].std(axis=0)
        return cls(x[rows].mean(axis=0), np.maximum(deviation, max(MIN_DEVIATION * float(deviation.mean()), 1e-9)))

    def apply(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        found: NDArray[np.float32] = np.clip((x - self.mean) / self.scale, -LARGEST_INPUT, LARGEST_INPUT)
        return found


def _closed_form(
    inputs: Mapping[Modality, NDArray[np.float32]],
    fixed: Mapping[Modality, Vectors],
    pairs: Mapping[Two, Any],
    dim: int,
) -> dict[Modality, NDArray[np.float32]]:
    """Return a linear map for each modality: two of them correlated, others by ridge onto what they are paired with."""
    maps: dict[Modality, NDArray[np.float64]] = {}
    target: dict[Modality, NDArray[np.float32]] = dict(fixed)
    waiting: list[Modality] = [m for m in MODALITIES if m in inputs]
    if not fixed:
        inner = {two: of_two for two, of_two in pairs.items() if two[0] in inputs and two[1] in inputs}
        (first, second), of_two = max(inner.items(), key=lambda item: len(item[1].rows))
        a, b = inputs[first][of_two.rows[:, 0]], inputs[second][of_two.rows[:, 1]]
        ridge = (RIDGE[first], RIDGE[second])
        maps[first], maps[second] = canonical_maps(a, b, of_two.weights, dim=dim, ridge=ridge, power=POWER)
        for modality in (first, second):
            target[modality] = unit_rows(inputs[modality] @ maps[modality])
            waiting.remove(modality)
    while waiting:
        reachable: list[tuple[Modality, list[Two]]] = [
            (modality, [two for two in pairs if modality in two and (set(two) - {modality}) <= set(target)])
            for modality in waiting
        ]
        modality, twos = max(reachable, key=lambda item: sum(len(pairs[two].rows) for two in item[1]))
        if not twos:
            raise AlignmentError(f"{modality} has no pairs with any other modality")
        rows, targets, weights = [], [], []
        for two in twos:
            side = two.index(modality)
            other = two[1 - side]
            rows.append(pairs[two].rows[:, side])
            targets.append(target[other][pairs[two].rows[:, 1 - side]] - target[other].mean(axis=0))
            weights.append(pairs[two].weights)
        maps[modality] = ridge_map(
            inputs[modality][np.concatenate(rows)],
            np.concatenate(targets),
            np.concatenate(weights),
            ridge=RIDGE[modality],
        )
        target[modality] = unit_rows(inputs[modality] @ maps[modality])
        waiting.remove(modality)
    # The same length for all: training adds to them what its learning rate allows.
    return {
        modality: (found / max(float(np.linalg.norm(found, axis=0).mean()), 1e-12)).astype(np.float32)
        for modality, found in maps.items()
    }


def _head(
    state: Mapping[str, NDArray[np.float32]],
    standard: _Standard,
    inputs: Sequence[HeadInput],
    *,
    centred_on: NDArray[np.float32] | None = None,
) -> Head:
    """Make a head of what was trained, its origin the mean of some standardised inputs' vectors."""
    members, _, each = state["linear.weight"].shape
    tensors = {**state, "mean": standard.mean, "scale": standard.scale, "centre": np.zeros(members * each, np.float32)}
    head = Head(tuple(inputs), tensors)
    if centred_on is None:
        return head
    return Head(tuple(inputs), {**tensors, "centre": head.plain_of_standard(centred_on).mean(axis=0)})


def _one_member(recipe: Recipe, dim: int) -> Recipe:
    from dataclasses import replace

    return replace(recipe, members=1, dim=dim)


def _spread(features: Features, places: NDArray[np.int64], count: int) -> Features:
    def spread(rows: NDArray[np.float32]) -> NDArray[np.float32]:
        whole = np.zeros((count, rows.shape[1]), np.float32)
        whole[places] = rows
        return whole

    return features.each(spread)


def _first(failures: Mapping[int, str]) -> str:
    return next(iter(failures.values()), "there are none")
