"""Text: MiniLM-L6 sentence vectors, mean-pooled over tokens (384-d), by transformers.

Source: Wang et al., "MiniLM", NeurIPS 2020; Reimers & Gurevych, "Sentence-BERT", EMNLP 2019
(the checkpoint sentence-transformers/all-MiniLM-L6-v2).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from tokenizers import Tokenizer

from trivium.encoders.base import DecodeError, Features, Modality, Prepared

# What the sentence-transformers checkpoint was trained with; longer texts are cut there.
MAX_TOKENS = 256
# Tokenizing is linear, but a text item keeps at most 256 tokens: more characters than this cannot matter.
MAX_CHARACTERS = 64 * 1024


class MiniLM:
    """The all-MiniLM-L6-v2 sentence encoder."""

    modality: Modality = "text"
    dim = 384

    def __init__(self, folder: Path, *, device: str = "cpu") -> None:
        """Load from ``folder`` (model.safetensors, config.json, tokenizer.json), offline."""
        from safetensors.torch import load_file
        from transformers import BertConfig, BertModel

        self._device = torch.device(device)
        # The Rust tokenizer itself: transformers' wrapper sets truncation on each call, which is not thread-safe.
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.enable_truncation(MAX_TOKENS)
        self._tokenizer.no_padding()
        config = BertConfig.from_json_file(folder / "config.json")
        model = cast(torch.nn.Module, BertModel(config, add_pooling_layer=False))
        state = load_file(folder / "model.safetensors")
        # The checkpoint carries BERT's unused sentence-pair pooler and a constant; all else must fit exactly.
        for unused in ("pooler.dense.weight", "pooler.dense.bias", "embeddings.position_ids"):
            del state[unused]
        model.load_state_dict(state)
        self._model = model.to(self._device)
        self._model.train(False)

    def prepare(self, item: Any, /) -> Prepared:
        """Return the token ids of a text, shape (t,), t <= 256.

        Raises:
            DecodeError: If the text is empty or blank.
        """
        if not isinstance(item, str):
            raise TypeError(f"a text item must be a str, got {type(item).__name__}")
        if not item.strip():
            raise DecodeError("the text is empty")
        # Broken bytes from a command line or a file name are surrogates, which the tokenizer refuses.
        text = item[:MAX_CHARACTERS].encode("utf-8", "replace").decode("utf-8")
        return np.asarray(self._tokenizer.encode(text).ids, dtype=np.int64)

    @torch.inference_mode()
    def features(self, batch: Sequence[Prepared], /) -> Features:
        """Return the mean of the last layer over each text's tokens, shape (n, 384)."""
        if not batch:
            return Features(pooled=np.empty((0, self.dim), np.float32))
        longest = max(len(ids) for ids in batch)
        tokens = torch.zeros((len(batch), longest), dtype=torch.int64)  # 0 is [PAD]
        mask = torch.zeros_like(tokens)
        for row, ids in enumerate(batch):
            tokens[row, : len(ids)] = torch.from_numpy(ids)
            mask[row, : len(ids)] = 1
        tokens, mask = tokens.to(self._device), mask.to(self._device)
        hidden = self._model(input_ids=tokens, attention_mask=mask).last_hidden_state  # (n, t, d)
        weights = mask.unsqueeze(-1).to(hidden.dtype)  # (n, t, 1)
        pooled = (hidden * weights).sum(dim=1) / weights.sum(dim=1)  # (n, d)
        return Features(pooled=pooled.float().cpu().numpy())
