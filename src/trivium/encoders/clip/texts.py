"""Texts for the text tower of an open_clip model."""

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from trivium.encoders.base import Backbone, Features, Modality, Prepared
from trivium.encoders.clip.facts import ClipFacts, tokenizer_file
from trivium.encoders.clip.tokenizers import ClipTokenizer, FileTokenizer
from trivium.encoders.networks.contract import Network, device_kind
from trivium.encoders.text.backbone import checked_text, passes_by_length

Tokenize: TypeAlias = Callable[[Sequence[str]], Sequence[NDArray[np.int64]]]

TOKENS_PER_PASS = {"cpu": 1024, "gpu": 32_768}  # a GPU's network cuts them as its memory is


class ClipTexts(Backbone):
    """The text tower of an open_clip model.

    A causal tower that is read at the end token is run on no more positions than the longest text of a pass has: what
    comes after the end token cannot be seen from it.
    """

    modality: Modality = "text"

    def __init__(self, facts: ClipFacts, network: Network) -> None:
        self.dim = facts.dim
        self._facts = facts
        self._network = network
        self._tokenizer = tokenizer_of(facts)
        self._tokens_per_pass = TOKENS_PER_PASS[device_kind(network.device)]

    def prepare(self, item: Any, /) -> Prepared:
        """Return the token ids of a text, shape (t,).

        Raises:
            DecodeError: If the text is empty or blank.
        """
        (ids,) = self.prepare_all([item])
        return ids

    def prepare_all(self, items: Sequence[Any], /) -> list[Prepared]:
        """Do what `prepare` does for many texts in one call."""
        return list(self._tokenizer([checked_text(item) for item in items]))

    def features(self, batch: Sequence[Prepared], /) -> Features:
        """Return the text embeddings, shape (n, d), not normalised."""
        pooled = np.empty((len(batch), self.dim), np.float32)
        for rows in passes_by_length([len(ids) for ids in batch], numbers_per_pass=self._tokens_per_pass):
            longest = max(len(batch[row]) for row in rows) if self._facts.can_cut else self._facts.context_length
            tokens = np.zeros((len(rows), longest), np.int64)
            for place, row in enumerate(rows):
                tokens[place, : len(batch[row])] = batch[row]
            (pooled[rows],) = self._network(tokens)
        return Features(pooled=pooled)


def tokenizer_of(facts: ClipFacts) -> Tokenize:
    """Return what turns texts into ids: ours where the model has CLIP's or brings a file, else open_clip's own."""
    if facts.is_plain_bpe:
        return ClipTokenizer(facts.context_length)
    if facts.tokenizer is not None:
        return FileTokenizer(tokenizer_file(facts.tokenizer), facts.tokenizer, context_length=facts.context_length)
    from trivium.encoders.clip import checkpoint as clip_loading

    own = clip_loading.tokenizer_of(facts.name)
    return lambda texts: list(own(list(texts)).numpy())
