"""MiniLM-L6 in torch: token ids in, the mean of the last layer over each text's tokens out (384-d).

Source: Wang et al., "MiniLM", NeurIPS 2020; Reimers & Gurevych, "Sentence-BERT", EMNLP 2019
(the checkpoint sentence-transformers/all-MiniLM-L6-v2).
"""

import math
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import BertConfig, BertModel

from trivium.encoders.base import TEXT_STATES


class PooledBert(nn.Module):
    """A BERT, its last and some inner layers pooled over its tokens."""

    def __init__(self, bert: Any) -> None:
        super().__init__()
        self.bert = bert

    def forward(self, tokens: Tensor, mask: Tensor) -> tuple[Tensor, ...]:
        """Map ids (n, t) and a mask of ones and zeros (n, t) to vectors (n, 384): the mean, and `TEXT_LAYERS`."""
        states = self.bert(input_ids=tokens, attention_mask=mask, output_hidden_states=True).hidden_states
        weights = mask.unsqueeze(-1).to(states[-1].dtype)  # (n, t, 1)
        count = weights.sum(dim=1)
        means = [(states[place] * weights).sum(dim=1) / count for place in (-1, *TEXT_STATES.values())]
        maximum = states[-1].masked_fill(weights == 0, -math.inf).amax(dim=1)
        return *means, maximum


def build_minilm(folder: Path) -> nn.Module:
    """Load the network from ``folder`` (model.safetensors, config.json)."""
    model: Any = BertModel(BertConfig.from_json_file(folder / "config.json"), add_pooling_layer=False)
    state = load_file(folder / "model.safetensors")
    # The checkpoint carries BERT's unused sentence-pair pooler and a constant; all else must fit exactly.
    for unused in ("pooler.dense.weight", "pooler.dense.bias", "embeddings.position_ids"):
        del state[unused]
    model.load_state_dict(state)
    return PooledBert(model).eval()
