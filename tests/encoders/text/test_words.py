"""GloVe's format read and written, vocabularies of words, and what MiniLM's embeddings give."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file
from tokenizers import Tokenizer

from trivium.encoders.text.words import (
    EMBEDDINGS,
    WordVectorsError,
    frequent_words,
    minilm_word_vectors,
    read_word_vectors,
    split_words,
    vocabulary_of,
    whole_words_of_minilm,
    word_tokenizer,
    write_word_vectors,
)


def test_written_vectors_are_read(tmp_path: Path) -> None:
    vectors = (np.arange(6).reshape(3, 2) / 4).astype(np.float32)
    write_word_vectors(tmp_path / "v.txt", ["cat", "ünïque", "."], vectors)
    assert (tmp_path / "v.txt").read_text().splitlines()[1] == "ünïque 0.5 0.75"
    rows, found = read_word_vectors(tmp_path / "v.txt", ["ünïque", "cat", "dog"])
    assert set(rows) == {"ünïque", "cat"}
    np.testing.assert_array_equal(found[[rows["cat"], rows["ünïque"]]], vectors[:2])
    assert [path.name for path in tmp_path.iterdir()] == ["v.txt"]


def test_headers_and_words_with_blanks(tmp_path: Path) -> None:
    (tmp_path / "v.txt").write_text("2 3\ncat 1 2 3\nNew York 4 5 6\n")
    rows, found = read_word_vectors(tmp_path / "v.txt", ["New York", "cat"])
    np.testing.assert_array_equal(found[rows["New York"]], [4, 5, 6])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("cat 1 2\ndog 1 x\n", "line 2: 'dog' has something that is no number"),
        ("cat 1 2\ndog 3\n", "line 2: needs a word and 2 numbers"),
        ("cat 1 nan\n", "line 1: 'cat' has NaN"),
        ("", "is empty"),
        ("cat\n", "line 1: needs a word and its numbers"),
    ],
)
def test_bad_files_are_told(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "v.txt").write_text(content)
    with pytest.raises(WordVectorsError, match=message):
        read_word_vectors(tmp_path / "v.txt", ["cat", "dog"])


def test_words_by_frequency() -> None:
    texts = ["The cat, the DOG.", "the café cat"]
    assert split_words(texts[1]) == ["the", "cafe", "cat"]
    assert frequent_words(texts, most=10, least_often=2) == ["the", "cat"]
    assert frequent_words(texts, most=1, least_often=1) == ["the"]
    text = word_tokenizer(["the", "cat"])
    assert vocabulary_of(text) == {"[PAD]": 0, "[UNK]": 1, "the": 2, "cat": 3}
    assert Tokenizer.from_str(text).encode("THE cat barks").ids == [2, 3, 1]


@pytest.mark.weights
def test_word_vectors_of_minilm(weights: dict[str, Path]) -> None:
    embeddings = load_file(weights["minilm-l6"] / "model.safetensors")[EMBEDDINGS]
    tokenizer = Tokenizer.from_file(str(weights["minilm-l6"] / "tokenizer.json"))
    found = minilm_word_vectors(["film", "unwatchably"])
    np.testing.assert_allclose(found[0], embeddings[tokenizer.token_to_id("film")], rtol=1e-6)
    pieces = [place for place in tokenizer.encode("unwatchably", add_special_tokens=False).ids if place]
    assert len(pieces) > 1
    np.testing.assert_allclose(found[1], embeddings[pieces].mean(axis=0), rtol=1e-4, atol=1e-7)
    words = whole_words_of_minilm()
    assert len(words) > 20_000
    assert "film" in words
    assert not any(word.startswith(("[", "#")) for word in words)
