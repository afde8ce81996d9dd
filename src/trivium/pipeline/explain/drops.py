"""What held up a hit's score: the parts of the item, and the words of the query, are hidden in turn.

How far the score falls without a part is its *drop* (occlusion: Zeiler & Fergus, "Visualizing and Understanding
Convolutional Networks", ECCV 2014). It needs nothing of a network but its vectors, so it works in any space: parts
are hidden in what `Encoder.prepare` takes, not in what it gives. A drop below 0 says that the part spoke against it.

Pictures lose cells of a grid, and windows of several cells, to a blurred copy of themselves. Short sounds lose
stretches to silence; of longer ones the stretches are encoded once each, and left out of the mean. Texts lose words.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from trivium.encoders.base import DecodeError, Encoder, Prepared, Vectors, unit_rows
from trivium.encoders.decoding.sounds import Sound
from trivium.fusion.combination import weighted_sum
from trivium.pipeline.search.query import QueryPart, query_vectors
from trivium.pipeline.space.joint import JointSpace

GRID = 7  # rows and columns of a picture: where EfficientNet and CLIP's ViT-B/32 end at 224 pixels
# 49 + 36 + 25 windows; docs/benchmarks.md, "Explanations", has what each is worth.
WINDOW_CELLS: tuple[int, ...] = (1, 2, 3)
USUAL_SIDE = 224  # pixels, of encoders that do not say
KEPT_SIDES = 2  # a picture is brought to so many times what the encoder looks at before parts of it are hidden
BLUR_SHARE = 0.1  # of the longer side: about a cell's, so that what a cell showed is gone and its colour stays

MUTED_SECONDS = 10.0  # a longer sound is not encoded anew for each stretch
STRETCH_SECONDS, MAX_STRETCHES = 0.25, 20  # of a sound that is muted
WINDOW_STRETCHES: tuple[int, ...] = (1, 2)
FADE_SECONDS = 0.01  # a cut without it is a click, which a network hears
MEAN_SECONDS, MAX_MEANS = 1.5, 150  # of longer ones; the sound network's blocks begin every 1.2 s
MAX_SECONDS = 600.0  # as much as decoders give whole

MAX_CHARACTERS = 64 * 1024  # of a text: no encoder's one vector sees more
MAX_WORDS = 100  # of a text or a query; neighbours are taken together where it has more
# Words of scripts that write spaces between them, with what ties their halves; else single signs.
SIGNS = "\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
WORD = re.compile(rf"[{SIGNS}]|[^\W{SIGNS}]+(?:['’.-][^\W{SIGNS}]+)*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """A stretch of a sound or a text, and how far the score falls without it."""

    start: float  # seconds of a sound, characters of a text
    stop: float
    drop: float
    text: str | None = None  # the words themselves
    part: int = 0  # of a query: which of its parts


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Explanation:
    """Why an item was found, as far as its modality tells; or ``reason``, why that cannot be said."""

    reason: str | None = None
    score: float = 0.0  # cosine of the query and the item as it is now, about the hit's own
    query: tuple[Mark, ...] = ()  # words of its texts; a picture, a sound or a text of one word counts as a whole
    words: tuple[Mark, ...] = ()
    seconds: tuple[Mark, ...] = ()
    regions: NDArray[np.float32] | None = None  # drop of each cell of the picture, (rows, columns)
    picture: NDArray[np.uint8] | None = None  # that they are of, (h, w, 3)
    overlay: str | None = None  # where a picture of them was written


def picture_drops(
    encoder: Encoder, pixels: NDArray[np.uint8], query: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Hide parts of a picture (h, w, 3).

    Args:
        encoder: Of pictures.
        pixels: As `Encoder.prepare` takes them; see `shrunken`.
        query: A unit vector (d,).

    Returns:
        The picture's vector (d,), and the drop of each cell, (rows, columns).
    """
    height, width = pixels.shape[:2]
    masks = windows((min(GRID, height), min(GRID, width)), WINDOW_CELLS)
    fill = blurred(pixels)
    # One at a time: a hundred pictures at twice the size would be 200 MB.
    prepared = [encoder.prepare(pixels), *(encoder.prepare(hidden(pixels, mask, fill)) for mask in masks)]
    vectors = encoder.embed(prepared)
    scores = vectors @ query
    return vectors[0], cell_drops(scores[0] - scores[1:], masks)


