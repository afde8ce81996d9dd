"""Tokenizers of text models that a stranger may have made: only of parts whose time and memory grow with the text.

The tokenizers package takes regular expressions from its files, some of which never end, and ends the process's thread
by a panic where a file is not as it should be. Text models are written with few kinds of parts; others are refused.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from trivium.encoders.files.foreign import ForeignFileError, foreign_json, read_foreign, shown

MANY_WORDS = 4096  # of which every tokenizer makes more tokens than it puts around a text
MAX_TOKENIZER_BYTES = 32 * 1024 * 1024  # a million words
MAX_PIECES = 16  # tokens that are put around a text
MAX_LETTERS = 1_000  # of a word that is cut into pieces, which takes their square in time
# Kinds of each part; None: there is none of it. All of them look at each letter a fixed number of times.
NORMALIZERS = frozenset({"BertNormalizer", "Lowercase", "NFC", "NFD", "NFKC", "NFKD", "Strip", "StripAccents"})
PRE_TOKENIZERS = frozenset({"BertPreTokenizer", "Digits", "Punctuation", "Whitespace", "WhitespaceSplit"})
MODELS = frozenset({"WordLevel", "WordPiece"})
POST_PROCESSORS = frozenset({"BertProcessing", "TemplateProcessing"})
DECODERS = frozenset({"WordPiece"})
KNOWN = frozenset(
    "version truncation padding added_tokens normalizer pre_tokenizer post_processor decoder model".split()
)


def read_foreign_tokenizer(path: Path, *, vocabulary: int | None = None) -> Tokenizer:
    """Read a tokenizer of a text model; it cuts nothing and fills nothing up, whatever its file says.

    Args:
        path: Its file.
        vocabulary: How many tokens the network knows; None: it is not said.

    Raises:
        ForeignFileError: If it is none, has parts that are not known here, or gives tokens that the network has not.
    """
    data = read_foreign(path, max_bytes=MAX_TOKENIZER_BYTES)
    raw = foreign_json(data, path)
    try:
        ids = _checked(raw)
    except ForeignFileError as error:
        raise ForeignFileError(f"{path} cannot be used: {error}") from error
    except (AttributeError, KeyError, TypeError) as error:
        raise ForeignFileError(f"{path} is no tokenizer: {type(error).__name__} of {shown(str(error))}") from error
    if vocabulary is not None and max(ids) >= vocabulary:
        raise ForeignFileError(f"{path} has a token {max(ids):,}, its network knows {vocabulary:,}, from 0 on")
    return tokenizer_of(data, path)


def tokenizer_of(data: bytes, path: Path) -> Tokenizer:
    """Make a tokenizer of a file's bytes, whatever they hold.

    Raises:
        ForeignFileError: If they are none.
    """
    with telling_panics(path):
        tokenizer = Tokenizer.from_buffer(data)
        tokenizer.no_padding()
        tokenizer.no_truncation()
        return tokenizer


def cut_at(tokenizer: Tokenizer, path: Path, *, max_tokens: int, overlap: int = 0) -> None:
    """Let a tokenizer cut longer texts, and see that it can.

    Raises:
        ForeignFileError: If it cannot: it puts too many tokens of its own around a text, say.
    """
    with telling_panics(path):
        tokenizer.enable_truncation(max_tokens, stride=overlap)
        count = len(tokenizer.encode("a 1 " * min(max_tokens, MANY_WORDS)))
    if count > max_tokens:
        raise ForeignFileError(f"{path} puts more tokens around a text than the {max_tokens} that it may have")


@contextmanager
def telling_panics(path: Path) -> Iterator[None]:
    """Turn whatever the tokenizers package raises into a message: a panic of Rust is no `Exception`."""
    try:
        yield
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt | SystemExit | GeneratorExit | ForeignFileError):
            raise
        raise ForeignFileError(f"{path} is no tokenizer: {' '.join(str(error).split())[:300]}") from error


def _checked(raw: Mapping[str, Any]) -> list[int]:
    """Check the parts; return the ids of all tokens, at least one."""
    if unknown := sorted(raw.keys() - KNOWN):
        raise ForeignFileError(f"it has {shown(unknown[0])}, which is not known here")
    _check_kinds("normalizer", raw.get("normalizer"), NORMALIZERS, "normalizers")
    _check_kinds("pre_tokenizer", raw.get("pre_tokenizer"), PRE_TOKENIZERS, "pretokenizers")
    _check_kinds("decoder", raw.get("decoder"), DECODERS, None)
    model = raw.get("model")
    if not isinstance(model, dict):
        raise ForeignFileError("it has no model")
    _check_kinds("model", model, MODELS, None)
    if model.get("max_input_chars_per_word", 0) > MAX_LETTERS:
        raise ForeignFileError(f"its model cuts words of more than {MAX_LETTERS:,} letters into pieces")
    if model["unk_token"] not in model["vocab"]:
        raise ForeignFileError(f"its vocabulary lacks {shown(model['unk_token'])}, which stands for unknown words")
    added = raw.get("added_tokens") or []
    if not all(token["content"] for token in added):
        raise ForeignFileError("a token of it is empty")
    ids = [*model["vocab"].values(), *(token["id"] for token in added), *_around(raw.get("post_processor"))]
    if not all(type(number) is int and 0 <= number < 2**31 for number in ids):
        raise ForeignFileError("a token of its vocabulary has no number")
    return ids


def _around(post: Any) -> list[Any]:
    """Return the ids of the tokens that are put around a text."""
    _check_kinds("post_processor", post, POST_PROCESSORS, None)
    if post is None:
        return []
    if post["type"] == "BertProcessing":
        return [post["sep"][1], post["cls"][1]]
    ids = [number for tokens in post["special_tokens"].values() for number in tokens["ids"]]
    if len(post["single"]) > MAX_PIECES or len(ids) > MAX_PIECES:
        raise ForeignFileError(f"its post_processor puts more than {MAX_PIECES} tokens around a text")
    return ids


def _check_kinds(part: str, told: Any, known: frozenset[str], members: str | None) -> None:
    """Refuse a part of another kind; a sequence of parts is as good as they are."""
    if told is None:
        return
    if not isinstance(told, dict):
        raise ForeignFileError(f"its {part} is none")
    kind = told.get("type")
    if members is not None and kind == "Sequence":
        for member in told[members]:
            _check_kinds(part, {} if member is None else member, known, members)
    elif str(kind) not in known:
        raise ForeignFileError(
            f"its {part} is of kind {shown(kind)}, which text models are not written with; known are "
            f"{', '.join(sorted(known))}"
        )
