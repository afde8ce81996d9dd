"""Masked-language-model pre-training: it learns, and a run that was stopped ends where another does."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer

from trivium.encoders.text.transformer import TransformerText
from trivium.pipeline.text_learning import pretraining, steps
from trivium.pipeline.text_learning.pretraining import (
    MaskingVocabulary,
    Pretrainer,
    PretrainingRecipe,
    masked,
    masking_vocabulary,
    windows,
)
from trivium.pipeline.text_learning.starting import Start
from trivium.pipeline.text_learning.steps import CheckpointError

RECIPE = PretrainingRecipe(
    epochs=2, batch_texts=8, window_tokens=12, learning_rate=3e-3, held_out=0.2, steps_between_checkpoints=2
)
TEXTS = [
    "the film was good",
    "a plot with music and story",
    "bad music",
    "the story was dull and the film was poor",
] * 12


def pretrainer(made: Start, recipe: PretrainingRecipe = RECIPE, texts: list[str] = TEXTS) -> Pretrainer:
    assert isinstance(made.network, TransformerText)
    return Pretrainer(made.network, Tokenizer.from_str(made.tokenizer), texts, recipe)


def test_the_loss_of_hidden_tokens_falls(new_start: Callable[..., Start]) -> None:
    told = pretrainer(new_start(), replace(RECIPE, epochs=12, dropout=0.0)).run()
    assert told.held_out_losses[-1] < 0.75 * told.held_out_losses[0]
    assert len(told.losses) == 12
    assert told.steps == 12 * 5


def test_rounded_shapes_change_nothing(new_start: Callable[..., Start], monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = replace(RECIPE, dropout=0.0)
    rounded = pretrainer(new_start(), recipe).run()
    monkeypatch.setattr(pretraining, "ASKED_ALIKE", 1)
    monkeypatch.setattr(steps, "TOKENS_ALIKE", 1)
    plain = pretrainer(new_start(), recipe).run()
    np.testing.assert_allclose(rounded.losses, plain.losses, rtol=5e-3)  # bfloat16 where the processor has it
    np.testing.assert_allclose(rounded.held_out_losses, plain.held_out_losses, rtol=5e-3)


@pytest.mark.parametrize("stopped_at", [3, 5, 7])
def test_a_stopped_run_goes_on(new_start: Callable[..., Start], tmp_path: Path, stopped_at: int) -> None:
    whole = new_start()
    expected = pretrainer(whole).run()

    def stop(done: int, total: int) -> None:
        if done == stopped_at:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pretrainer(new_start()).run(tmp_path / "c", progress=stop)
    seen: list[int] = []
    second = new_start(seed=9)  # its weights come from the checkpoint
    told = pretrainer(second).run(tmp_path / "c", progress=lambda done, total: seen.append(done))
    assert 1 < seen[0] <= stopped_at + 1
    assert seen[-1] == 10
    np.testing.assert_allclose(told.held_out_losses, expected.held_out_losses, rtol=1e-6)
    np.testing.assert_allclose(told.losses, expected.losses, rtol=1e-6)
    for name, tensor in whole.network.state_dict().items():
        torch.testing.assert_close(second.network.state_dict()[name], tensor, rtol=0, atol=0)


def test_another_run_is_not_gone_on_with(new_start: Callable[..., Start], tmp_path: Path) -> None:
    pretrainer(new_start()).run(tmp_path / "c")
    with pytest.raises(CheckpointError, match="another recipe"):
        pretrainer(new_start(), replace(RECIPE, learning_rate=1e-3)).run(tmp_path / "c")
    with pytest.raises(CheckpointError, match="another texts"):
        pretrainer(new_start(), texts=TEXTS[1:]).run(tmp_path / "c")


def test_windows_keep_all_tokens_in_order() -> None:
    found = windows([np.arange(10, 21), np.arange(3)], most=6, first=-1, last=-2)
    assert [window[1:-1].tolist() for window in found] == [[10, 11, 12, 13], [14, 15, 16, 17], [18, 19, 20], [0, 1, 2]]
    assert all(window[0] == -1 and window[-1] == -2 for window in found)
    assert windows([np.empty(0, np.int64)], most=6, first=-1, last=-2) == []


def test_what_cannot_be_pretrained(start: Start, new_start: Callable[..., Start]) -> None:
    with pytest.raises(ValueError, match="too little to learn from: 1 windows of 12"):
        pretrainer(start, texts=["the film"])
    with pytest.raises(ValueError, match="must have 3 to 16 tokens, as the network has positions, got 17"):
        pretrainer(new_start(), replace(RECIPE, window_tokens=17))
    from trivium.encoders.text.words import word_tokenizer

    with pytest.raises(ValueError, match=r"has no \[MASK\], \[CLS\], \[SEP\]"):
        masking_vocabulary(Tokenizer.from_str(word_tokenizer(["a"])))


VOCABULARY = MaskingVocabulary(mask=4, first=2, last=3, size=1000, special=frozenset({0, 1, 2, 3, 4}))


def test_the_shares_are_those_of_bert() -> None:
    tokens = np.random.default_rng(0).integers(5, 1000, (200, 100))
    tokens[:, 0], tokens[:, -1] = 2, 3
    seen, asked = masked(tokens, VOCABULARY, np.random.default_rng(1))
    assert asked.sum() == round(0.15 * 200 * 98)
    assert not asked[:, [0, -1]].any()
    np.testing.assert_array_equal(seen[~asked], tokens[~asked])
    hidden = seen[asked] == 4
    changed = ~hidden & (seen[asked] != tokens[asked])
    # 2,940 draws: three standard deviations are 0.022 and 0.017
    assert abs(hidden.mean() - 0.8) < 0.022
    assert abs(changed.mean() - 0.1) < 0.017
    assert set(seen[asked][changed]).isdisjoint(VOCABULARY.special)
    assert len(set(seen[asked][changed])) > 100  # not one token for all


def test_chance_is_the_seed_alone() -> None:
    tokens = np.random.default_rng(0).integers(5, 1000, (4, 20))
    first, again = (masked(tokens, VOCABULARY, np.random.default_rng(7)) for _ in range(2))
    np.testing.assert_array_equal(first[0], again[0])
    assert (masked(tokens, VOCABULARY, np.random.default_rng(8))[1] != first[1]).any()


def test_a_short_text_is_asked_for_one_token_and_an_empty_one_for_none() -> None:
    seen, asked = masked(np.array([[2, 9, 3, 0]]), VOCABULARY, np.random.default_rng(0))
    assert asked.tolist() == [[False, True, False, False]]
    seen, asked = masked(np.array([[2, 3, 0]]), VOCABULARY, np.random.default_rng(0))
    assert not asked.any()
    assert seen.tolist() == [[2, 3, 0]]
