"""Low-rank tensor fusion: products of all modalities' numbers, without the tensor that holds them."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from trivium.fusion.networks.contract import Inputs, Masks, check_dim, checked, known_widths


class LowRankTensor(nn.Module):
    """y = sum_r u_r prod_i (W_i,r [x_i; 1]) + b, the product over modalities taken number by number.

    The 1 lets products of fewer modalities, and single numbers, take part. A missing modality is [0; 1]: what is left
    are the products of the others.

    Source:
        Liu, Shen, Lakshminarasimhan, Liang, Zadeh, Morency, "Efficient Low-rank Multimodal Fusion with
        Modality-Specific Factors", ACL 2018; the weights u_r of the ranks as in its authors' program.
    """

    def __init__(self, widths: Mapping[str, int], *, dim: int, rank: int = 4) -> None:
        """Make the factors.

        Args:
            widths: Of the modalities.
            dim: Numbers of a fused vector.
            rank: How many products are added up.

        Raises:
            ValueError: If the rank is below 1.
        """
        super().__init__()
        if rank < 1:
            raise ValueError(f"rank must be at least 1, got {rank}")
        self.widths = known_widths(widths)
        self.modalities = tuple(self.widths)
        self.dim = check_dim(dim)
        # So that a factor of standardised numbers has a deviation of about 1, and so have products.
        self.factors = nn.ParameterDict(
            {
                name: nn.Parameter(torch.randn(rank, width + 1, dim) / math.sqrt(width + 1))
                for name, width in self.widths.items()
            }
        )
        self.rank_weights = nn.Parameter(torch.full((rank,), 1 / math.sqrt(rank)))
        self.bias = nn.Parameter(torch.zeros(dim))

    def forward(self, inputs: Inputs, masks: Masks | None = None) -> Tensor:
        """Fuse vectors, or the means of sequences; see `Fusion`."""
        vectors = checked(inputs, masks, self.widths).vectors
        product: Tensor | None = None
        for name in self.modalities:
            factor = self.factors[name]
            part = torch.einsum("nd,rdo->rno", vectors[name], factor[:, :-1]) + factor[:, -1:]  # (rank, n, dim)
            product = part if product is None else product * part
        assert product is not None  # there is at least one modality
        return torch.einsum("r,rno->no", self.rank_weights, product) + self.bias