def hidden(pixels: NDArray[np.uint8], cells: NDArray[np.bool_], fill: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return a picture (h, w, 3) with the cells that are true, (rows, columns), taken from ``fill``."""
    row, column = (
        np.arange(length) * count // length for length, count in zip(pixels.shape[:2], cells.shape, strict=True)
    )
    return np.where(cells[np.ix_(row, column)][..., np.newaxis], fill, pixels)


def sound_drops(
    encoder: Encoder, sound: Sound, query: NDArray[np.float32], *, at: float = 0.0
) -> tuple[NDArray[np.float32], tuple[Mark, ...]]:
    """Hide stretches of a sound.

    Args:
        encoder: Of sounds.
        sound: A waveform (s,) and its rate in Hz.
        query: A unit vector (d,).
        at: When it begins, for the marks' times.

    Returns:
        The sound's vector (d,), and its stretches in their order.
    """
    waveform, rate_hz = sound
    seconds = len(waveform) / rate_hz
    if seconds <= MUTED_SECONDS or not encoder.has_windows:
        vector, drops = _muted_drops(encoder, waveform, rate_hz, query)
    else:
        vector, drops = _mean_drops(encoder, sound, query)
    edges = (at + np.linspace(0, seconds, len(drops) + 1)).tolist()
    return vector, tuple(
        Mark(start=round(edges[place], 3), stop=round(edges[place + 1], 3), drop=float(drop))
        for place, drop in enumerate(drops)
    )


def text_drops(
    encoder: Encoder, text: str, query: NDArray[np.float32], *, at: int = 0
) -> tuple[NDArray[np.float32], tuple[Mark, ...]]:
    """Leave out words of a text, as far as its vector knows of them.

    Args:
        encoder: Of texts.
        text: What the vector is of.
        query: A unit vector (d,).
        at: Where in the whole text it begins, for the marks' places.

    Returns:
        The text's vector (d,), and its words in their order, neighbours together if there are more than `MAX_WORDS`.
    """
    text = text[:MAX_CHARACTERS]
    places = word_places(text[: seen_characters(encoder, text)])
    variants = [text, *(without(text, place) for place in places)]
    vectors = _text_vectors(encoder, variants)
    scores = vectors @ query
    return vectors[0], tuple(
        Mark(start=at + start, stop=at + stop, drop=float(scores[0] - score), text=text[start:stop])
        for (start, stop), score in zip(places, scores[1:], strict=True)
    )


class ExplainedQuery:
    """A query, and its vectors without each of its words."""

    def __init__(self, space: JointSpace, parts: Sequence[QueryPart]) -> None:
        """Encode it.

        Raises:
            QueryError: As `query_vectors` does.
        """
        self.vector: NDArray[np.float32] = query_vectors(space, [parts])[0]
        self._marks: list[Mark] = []
        altered: list[list[tuple[NDArray[np.float32], float]]] = []
        own = query_vectors(space, [[QueryPart(modality=part.modality, item=part.item)] for part in parts])
        weighted = [(vector, part.weight) for vector, part in zip(own, parts, strict=True)]
        for number, part in enumerate(parts):
            others = weighted[:number] + weighted[number + 1 :]
            places = word_places(part.item) if part.modality == "text" else []
            if len(places) < 2:
                text = part.item if part.modality == "text" else None
                stop = len(text) if text else 0
                self._marks.append(Mark(start=0, stop=stop, drop=0.0, text=text, part=number))
                altered.append(others)
                continue
            rows = _text_vectors(space.encoder("text"), [without(part.item, place) for place in places])
            for (start, stop), row in zip(places, rows, strict=True):
                words = part.item[start:stop]
                self._marks.append(Mark(start=start, stop=stop, drop=0.0, text=words, part=number))
                altered.append([*others, (row, part.weight)])
        self._altered = np.stack([_combined(members, len(self.vector)) for members in altered])

    def marks(self, vector: NDArray[np.float32]) -> tuple[Mark, ...]:
        """Return the query's words with what an item's vector (d,) loses without each."""
        drops = float(self.vector @ vector) - self._altered @ vector
        return tuple(
            Mark(start=mark.start, stop=mark.stop, drop=float(drop), text=mark.text, part=mark.part)
            for mark, drop in zip(self._marks, drops, strict=True)
        )


def windows(shape: tuple[int, ...], sizes: Sequence[int]) -> NDArray[np.bool_]:
    """Return every place of a window of each size on a grid, shape (m, *shape); a larger one than the grid has none."""
    masks = []
    for size in sizes:
        if size > max(shape):
            continue
        for corner in np.ndindex(*(max(1, length - size + 1) for length in shape)):
            mask = np.zeros(shape, np.bool_)
            mask[tuple(slice(place, place + size) for place in corner)] = True
            masks.append(mask)
    return np.stack(masks)


def cell_drops(drops: NDArray[np.float32], masks: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Say which drops of single cells best add up to those of all windows (m,), by least squares.

    One cell alone may hide too little to matter, and a window does not say which of its cells did; together they tell,
    as in LIME (Ribeiro et al., KDD 2016). Better than the mean of a cell's windows: docs/benchmarks.md, "Explanations".
    """
    covers = masks.reshape(len(masks), -1).astype(np.float64)  # (m, cells)
    best, *_ = np.linalg.lstsq(covers, drops.astype(np.float64))
    return np.asarray(best.reshape(masks.shape[1:]), np.float32)


def word_places(text: str) -> list[tuple[int, int]]:
    """Return where words begin and end, at most `MAX_WORDS` stretches of equally many words."""
    places = [match.span() for match in WORD.finditer(text)]
    together = -(-len(places) // MAX_WORDS) or 1
    return [
        (places[first][0], places[min(first + together, len(places)) - 1][1])
        for first in range(0, len(places), together)
    ]


def without(text: str, place: tuple[int, int]) -> str:
    """Return a text without the characters from ``place[0]`` to ``place[1]``."""
    return text[: place[0]] + text[place[1] :]


def seen_characters(encoder: Encoder, text: str) -> int:
    """Say how much of a text its one vector is made of: the shortest beginning that gives the same."""
    whole = encoder.prepare(text)
    ends = [match.end() for match in WORD.finditer(text)]
    low, high = 0, len(ends) - 1
    while low < high:
        middle = (low + high) // 2
        if _same(encoder.prepare(text[: ends[middle]]), whole):
            high = middle
        else:
            low = middle + 1
    return len(text) if high < 0 or high == len(ends) - 1 else ends[high]


def shrunken(pixels: NDArray[np.uint8], side: int | None) -> NDArray[np.uint8]:
    """Bring a picture to the size that is worth hiding parts of: a hundred copies of it will be prepared."""
    from PIL import Image

    shorter = min(pixels.shape[:2])
    wanted = KEPT_SIDES * (side or USUAL_SIDE)
    if shorter <= wanted:
        return pixels
    height, width = (max(1, round(length * wanted / shorter)) for length in pixels.shape[:2])
    return np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC, reducing_gap=3.0))


