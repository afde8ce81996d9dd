"""Passages of a text, the slow and obvious way: all of its tokens at once."""

from tokenizers import Tokenizer

PlainPassage = tuple[int, int, list[int]]  # first and last character, ids


def passages(text: str, tokenizer: Tokenizer, *, longest: int, length: int, overlap: int) -> list[PlainPassage]:
    """Cut by the tokenizer itself, which overlaps too; none if one vector sees the whole text."""
    tokenizer.enable_truncation(longest)
    if not tokenizer.encode(text).overflowing:
        return []
    tokenizer.enable_truncation(length, stride=overlap)
    first = tokenizer.encode(text)
    found = []
    for encoding in (first, *first.overflowing):
        marks = zip(encoding.offsets, encoding.special_tokens_mask, strict=True)
        places = [place for place, is_special in marks if not is_special]
        if places:
            found.append((places[0][0], places[-1][1], encoding.ids))
    return found
