"""Word vectors in files of GloVe's format, and those that MiniLM's token embeddings give.

A line is a word and its numbers, with blanks between; a first line with two whole numbers (word2vec's header) is passed
over. Source of the format: Pennington, Socher, Manning, "GloVe: Global vectors for word representation", EMNLP 2014.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from trivium.encoders.files.whole_file import SHARED, write_file
from trivium.encoders.networks.weights import WEIGHTS, fetch, fetch_checked

Matrix = NDArray[np.float32]
MAX_LINE = 1 << 20
MAX_WIDTH = 1 << 13  # numbers of a word's vector
EMBEDDINGS = "embeddings.word_embeddings.weight"  # in MiniLM's checkpoint


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
    from trivium.encoders.text.vocabulary import vocabulary_of

    vocabulary = vocabulary_of((fetch(WEIGHTS["minilm-l6"]) / "tokenizer.json").read_text(encoding="utf-8"))
    return [word for word, _ in sorted(vocabulary.items(), key=lambda item: item[1]) if word.isalpha()]
