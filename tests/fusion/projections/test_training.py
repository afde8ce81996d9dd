"""Training of heads: it learns, it repeats itself, and what is fixed stays."""

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from trivium.encoders.base import Modality, unit_rows
from trivium.fusion.projections.training import PairSet, Recipe, Trainer, Training, _Positives, info_nce, sigmoid_loss

RECIPE = Recipe(
    dim=8, members=2, hidden=16, epochs=60, batch_pairs=64, learning_rate=3e-2, dropout=0.1, input_dropout=0.0
)
N = 64


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Passes are tiny: threads that wait for one another would take longer, on a busy machine a hundred times."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def inputs() -> dict[Modality, np.ndarray]:
    random = np.random.default_rng(0)
    hidden = random.normal(size=(N, 6))
    widths: dict[Modality, int] = {"text": 10, "image": 12, "audio": 8}
    return {m: (hidden @ random.normal(size=(6, width))).astype(np.float32) for m, width in widths.items()}


def pairs(first: Modality, second: Modality) -> PairSet:
    return PairSet(modalities=(first, second), rows=np.stack([np.arange(N)] * 2, axis=1), weights=np.ones(N))


def recall(states: Any, given: dict[Modality, np.ndarray], first: Modality, second: Modality) -> float:
    def vectors(modality: Modality) -> np.ndarray:
        s = states[modality]
        return np.concatenate(
            [
                unit_rows(
                    given[modality] @ s["linear.weight"][m]
                    + s["linear.bias"][m]
                    + np.maximum(given[modality] @ s["hidden.weight"][m] + s["hidden.bias"][m], 0) @ s["out.weight"][m]
                )
                for m in range(len(s["linear.weight"]))
            ],
            axis=1,
        )

    return float(((vectors(first) @ vectors(second).T).argmax(axis=1) == np.arange(N)).mean())


def trained(recipe: Recipe = RECIPE) -> tuple[Training, dict[Modality, np.ndarray]]:
    given = inputs()
    trainer = Trainer(given, [pairs("text", "image"), pairs("text", "audio")], recipe)
    return trainer.run(lambda states: recall(states, given, "text", "image")), given


@pytest.mark.parametrize("loss", ["nce", "sigmoid"])
def test_pairs_are_learnt_and_modalities_meet_through_a_third(loss: Any) -> None:
    training, given = trained(dataclasses.replace(RECIPE, loss=loss))
    assert recall(training.states, given, "text", "image") > 0.9
    assert recall(training.states, given, "image", "audio") > 0.5  # no such pair was seen
    assert training.losses[-1] < 0.5 * training.losses[0]


def test_the_best_epoch_is_kept() -> None:
    training, given = trained()
    assert training.scores[training.best_epoch - 1] == max(training.scores)
    assert recall(training.states, given, "text", "image") == max(training.scores)


def test_the_same_seed_gives_the_same_heads() -> None:
    recipe = dataclasses.replace(RECIPE, epochs=3)
    first, second = (trained(recipe)[0].states for _ in range(2))
    other = trained(dataclasses.replace(recipe, seed=1))[0].states
    for modality, state in first.items():
        for name, tensor in state.items():
            np.testing.assert_array_equal(tensor, second[modality][name])
    assert not np.array_equal(first["text"]["linear.weight"], other["text"]["linear.weight"])


def test_what_is_fixed_stays_and_is_learnt_towards() -> None:
    given = inputs()
    fixed = {"text": unit_rows(given["text"])}
    recipe = dataclasses.replace(RECIPE, members=1, dim=10)
    audio = {"audio": given["audio"]}
    trainer = Trainer(audio, [pairs("text", "audio")], recipe, fixed=fixed)  # type: ignore[arg-type]
    training = trainer.run(lambda _: 0.0)
    assert set(training.states) == {"audio"}
    found = trainer.states()["audio"]
    hidden = np.maximum(given["audio"] @ found["hidden.weight"][0] + found["hidden.bias"][0], 0)
    vectors = unit_rows(
        given["audio"] @ found["linear.weight"][0] + found["linear.bias"][0] + hidden @ found["out.weight"][0]
    )
    assert ((vectors @ fixed["text"].T).argmax(axis=1) == np.arange(N)).mean() > 0.8


