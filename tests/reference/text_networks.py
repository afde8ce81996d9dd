"""Attention, an encoder layer and an LSTM in NumPy, one token at a time: slow, and easy to check by eye."""

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Weights = Mapping[str, Array]


def linear(x: Array, weights: Weights, name: str) -> Array:
    return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]


def self_attention(x: Array, mask: NDArray[np.int64], weights: Weights, *, heads: int, prefix: str = "") -> Array:
    """Attention of one text (t, d): each token's mean over all real tokens' values, weighted by softmax."""
    query, key, value = (linear(x, weights, f"{prefix}{part}") for part in ("query", "key", "value"))
    size = x.shape[1] // heads
    mixed = np.zeros_like(x)
    for head in range(heads):
        part = slice(head * size, (head + 1) * size)
        for token in range(len(x)):
            scores = [
                query[token, part] @ key[other, part] / math.sqrt(size) if mask[other] else -np.inf
                for other in range(len(x))
            ]
            powers = np.exp(np.array(scores) - max(scores))
            mixed[token, part] = (powers / powers.sum()) @ value[:, part]
    return linear(mixed, weights, f"{prefix}out")


def layer_norm(x: Array, weights: Weights, name: str, epsilon: float = 1e-12) -> Array:
    mean, variance = x.mean(axis=-1, keepdims=True), x.var(axis=-1, keepdims=True)
    found = (x - mean) / np.sqrt(variance + epsilon) * weights[f"{name}.weight"] + weights[f"{name}.bias"]
    return np.asarray(found, np.float64)


def gelu(x: Array) -> Array:
    return np.asarray(x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2))), np.float64)


def encoder_layer(x: Array, mask: NDArray[np.int64], weights: Weights, *, heads: int) -> Array:
    x = layer_norm(x + self_attention(x, mask, weights, heads=heads, prefix="attention."), weights, "attention_norm")
    return layer_norm(x + linear(gelu(linear(x, weights, "inner")), weights, "outer"), weights, "norm")


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def lstm(x: Array, weights: Weights, prefix: str) -> Array:
    """States of one layer after each word of one text (t, e), shape (t, w)."""
    width = weights[f"{prefix}.weight_hh_l0"].shape[1]
    state, cell, found = np.zeros(width), np.zeros(width), []
    for word in x:
        gates = (
            weights[f"{prefix}.weight_ih_l0"] @ word
            + weights[f"{prefix}.bias_ih_l0"]
            + weights[f"{prefix}.weight_hh_l0"] @ state
            + weights[f"{prefix}.bias_hh_l0"]
        )
        let_in, forget, new, let_out = np.split(gates, 4)
        cell = sigmoid(forget) * cell + sigmoid(let_in) * np.tanh(new)
        state = sigmoid(let_out) * np.tanh(cell)
        found.append(state)
    return np.array(found)
