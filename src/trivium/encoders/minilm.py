"""MiniLM-L6 in torch: token ids in, the mean of the last layer over each text's tokens out (384-d).

Source: Wang et al., "MiniLM", NeurIPS 2020; Reimers & Gurevych, "Sentence-BERT", EMNLP 2019
(the checkpoint sentence-transformers/all-MiniLM-L6-v2).
"""

from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import BertConfig, BertModel


class PooledBert(nn.Module):
    """A BERT and the mean over its tokens."""

    def __init__(self, bert: Any) -> None:
        super().__init__()
        self.bert = bert

    def forward(self, tokens: Tensor, mask: Tensor) -> tuple[Tensor]:
        """Map ids (n, t) and a mask of ones and zeros (n, t) to vectors (n, 384)."""
        hidden = self.bert(input_ids=tokens, attention_mask=mask).last_hidden_state  # (n, t, d)
        weights = mask.unsqueeze(-1).to(hidden.dtype)  # (n, t, 1)
        return ((hidden * weights).sum(dim=1) / weights.sum(dim=1),)


def build_minilm(folder: Path) -> nn.Module:
    """Load the network from ``folder`` (model.safetensors, config.json)."""
    model: Any = BertModel(BertConfig.from_json_file(folder / "config.json"), add_pooling_layer=False)
    state = load_file(folder / "model.safetensors")
    # The checkpoint carries BERT's unused sentence-pair pooler and a constant; all else must fit exactly.
    for unused in ("pooler.dense.weight", "pooler.dense.bias", "embeddings.position_ids"):
        del state[unused]
    model.load_state_dict(state)
    return PooledBert(model).eval()
