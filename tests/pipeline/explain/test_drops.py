"""Occlusion with encoders whose answer is known: what they look at comes out on top, and nothing else."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trivium.encoders.base import DecodeError, Encoder, Modality, Prepared, Space, Vectors, unit_rows
from trivium.encoders.decoding.sounds import Sound
from trivium.pipeline.explain import drops as explanation
from trivium.pipeline.explain.drops import (
    ExplainedQuery,
    cell_drops,
    left_out_drops,
    muted,
    picture_drops,
    seen_characters,
    shrunken,
    sound_drops,
    text_drops,
    windows,
    without,
    word_places,
)
from trivium.pipeline.search.query import QueryPart
from trivium.pipeline.space.config import SpaceConfig
from trivium.pipeline.space.joint import JointSpace

SPACE = Space(name="known", dim=2, revision="1")
FOUND = np.array([1, 0], np.float32)  # the query: how much of what it looks for an encoder sees
RATE_HZ = 8000


class Looking(Encoder):
    """A vector whose first number says how much is seen, between 0 and 1."""

    space = SPACE

    def __init__(self, modality: Modality, sees: Callable[[Any], float]) -> None:
        self.modality = modality
        self._sees = sees

    def prepare(self, item: Any, /) -> Prepared:
        if self.modality == "text" and not item.strip():
            raise DecodeError("the text is empty")
        return np.array([self._sees(item)])

    def embed(self, batch: Sequence[Prepared], /) -> Vectors:
        return np.array([(seen[0], np.sqrt(1 - seen[0] ** 2)) for seen in batch], np.float32)


class Blocks(Looking):
    """An encoder of sounds that knows blocks of a second, each seen by its mean square."""

    has_windows = True

    def blocks(self, sound: Any, /) -> Iterator[Prepared]:
        waveform, rate_hz = sound
        for start in range(0, len(waveform), rate_hz):
            yield np.array([[(waveform[start : start + rate_hz] ** 2).mean()]])

    def embed_windows(self, blocks: Iterable[Prepared], seconds: Sequence[tuple[float, float]], /) -> Vectors:
        rows = np.concatenate(list(blocks))[:, 0]
        means = [rows.mean(), *(rows[int(start) : max(int(stop), int(start) + 1)].mean() for start, stop in seconds)]
        return unit_rows(np.array([(mean, 1 - mean) for mean in means]))


class Known(JointSpace):
    """A space with one such encoder of texts."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__(SpaceConfig(space=SPACE, description="", encoders={}), source="known")
        self._encoder = encoder

    def encoder(self, modality: Modality, replica: int = 0) -> Encoder:
        return self._encoder


