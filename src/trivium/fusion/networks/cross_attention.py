"""Cross-attention: each modality asks the others, and what all of them then say is averaged."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from trivium.fusion.networks.attention import Attention
from trivium.fusion.networks.contract import Inputs, Masks, check_dim, checked, known_widths


class CrossAttention(nn.Module):
    """s_i = P_i x_i + e_i;  u_i = s_i + attention_i(norm(s_i), norm([s_j for j other than i]));  y = norm(mean_i u_i).

    The mean is over the tokens of a modality, then over the modalities that a row has. A modality that is alone finds
    nothing in the others and stays what it is.

    Source:
        Tsai et al., "Multimodal Transformer for Unaligned Multimodal Language Sequences", ACL 2019 (crossmodal
        attention of pairs); Lu et al., "ViLBERT", NeurIPS 2019. One attention to all others instead of one a pair.
    """

    def __init__(self, widths: Mapping[str, int], *, dim: int, heads: int = 4) -> None:
        """Make the maps to tokens of ``dim`` numbers and an attention of so many heads for each modality."""
        super().__init__()
        self.widths = known_widths(widths)
        self.modalities = tuple(self.widths)
        self.dim = check_dim(dim)
        self.projections = nn.ModuleDict({name: nn.Linear(width, dim) for name, width in self.widths.items()})
        # 0.02: Devlin et al. 2019
        self.kinds = nn.ParameterDict({name: nn.Parameter(0.02 * torch.randn(dim)) for name in self.widths})
        self.attentions = nn.ModuleDict({name: Attention(dim, heads=heads) for name in self.widths})
        self.token_norm = nn.LayerNorm(dim)
        self.norm = nn.LayerNorm(dim)

    def forward(self, inputs: Inputs, masks: Masks | None = None) -> Tensor:
        """Fuse sequences or vectors; see `Fusion`. The order of a modality's tokens does not matter."""
        given = checked(inputs, masks, self.widths)
        own = {m: self.projections[m](given.tokens[m]) + self.kinds[m] for m in self.modalities}
        normed = {m: self.token_norm(tokens) for m, tokens in own.items()}
        first = own[self.modalities[0]]
        total, count = first.new_zeros(len(first), self.dim), first.new_zeros(len(first), 1)
        for name in self.modalities:
            others = [other for other in self.modalities if other != name]
            tokens, mask = own[name], given.masks[name]
            if others:
                found = self.attentions[name](
                    normed[name],
                    torch.cat([normed[other] for other in others], dim=1),
                    others_mask := torch.cat([given.masks[other] for other in others], dim=1),
                )
                # What is found among nothing is the output map's bias: not even that.
                tokens = tokens + torch.where(others_mask.any(dim=1)[:, None, None], found, 0)
            mean = torch.where(mask.unsqueeze(-1), tokens, 0).sum(dim=1) / mask.sum(dim=1, keepdim=True).clamp(min=1)
            total = total + mean  # zeros of a missing modality
            count = count + mask.any(dim=1, keepdim=True)
        fused: Tensor = self.norm(total / count)
        return fused
