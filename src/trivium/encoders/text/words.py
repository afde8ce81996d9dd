"""Words for an LSTM over word vectors: a tokenizer of them, and vectors from files or from MiniLM.

Files have GloVe's format: a line is a word and its numbers, with blanks between; a first line with two whole numbers
(word2vec's header) is passed over. Source: Pennington, Socher, Manning, "GloVe: Global vectors for word
representation", EMNLP 2014. MiniLM's word pieces are read from its own file.
"""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from trivium.encoders.files.writing import SHARED, write_file
from trivium.encoders.networks.weights import WEIGHTS, fetch, fetch_checked

PADDING, UNKNOWN = "[PAD]", "[UNK]"
Matrix = NDArray[np.float32]
MAX_LINE = 1 << 20
MAX_WIDTH = 1 << 13  # numbers of a word's vector
EMBEDDINGS = "embeddings.word_embeddings.weight"  # in MiniLM's checkpoint


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


class WordVectorsError(ValueError):
    """A file of word vectors that cannot be used; the message names the line."""


def read_word_vectors(path: Path, wanted: Iterable[str]) -> tuple[dict[str, int], Matrix]:
    """Read the vectors of some words; the file may hold millions of others.

    Args:
        path: A file in GloVe's format, UTF-8.
        wanted: The words.

    Returns:
        The row of each word that is there, and the rows, shape (n, d).

    Raises:
        WordVectorsError: If a line is no word with its numbers, or has another number of them than the first.
        OSError: If it cannot be read.
    """
    lacking = set(wanted)
    rows: dict[str, int] = {}
    found: list[Matrix] = []
    width = 0
    with path.open(encoding="utf-8", errors="replace") as file:
        for number, line in enumerate(iter(lambda: file.readline(MAX_LINE), ""), start=1):
            if len(line) == MAX_LINE:
                raise WordVectorsError(f"{path}, line {number}: has more than {MAX_LINE:,} characters")
            # Words of GloVe's largest files may hold blanks: what is not of the known width is the word.
            parts = line.rstrip("\n").split(" ")
            if not width:
                if number == 1 and len(parts) == 2 and all(part.isdigit() for part in parts):
                    continue
                width = len(parts) - 1
                if width > MAX_WIDTH:
                    raise WordVectorsError(f"{path}, line {number}: {width:,} numbers, at most {MAX_WIDTH:,} are read")
            word = " ".join(parts[:-width]) if width else ""
            if width < 1 or not word:
                raise WordVectorsError(f"{path}, line {number}: needs a word and {width or 'its'} numbers")
            if word not in lacking:
                continue
            try:
                vector = np.array(parts[-width:], np.float32)
            except ValueError as error:
                raise WordVectorsError(f"{path}, line {number}: '{word}' has something that is no number") from error
            if not np.isfinite(vector).all():
                raise WordVectorsError(f"{path}, line {number}: '{word}' has NaN or infinity")
            lacking.discard(word)
            rows[word] = len(found)
            found.append(vector)
    if not width:
        raise WordVectorsError(f"{path} is empty")
    return rows, np.stack(found) if found else np.empty((0, width), np.float32)


def write_word_vectors(path: Path, words: Sequence[str], vectors: Matrix) -> None:
    """Write vectors (n, d) of words in GloVe's format, the whole file or nothing.

    Raises:
        OSError: If it cannot be written.
    """

    def write(file: IO[bytes]) -> None:
        for word, vector in zip(words, vectors, strict=True):
            file.write(f"{word} {' '.join(f'{number:.5g}' for number in vector)}\n".encode())

    write_file(path, write, mode=SHARED)


def minilm_word_vectors(words: Sequence[str]) -> Matrix:
    """Return a vector for each word from MiniLM's token embeddings: the mean over its pieces, shape (n, 384).

    No network is run: these are the vectors that MiniLM itself begins with.

    Raises:
        WeightsError: If MiniLM's weights cannot be had.
    """
    from safetensors.numpy import load_file
    from tokenizers import Tokenizer

    folder = fetch_checked(WEIGHTS["minilm-l6"])
    embeddings = load_file(folder / "model.safetensors")[EMBEDDINGS]
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    vectors = np.zeros((len(words), embeddings.shape[1]), np.float32)
    for row, encoding in enumerate(tokenizer.encode_batch(list(words), add_special_tokens=False)):
        if encoding.ids:
            vectors[row] = embeddings[encoding.ids].mean(axis=0)
    return vectors


def whole_words_of_minilm() -> list[str]:
    """Return the entries of MiniLM's vocabulary that are words of letters, in its order.

    Raises:
        WeightsError: If MiniLM's weights cannot be had.
    """
    vocabulary = vocabulary_of((fetch(WEIGHTS["minilm-l6"]) / "tokenizer.json").read_text(encoding="utf-8"))
    return [word for word, _ in sorted(vocabulary.items(), key=lambda item: item[1]) if word.isalpha()]