def test_training_starts_where_it_is_told() -> None:
    given = inputs()
    start = np.random.default_rng(1).normal(size=(10, 8)).astype(np.float32)
    trainer = Trainer(given, [pairs("text", "image")], RECIPE, start={"text": start})
    for member in trainer.states()["text"]["linear.weight"]:
        np.testing.assert_array_equal(member, start)


def test_all_positives_of_a_batch_are_known() -> None:
    rows = np.array([[0, 0], [0, 1], [2, 1], [2, 3], [0, 0]])
    positives = _Positives(
        PairSet(modalities=("text", "image"), rows=rows, weights=np.ones(5)), (4, 5), torch.device("cpu")
    )
    found = positives.among(np.array([0, 2, 3]), np.array([1, 3, 4])).numpy()
    np.testing.assert_array_equal(found, [[True, False, False], [True, True, False], [False, False, False]])


def test_weights_say_how_often_a_pair_is_drawn() -> None:
    given = inputs()
    weights = np.where(np.arange(N) < N // 2, 2.0, 0.5)
    trainer = Trainer(given, [dataclasses.replace(pairs("text", "image"), weights=weights)], RECIPE)
    drawn = np.zeros(N)
    for _ in range(100):
        for each, chosen in trainer._batches():
            np.add.at(drawn, each.rows[chosen, 0], 1)
    np.testing.assert_array_equal(drawn[: N // 2], 200)
    assert 40 < drawn[N // 2 :].mean() < 60


def one_way(scores: np.ndarray, positives: np.ndarray) -> float:
    rows = []
    for row, right in zip(scores, positives, strict=True):
        if right.any():
            total = math.log(sum(math.exp(s) for s in row))
            rows.append(-sum(s - total for s in row[right]) / right.sum())
    return float(sum(rows) / len(rows))


@st.composite
def batches(draw: st.DrawFn) -> tuple[Tensor, Tensor]:
    n, m = draw(st.integers(1, 5)), draw(st.integers(1, 5))
    random = np.random.default_rng(draw(st.integers(0, 1000)))
    positives = random.random((n, m)) < 0.4
    positives[0, 0] = True
    return torch.from_numpy(random.normal(size=(n, m)) * 3), torch.from_numpy(positives)


@given(batches())
def test_info_nce(batch: tuple[Tensor, Tensor]) -> None:
    scores, positives = batch
    s, p = scores.numpy(), positives.numpy()
    assert float(info_nce(scores, positives)) == pytest.approx((one_way(s, p) + one_way(s.T, p.T)) / 2, abs=1e-9)


@given(batches())
def test_members_are_averaged(batch: tuple[Tensor, Tensor]) -> None:
    scores, positives = batch
    both = info_nce(torch.stack([scores, 2 * scores]), positives)
    assert float(both) == pytest.approx(
        (float(info_nce(scores, positives)) + float(info_nce(2 * scores, positives))) / 2
    )


@given(batches())
def test_sigmoid_loss(batch: tuple[Tensor, Tensor]) -> None:
    scores, positives = batch
    expected = 0.0
    for s, right in zip(scores.numpy().ravel(), positives.numpy().ravel(), strict=True):
        expected += math.log1p(math.exp(-(1 if right else -1) * (s - 2)))
    found = sigmoid_loss(scores, positives, bias=torch.tensor(-2.0, dtype=torch.float64))
    assert float(found) == pytest.approx(expected / len(scores))


@pytest.mark.parametrize("loss", ["nce", "sigmoid"])
def test_gradients(loss: str) -> None:
    torch.manual_seed(0)
    scores = torch.randn(2, 3, 4, dtype=torch.float64, requires_grad=True)
    positives = torch.eye(3, 4, dtype=torch.bool)
    positives[0, 3] = True
    if loss == "nce":
        assert torch.autograd.gradcheck(lambda s: info_nce(s, positives), (scores,))
    else:
        bias = torch.tensor(-1.0, dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(lambda s, b: sigmoid_loss(s, positives, bias=b), (scores, bias))


def test_perfect_scores_cost_little() -> None:
    positives = torch.eye(4, dtype=torch.bool)
    assert float(info_nce(50.0 * positives, positives)) < 1e-6
    assert float(info_nce(-50.0 * positives, positives)) > 10
