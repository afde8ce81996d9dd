"""An LSTM over word vectors: word ids in, the mean of its states or the last one out.

Source: Hochreiter, Schmidhuber, "Long short-term memory", Neural Computation 1997; torch's `nn.LSTM` computes it.
"""

import torch
from torch import Tensor, nn

from trivium.encoders.text.shapes import LstmShape
from trivium.encoders.text.transformer import masked_mean

INITIAL_DEVIATION = 0.5  # of random word vectors: of 100 numbers they are as long as GloVe's, about 5


class LstmText(nn.Module):
    """Word ids to vectors. Read both ways, each way has layers of its own, which do not see the other's."""

    def __init__(self, shape: LstmShape, *, dropout: float = 0.0) -> None:
        """Make random weights of a shape; ``dropout`` is the share that a pass of training leaves out."""
        super().__init__()
        self.pooling = shape.pooling
        self.tokens = nn.Embedding(shape.vocabulary, shape.embedding, padding_idx=0)
        nn.init.normal_(self.tokens.weight, std=INITIAL_DEVIATION)
        with torch.no_grad():
            self.tokens.weight[0] = 0
        between = dropout if shape.layers > 1 else 0.0  # torch warns of what has no place
        self.forwards = nn.LSTM(shape.embedding, shape.width, shape.layers, batch_first=True, dropout=between)
        self.backwards = None
        if shape.both_ways:
            self.backwards = nn.LSTM(shape.embedding, shape.width, shape.layers, batch_first=True, dropout=between)
        self.dropout = nn.Dropout(dropout)
        state = shape.width * (2 if shape.both_ways else 1)
        self.project = nn.Linear(state, shape.dim) if shape.projected else None

    def forward(self, tokens: Tensor, mask: Tensor) -> tuple[Tensor]:
        """Map ids (n, t) and a mask of ones and zeros (n, t) to vectors (n, dim)."""
        words = self.dropout(self.tokens(tokens))  # (n, t, e)
        ways = [self.forwards(words)[0]]  # (n, t, w)
        if self.backwards is not None:
            # Each text turned round by itself: its padding stays behind it.
            ways.append(self.backwards(_turned(words, mask))[0])
        if self.pooling == "mean":
            pooled = torch.cat([masked_mean(way, mask) for way in ways], dim=-1)
        else:
            last = (mask.sum(dim=1) - 1)[:, None, None]  # (n, 1, 1)
            pooled = torch.cat([way.gather(1, last.expand(-1, 1, way.shape[-1]))[:, 0] for way in ways], dim=-1)
        pooled = self.dropout(pooled)
        return (pooled if self.project is None else self.project(pooled),)


def _turned(words: Tensor, mask: Tensor) -> Tensor:
    """Turn the words of each text round; padding stays where it is."""
    places = torch.arange(words.shape[1], device=words.device)[None]  # (1, t)
    turned = mask.sum(dim=1, keepdim=True) - 1 - places  # (n, t)
    turned = torch.where(turned < 0, places, turned)
    return words.gather(1, turned[:, :, None].expand(-1, -1, words.shape[-1]))
