"""Bottleneck tokens: modalities talk to each other through a few tokens only."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from trivium.fusion.networks.attention import TransformerLayer
from trivium.fusion.networks.contract import Inputs, Masks, check_dim, checked, known_widths


class Bottleneck(nn.Module):
    """[z_i; b_i] <- layer_i([z_i; b]) for every modality i;  b <- mean_i b_i;  y = norm(mean_i z_i[c]).

    z_i are a class token and the modality's own tokens, b a few tokens that all share. Both means are over the
    modalities that a row has: a missing one says nothing.

    Source:
        Nagrani, Yang, Arnab, Jansen, Schmid, Sun, "Attention Bottlenecks for Multimodal Fusion", NeurIPS 2021,
        equations 8 and 9; there the classes' scores are averaged, here the class tokens.
    """

    def __init__(
        self,
        widths: Mapping[str, int],
        *,
        dim: int,
        tokens: int = 4,
        layers: int = 2,
        heads: int = 4,
        dropout: float = 0.0,
    ) -> None:
        """Make the layers.

        Args:
            widths: Of the modalities.
            dim: Width of the tokens and of a fused vector.
            tokens: How many all modalities share; 4 in the paper.
            layers: How many, each with weights of its own for every modality.
            heads: Of each layer.
            dropout: Share of numbers that a pass of training leaves out.

        Raises:
            ValueError: If there are no shared tokens.
        """
        super().__init__()
        if tokens < 1:
            raise ValueError(f"tokens must be at least 1, got {tokens}")
        self.widths = known_widths(widths)
        self.modalities = tuple(self.widths)
        self.dim = check_dim(dim)
        self.projections = nn.ModuleDict({name: nn.Linear(width, dim) for name, width in self.widths.items()})
        # 0.02: Nagrani et al. 2021
        self.class_tokens = nn.ParameterDict({name: nn.Parameter(0.02 * torch.randn(dim)) for name in self.widths})
        self.shared = nn.Parameter(0.02 * torch.randn(tokens, dim))
        self.layers = nn.ModuleList(
            nn.ModuleDict({name: TransformerLayer(dim, heads=heads, dropout=dropout) for name in self.widths})
            for _ in range(layers)
        )
        self.norm = nn.LayerNorm(dim)

    def forward(self, inputs: Inputs, masks: Masks | None = None) -> Tensor:
        """Fuse sequences or vectors; see `Fusion`. The order of a modality's tokens does not matter."""
        given = checked(inputs, masks, self.widths)
        presence = torch.stack(list(given.presence.values())).to(self.shared.dtype)  # (m, n)
        shares = (presence / presence.sum(dim=0))[:, :, None, None]  # (m, n, 1, 1)
        n, count = presence.shape[1], len(self.shared)
        always = torch.ones(n, 1, dtype=torch.bool, device=self.shared.device)
        own, seen = {}, {}
        for name in self.modalities:
            first = self.class_tokens[name].expand(n, 1, -1)
            own[name] = torch.cat([first, self.projections[name](given.tokens[name])], dim=1)  # (n, 1 + t, d)
            seen[name] = torch.cat([always, given.masks[name], always.expand(-1, count)], dim=1)
        shared = self.shared.expand(n, -1, -1)
        for layer in self.layers:
            said = []
            for name in self.modalities:
                mixed = layer[name](torch.cat([own[name], shared], dim=1), seen[name])  # type: ignore[index]
                own[name] = mixed[:, :-count]
                said.append(mixed[:, -count:])
            shared = (shares * torch.stack(said)).sum(dim=0)
        classes = torch.stack([own[name][:, 0] for name in self.modalities])  # (m, n, d)
        fused: Tensor = self.norm((shares[:, :, 0] * classes).sum(dim=0))
        return fused
