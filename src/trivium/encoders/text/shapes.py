"""What text encoders of our own are like, as numbers: what their folders' `model.json` holds; imports no torch."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

TEXT_MODEL = "text-model:"  # backbones of such names are text encoders of our own, in folders (`own_models`)

Pooling: TypeAlias = Literal["mean", "last"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TransformerShape:
    """Sizes of a `TransformerText`."""

    vocabulary: int  # tokens; 0 is padding
    width: int  # numbers of a token
    heads: int
    layers: int
    inner: int
    positions: int  # the most tokens that a text may have
    embedding: int  # numbers of a token's embedding; another number than the width is brought to it
    dim: int  # numbers of a text's vector
    projected: bool = False  # whether a linear map takes the width to ``dim``; else they are the same


@dataclass(frozen=True, slots=True, kw_only=True)
class LstmShape:
    """Sizes of an `LstmText`."""

    vocabulary: int  # words; 0 is padding
    embedding: int  # numbers of a word's vector
    width: int  # numbers of a direction's state
    layers: int
    both_ways: bool  # read forwards and backwards
    pooling: Pooling  # the mean over the words, or the state after the last one
    dim: int  # numbers of a text's vector
    projected: bool = False  # whether a linear map takes the state to ``dim``; else they are the same


Shape: TypeAlias = TransformerShape | LstmShape
MINILM_SHAPE = TransformerShape(
    vocabulary=30522, width=384, heads=12, layers=6, inner=1536, positions=512, embedding=384, dim=384
)
