"""Weighted mean: vectors of one space, each modality counting as much as it learned to."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from trivium.fusion.networks.contract import Inputs, Masks, checked, known_widths


class WeightedMean(nn.Module):
    """y = sum_i p_i exp(a_i) x_i / sum_i p_i exp(a_i), where p_i is 1 if modality i is there and 0 if not.

    All modalities have one width, as the vectors of a space have. It starts as the plain mean.

    Source:
        Softmax weights over modalities, as in Kiela, Wang, Cho, "Dynamic Meta-Embeddings for Improved Sentence
        Representations", 2018 (there from the input; here one weight a modality).
    """

    def __init__(self, modalities: Sequence[str], *, dim: int) -> None:
        """Name the modalities, each of width ``dim``.

        Raises:
            ValueError: If one is named twice, or there is none.
        """
        super().__init__()
        if len(set(modalities)) != len(modalities):
            raise ValueError(f"a modality is named twice: {', '.join(modalities)}")
        self.widths = known_widths(dict.fromkeys(modalities, dim))
        self.modalities = tuple(self.widths)
        self.dim = dim
        self.log_weights = nn.Parameter(torch.zeros(len(self.modalities)))

    def forward(self, inputs: Inputs, masks: Masks | None = None) -> Tensor:
        """Fuse vectors, or the means of sequences; see `Fusion`."""
        given = checked(inputs, masks, self.widths)
        vectors = torch.stack(list(given.vectors.values()), dim=1)  # (n, m, d)
        presence = torch.stack(list(given.presence.values()), dim=1)  # (n, m)
        weights = self.log_weights.masked_fill(~presence, -torch.inf).softmax(dim=1)
        return torch.einsum("nm,nmd->nd", weights, vectors)
