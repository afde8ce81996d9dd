"""Frozen networks as functions of NumPy arrays: what they are made of, and what running one promises."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

Arrays: TypeAlias = tuple[NDArray[Any], ...]
DeviceKind: TypeAlias = Literal["cpu", "gpu"]
Precision: TypeAlias = Literal["float32", "int8"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """A network that torch builds, and what is needed to export it."""

    name: str  # changes with the weights
    # Takes and returns tensors; the first axis of each is the batch. Building it checks the weights' content.
    build: "Callable[[], torch.nn.Module]"
    inputs: Mapping[str, Mapping[int, str]]  # name -> the axes whose length varies, and what they count
    outputs: Sequence[str]
    examples: Callable[[], Sequence[NDArray[np.generic]]]  # what to trace and to compare with
    longest: int | None = None  # of the second axis where it varies; zeros may be added up to it
    is_public: bool = False  # made of weights that anyone may have; else its graph is for its owner alone


def device_kind(device: str) -> DeviceKind:
    """Whether a device's batches are a processor's or a GPU's."""
    return "cpu" if device.startswith("cpu") else "gpu"


class Network(Protocol):
    """What a backbone runs its batches through; safe to call from several threads."""

    @property
    def device(self) -> str:
        """Where it runs."""
        ...

    def __call__(self, *inputs: NDArray[Any]) -> Arrays:
        """One forward pass: arrays whose first axis is the batch, in and out; float32 out."""
        ...
