"""Distillation: the student comes near the teacher's vectors, and near texts that it never saw."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from trivium.encoders.base import unit_rows
from trivium.pipeline.text_learning.classifying import LabelledTexts
from trivium.pipeline.text_learning.distillation import DistillationRecipe, cosine_loss, distil, parts_of_texts
from trivium.pipeline.text_learning.starting import Start

RECIPE = DistillationRecipe(epochs=8, batch_texts=16, learning_rate=5e-3, held_out=0.2)


def teacher(texts: list[str]) -> np.ndarray:
    """Make the mean of each word's own random vector."""
    of = {word: np.random.default_rng(sum(map(ord, word))).normal(size=6) for text in texts for word in text.split()}
    return unit_rows(np.stack([np.mean([of[word] for word in text.split()], axis=0) for text in texts]))


def test_a_student_learns(new_start: Callable[..., Start], labelled: Callable[..., LabelledTexts]) -> None:
    texts = list(dict.fromkeys(labelled(200).texts))
    told = distil(new_start(dim=6), texts, teacher(texts), RECIPE)
    assert told.held_out_cosines[told.kept_epoch - 1] == max(told.held_out_cosines)
    assert max(told.held_out_cosines) > 0.85 > told.held_out_cosines[0]
    assert told.losses[-1] < told.losses[0]


def test_a_few_texts_are_learnt_by_heart(new_start: Callable[..., Start]) -> None:
    texts = ["the film was good", "bad music", "a dull plot", "the story"]
    told = distil(new_start(dim=6), texts, teacher(texts), replace(RECIPE, epochs=60, held_out=0.0))
    assert told.losses[-1] < 0.01


def test_the_loss_is_one_minus_the_cosine() -> None:
    vectors, targets = torch.tensor([[2.0, 0.0], [0.0, 3.0]]), torch.tensor([[1.0, 0.0], [0.6, 0.8]])
    torch.testing.assert_close(cosine_loss(vectors, targets), torch.tensor(0.1))


def test_parts_are_stretches_of_the_texts() -> None:
    texts = ["one two three four", "five", " "]
    found = parts_of_texts(texts, count=50, seed=0)
    assert found == parts_of_texts(texts, count=50, seed=0)
    assert len(found) == len(set(found)) > 5
    assert all(any(part in text for text in texts) for part in found)


def test_widths_must_fit(start: Start) -> None:
    with pytest.raises(
        ValueError, match=r"a student of 16 numbers needs targets \(2, 16\) of at least 2 texts, got \(2, 6\)"
    ):
        distil(start, ["a", "b"], np.zeros((2, 6), np.float32), RECIPE)