def red_share(row: int, column: int) -> Callable[[np.ndarray], float]:
    """How red one cell of a 7 x 7 grid is."""

    def look(pixels: np.ndarray) -> float:
        height, width = pixels.shape[:2]
        cell = pixels[row * height // 7 : (row + 1) * height // 7, column * width // 7 : (column + 1) * width // 7]
        return float(np.clip((cell[..., 0] - cell[..., 1].astype(float)).mean() / 255, 0, 1))

    return look


@pytest.mark.parametrize("cell", [(0, 0), (2, 5), (6, 6)])
@pytest.mark.parametrize("shape", [(70, 140), (224, 224)])
def test_the_cell_that_is_looked_at_is_the_hottest(cell: tuple[int, int], shape: tuple[int, int]) -> None:
    pixels = np.full((*shape, 3), 128, np.uint8)
    top, left = (place * length // 7 for place, length in zip(cell, shape, strict=True))
    pixels[top : top + shape[0] // 7, left : left + shape[1] // 7] = (255, 0, 0)
    vector, drops = picture_drops(Looking("image", red_share(*cell)), pixels, FOUND)
    assert vector @ FOUND == pytest.approx(1)
    assert drops.argmax() == np.ravel_multi_index(cell, drops.shape)
    assert drops.max() > 2 * np.sort(drops, axis=None)[-2]
    rest = np.delete(drops, np.ravel_multi_index(cell, drops.shape))
    assert np.abs(rest).mean() < 0.05 * drops.max()


def test_a_flat_picture_has_no_hot_cell() -> None:
    """Blurring changes nothing in it; grey over it would."""
    pixels = np.full((70, 70, 3), (250, 10, 10), np.uint8)
    _, drops = picture_drops(Looking("image", red_share(3, 3)), pixels, FOUND)
    assert np.abs(drops).max() < 1e-3


@pytest.mark.parametrize("shape", [(1, 1), (1, 50), (3, 4), (7, 1)])
def test_pictures_of_few_pixels(shape: tuple[int, int]) -> None:
    pixels = np.zeros((*shape, 3), np.uint8)
    _, drops = picture_drops(Looking("image", lambda pixels: pixels.mean() / 255), pixels, FOUND)
    assert drops.shape == (min(7, shape[0]), min(7, shape[1]))
    assert not drops.any()


def test_no_more_variants_than_promised() -> None:
    assert len(windows((7, 7), explanation.WINDOW_CELLS)) <= 149
    assert len(windows((explanation.MAX_STRETCHES,), explanation.WINDOW_STRETCHES)) <= 149


def test_windows_are_all_places() -> None:
    assert windows((3,), (1, 2)).astype(int).tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [0, 1, 1]]
    assert windows((2, 3), (2,)).sum(axis=(1, 2)).tolist() == [4, 4]
    assert len(windows((1,), (1, 2))) == 1


@given(st.lists(st.integers(-4, 4), min_size=1, max_size=12), st.integers(1, 3))
def test_what_adds_up_is_found_again(quarters: list[int], size: int) -> None:
    """Where each window's drop is the sum of its cells'."""
    cells = np.array(quarters, np.float32) / 4
    masks = windows((len(cells),), range(1, size + 1))
    drops = np.asarray(masks @ cells, np.float32)
    assert cell_drops(drops, masks).tolist() == pytest.approx(cells.tolist(), abs=1e-5)


def test_drops_of_cells_are_those_that_fit_best() -> None:
    """Solved by the normal equations; and no other drops fit better."""
    rng = np.random.default_rng(0)
    masks = windows((4, 3), (1, 2))
    drops = rng.normal(size=len(masks)).astype(np.float32)
    covers = masks.reshape(len(masks), -1).astype(float)
    found = cell_drops(drops, masks)
    expected = np.linalg.solve(covers.T @ covers, covers.T @ drops)
    np.testing.assert_allclose(found.reshape(-1), expected, atol=1e-5)
    error = np.linalg.norm(covers @ found.reshape(-1) - drops)
    for _ in range(20):
        assert np.linalg.norm(covers @ (found.reshape(-1) + rng.normal(size=12) / 10) - drops) > error


def test_large_pictures_are_brought_to_twice_the_side() -> None:
    assert shrunken(np.zeros((3000, 4000, 3), np.uint8), 100).shape == (200, 267, 3)
    assert shrunken(np.zeros((3000, 4000, 3), np.uint8), None).shape == (448, 597, 3)
    small = np.zeros((10, 4000, 3), np.uint8)
    assert shrunken(small, 100) is small


def energy(start: float, stop: float) -> Callable[[Sound], float]:
    """How loud a stretch is."""
    return lambda sound: float((sound[0][int(start * sound[1]) : int(stop * sound[1])] ** 2).mean())


def test_the_stretch_that_is_heard_is_the_strongest() -> None:
    waveform = np.full(4 * RATE_HZ, 0.5, np.float32)
    vector, marks = sound_drops(Looking("audio", energy(2.25, 2.5)), (waveform, RATE_HZ), FOUND, at=10)
    assert vector @ FOUND == pytest.approx(0.25)
    assert len(marks) == 16
    assert (marks[0].start, marks[-1].stop) == (10, 14)
    assert all(before.stop == after.start for before, after in pairwise(marks))
    strongest = max(marks, key=lambda mark: mark.drop)
    assert (strongest.start, strongest.stop) == (12.25, 12.5)
    assert strongest.drop > 4 * sorted(mark.drop for mark in marks)[-2]


def test_a_sound_too_short_for_stretches_is_one() -> None:
    waveform = np.full(RATE_HZ // 10, 0.5, np.float32)
    _, (mark,) = sound_drops(Looking("audio", energy(0, 1)), (waveform, RATE_HZ), FOUND)
    assert (mark.start, mark.stop) == (0, 0.1)
    assert mark.drop == pytest.approx(0.25)  # all of it


def test_long_sounds_are_encoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each stretch is left out of the mean of all: muting, which costs a pass for each, is not used."""
    monkeypatch.delattr(explanation, "muted")
    waveform = np.zeros(60 * RATE_HZ, np.float32)
    waveform[30 * RATE_HZ : 32 * RATE_HZ] = 0.9
    _, marks = sound_drops(Blocks("audio", energy(0, 60)), (waveform, RATE_HZ), FOUND, at=5)
    assert len(marks) == 40
    strongest = sorted(marks, key=lambda mark: -mark.drop)[:2]
    assert {mark.start for mark in strongest} <= {35.0, 36.5, 38.0}
    assert sum(mark.drop > 0 for mark in marks) <= 3


def test_long_sounds_of_an_encoder_without_blocks_are_muted() -> None:
    waveform = np.full(40 * RATE_HZ, 0.5, np.float32)
    _, marks = sound_drops(Looking("audio", energy(20, 22)), (waveform, RATE_HZ), FOUND)
    assert len(marks) == 20
    assert max(marks, key=lambda mark: mark.drop).start == 20


def test_muting_fades_inside_the_stretch_only() -> None:
    waveform = np.ones(100, np.float32)
    gain = muted(waveform, 20, 40, fade=4)
    assert gain[:20].tolist() == [1] * 20
    assert gain[40:].tolist() == [1] * 60
    np.testing.assert_allclose(gain[20:24], [1, 0.75, 0.5, 0.25])
    np.testing.assert_allclose(gain[36:40], [0.25, 0.5, 0.75, 1])
    assert not gain[24:36].any()
    assert not muted(waveform, 0, 100, fade=4).any()  # at the ends there is nothing to fade from
    assert waveform.all()


def test_left_out_of_a_mean() -> None:
    members = unit_rows(np.array([(1, 0), (0, 1), (0, 1)], np.float32))
    expected = [members.mean(axis=0) / np.linalg.norm(members.mean(axis=0)) @ FOUND]
    for left in range(3):
        rest = np.delete(members, left, axis=0).mean(axis=0)
        expected.append(rest / np.linalg.norm(rest) @ FOUND)
    np.testing.assert_allclose(left_out_drops(members, FOUND), expected[0] - np.array(expected[1:]), atol=1e-6)


def counting(word: str, *, of: int = 4) -> Looking:
    """See how often a word is in the first 30 characters of a text."""
    return Looking("text", lambda text: min(1.0, text[:30].count(word) / of))


def test_the_word_that_is_looked_for_is_the_strongest() -> None:
    vector, marks = text_drops(counting("whale"), "The whale, and a boat’s whale.", FOUND, at=100)
    assert vector @ FOUND == pytest.approx(0.5)
    assert [mark.text for mark in marks] == ["The", "whale", "and", "a", "boat’s", "whale"]
    assert [round(mark.drop, 3) for mark in marks] == [0, 0.25, 0, 0, 0, 0.25]
    assert (marks[1].start, marks[1].stop) == (104, 109)


def test_words_beyond_what_the_vector_knows_are_left_out() -> None:
    text = "A whale swims. " * 20
    encoder = Looking("text", lambda text: len(text[:30]) / 30)
    assert seen_characters(encoder, text) == 31  # the end of the word that the limit is in, or comes before
    _, marks = text_drops(encoder, text, FOUND)
    assert marks[-1].stop == 31
    assert seen_characters(encoder, "short") == 5
    assert seen_characters(encoder, "...") == 3


def test_a_text_of_one_word_has_nothing_left() -> None:
    vector, (mark,) = text_drops(counting("whale"), "whale", FOUND)
    assert mark.drop == pytest.approx(float(vector @ FOUND))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a bird's nest, 3.5 m", ["a", "bird's", "nest", "3.5", "m"]),
        ("well-known  and\nnew", ["well-known", "and", "new"]),
        ("赤い鳥", ["赤", "い", "鳥"]),
        ("USB接続", ["USB", "接", "続"]),
        ("Привет, мир!", ["Привет", "мир"]),
        ("?!", []),
    ],
)
def test_words(text: str, words: list[str]) -> None:
    assert [text[start:stop] for start, stop in word_places(text)] == words


def test_many_words_are_taken_together() -> None:
    text = " ".join(f"w{number}" for number in range(250))
    places = word_places(text)
    assert len(places) == 84
    assert text[slice(*places[0])] == "w0 w1 w2"
    assert text[slice(*places[-1])] == "w249"


def test_without() -> None:
    assert without("a red bird", (2, 5)) == "a  bird"


def text(item: str, weight: float = 1.0) -> QueryPart:
    return QueryPart(modality="text", item=item, weight=weight)


def test_words_of_a_query() -> None:
    asked = ExplainedQuery(Known(counting("whale", of=2)), [text("one whale in a whale")])
    np.testing.assert_allclose(asked.vector, FOUND)
    marks = asked.marks(FOUND)
    assert [mark.text for mark in marks] == ["one", "whale", "in", "a", "whale"]
    np.testing.assert_allclose([mark.drop for mark in marks], [0, 0.5, 0, 0, 0.5], atol=1e-6)


def test_parts_of_a_query_count_as_a_whole_where_they_have_no_words() -> None:
    """A part without which nothing is left has all of the score; one that means "less of this" has a drop below 0."""
    space = Known(counting("whale", of=1))
    (mark,) = ExplainedQuery(space, [text("whale")]).marks(FOUND)
    assert mark.text == "whale"
    assert mark.drop == pytest.approx(1)
    asked = ExplainedQuery(space, [text("whale"), text("boat", -0.5)])
    whale, boat = asked.marks(FOUND)
    assert (whale.part, boat.part) == (0, 1)
    assert whale.drop == pytest.approx(float(asked.vector @ FOUND))
    assert boat.drop == pytest.approx(float(asked.vector @ FOUND) - 1)


def test_parts_that_cancel_out_without_another_leave_nothing() -> None:
    asked = ExplainedQuery(Known(counting("whale", of=1)), [text("whale"), text("whale", -1), text("boat")])
    assert asked.marks(FOUND)[2].drop == pytest.approx(float(asked.vector @ FOUND))
