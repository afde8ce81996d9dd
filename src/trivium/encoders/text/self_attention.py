"""Self-attention over the tokens of texts, written out, and the layer of a Transformer encoder around it.

Sources: Vaswani et al., "Attention is all you need", NeurIPS 2017 (attention, residuals); Devlin et al., "BERT", NAACL
2019 (normalised after each residual, GELU): so that BERT's weights, and MiniLM's, fit in.
"""

import math

import torch
from torch import Tensor, nn


class SelfAttention(nn.Module):
    """Several heads of softmax(Q K^T / sqrt(d_k)) V side by side, and a linear map of what they say."""

    def __init__(self, width: int, *, heads: int) -> None:
        """Make random weights.

        Args:
            width: Numbers of a token, d; a multiple of ``heads``.
            heads: How many; each has width / heads numbers, d_k.

        Raises:
            ValueError: If the heads do not divide the width.
        """
        super().__init__()
        if width % heads:
            raise ValueError(f"width must be a multiple of heads, got {width} and {heads}")
        self.heads = heads
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Let each token take from all others.

        Args:
            x: Shape (n, t, d).
            mask: Shape (n, t), 1 where there is a token and 0 where there is padding, which nothing is taken from.

        Returns:
            Shape (n, t, d).
        """
        query, key, value = (self._split(layer(x)) for layer in (self.query, self.key, self.value))  # (n, h, t, d_k)
        scores = query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])  # (n, h, t, t)
        # The lowest number and not minus infinity: a row of padding alone would be NaN.
        scores = scores.masked_fill((mask == 0)[:, None, None, :], torch.finfo(scores.dtype).min)
        taken = scores.softmax(dim=-1) @ value  # (n, h, t, d_k)
        mixed: Tensor = self.out(taken.transpose(1, 2).flatten(2))  # (n, t, d)
        return mixed

    def _split(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:-1], self.heads, x.shape[-1] // self.heads).transpose(1, 2)


class EncoderLayer(nn.Module):
    """Attention, then two linear maps with GELU between, each added to its input and normalised."""

    def __init__(self, width: int, *, heads: int, inner: int, dropout: float = 0.0, epsilon: float = 1e-12) -> None:
        """Make random weights.

        Args:
            width: Numbers of a token.
            heads: See `SelfAttention`.
            inner: Numbers between the two linear maps.
            dropout: Share of what is added that a pass of training leaves out. Not of the attention's weights, as BERT
                has it: drawing t x t numbers a head took a fifth of the time on a CPU.
            epsilon: Of the normalisations; BERT's.
        """
        super().__init__()
        self.attention = SelfAttention(width, heads=heads)
        self.attention_norm = nn.LayerNorm(width, eps=epsilon)
        self.inner = nn.Linear(width, inner)
        self.outer = nn.Linear(inner, width)
        self.norm = nn.LayerNorm(width, eps=epsilon)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Map (n, t, d) and a mask (n, t) to (n, t, d)."""
        x = self.attention_norm(x + self.dropout(self.attention(x, mask)))
        changed: Tensor = self.norm(x + self.dropout(self.outer(nn.functional.gelu(self.inner(x)))))
        return changed
