"""Tokenizers: words of one's own texts for an LSTM over word vectors; MiniLM's word pieces are read from its file."""

import json
from collections import Counter
from collections.abc import Iterable, Sequence

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

PADDING, UNKNOWN = "[PAD]", "[UNK]"


def word_tokenizer(words: Sequence[str]) -> str:
    """Return a tokenizer, as the JSON of its file, that splits at blanks and signs and knows some words.

    Args:
        words: Each once, lower-cased, as `split_words` gives them; they get the ids from 2 on.
    """
    vocabulary = {PADDING: 0, UNKNOWN: 1} | {word: place + 2 for place, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)  # type: ignore[assignment, unused-ignore]
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()  # type: ignore[assignment, unused-ignore]
    return tokenizer.to_str()


def frequent_words(texts: Iterable[str], *, most: int, least_often: int) -> list[str]:
    """Return the words that occur at least so often, the most frequent ones first, at most ``most`` of them.

    Args:
        texts: To count in.
        most: How many words.
        least_often: How often each of them occurs at least.
    """
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(split_words(text))
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return [word for word, count in ordered[:most] if count >= least_often]


def split_words(text: str) -> list[str]:
    """Split a text as `word_tokenizer` does: lower-cased, without accents, each sign a word of its own."""
    normal = normalizers.BertNormalizer(lowercase=True).normalize_str(text.encode("utf-8", "replace").decode())
    return [word for word, _ in pre_tokenizers.BertPreTokenizer().pre_tokenize_str(normal)]


def vocabulary_of(tokenizer_json: str) -> dict[str, int]:
    """Return each token's id, of a tokenizer's JSON with a vocabulary of words or pieces."""
    found: dict[str, int] = json.loads(tokenizer_json)["model"]["vocab"]
    return found
