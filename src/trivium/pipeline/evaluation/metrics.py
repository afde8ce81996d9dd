"""Figures of retrieval and classification, on matrices of scores that the caller makes block by block; pure NumPy.

A query's score matrix has a row for each query and a column for each item of the gallery: (q, m). What is right stands
beside it as pairs (row, column), each once. Larger scores are nearer. Equal scores stand in no order, so every figure
is what it is on average over all orders: neither the best nor the worst case.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trivium.fusion.blocks import Integers, Numbers

Scores = NDArray[np.floating[Any]]  # (q, m)

RESAMPLES = 1_000  # Efron, Tibshirani 1993, section 13.3: percentile intervals need about that many
CONFIDENCE = 0.95
RESAMPLES_AT_ONCE = 1 << 22  # numbers in memory


@dataclass(frozen=True, slots=True)
class Ranks:
    """Where each query's best right answer stands; rows of the same length q."""

    higher: Integers  # wrong answers that score more
    tied: Integers  # wrong answers that score the same
    right: Integers  # right answers that score the same, itself among them

    def __len__(self) -> int:
        return len(self.higher)

    @classmethod
    def joined(cls, parts: "Sequence[Ranks]") -> "Ranks":
        """Return the queries of several, one after the other."""
        columns = ([getattr(part, name) for part in parts] for name in ("higher", "tied", "right"))
        return cls(*(np.concatenate([np.empty(0, np.int64), *column]) for column in columns))

    def expected(self) -> Numbers:
        """Return the expected rank of the first right answer, from 1, shape (q,).

        Of t wrong and r right answers with equal scores, in random order, t / (r + 1) wrong ones come before the first
        right one.
        """
        return np.asarray(self.higher + 1 + self.tied / (self.right + 1), np.float64)

    def found_within(self, k: int) -> Numbers:
        """Return the probability that a right answer is among the first k, shape (q,): 0 or 1 where nothing ties."""
        places = np.clip(k - self.higher, 0, self.tied + self.right)
        missed = (places > 0).astype(np.float64)
        for place in range(min(k, int(places.max(initial=0)))):  # all drawn so far are wrong ones
            wrong_left = np.maximum(self.tied - place, 0)
            left = np.maximum(self.tied + self.right - place, 1)
            missed *= np.where(place < places, wrong_left / left, 1.0)
        return np.where(places > 0, 1.0 - missed, 0.0)


def ranks_of_best(scores: Scores, rows: Integers, columns: Integers) -> Ranks:
    """Rank each query's best right answer among the wrong ones; other right ones do not stand in its way.

    Args:
        scores: Shape (q, m); an item that is left out of a query's gallery, such as itself, has -inf.
        rows: Of right answers, shape (p,); every query has at least one.
        columns: Of right answers, shape (p,).
    """
    right = scores[rows, columns]
    best = np.full(len(scores), -np.inf, scores.dtype)
    np.maximum.at(best, rows, right)
    right_at_best = np.bincount(rows, weights=right == best[rows], minlength=len(scores)).astype(np.int64)
    higher = np.count_nonzero(scores > best[:, np.newaxis], axis=1).astype(np.int64)
    at_best = np.count_nonzero(scores == best[:, np.newaxis], axis=1).astype(np.int64)
    return Ranks(higher, at_best - right_at_best, right_at_best)


def ndcg(scores: Scores, rows: Integers, columns: Integers, gains: Numbers, *, k: int = 10) -> Numbers:
    """Return each query's normalised discounted cumulative gain at k, shape (q,); NaN for one without any gain.

    Args:
        scores: Shape (q, m).
        rows: Of items that have a gain, shape (p,).
        columns: Of items that have a gain, shape (p,).
        gains: 0 or more, shape (p,); taken as they are (linear).
        k: How many places count.

    Source:
        Järvelin, Kekäläinen, "Cumulated gain-based evaluation of IR techniques", 2002 (discount by log2); of equal
        scores each place has the mean gain: McSherry, Najork, "Computing information retrieval performance measures
        efficiently in the presence of tied scores", 2008.
    """
    queries, items = scores.shape
    k = min(k, items)
    discounts = 1.0 / np.log2(np.arange(2, k + 2))
    every = np.zeros((queries, items))
    every[rows, columns] = gains
    ideal = -np.partition(-every, k - 1, axis=1)[:, :k] if items else every
    ideal = -np.sort(-ideal, axis=1) @ discounts
    top = np.argpartition(-scores, k - 1, axis=1)[:, :k] if items else np.empty((queries, 0), np.int64)
    top = np.take_along_axis(top, np.argsort(-np.take_along_axis(scores, top, axis=1), axis=1), axis=1)
    top_scores, top_gains = (np.take_along_axis(of, top, axis=1) for of in (scores, every))
    same = top_scores[:, :, np.newaxis] == top_scores[:, np.newaxis, :]  # (q, k, k)
    shared = (same * top_gains[:, np.newaxis, :]).sum(axis=2) / same.sum(axis=2)
    if k:  # of those that tie with the last place, some may not be among the first k
        last = top_scores[:, -1:]
        ties = scores == last
        shared = np.where(top_scores == last, ((every * ties).sum(axis=1) / ties.sum(axis=1))[:, np.newaxis], shared)
    found: Numbers = np.divide(shared @ discounts, ideal, out=np.full(queries, np.nan), where=ideal > 0)
    return found


def bootstrap_interval(values: Numbers, *, seed: int, resamples: int = RESAMPLES) -> tuple[float, float]:
    """Return the 95 % interval of the mean of values, each of a query, by drawing as many queries again and again.

    Source:
        Efron, Tibshirani, "An Introduction to the Bootstrap", 1993, section 13.3 (percentile interval).
    """
    if not len(values):
        return float("nan"), float("nan")
    # Equal values need not be told apart: how often each value is drawn is multinomial, which is far fewer draws.
    distinct, counts = np.unique(values, return_counts=True)
    generator = np.random.default_rng(seed)
    at_once = max(1, RESAMPLES_AT_ONCE // len(distinct))
    means = [
        generator.multinomial(len(values), counts / len(values), size=min(at_once, resamples - start)) @ distinct
        for start in range(0, resamples, at_once)
    ]
    low, high = np.quantile(np.concatenate(means) / len(values), [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)


def wilson_interval(right: int, count: int) -> tuple[float, float]:
    """Return the 95 % interval of a share: not of width zero where all or none are right.

    Source:
        Wilson, "Probable Inference, the Law of Succession, and Statistical Inference", 1927.
    """
    if not count:
        return float("nan"), float("nan")
    z = 1.959964  # the normal distribution's 97.5 % point
    share, spread = right / count, z * z / count
    middle = (share + spread / 2) / (1 + spread)
    half = z * np.sqrt(share * (1 - share) / count + spread / (4 * count)) / (1 + spread)
    return max(0.0, float(middle - half)), min(1.0, float(middle + half))


def confusion_matrix(truth: Integers, predicted: Integers, *, classes: int) -> Integers:
    """Count items by their class (row) and the class that they were taken for (column), shape (classes, classes)."""
    flat = np.bincount(truth * classes + predicted, minlength=classes * classes)
    return flat.astype(np.int64).reshape(classes, classes)
