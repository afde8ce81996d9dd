"""Fusions of one vector a modality: side by side, gated, multiplied, or late, as classifiers that are combined."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from trivium.fusion.networks.contract import Fusion, Inputs, Masks, checked


class Concatenation(Fusion):
    """y = W [x_1; ...; x_m] + b, where a missing x_i is a vector e_i that is learned.

    Source:
        "Early fusion" in Baltrušaitis, Ahuja, Morency, "Multimodal Machine Learning: A Survey and Taxonomy", 2019.
        The learned stand-in of what is missing is ours; it starts as zeros.
    """

    def __init__(self, widths: Mapping[str, int], *, dim: int) -> None:
        """Make the map from the modalities' widths to ``dim`` numbers."""
        super().__init__(widths, dim=dim)
        self.absent = nn.ParameterDict({name: nn.Parameter(torch.zeros(d)) for name, d in self.widths.items()})
        self.linear = nn.Linear(sum(self.widths.values()), dim)

    def forward(self, inputs: Inputs, masks: Masks | None = None) -> Tensor:
        """Fuse vectors, or the means of sequences; see `Fusion`."""
        given = checked(inputs, masks, self.widths)
        vectors, presence = given.vectors, given.presence
        parts = [torch.where(presence[m].unsqueeze(1), vectors[m], self.absent[m]) for m in self.modalities]
        fused: Tensor = self.linear(torch.cat(parts, dim=1))  # (n, dim)
        return fused


class GatedUnits(Fusion):
    """h_i = tanh(W_i x_i + b_i);  z_i = sigmoid(V_i [x_1; ...; x_m] + c_i);  y = sum_i p_i z_i * h_i.

    p_i is 1 if modality i is there and 0 if not; a missing one is zeros to the gates of the others.

    Source:
        Arevalo, Solorio, Montes-y-Gómez, González, "Gated Multimodal Units for Information Fusion", 2017, the unit for
        more than two modalities (its figure 2a); the biases are ours.
    """

    def __init__(self, widths: Mapping[str, int], *, dim: int) -> None:
        """Make the units of each modality and their gates, ``dim`` numbers each."""
        super().__init__(widths, dim=dim)
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


class LowRankTensor(Fusion):
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
        super().__init__(widths, dim=dim)
        if rank < 1:
            raise ValueError(f"rank must be at least 1, got {rank}")
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


class LateAverage(Fusion):
    """y = sum_i p_i w_i softmax(W_i x_i + b_i) / sum_i p_i w_i, with w_i = exp(a_i) and p_i 1 where i is there.

    The output are probabilities of ``dim`` classes, not scores.

    Source:
        Kittler, Hatef, Duin, Matas, "On Combining Classifiers", 1998 (the sum rule), with a weight a modality.
    """

    def __init__(self, widths: Mapping[str, int], *, dim: int) -> None:
        """Make a classifier of ``dim`` classes for each modality."""
        super().__init__(widths, dim=dim)
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


class LateStack(Fusion):
    """y = softmax(sum_i p_i U_i log softmax(W_i x_i + b_i) + c), with p_i 1 where modality i is there and 0 if not.

    The output are probabilities of ``dim`` classes. U_i start as identity: the product of the probabilities.

    Source:
        Wolpert, "Stacked Generalization", 1992; the product rule it starts from: Kittler et al. 1998.
    """

    def __init__(self, widths: Mapping[str, int], *, dim: int) -> None:
        """Make a classifier of ``dim`` classes for each modality, and the one over them."""
        super().__init__(widths, dim=dim)
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