def blurred(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return a copy of a picture (h, w, 3) in which no detail of the size of a cell is left."""
    from PIL import Image, ImageFilter

    radius = BLUR_SHARE * max(pixels.shape[:2])
    return np.asarray(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(radius)))


def _muted_drops(
    encoder: Encoder, waveform: NDArray[np.float32], rate_hz: int, query: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    count = max(1, min(MAX_STRETCHES, int(len(waveform) / rate_hz / STRETCH_SECONDS)))
    masks = windows((count,), WINDOW_STRETCHES)
    edges = np.linspace(0, len(waveform), count + 1).round().astype(int)
    prepared = [encoder.prepare((waveform, rate_hz))]
    for mask in masks:
        (covered,) = np.nonzero(mask)
        start, stop = int(edges[covered[0]]), int(edges[covered[-1] + 1])
        prepared.append(encoder.prepare((muted(waveform, start, stop, fade=int(FADE_SECONDS * rate_hz)), rate_hz)))
    vectors = encoder.embed(prepared)
    scores = vectors @ query
    return vectors[0], cell_drops(scores[0] - scores[1:], masks)


def muted(waveform: NDArray[np.float32], start: int, stop: int, *, fade: int) -> NDArray[np.float32]:
    """Return a copy that is silent from one sample to another; it fades within that stretch, but not at the ends."""
    gain = np.zeros(stop - start, np.float32)
    ramp = np.linspace(1, 0, min(fade, (stop - start) // 2), endpoint=False, dtype=np.float32)
    if start > 0:
        gain[: len(ramp)] = ramp
    if stop < len(waveform):
        gain[len(gain) - len(ramp) :] = ramp[::-1]
    changed = waveform.copy()
    changed[start:stop] *= gain
    return changed


def _mean_drops(
    encoder: Encoder, sound: Sound, query: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Leave each stretch's vector out of the mean of all: one pass of the network, however many there are."""
    waveform, rate_hz = sound
    seconds = len(waveform) / rate_hz
    count = max(2, min(MAX_MEANS, int(seconds / MEAN_SECONDS)))
    edges = np.linspace(0, seconds, count + 1).tolist()
    rows = encoder.embed_windows(encoder.blocks(sound), list(pairwise(edges)))
    return rows[0], left_out_drops(rows[1:], query)


def left_out_drops(members: Vectors, query: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return how far the score of the mean of vectors (n, d) falls when each of them is left out; n is at least 2."""
    total = members.sum(axis=0)
    scores = unit_rows(np.concatenate([total[np.newaxis], total - members])) @ query
    drops: NDArray[np.float32] = scores[0] - scores[1:]
    return drops


def _text_vectors(encoder: Encoder, texts: Sequence[str]) -> Vectors:
    """Encode texts; one in which nothing is left has no direction, and a score of 0."""
    prepared: dict[int, Prepared] = {}
    for row, text in enumerate(texts):
        try:
            prepared[row] = encoder.prepare(text)
        except DecodeError:
            continue
    vectors = np.zeros((len(texts), encoder.space.dim), np.float32)
    if prepared:
        vectors[list(prepared)] = encoder.embed(list(prepared.values()))
    return vectors


def _combined(members: Sequence[tuple[NDArray[np.float32], float]], dim: int) -> NDArray[np.float32]:
    """Combine vectors as a query does; nothing is left of parts that cancel out, or of none."""
    kept = [(vector, weight) for vector, weight in members if vector.any()]
    try:
        return weighted_sum(np.stack([vector for vector, _ in kept]), [weight for _, weight in kept])
    except ValueError:
        return np.zeros(dim, np.float32)


def _same(one: Prepared, other: Prepared) -> bool:
    return one.shape == other.shape and bool((one == other).all())
