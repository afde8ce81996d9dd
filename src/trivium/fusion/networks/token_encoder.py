"""A small Transformer encoder over all modalities' tokens, one sequence after the other."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from trivium.fusion.networks.attention import TransformerLayer
from trivium.fusion.networks.contract import Inputs, Masks, check_dim, checked, known_widths


class TokenEncoder(nn.Module):
    """S_0 = [c; P_i x_i,t + e_i + o_t for every modality i and place t];  S_l = layer_l(S_l-1);  y = norm(S_L)[c].

    c is a class token, e_i say which modality and o_t which place in its sequence. Padding is not seen.

    Source:
        Vaswani et al. 2017; one sequence of several modalities after Li et al., "VisualBERT", 2019.
    """

    def __init__(
        self,
        widths: Mapping[str, int],
        *,
        dim: int,
        layers: int = 2,
        heads: int = 4,
        max_tokens: int = 256,
        dropout: float = 0.0,
    ) -> None:
        """Make the encoder.

        Args:
            widths: Of the modalities.
            dim: Width of its tokens and of a fused vector.
            layers: How many.
            heads: Of each layer.
            max_tokens: The longest sequence of one modality.
            dropout: Share of numbers that a pass of training leaves out.
        """
        super().__init__()
        self.widths = known_widths(widths)
        self.modalities = tuple(self.widths)
        self.dim = check_dim(dim)
        self.max_tokens = max_tokens
        self.projections = nn.ModuleDict({name: nn.Linear(width, dim) for name, width in self.widths.items()})
        # 0.02: Devlin et al. 2019
        self.kinds = nn.ParameterDict({name: nn.Parameter(0.02 * torch.randn(dim)) for name in self.widths})
        self.places = nn.Parameter(0.02 * torch.randn(max_tokens, dim))
        self.class_token = nn.Parameter(0.02 * torch.randn(dim))
        self.layers = nn.ModuleList(TransformerLayer(dim, heads=heads, dropout=dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(dim)

    def forward(self, inputs: Inputs, masks: Masks | None = None) -> Tensor:
        """Fuse sequences or vectors; see `Fusion`.

        Raises:
            ValueError: Also if a sequence is longer than ``max_tokens``.
        """
        given = checked(inputs, masks, self.widths)
        n = len(next(iter(given.tokens.values())))
        parts = [self.class_token.expand(n, 1, -1)]
        for name in self.modalities:
            t = given.tokens[name].shape[1]
            if t > self.max_tokens:
                raise ValueError(f"'{name}' has {t} tokens, this fusion takes at most {self.max_tokens}")
            parts.append(self.projections[name](given.tokens[name]) + self.kinds[name] + self.places[:t])
        tokens = torch.cat(parts, dim=1)  # (n, 1 + all tokens, d)
        is_class = torch.ones(n, 1, dtype=torch.bool, device=tokens.device)
        mask = torch.cat([is_class, *given.masks.values()], dim=1)
        for layer in self.layers:
            tokens = layer(tokens, mask)
        fused: Tensor = self.norm(tokens[:, 0])
        return fused
