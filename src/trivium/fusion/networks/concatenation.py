"""Concatenation: all modalities side by side, then one linear map."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from trivium.fusion.networks.contract import Inputs, Masks, check_dim, checked, known_widths


class Concatenation(nn.Module):
    """y = W [x_1; ...; x_m] + b, where a missing x_i is a vector e_i that is learned.

    Source:
        "Early fusion" in Baltrušaitis, Ahuja, Morency, "Multimodal Machine Learning: A Survey and Taxonomy", 2019.
        The learned stand-in of what is missing is ours; it starts as zeros.
    """

    def __init__(self, widths: Mapping[str, int], *, dim: int) -> None:
        """Make the map from the modalities' widths to ``dim`` numbers."""
        super().__init__()
        self.widths = known_widths(widths)
        self.modalities = tuple(self.widths)
        self.dim = check_dim(dim)
        self.absent = nn.ParameterDict({name: nn.Parameter(torch.zeros(d)) for name, d in self.widths.items()})
        self.linear = nn.Linear(sum(self.widths.values()), dim)

    def forward(self, inputs: Inputs, masks: Masks | None = None) -> Tensor:
        """Fuse vectors, or the means of sequences; see `Fusion`."""
        given = checked(inputs, masks, self.widths)
        vectors, presence = given.vectors, given.presence
        parts = [torch.where(presence[m].unsqueeze(1), vectors[m], self.absent[m]) for m in self.modalities]
        fused: Tensor = self.linear(torch.cat(parts, dim=1))  # (n, dim)
        return fused
