"""Batch normalisation folded into the convolutions before it: one read and write of every activation less."""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

Convolution = nn.Conv1d | nn.Conv2d
BatchNorm = nn.BatchNorm1d | nn.BatchNorm2d
TOLERANCE = 1e-4  # of the largest number; 2e-6 was seen


def folded(module: nn.Module, examples: Sequence[Tensor]) -> nn.Module:
    """Return a copy in which batch normalisations that take what a convolution gave are part of it.

    Which do is seen in a run of the examples. What follows a normalisation in the same object, as an activation does in
    timm's, stays.

    Args:
        module: In evaluation mode, weights in float32.
        examples: What it takes.

    Returns:
        The copy; the module itself if there is nothing to fold, or if the copy computes something else.
    """
    copied = copy.deepcopy(module)
    pairs = _pairs(copied, examples)
    if not pairs:
        return module
    parents = {child: (parent, name) for parent in copied.modules() for name, child in parent.named_children()}
    for convolution, norm in pairs:
        parent, name = parents[convolution]
        setattr(parent, name, fuse_conv_bn_eval(convolution, norm))
        parent, name = parents[norm]
        setattr(parent, name, _what_follows(norm))
    with torch.inference_mode():
        before, after = module(*examples), copied(*examples)
    # A convolution's output may be used where no module sees it, in a sum for instance: then the two differ by far.
    is_same = all(
        float((a - b).abs().max()) <= TOLERANCE * max(1.0, float(a.abs().max()))
        for a, b in zip(before, after, strict=True)
    )
    return copied if is_same else module


def _pairs(module: nn.Module, examples: Sequence[Tensor]) -> list[tuple[Convolution, BatchNorm]]:
    made: dict[int, tuple[Tensor, nn.Module]] = {}  # the tensor is kept, so that its id is not used again
    takers: dict[nn.Module, set[nn.Module]] = {}
    makers: dict[nn.Module, set[nn.Module]] = {}

    def seen(user: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        for tensor in inputs:
            if id(tensor) in made:
                takers.setdefault(made[id(tensor)][1], set()).add(user)
                makers.setdefault(user, set()).add(made[id(tensor)][1])
        if isinstance(user, Convolution) and isinstance(output, Tensor):
            made[id(output)] = (output, user)

    leaves = [child for child in module.modules() if isinstance(child, BatchNorm) or not list(child.children())]
    hooks = [leaf.register_forward_hook(seen) for leaf in leaves]
    try:
        with torch.inference_mode():
            module(*examples)
    finally:
        for hook in hooks:
            hook.remove()
    return [
        (convolution, norm)
        for convolution, users in takers.items()
        for norm in users
        if isinstance(convolution, Convolution)
        and isinstance(norm, BatchNorm)
        and norm.running_mean is not None
        and len(users) == len(makers[norm]) == 1
    ]


def _what_follows(norm: nn.Module) -> nn.Module:
    parts = [part for name in ("drop", "act") if isinstance(part := getattr(norm, name, None), nn.Module)]
    parts = [part for part in parts if not isinstance(part, nn.Identity)]
    return nn.Sequential(*parts) if parts else nn.Identity()
