"""What is hidden of texts: as much as BERT hides, nothing special, and the same by the same seed."""

import numpy as np

from trivium.pipeline.text_learning.masking import MaskingVocabulary, masked

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
