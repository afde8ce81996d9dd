"""A trained projection head in NumPy: a query needs no torch. `head_module` is the same in torch, for training."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trivium.encoders.base import Features, Vectors, unit_rows
from trivium.fusion.projections.plain import softmax

Tensors = Mapping[str, NDArray[np.float32]]
POOLED, UNIT = "pooled", "unit"
# Standardised inputs are cut there: some features of ReLU networks are nearly always 0 and then 50 deviations off.
LARGEST_INPUT = 6.0
MEMBER_WEIGHTS = "member.weights"  # how much each member's cosine counts; all the same if it is missing


@dataclass(frozen=True, slots=True)
class HeadInput:
    """A part of what a backbone says: pooled features, those of an inner layer, or what a classifier thinks."""

    name: str  # "pooled"; "unit", the same scaled to length 1; an inner layer's; or a classifier's
    temperature: float | None = None  # of a classifier: its probabilities softened so; None: its scores as they are


@dataclass(frozen=True, slots=True)
class Head:
    """Features to vectors: unit(concatenation of members) - centre, scaled to length 1.

    A member is a linear map of the standardised input plus a hidden layer, x A + b + relu(x H + h) O, scaled to length
    1. Members may differ by their random start only, or by what they know: a label bridge beside a trained head.
    """

    inputs: Sequence[HeadInput]
    tensors: Tensors

    def __post_init__(self) -> None:
        """Check the tensors.

        Raises:
            ValueError: If one is missing, is not finite, or does not fit the others.
        """
        check_tensors(self.tensors)

    @property
    def width(self) -> int:
        """Numbers of the input."""
        return len(self.tensors["mean"])

    @property
    def dim(self) -> int:
        """Numbers of a vector."""
        return len(self.tensors["centre"])

    def __call__(self, features: Features, /) -> Vectors:
        """Return unit vectors, shape (n, d).

        Raises:
            ValueError: If the features lack an input, or have another width.
        """
        given = joined(features, self.inputs)
        if given.shape[1] != self.width:
            raise ValueError(f"the head takes {self.width} numbers, the backbone gives {given.shape[1]}")
        return unit_rows(self.plain(given) - self.tensors["centre"])

    def plain(self, given: NDArray[np.float32]) -> Vectors:
        """Return vectors before centring, of inputs (n, width)."""
        x = (given - self.tensors["mean"]) / self.tensors["scale"]
        return self.plain_of_standard(np.clip(x, -LARGEST_INPUT, LARGEST_INPUT))

    def plain_of_standard(self, x: NDArray[np.float32]) -> Vectors:
        """Return vectors before centring, of standardised inputs (n, width)."""
        t = self.tensors
        members = []
        for member in range(len(t["linear.weight"])):
            y = x @ t["linear.weight"][member] + t["linear.bias"][member]
            if "hidden.weight" in t:
                hidden = np.maximum(x @ t["hidden.weight"][member] + t["hidden.bias"][member], 0)
                y = y + hidden @ t["out.weight"][member]
            members.append(unit_rows(y))
        if MEMBER_WEIGHTS in t:  # a weight of a cosine is the square of one of a vector
            members = [np.sqrt(w) * v for w, v in zip(t[MEMBER_WEIGHTS], members, strict=True)]
        return unit_rows(np.concatenate(members, axis=1))


def joined(features: Features, inputs: Sequence[HeadInput]) -> NDArray[np.float32]:
    """Put the inputs of a head side by side, shape (n, width).

    Raises:
        ValueError: If the features lack one.
    """
    parts = []
    for each in inputs:
        if each.name == POOLED:
            parts.append(features.pooled)
        elif each.name == UNIT:
            parts.append(unit_rows(features.pooled))
        elif each.name in features.layers:
            parts.append(features.layers[each.name])
        elif each.name not in features.logits:
            known = ", ".join((*features.layers, *features.logits)) or "nothing but pooled features"
            raise ValueError(f"the head needs '{each.name}', the backbone has {known}")
        elif each.temperature is None:
            parts.append(features.logits[each.name])
        else:
            parts.append(softmax(features.logits[each.name] / np.float32(each.temperature)))
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)


def check_tensors(tensors: Tensors) -> None:
    """Refuse tensors that are no head.

    Raises:
        ValueError: If one is missing, is not finite, or does not fit the others.
    """
    check_shapes({name: tensor.shape for name, tensor in tensors.items()})
    for name, tensor in tensors.items():
        if not np.isfinite(tensor).all():
            raise ValueError(f"a head's {name} holds NaN or infinity")
    for name in {"scale", MEMBER_WEIGHTS} & set(tensors):
        if not (tensors[name] > 0).all():
            raise ValueError(f"a head's {name} must be above 0")


def check_shapes(found: Mapping[str, tuple[int, ...]]) -> int:
    """Refuse shapes of tensors that are no head, before they are read.

    Returns:
        How many numbers a vector of the head has.

    Raises:
        ValueError: If one is missing, is not known, or does not fit the others.
    """
    wanted = {"mean", "scale", "centre", "linear.weight", "linear.bias"}
    if missing := sorted(wanted - set(found)):
        raise ValueError(f"a head needs tensors {', '.join(missing)}, it has {', '.join(sorted(found)[:9]) or 'none'}")
    if len(found["linear.weight"]) != 3 or 0 in found["linear.weight"]:
        raise ValueError(f"a head's linear.weight must have shape (members, width, dim), got {found['linear.weight']}")
    members, width, each = found["linear.weight"]
    shapes: dict[str, tuple[int, ...]] = {"mean": (width,), "scale": (width,), "centre": (members * each,)}
    shapes |= {"linear.weight": (members, width, each), "linear.bias": (members, each)}
    if "hidden.weight" in found:
        hidden = found["hidden.weight"][-1] if found["hidden.weight"] else 0
        shapes |= {"hidden.weight": (members, width, hidden), "hidden.bias": (members, hidden)}
        shapes["out.weight"] = (members, hidden, each)
    if MEMBER_WEIGHTS in found:
        shapes[MEMBER_WEIGHTS] = (members,)
    for name, shape in shapes.items():
        if found.get(name) != shape:
            raise ValueError(f"a head's {name} must have shape {shape}, got {found.get(name, 'none')}")
    return members * each
