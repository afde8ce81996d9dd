"""Scores to probabilities: how likely it is that a hit is relevant, whatever modalities query and hit have.

A cosine of 0.3 is much between a text and a picture, and nothing between two texts; and the best of a million random
items is nearer than the best of ten. For each pair of modalities log-odds are linear in the score and in the logarithm
of the number of vectors searched. They are fitted when a space is aligned: on held-out items, in galleries of many
sizes, for half of the queries without what they ask for. No item meets a copy of itself there, so nothing is learnt of
copies: two items of one modality that are nearly the same are taken for them (`COPY_SCORE`).
"""

import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trivium.encoders.base import MODALITIES, Modality, Vectors
from trivium.encoders.files.foreign import read_foreign_json, shown

FORMAT = 1
HITS_PER_QUERY = 5  # that are looked at in a gallery
GALLERY_SIZES = (10, 30, 100, 300, 1_000, 3_000, 10_000)
ROUNDS = 4  # of galleries of each size, chosen anew
MAX_QUERIES = 2_000  # of a gallery
# At which two items of one modality are as likely copies as not, however many are searched; at 1 the log-odds are 6. In
# trivium-base 99 photos of 100 and the same saved anew (JPEG, quality 60) have 0.989 or more, three sounds of four and
# their MP3 or Ogg 0.972 or more, and 19 of 20 pictures no other that is nearer than 0.924.
COPY_SCORE = 0.975
COPY_SLOPE = 240.0
LARGEST = 1e6  # of any number in a calibration
MAX_BYTES = 1 << 20
RIDGE = 1e-3  # keeps the weights finite where scores separate perfectly


@dataclass(frozen=True, slots=True, kw_only=True)
class LogOdds:
    """Of a hit's relevance: offset + slope * score + size * ln(vectors searched); that of a copy if it is more."""

    offset: float
    slope: float  # above 0
    size: float
    finds_copies: bool = False  # query and hit are of one modality: `Relevance` sees to it

    def of(self, scores: NDArray[np.floating[Any]], searched: int) -> NDArray[np.float64]:
        """Return the log-odds of scores, any shape, among so many vectors."""
        given = np.asarray(scores, np.float64)
        linear = self.offset + self.slope * given + self.size * math.log(max(1, searched))
        return np.maximum(linear, COPY_SLOPE * (given - COPY_SCORE)) if self.finds_copies else linear

    def score(self, log_odds: float, searched: int) -> float:
        """Return the score that has such log-odds among so many vectors."""
        score = (log_odds - self.offset - self.size * math.log(max(1, searched))) / self.slope
        return min(score, COPY_SCORE + log_odds / COPY_SLOPE) if self.finds_copies else score


@dataclass(frozen=True, slots=True)
class Relevance:
    """What is known of a space's scores, by the modality of the query and of the vector that matched."""

    of_pair: Mapping[tuple[Modality, Modality], LogOdds]

    def __post_init__(self) -> None:
        of_pair = {pair: replace(odds, finds_copies=pair[0] == pair[1]) for pair, odds in self.of_pair.items()}
        object.__setattr__(self, "of_pair", of_pair)

    def probabilities(
        self, query: Modality, matched: Modality, scores: NDArray[np.floating[Any]], searched: int
    ) -> NDArray[np.float64] | None:
        """Return how likely hits are relevant; None where nothing is known of these modalities."""
        log_odds = self.of_pair.get((query, matched))
        return None if log_odds is None else probability(log_odds.of(scores, searched))

    def to_json(self) -> dict[str, Any]:
        """Return what `from_json` takes."""
        pairs = {
            f"{query}->{matched}": {"offset": odds.offset, "slope": odds.slope, "size": odds.size}
            for (query, matched), odds in self.of_pair.items()
        }
        return {"format": FORMAT, "log_odds": pairs}

    @classmethod
    def from_json(cls, raw: Any) -> "Relevance":
        """Read what `to_json` gave.

        Raises:
            ValueError: If it is anything else.
        """
        if not isinstance(raw, dict) or raw.get("format") != FORMAT or not isinstance(raw.get("log_odds"), dict):
            raise ValueError(f"a calibration has format {FORMAT} and log_odds")
        found: dict[tuple[Modality, Modality], LogOdds] = {}
        for name, numbers in raw["log_odds"].items():
            query, _, matched = name.partition("->")
            if query not in MODALITIES or matched not in MODALITIES:
                raise ValueError(f"{shown(name)} is no pair of modalities, such as text->image")
            given: list[Any] = (
                [numbers.get(key) for key in ("offset", "slope", "size")] if isinstance(numbers, dict) else []
            )
            are_numbers = all(type(value) in (int, float) for value in given)
            values = [float(value) for value in given if -LARGEST <= value <= LARGEST] if are_numbers else []
            if len(values) != 3:
                raise ValueError(
                    f"log_odds of {name} must have an offset, a slope and a size, numbers of at most {LARGEST:,.0f}"
                )
            if values[1] <= 0:
                raise ValueError(f"the slope of {name} must be above 0, got {values[1]}")
            found[query, matched] = LogOdds(offset=values[0], slope=values[1], size=values[2])
        return cls(found)


def read_relevance(path: Path) -> Relevance | None:
    """Read a calibration file; None if there is none.

    Raises:
        ValueError: If it is not valid.
    """
    try:
        os.lstat(path)
    except FileNotFoundError:
        return None
    return Relevance.from_json(read_foreign_json(path, max_bytes=MAX_BYTES))


