"""What every fusion promises: several modalities' vectors or sequences in, one vector a row out.

    fusion = GatedUnits({"text": 384, "image": 1280}, dim=64)
    fused = fusion({"text": texts, "image": photos}, {"image": has_photo})  # (n, 64)

A fusion knows its modalities from construction and takes them in the order of their names, so neither the order at
construction nor that of a call matters. Any modality may be missing in any row. It is missing where its mask says so,
or in all rows if it is not given at all; what stands in its place is never looked at, NaN included. A row that has
nothing is an error: no vector would be true of it.

Letters in shapes: n rows, t tokens of a sequence, d width, m modalities, h heads.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor, nn

# Of each modality (n, d) or (n, t, d). Names are any words; those of `encoders.base.Modality` in Trivium itself.
Inputs: TypeAlias = Mapping[str, Tensor]
# Of each modality, what is there: bool, (n,) of vectors and (n, t) of sequences. All is, where none is given.
Masks: TypeAlias = Mapping[str, Tensor]


class Fusion(nn.Module):
    """A map from several modalities to one vector a row.

    Called with inputs and masks, it returns fused vectors, shape (n, dim). See `checked` for what it refuses.
    """

    def __init__(self, widths: Mapping[str, int], *, dim: int) -> None:
        """Keep the widths of the modalities in the order of their names, and that of fused vectors.

        Raises:
            ValueError: If there is no modality, or a width or ``dim`` is below 1.
        """
        super().__init__()
        if not widths:
            raise ValueError("a fusion needs at least one modality, got none")
        for name, width in widths.items():
            if width < 1:
                raise ValueError(f"the width of '{name}' must be at least 1, got {width}")
        if dim < 1:
            raise ValueError(f"dim must be at least 1, got {dim}")
        self.widths = dict(sorted(widths.items()))
        self.modalities = tuple(self.widths)
        self.dim = dim


@dataclass(frozen=True, slots=True)
class Checked:
    """Inputs of known shape, in the order of the modalities; zeros where nothing is."""

    tokens: dict[str, Tensor]  # (n, t, d); t is 1 of vectors
    masks: dict[str, Tensor]  # (n, t)

    @property
    def vectors(self) -> dict[str, Tensor]:
        """One vector a row of each modality, (n, d): the mean of its tokens, zeros where it is missing."""
        return {
            name: tokens.sum(dim=1) / self.masks[name].sum(dim=1, keepdim=True).clamp(min=1)
            for name, tokens in self.tokens.items()
        }

    @property
    def presence(self) -> dict[str, Tensor]:
        """Whether a row has any token of a modality, (n,)."""
        return {name: mask.any(dim=1) for name, mask in self.masks.items()}


def checked(inputs: Inputs, masks: Masks | None, widths: Mapping[str, int]) -> Checked:
    """Check what a fusion is given, and put zeros where something is missing.

    Args:
        inputs: See `Inputs`.
        masks: See `Masks`.
        widths: Of each modality, as `Fusion` has them.

    Raises:
        ValueError: If a modality is not known, a shape does not fit, or a row has no modality at all.
    """
    masks = masks or {}
    for kind, names in (("an input", inputs), ("a mask", masks)):
        if unknown := sorted(set(names) - set(widths)):
            raise ValueError(f"{kind} is given for '{unknown[0]}', this fusion knows {', '.join(widths)}")
    if without := sorted(set(masks) - set(inputs)):
        raise ValueError(f"a mask is given for '{without[0]}', but no input")
    if not inputs:
        raise ValueError(f"no input is given, at least one of {', '.join(widths)} is needed")
    first = next(name for name in widths if name in inputs)
    example = inputs[first]
    n = len(example) if example.dim() else 0
    tokens, found = {}, {}
    for name, width in widths.items():
        given = inputs.get(name)
        if given is None:
            tokens[name] = example.new_zeros(n, 1, width)
            found[name] = torch.zeros(n, 1, dtype=torch.bool, device=example.device)
            continue
        if given.dim() not in (2, 3) or given.shape[-1] != width:
            raise ValueError(f"'{name}' must have shape (n, {width}) or (n, t, {width}), got {tuple(given.shape)}")
        if len(given) != n:
            raise ValueError(f"'{name}' has {len(given)} rows, '{first}' has {n}")
        mask = masks.get(name)
        if mask is None:
            mask = torch.ones(given.shape[:-1], dtype=torch.bool, device=given.device)
        elif mask.dtype != torch.bool or mask.shape != given.shape[:-1]:
            wanted = tuple(given.shape[:-1])
            raise ValueError(f"the mask of '{name}' must be bool {wanted}, got {mask.dtype} {tuple(mask.shape)}")
        if given.dim() == 2:
            given, mask = given.unsqueeze(1), mask.unsqueeze(1)
        tokens[name] = torch.where(mask.unsqueeze(-1), given, 0)  # not a product: NaN times 0 is NaN
        found[name] = mask
    has_any = torch.stack([mask.any(dim=1) for mask in found.values()]).any(dim=0)  # (n,)
    if not bool(has_any.all()):
        empty = torch.nonzero(~has_any).flatten()
        raise ValueError(f"{len(empty)} of {n} rows have no modality at all, the first is row {int(empty[0])}")
    return Checked(tokens, found)


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
