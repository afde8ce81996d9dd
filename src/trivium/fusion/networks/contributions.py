"""What each modality added to each prediction: the prediction less the one made without it."""

import torch
from torch import Tensor

from trivium.fusion.networks.contract import Fusion, Inputs, Masks


def contributions(fusion: Fusion, inputs: Inputs, masks: Masks | None = None) -> dict[str, Tensor]:
    """Leave out one modality after the other.

    No approximation: each is two passes of the fusion. They add up to the prediction only where the fusion is a sum.

    Args:
        fusion: In evaluation mode, if it has dropout.
        inputs: As the fusion takes them.
        masks: As the fusion takes them.

    Returns:
        f(all) - f(all but i) of each modality that is given, shape (n, dim): zeros where it is missing, and NaN where
        it is the only one, for then there is nothing to compare with.
    """
    masks = masks or {}
    there = {
        name: masks[name] if name in masks else torch.ones(given.shape[:-1], dtype=torch.bool, device=given.device)
        for name, given in inputs.items()
    }
    has = {name: mask if mask.dim() == 1 else mask.any(dim=1) for name, mask in there.items()}
    with torch.no_grad():
        whole = fusion(inputs, there)
        found = {}
        for name in inputs:
            others = [has[other] for other in inputs if other != name]
            alone = has[name] & ~torch.stack(others).any(dim=0) if others else has[name]
            hidden = has[name] & ~alone  # a row that has nothing else keeps it, for the pass
            keeps = ~hidden if there[name].dim() == 1 else ~hidden.unsqueeze(1)
            added = whole - fusion(inputs, {**there, name: there[name] & keeps})
            found[name] = added.masked_fill(alone.unsqueeze(1), torch.nan)
    return found