def probability(log_odds: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the probabilities of log-odds."""
    return np.asarray(0.5 * (1 + np.tanh(log_odds / 2)))


def simulate(
    queries: Vectors, gallery: Vectors, is_relevant: NDArray[np.bool_], *, seed: int, is_same: bool = False
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]:
    """Search galleries of many sizes, for half of the queries without what they ask for.

    Args:
        queries: Shape (q, d).
        gallery: Shape (n, d).
        is_relevant: Shape (q, n).
        seed: Of the choices.
        is_same: Queries and gallery are the same items, and none finds itself.

    Returns:
        Of the best hits of all searches, shape (h,): the score, the size of the gallery, and whether it was relevant.
    """
    random = np.random.default_rng(seed)
    parts = [(np.empty(0), np.empty(0), np.empty(0, np.bool_))]
    sizes = [size for size in GALLERY_SIZES if size < len(gallery)]
    for size in [*sizes, len(gallery)]:
        for _ in range(ROUNDS):
            asked = random.permutation(len(queries))[:MAX_QUERIES]
            chosen = random.permutation(len(gallery))[:size]
            itself = asked[:, np.newaxis] == chosen if is_same else None
            parts += _searched(queries[asked], gallery, is_relevant[asked], chosen, itself, random)
    scores, among, hit = (np.concatenate(column) for column in zip(*parts, strict=True))
    return scores, among, hit


def _searched(
    queries: Vectors,
    gallery: Vectors,
    is_relevant: NDArray[np.bool_],
    chosen: NDArray[np.intp],
    itself: NDArray[np.bool_] | None,
    random: np.random.Generator,
) -> Iterator[tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]]:
    """Yield the best hits of each query in a gallery that has all its right answers, or none."""
    scores = (queries @ gallery[chosen].T).astype(np.float64)  # (q, m)
    right = is_relevant[:, chosen]
    scores[right if itself is None else right | itself] = -np.inf
    right = np.zeros_like(right)
    # Right answers take the places of wrong ones, at random: in small galleries there would hardly be any.
    has_any = (random.random(len(queries)) < 0.5) & is_relevant.any(axis=1)
    for row in np.flatnonzero(has_any):
        answers = random.permutation(np.flatnonzero(is_relevant[row]))[: len(chosen)]
        places = random.permutation(len(chosen))[: len(answers)]
        scores[row, places] = gallery[answers] @ queries[row]
        right[row, places] = True
    count = min(HITS_PER_QUERY, len(chosen))
    best = np.argsort(-scores, axis=1, kind="stable")[:, :count]
    found = np.take_along_axis(scores, best, axis=1).ravel()
    is_hit = np.take_along_axis(right, best, axis=1).ravel()
    is_there = np.isfinite(found)
    yield found[is_there], np.full(is_there.sum(), float(len(chosen))), is_hit[is_there]


def fit(scores: NDArray[np.float64], searched: NDArray[np.float64], is_relevant: NDArray[np.bool_]) -> LogOdds | None:
    """Fit log-odds by logistic regression, each size of gallery counting the same; None if nothing can be told.

    Args:
        scores: Of hits, shape (h,).
        searched: Vectors that each was found among.
        is_relevant: Whether it was.
    """
    if not is_relevant.any() or is_relevant.all() or np.ptp(scores) < 1e-6:
        return None
    _, inverse, counts = np.unique(searched, return_inverse=True, return_counts=True)
    weights = 1 / counts[inverse]
    weights /= weights.mean()
    centre, spread = scores.mean(), max(float(scores.std()), 1e-6)
    logs = np.log(searched)
    x = np.stack([np.ones_like(scores), (scores - centre) / spread, logs - logs.mean()], axis=1)  # (h, 3)
    if np.ptp(searched) == 0:
        x[:, 2] = 0
    w = np.zeros(3)
    penalty = RIDGE * len(scores) * np.array([0.0, 1.0, 1.0]) / 100
    for _ in range(50):  # Newton's method
        p = probability(x @ w)
        gradient = x.T @ (weights * (p - is_relevant)) + penalty * w
        curvature = x.T @ ((weights * np.maximum(p * (1 - p), 1e-9))[:, np.newaxis] * x) + np.diag(penalty + 1e-9)
        step = np.linalg.solve(curvature, gradient)
        w = w - step * min(1.0, 5 / max(float(np.abs(step).max()), 1e-12))
        if np.abs(step).max() < 1e-8:
            break
    slope = float(w[1] / spread)
    return _sensible(float(w[0] - w[1] * centre / spread - w[2] * logs.mean()), slope, float(w[2]))


def from_background(scores: NDArray[np.floating[Any]]) -> LogOdds | None:
    """Return log-odds for modalities of which no pairs are known: by how unusual a score is among unrelated items.

    None where the scores hardly differ, and so tell nothing: of two pictures that were held out, say.

    Were the scores of unrelated items normal, one of 31,574 would lie four deviations above their mean: there, among so
    many, a hit is as likely relevant as not. Near there the logarithm of that share falls by 4.2 for each deviation.

    Args:
        scores: Of unrelated pairs.
    """
    mean, deviation = float(np.mean(scores)), max(float(np.std(scores)), 1e-6)
    far, rare, fall = 4.0, math.log(31_574), 4.2  # the normal distribution beyond 4 deviations: one of 31,574
    return _sensible(rare - fall * (mean / deviation + far), fall / deviation, -1.0)


def _sensible(offset: float, slope: float, size: float) -> LogOdds | None:
    """Return log-odds that grow with the score, and that can be read again; None if they do not, or cannot."""
    is_sensible = 0 < slope <= LARGEST and max(abs(offset), abs(size)) <= LARGEST
    return LogOdds(offset=offset, slope=slope, size=size) if is_sensible else None
