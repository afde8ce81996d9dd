"""Modality dropout: training forgets modalities now and then, so that a fusion learns to do without them."""

import torch
from torch import Tensor

from trivium.fusion.networks.contract import Masks


def drop_modalities(presence: Masks, *, share: float, generator: torch.Generator | None = None) -> dict[str, Tensor]:
    """Hide each modality of each row with a probability, and never the last one that a row has.

    Args:
        presence: What is there, bool (n,) of each modality.
        share: The probability, from 0 up to 1 (not 1).
        generator: Of random numbers; torch's own if None.

    Returns:
        What is left, bool (n,) of each modality. A row that would have lost everything keeps all it had.

    Raises:
        ValueError: If the share is not in range.

    Source:
        Neverova, Wolf, Taylor, Nebout, "ModDrop: Adaptive Multi-modal Gesture Recognition", 2016.
    """
    if not 0 <= share < 1:
        raise ValueError(f"share must be at least 0 and below 1, got {share}")
    names = sorted(presence)
    there = torch.stack([presence[name] for name in names])  # (m, n)
    kept = there & (torch.rand(there.shape, generator=generator, device=there.device) >= share)
    kept = torch.where(kept.any(dim=0), kept, there)
    return dict(zip(names, kept, strict=True))
