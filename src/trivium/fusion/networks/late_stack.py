"""Late fusion by stacking: a classifier over what each modality's own classifier says."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from trivium.fusion.networks.contract import Inputs, Masks, check_dim, checked, known_widths


class LateStack(nn.Module):
    """y = softmax(sum_i p_i U_i log softmax(W_i x_i + b_i) + c), with p_i 1 where modality i is there and 0 if not.

    The output are probabilities of ``dim`` classes. U_i start as identity: the product of the probabilities.

    Source:
        Wolpert, "Stacked Generalization", 1992; the product rule it starts from: Kittler et al. 1998.
    """

    def __init__(self, widths: Mapping[str, int], *, dim: int) -> None:
        """Make a classifier of ``dim`` classes for each modality, and the one over them."""
        super().__init__()
        self.widths = known_widths(widths)
        self.modalities = tuple(self.widths)
        self.dim = check_dim(dim)
        self.classifiers = nn.ModuleDict({name: nn.Linear(width, dim) for name, width in self.widths.items()})
        self.mixing = nn.ParameterDict({name: nn.Parameter(torch.eye(dim)) for name in self.widths})
        self.bias = nn.Parameter(torch.zeros(dim))

    def forward(self, inputs: Inputs, masks: Masks | None = None) -> Tensor:
        """Return probabilities, shape (n, dim); see `Fusion`."""
        given = checked(inputs, masks, self.widths)
        vectors, presence = given.vectors, given.presence
        scores = self.bias.expand(len(next(iter(vectors.values()))), -1)
        for name in self.modalities:
            said = self.classifiers[name](vectors[name]).log_softmax(dim=1) @ self.mixing[name]
            scores = scores + torch.where(presence[name].unsqueeze(1), said, 0)
        return scores.softmax(dim=1)
