"""Scaled dot-product attention with several heads and a mask, and the Transformer layer made of it."""

import math

import torch
from torch import Tensor, nn


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
