"""A Transformer encoder of texts of our own: tokens and positions in, the mean over a text's tokens out.

It has BERT's form, so that BERT's weights fit in (`from_bert`), and MiniLM is one of them; its sizes are free. Sources:
Vaswani et al., "Attention is all you need", NeurIPS 2017 (attention, residuals); Devlin et al., "BERT", NAACL 2019
(normalised after each residual, GELU); Wang et al., "MiniLM", NeurIPS 2020; Reimers & Gurevych, "Sentence-BERT", EMNLP
2019 (the checkpoint sentence-transformers/all-MiniLM-L6-v2).
"""

import math
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from trivium.encoders.base import TEXT_STATES
from trivium.encoders.text.shapes import MINILM_SHAPE, TransformerShape

INITIAL_DEVIATION = 0.02  # BERT's


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
        is_token = (mask != 0)[:, None, None, :]
        if self.training:  # written out: a GPU's fused kernels add gradients up in any order, and runs would differ
            scores = query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])  # (n, h, t, t)
            # The lowest number and not minus infinity: a row of padding alone would be NaN.
            scores = scores.masked_fill(~is_token, torch.finfo(scores.dtype).min)
            taken = scores.softmax(dim=-1) @ value  # (n, h, t, d_k)
        else:
            taken = nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=is_token)
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


class TransformerText(nn.Module):
    """Token ids to vectors."""

    def __init__(self, shape: TransformerShape, *, dropout: float = 0.0) -> None:
        """Make random weights of a shape; ``dropout`` is the share that a pass of training leaves out."""
        super().__init__()
        self.tokens = nn.Embedding(shape.vocabulary, shape.embedding, padding_idx=0)
        self.widen = nn.Linear(shape.embedding, shape.width, bias=False) if shape.embedding != shape.width else None
        self.positions = nn.Embedding(shape.positions, shape.width)
        self.norm = nn.LayerNorm(shape.width, eps=1e-12)
        self.dropout = nn.Dropout(dropout)
        self.layers = nn.ModuleList(
            EncoderLayer(shape.width, heads=shape.heads, inner=shape.inner, dropout=dropout)
            for _ in range(shape.layers)
        )
        self.project = nn.Linear(shape.width, shape.dim) if shape.projected else None
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=INITIAL_DEVIATION)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)
        if self.widen is not None:  # as large after it as before it
            nn.init.normal_(self.widen.weight, std=shape.width**-0.5)

    def hidden(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Return what the last layer says of each token, shape (n, t, width), of ids (n, t) and a mask (n, t)."""
        return self.states(tokens, mask)[-1]

    def states(self, tokens: Tensor, mask: Tensor) -> list[Tensor]:
        """Return what is said of each token before the first layer and after each, as `hidden` does of the last."""
        x: Tensor = self.tokens(tokens)
        if self.widen is not None:
            x = self.widen(x)
        places = torch.arange(tokens.shape[1], device=tokens.device)
        found = [self.dropout(self.norm(x + self.positions(places)))]
        for layer in self.layers:
            found.append(layer(found[-1], mask))
        return found

    def forward(self, tokens: Tensor, mask: Tensor) -> tuple[Tensor]:
        """Map ids (n, t) and a mask of ones and zeros (n, t) to vectors (n, dim)."""
        pooled = masked_mean(self.hidden(tokens, mask), mask)
        return (pooled if self.project is None else self.project(pooled),)


class MiniLMNet(nn.Module):
    """MiniLM-L6: token ids in, its last and some inner layers pooled over each text's tokens out (384-d)."""

    def __init__(self) -> None:
        super().__init__()
        self.text = TransformerText(MINILM_SHAPE)

    def forward(self, tokens: Tensor, mask: Tensor) -> tuple[Tensor, ...]:
        """Map ids (n, t) and a mask of ones and zeros (n, t) to vectors (n, 384): the mean, and `TEXT_LAYERS`."""
        states = self.text.states(tokens, mask)
        means = [masked_mean(states[place], mask) for place in (-1, *TEXT_STATES.values())]
        return *means, states[-1].masked_fill((mask == 0).unsqueeze(-1), -math.inf).amax(dim=1)


def build_minilm(folder: Path) -> MiniLMNet:
    """Load the network from ``folder`` (model.safetensors)."""
    net = MiniLMNet()
    net.text.load_state_dict(from_bert(load_file(folder / "model.safetensors")))
    return net.eval()


def masked_mean(hidden: Tensor, mask: Tensor) -> Tensor:
    """Return the mean over each text's tokens, shape (n, d), of (n, t, d) and a mask (n, t); each has a token."""
    weights = mask.unsqueeze(-1).to(hidden.dtype)  # (n, t, 1)
    return (hidden * weights).sum(dim=1) / weights.sum(dim=1)


def from_bert(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights of a BERT by our names; that a text is the first of two is added to each position."""
    names = {
        "attention.self.query": "attention.query",
        "attention.self.key": "attention.key",
        "attention.self.value": "attention.value",
        "attention.output.dense": "attention.out",
        "attention.output.LayerNorm": "attention_norm",
        "intermediate.dense": "inner",
        "output.dense": "outer",
        "output.LayerNorm": "norm",
    }
    ours = {
        "tokens.weight": state["embeddings.word_embeddings.weight"],
        "positions.weight": state["embeddings.position_embeddings.weight"]
        + state["embeddings.token_type_embeddings.weight"][0],
        "norm.weight": state["embeddings.LayerNorm.weight"],
        "norm.bias": state["embeddings.LayerNorm.bias"],
    }
    for name, tensor in state.items():
        if name.startswith("encoder.layer."):
            _, _, layer, rest = name.split(".", 3)
            part, kind = rest.rsplit(".", 1)
            ours[f"layers.{layer}.{names[part]}.{kind}"] = tensor
    return {name: tensor.clone() for name, tensor in ours.items()}
