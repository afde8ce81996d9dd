"""Fusions by scaled dot-product attention: over one token a modality, or over sequences of them."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from trivium.fusion.networks.contract import Fusion, Inputs, Masks, checked


def attend(queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> Tensor:
    """softmax(Q K^T / sqrt(d_k)) V over what the mask allows; zeros for a query that may see nothing.

    Args:
        queries: (n, h, q, d_k).
        keys: (n, h, t, d_k).
        values: (n, h, t, d_v).
        mask: Which keys are there, (n, t).

    Returns:
        (n, h, q, d_v).

    Source:
        Vaswani et al., "Attention Is All You Need", NeurIPS 2017, equation 1.
    """
    allowed = mask[:, None, None, :]  # (n, 1, 1, t)
    scores = queries @ keys.transpose(-1, -2) / math.sqrt(queries.shape[-1])  # (n, h, q, t)
    # A finite low number and not -inf: a row without any key would have NaN as its gradient.
    weights = scores.masked_fill(~allowed, torch.finfo(scores.dtype).min).softmax(dim=-1)
    return weights.masked_fill(~allowed, 0) @ values


class Attention(nn.Module):
    """Heads of attention side by side, and a linear map of what they found."""

    def __init__(self, dim: int, *, heads: int = 4) -> None:
        """Make the maps.

        Args:
            dim: Width of queries, keys and values together, and of the output.
            heads: How many; they share ``dim`` evenly.

        Raises:
            ValueError: If they cannot.
        """
        super().__init__()
        if heads < 1 or dim % heads:
            raise ValueError(f"dim must be a multiple of heads, got dim {dim} and {heads} heads")
        self.heads = heads
        self.query = nn.Linear(dim, dim)
        self.key = nn.Linear(dim, dim)
        self.value = nn.Linear(dim, dim)
        self.out = nn.Linear(dim, dim)

    def forward(self, asking: Tensor, asked: Tensor, mask: Tensor) -> Tensor:
        """Return what tokens (n, q, d) find in others (n, t, d) that are there (n, t), shape (n, q, d)."""
        found = attend(
            self._split(self.query(asking)), self._split(self.key(asked)), self._split(self.value(asked)), mask
        )
        together: Tensor = self.out(found.transpose(1, 2).flatten(2))  # (n, q, d)
        return together

    def _split(self, tokens: Tensor) -> Tensor:
        n, t, d = tokens.shape
        return tokens.reshape(n, t, self.heads, d // self.heads).transpose(1, 2)  # (n, h, t, d / h)


class TransformerLayer(nn.Module):
    """x <- x + attention(norm(x));  x <- x + V gelu(W norm(x) + b) + c.

    Source:
        Vaswani et al. 2017; norms before and not after, as Xiong et al., "On Layer Normalization in the Transformer
        Architecture", ICML 2020: trains without warm-up.
    """

    def __init__(self, dim: int, *, heads: int = 4, dropout: float = 0.0) -> None:
        """Make a layer of width ``dim``; its hidden layer is 4 times as wide, as in Vaswani et al."""
        super().__init__()
        self.attention_norm = nn.LayerNorm(dim)
        self.attention = Attention(dim, heads=heads)
        self.hidden_norm = nn.LayerNorm(dim)
        self.hidden = nn.Linear(dim, 4 * dim)
        self.out = nn.Linear(4 * dim, dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Return tokens (n, t, d) that have looked at those that are there (n, t)."""
        normed = self.attention_norm(tokens)
        tokens = tokens + self.dropout(self.attention(normed, normed, mask))
        hidden = nn.functional.gelu(self.hidden(self.hidden_norm(tokens)))
        mixed: Tensor = tokens + self.dropout(self.out(hidden))
        return mixed


class SelfAttentionFusion(Fusion):
    """S = [c; P_1 x_1 + e_1; ...; P_m x_m + e_m];  Y = softmax(Q K^T / sqrt(d)) V + S;  y is the row of c.

    Q, K and V are linear maps of S, without biases; c is a class token and e_i say which modality a token is. Keys of
    missing modalities are not seen.

    Source:
        Vaswani et al., "Attention Is All You Need", NeurIPS 2017 (one head, with the residual); the class token after
        Devlin et al., "BERT", NAACL 2019.
    """

    def __init__(self, widths: Mapping[str, int], *, dim: int) -> None:
        """Make the maps from the modalities' widths to tokens of ``dim`` numbers."""
        super().__init__(widths, dim=dim)
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


class TokenEncoder(Fusion):
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
        super().__init__(widths, dim=dim)
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


class Bottleneck(Fusion):
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
        super().__init__(widths, dim=dim)
        if tokens < 1:
            raise ValueError(f"tokens must be at least 1, got {tokens}")
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


class CrossAttention(Fusion):
    """s_i = P_i x_i + e_i;  u_i = s_i + attention_i(norm(s_i), norm([s_j for j other than i]));  y = norm(mean_i u_i).

    The mean is over the tokens of a modality, then over the modalities that a row has. A modality that is alone finds
    nothing in the others and stays what it is.

    Source:
        Tsai et al., "Multimodal Transformer for Unaligned Multimodal Language Sequences", ACL 2019 (crossmodal
        attention of pairs); Lu et al., "ViLBERT", NeurIPS 2019. One attention to all others instead of one a pair.
    """

    def __init__(self, widths: Mapping[str, int], *, dim: int, heads: int = 4) -> None:
        """Make the maps to tokens of ``dim`` numbers and an attention of so many heads for each modality."""
        super().__init__(widths, dim=dim)
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
