"""Slow, obvious versions of the fusions: one row after the other, in plain NumPy, from a module's named tensors.

A row is a mapping of the modalities that it has: name -> tokens (t, d), without padding.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]
Row = Mapping[str, Numbers]
State = Mapping[str, Numbers]


def linear(state: State, name: str, x: Numbers) -> Numbers:
    return np.asarray(state[f"{name}.weight"] @ x + state[f"{name}.bias"])


def softmax(x: Numbers) -> Numbers:
    powers = np.exp(x - x.max())
    return np.asarray(powers / powers.sum())


def sigmoid(x: Numbers) -> Numbers:
    return np.asarray(1 / (1 + np.exp(-x)))


def norm(state: State, name: str, x: Numbers) -> Numbers:
    normed = (x - x.mean()) / np.sqrt(x.var() + 1e-5)
    return np.asarray(normed * state[f"{name}.weight"] + state[f"{name}.bias"])


def gelu(x: Numbers) -> Numbers:
    return np.array([0.5 * value * (1 + math.erf(value / math.sqrt(2))) for value in x])


def attention(state: State, name: str, asking: Numbers, asked: Numbers, heads: int) -> Numbers:
    """Return what each row of ``asking`` finds among the rows of ``asked``."""
    found = []
    for token in asking:
        q = linear(state, f"{name}.query", token)
        keys = [linear(state, f"{name}.key", other) for other in asked]
        values = [linear(state, f"{name}.value", other) for other in asked]
        width = len(q) // heads
        parts = []
        for head in range(heads):
            own = slice(head * width, (head + 1) * width)
            weights = softmax(np.array([q[own] @ key[own] / math.sqrt(width) for key in keys]))
            parts.append(sum(w * value[own] for w, value in zip(weights, values, strict=True)))
        found.append(linear(state, f"{name}.out", np.concatenate(parts)))
    return np.array(found)


def layer(state: State, name: str, tokens: Numbers, heads: int) -> Numbers:
    normed = np.array([norm(state, f"{name}.attention_norm", token) for token in tokens])
    tokens = tokens + attention(state, f"{name}.attention", normed, normed, heads)
    mixed = []
    for token in tokens:
        hidden = gelu(linear(state, f"{name}.hidden", norm(state, f"{name}.hidden_norm", token)))
        mixed.append(token + linear(state, f"{name}.out", hidden))
    return np.array(mixed)


def concatenation(state: State, row: Row, names: Sequence[str]) -> Numbers:
    return linear(
        state, "linear", np.concatenate([row[m].mean(0) if m in row else state[f"absent.{m}"] for m in names])
    )


def gated_units(state: State, row: Row, names: Sequence[str]) -> Numbers:
    width = {m: state[f"units.{m}.weight"].shape[1] for m in names}
    together = np.concatenate([row[m].mean(0) if m in row else np.zeros(width[m]) for m in names])
    total = np.zeros(len(state[f"units.{names[0]}.bias"]))
    for m in row:
        total += np.tanh(linear(state, f"units.{m}", row[m].mean(0))) * sigmoid(linear(state, f"gates.{m}", together))
    return total


def low_rank_tensor(state: State, row: Row, names: Sequence[str]) -> Numbers:
    """Build the whole tensor of products and the whole weight tensor, which the fusion never does."""
    outer = np.ones(1)
    for m in names:
        width = state[f"factors.{m}"].shape[1] - 1
        outer = np.outer(outer, np.append(row[m].mean(0) if m in row else np.zeros(width), 1)).ravel()
    dim = len(state["bias"])
    weight = np.zeros((len(outer), dim))
    for rank, scale in enumerate(state["rank_weights"]):
        for o in range(dim):
            part = np.ones(1)
            for m in names:
                part = np.outer(part, state[f"factors.{m}"][rank, :, o]).ravel()
            weight[:, o] += scale * part
    return np.asarray(outer @ weight + state["bias"])


def self_attention(state: State, row: Row, names: Sequence[str]) -> Numbers:
    own = [linear(state, f"projections.{m}", row[m].mean(0)) + state[f"kinds.{m}"] for m in names if m in row]
    tokens = np.array([state["class_token"], *own])
    q, k, v = tokens @ state["query"], tokens @ state["key"], tokens @ state["value"]
    whole = np.array([softmax(q[i] @ k.T / math.sqrt(q.shape[1])) @ v for i in range(len(tokens))]) + tokens
    return np.asarray(whole[0])


def token_encoder(state: State, row: Row, names: Sequence[str], *, heads: int, layers: int) -> Numbers:
    tokens = [state["class_token"]]
    for m in names:
        for place, token in enumerate(row.get(m, ())):
            tokens.append(linear(state, f"projections.{m}", token) + state[f"kinds.{m}"] + state["places"][place])
    mixed = np.array(tokens)
    for number in range(layers):
        mixed = layer(state, f"layers.{number}", mixed, heads)
    return norm(state, "norm", mixed[0])


def bottleneck(state: State, row: Row, names: Sequence[str], *, heads: int, layers: int) -> Numbers:
    own = {
        m: np.array([state[f"class_tokens.{m}"], *(linear(state, f"projections.{m}", token) for token in row[m])])
        for m in names
        if m in row
    }
    shared = state["shared"]
    for number in range(layers):
        said = []
        for m in own:
            mixed = layer(state, f"layers.{number}.{m}", np.concatenate([own[m], shared]), heads)
            own[m] = mixed[: len(own[m])]
            said.append(mixed[len(own[m]) :])
        shared = np.mean(said, axis=0)
    return norm(state, "norm", np.mean([tokens[0] for tokens in own.values()], axis=0))


def cross_attention(state: State, row: Row, names: Sequence[str], *, heads: int) -> Numbers:
    own = {
        m: np.array([linear(state, f"projections.{m}", token) + state[f"kinds.{m}"] for token in row[m]])
        for m in names
        if m in row
    }
    normed = {m: np.array([norm(state, "token_norm", token) for token in tokens]) for m, tokens in own.items()}
    means = []
    for m, tokens in own.items():
        others = [normed[other] for other in own if other != m]
        if others:
            tokens = tokens + attention(state, f"attentions.{m}", normed[m], np.concatenate(others), heads)
        means.append(tokens.mean(0))
    return norm(state, "norm", np.mean(means, axis=0))


def late_average(state: State, row: Row, names: Sequence[str]) -> Numbers:
    weights = {m: math.exp(state["log_weights"][i]) for i, m in enumerate(names) if m in row}
    said = {m: softmax(linear(state, f"classifiers.{m}", row[m].mean(0))) for m in row}
    return np.asarray(sum(weights[m] * said[m] for m in row) / sum(weights.values()))


def late_stack(state: State, row: Row, names: Sequence[str]) -> Numbers:
    scores = state["bias"].copy()
    for m in row:
        scores += np.log(softmax(linear(state, f"classifiers.{m}", row[m].mean(0)))) @ state[f"mixing.{m}"]
    return softmax(scores)
