"""What training of a text encoder starts from: nothing, word vectors, MiniLM, or a folder's model."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from trivium.encoders.networks.weights import WEIGHTS, fetch, fetch_checked
from trivium.encoders.text.own_models import (
    TOKENIZER_FILE,
    TextModelConfig,
    build_network,
    load_text_network,
    read_text_model,
    read_tokenizer,
)
from trivium.encoders.text.shapes import MINILM_SHAPE, LstmShape, TransformerShape
from trivium.encoders.text.words import Matrix, vocabulary_of, word_tokenizer

# Pre-trained vectors are brought to mean 0 and this deviation, GloVe's own: an LSTM's gates are neither shut nor blind.
WORD_DEVIATION = 0.3


@dataclass(frozen=True, slots=True)
class Start:
    """A network, what it is, and its tokenizer's JSON."""

    network: nn.Module
    config: TextModelConfig
    tokenizer: str


def start_from_folder(folder: Path, *, max_tokens: int | None = None, dropout: float = 0.0) -> Start:
    """Take a text model as it is.

    Args:
        folder: Of the model.
        max_tokens: Where texts are cut from now on; as before if None.
        dropout: While it is trained.

    Raises:
        TextModelError: If it is none.
        ValueError: If it has fewer positions than ``max_tokens``.
    """
    config = read_text_model(folder)
    network = load_text_network(folder, dropout=dropout)
    return Start(
        network, _cut_at(config, max_tokens), read_tokenizer(folder, vocabulary=config.shape.vocabulary).to_str()
    )


def start_from_minilm(*, max_tokens: int = 256, dropout: float = 0.0) -> Start:
    """Take MiniLM's weights into our Transformer: the same vectors, and all of it can be trained.

    Raises:
        WeightsError: If the weights cannot be had.
    """
    from trivium.encoders.text.transformer import build_minilm

    folder = fetch_checked(WEIGHTS["minilm-l6"])
    config = _cut_at(TextModelConfig(shape=MINILM_SHAPE, max_tokens=256), max_tokens)
    network = build_network(config, dropout=dropout)
    network.load_state_dict(build_minilm(folder).text.state_dict())
    return Start(network, config, _plain_minilm_tokenizer())


def start_transformer(
    *, width: int, layers: int, heads: int, max_tokens: int, dim: int | None = None, seed: int = 0, dropout: float = 0.0
) -> Start:
    """Begin a Transformer at random, over MiniLM's word pieces.

    Args:
        width: Numbers of a token, a multiple of ``heads``.
        layers: How many.
        heads: Of each.
        max_tokens: Where texts are cut; as many positions are learnt.
        dim: Numbers of a text's vector; None: the width.
        seed: Of the weights.
        dropout: While it is trained.

    Raises:
        WeightsError: If MiniLM's tokenizer cannot be had.
    """
    tokenizer = _plain_minilm_tokenizer()
    shape = TransformerShape(
        vocabulary=len(vocabulary_of(tokenizer)),
        width=width,
        heads=heads,
        layers=layers,
        inner=4 * width,
        positions=max_tokens,
        embedding=width,
        dim=width if dim is None else dim,
        projected=dim is not None,
    )
    config = TextModelConfig(shape=shape, max_tokens=max_tokens)
    torch.manual_seed(seed)
    return Start(build_network(config, dropout=dropout), config, tokenizer)


def start_student(*, width: int, layers: int, heads: int, dim: int, max_tokens: int = 64, seed: int = 0) -> Start:
    """Begin a small Transformer whose token embeddings are MiniLM's, narrowed; see `start_transformer`.

    They are turned to their principal axes, of which the first ``width`` stay: the best linear map that there is to as
    many numbers.

    Raises:
        WeightsError: If MiniLM's weights cannot be had.
    """
    start = start_transformer(width=width, layers=layers, heads=heads, max_tokens=max_tokens, dim=dim, seed=seed)
    with torch.no_grad():
        embeddings = torch.from_numpy(_minilm_embeddings())
        centred = embeddings - embeddings.mean(dim=0)
        if width < centred.shape[1]:
            _, axes = torch.linalg.eigh(centred.T @ centred)
            centred = centred @ axes.flip(-1)[:, :width]
        weight = start.network.get_parameter("tokens.weight")
        weight[:, : centred.shape[1]] = centred
    return start


def start_lstm(
    words: list[str],
    *,
    embedding: int,
    width: int,
    layers: int = 1,
    both_ways: bool = False,
    last: bool = False,
    max_tokens: int = 256,
    dim: int | None = None,
    seed: int = 0,
    dropout: float = 0.0,
) -> Start:
    """Begin an LSTM at random, over some words.

    Args:
        words: Of the vocabulary.
        embedding: Numbers of a word's vector.
        width: Numbers of a direction's state.
        layers: How many, one upon the other.
        both_ways: Read forwards and backwards.
        last: Take the state after the last word, not the mean.
        max_tokens: Where texts are cut.
        dim: Numbers of a text's vector; None: those of the state.
        seed: Of the weights.
        dropout: While it is trained.
    """
    shape = LstmShape(
        vocabulary=len(words) + 2,
        embedding=embedding,
        width=width,
        layers=layers,
        both_ways=both_ways,
        pooling="last" if last else "mean",
        dim=width * (2 if both_ways else 1) if dim is None else dim,
        projected=dim is not None,
    )
    config = TextModelConfig(shape=shape, max_tokens=max_tokens)
    torch.manual_seed(seed)
    return Start(build_network(config, dropout=dropout), config, word_tokenizer(words))


def take_word_vectors(start: Start, vectors: tuple[dict[str, int], Matrix]) -> int:
    """Put word vectors into an LSTM, standardised; words without one keep their random vector.

    Returns:
        How many words have a vector.

    Raises:
        ValueError: If the vectors have another width than the LSTM's.
    """
    rows, matrix = vectors
    vocabulary = vocabulary_of(start.tokenizer)
    weight = start.network.get_parameter("tokens.weight")
    if matrix.shape[1] != weight.shape[1]:
        raise ValueError(f"the word vectors have {matrix.shape[1]} numbers, the LSTM takes {weight.shape[1]}")
    known = [word for word in vocabulary if word in rows]
    if known:
        taken = matrix[[rows[word] for word in known]]
        centred = taken - taken.mean(axis=0)
        scaled = centred * np.float32(WORD_DEVIATION / max(float(centred.std()), 1e-9))
        with torch.no_grad():
            weight[[vocabulary[word] for word in known]] = torch.from_numpy(scaled)
    return len(known)


def _cut_at(config: TextModelConfig, max_tokens: int | None) -> TextModelConfig:
    if max_tokens is None:
        return config
    if isinstance(config.shape, TransformerShape) and max_tokens > config.shape.positions:
        raise ValueError(
            f"the model has {config.shape.positions} positions, texts cannot be cut at {max_tokens} tokens"
        )
    return replace(config, max_tokens=max_tokens)


def _plain_minilm_tokenizer() -> str:
    return (fetch(WEIGHTS["minilm-l6"]) / TOKENIZER_FILE).read_text(encoding="utf-8")


def _minilm_embeddings() -> Matrix:
    from safetensors.numpy import load_file

    from trivium.encoders.text.words import EMBEDDINGS

    embeddings: Matrix = load_file(fetch_checked(WEIGHTS["minilm-l6"]) / "model.safetensors")[EMBEDDINGS]
    return embeddings
