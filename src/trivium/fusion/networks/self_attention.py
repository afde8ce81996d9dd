"""Self-attention over modalities: a class token asks what each of them has to say."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from trivium.fusion.networks.attention import attend
from trivium.fusion.networks.contract import Inputs, Masks, check_dim, checked, known_widths


class SelfAttention(nn.Module):
    """S = [c; P_1 x_1 + e_1; ...; P_m x_m + e_m];  Y = softmax(Q K^T / sqrt(d)) V + S;  y is the row of c.

    Q, K and V are linear maps of S, without biases; c is a class token and e_i say which modality a token is. Keys of
    missing modalities are not seen.

    Source:
        Vaswani et al., "Attention Is All You Need", NeurIPS 2017 (one head, with the residual); the class token after
        Devlin et al., "BERT", NAACL 2019.
    """

    def __init__(self, widths: Mapping[str, int], *, dim: int) -> None:
        """Make the maps from the modalities' widths to tokens of ``dim`` numbers."""
        super().__init__()
        self.widths = known_widths(widths)
        self.modalities = tuple(self.widths)
        self.dim = check_dim(dim)
        self.projections = nn.ModuleDict({name: nn.Linear(width, dim) for name, width in self.widths.items()})
        # 0.02: Devlin et al. 2019
        self.kinds = nn.ParameterDict({name: nn.Parameter(0.02 * torch.randn(dim)) for name in self.widths})
        self.class_token = nn.Parameter(0.02 * torch.randn(dim))
        scale = 1 / math.sqrt(dim)
        self.query = nn.Parameter(scale * torch.randn(dim, dim))
        self.key = nn.Parameter(scale * torch.randn(dim, dim))
        self.value = nn.Parameter(scale * torch.randn(dim, dim))

    def forward(self, inputs: Inputs, masks: Masks | None = None) -> Tensor:
        """Fuse vectors, or the means of sequences; see `Fusion`."""
        given = checked(inputs, masks, self.widths)
        vectors, presence = given.vectors, given.presence
        n = len(next(iter(vectors.values())))
        tokens = torch.stack(
            [
                self.class_token.expand(n, -1),
                *(self.projections[m](vectors[m]) + self.kinds[m] for m in self.modalities),
            ],
            dim=1,
        )  # (n, 1 + m, d)
        is_there = torch.stack([torch.ones_like(presence[self.modalities[0]]), *presence.values()], dim=1)
        asking = (tokens[:, :1] @ self.query).unsqueeze(1)  # only the class token's row is wanted: (n, 1, 1, d)
        keys, values = (tokens @ self.key).unsqueeze(1), (tokens @ self.value).unsqueeze(1)  # (n, 1, 1 + m, d)
        found = attend(asking, keys, values, is_there)
        return found[:, 0, 0] + self.class_token
