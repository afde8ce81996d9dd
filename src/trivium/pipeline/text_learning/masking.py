"""What a masked language model is asked: some tokens of a text are hidden, and it says what they were.

Source: Devlin et al., "BERT: Pre-training of deep bidirectional transformers", NAACL 2019, section 3.1, appendix C.2.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SHARE = 0.15  # of the tokens are asked for: BERT
MASKED, REPLACED = 0.8, 0.1  # of these become [MASK], and another token; the rest stay as they are: BERT


@dataclass(frozen=True, slots=True)
class MaskingVocabulary:
    """What masking must know of a tokenizer."""

    mask: int  # the token [MASK]
    first: int  # the token [CLS], before a text
    last: int  # the token [SEP], after it
    size: int  # ids are below it
    special: frozenset[int]  # that are never asked for, and never drawn: [PAD], [CLS], [SEP], ...


def masked(
    tokens: NDArray[np.int64], vocabulary: MaskingVocabulary, random: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Hide some tokens.

    Args:
        tokens: Ids, shape (n, t).
        vocabulary: Of the tokenizer.
        random: What is drawn from.

    Returns:
        What the model sees, shape (n, t), and which tokens it is asked for: `SHARE` of those that are not special, to
        the nearest whole number over the batch, at least one if there is any.
    """
    candidates = np.flatnonzero(~np.isin(tokens, list(vocabulary.special)))
    asked = np.zeros(tokens.shape, np.bool_)
    seen = tokens.copy()
    if not len(candidates):
        return seen, asked
    chosen = random.permutation(candidates)[: max(1, round(SHARE * len(candidates)))]
    asked.flat[chosen] = True
    fate = random.random(len(chosen))
    seen.flat[chosen[fate < MASKED]] = vocabulary.mask
    others = chosen[(fate >= MASKED) & (fate < MASKED + REPLACED)]
    ordinary = np.setdiff1d(np.arange(vocabulary.size), list(vocabulary.special))
    seen.flat[others] = random.choice(ordinary, len(others))
    return seen, asked
