"""Late fusion by averaging: each modality has a classifier of its own, and their probabilities are averaged."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from trivium.fusion.networks.contract import Inputs, Masks, check_dim, checked, known_widths


class LateAverage(nn.Module):
    """y = sum_i p_i w_i softmax(W_i x_i + b_i) / sum_i p_i w_i, with w_i = exp(a_i) and p_i 1 where i is there.

    The output are probabilities of ``dim`` classes, not scores.

    Source:
        Kittler, Hatef, Duin, Matas, "On Combining Classifiers", 1998 (the sum rule), with a weight a modality.
    """

    def __init__(self, widths: Mapping[str, int], *, dim: int) -> None:
        """Make a classifier of ``dim`` classes for each modality."""
        super().__init__()
        self.widths = known_widths(widths)
        self.modalities = tuple(self.widths)
        self.dim = check_dim(dim)
        self.classifiers = nn.ModuleDict({name: nn.Linear(width, dim) for name, width in self.widths.items()})
        self.log_weights = nn.Parameter(torch.zeros(len(self.modalities)))

    def forward(self, inputs: Inputs, masks: Masks | None = None) -> Tensor:
        """Return probabilities, shape (n, dim); see `Fusion`."""
        given = checked(inputs, masks, self.widths)
        vectors = given.vectors
        said = torch.stack([self.classifiers[m](vectors[m]).softmax(dim=1) for m in self.modalities], dim=1)
        presence = torch.stack(list(given.presence.values()), dim=1)  # (n, m)
        weights = self.log_weights.masked_fill(~presence, -torch.inf).softmax(dim=1)
        return torch.einsum("nm,nmc->nc", weights, said)
