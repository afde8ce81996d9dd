"""A Transformer encoder of texts of our own: tokens and positions in, the mean over a text's tokens out.

It has BERT's form, so that it may start from MiniLM (`from_bert`); its sizes are free.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from trivium.encoders.text.self_attention import EncoderLayer
from trivium.encoders.text.shapes import TransformerShape

INITIAL_DEVIATION = 0.02  # BERT's


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
        x: Tensor = self.tokens(tokens)
        if self.widen is not None:
            x = self.widen(x)
        places = torch.arange(tokens.shape[1], device=tokens.device)
        x = self.dropout(self.norm(x + self.positions(places)))
        for layer in self.layers:
            x = layer(x, mask)
        return x

    def forward(self, tokens: Tensor, mask: Tensor) -> tuple[Tensor]:
        """Map ids (n, t) and a mask of ones and zeros (n, t) to vectors (n, dim)."""
        pooled = masked_mean(self.hidden(tokens, mask), mask)
        return (pooled if self.project is None else self.project(pooled),)


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
