"""Gated units: each modality says something, and all of them decide how much of it is taken."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from trivium.fusion.networks.contract import Inputs, Masks, check_dim, checked, known_widths


class GatedUnits(nn.Module):
    """h_i = tanh(W_i x_i + b_i);  z_i = sigmoid(V_i [x_1; ...; x_m] + c_i);  y = sum_i p_i z_i * h_i.

    p_i is 1 if modality i is there and 0 if not; a missing one is zeros to the gates of the others.

    Source:
        Arevalo, Solorio, Montes-y-Gómez, González, "Gated Multimodal Units for Information Fusion", 2017, the unit for
        more than two modalities (its figure 2a); the biases are ours.
    """

    def __init__(self, widths: Mapping[str, int], *, dim: int) -> None:
        """Make the units of each modality and their gates, ``dim`` numbers each."""
        super().__init__()
        self.widths = known_widths(widths)
        self.modalities = tuple(self.widths)
        self.dim = check_dim(dim)
        total = sum(self.widths.values())
        self.units = nn.ModuleDict({name: nn.Linear(width, dim) for name, width in self.widths.items()})
        self.gates = nn.ModuleDict({name: nn.Linear(total, dim) for name in self.widths})

    def forward(self, inputs: Inputs, masks: Masks | None = None) -> Tensor:
        """Fuse vectors, or the means of sequences; see `Fusion`."""
        given = checked(inputs, masks, self.widths)
        vectors, presence = given.vectors, given.presence
        together = torch.cat(list(vectors.values()), dim=1)  # (n, sum of widths)
        fused = together.new_zeros(len(together), self.dim)
        for name in self.modalities:
            said = torch.tanh(self.units[name](vectors[name])) * torch.sigmoid(self.gates[name](together))
            fused = fused + torch.where(presence[name].unsqueeze(1), said, 0)
        return fused
