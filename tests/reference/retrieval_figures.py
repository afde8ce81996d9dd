"""Figures of retrieval, slow and obvious: every order that equal scores allow is tried, and the mean taken."""

import itertools
import math
from collections.abc import Iterator, Sequence


def orders(scores: Sequence[float]) -> Iterator[tuple[int, ...]]:
    """Every order of the items, best first, that their scores allow."""
    distinct = sorted(set(scores), reverse=True)
    groups = [[item for item, score in enumerate(scores) if score == level] for level in distinct]
    for choice in itertools.product(*(itertools.permutations(group) for group in groups)):
        yield tuple(itertools.chain.from_iterable(choice))


def first_right(order: Sequence[int], right: set[int]) -> int:
    """The rank of the first right answer, from 1."""
    return next(rank for rank, item in enumerate(order, start=1) if item in right)


def expected_rank(scores: Sequence[float], right: set[int]) -> float:
    ranks = [first_right(order, right) for order in orders(scores)]
    return sum(ranks) / len(ranks)


def found_within(scores: Sequence[float], right: set[int], k: int) -> float:
    found = [first_right(order, right) <= k for order in orders(scores)]
    return sum(found) / len(found)


def dcg(order: Sequence[int], gains: Sequence[float], k: int) -> float:
    return sum(gains[item] / math.log2(rank + 1) for rank, item in enumerate(order[:k], start=1))


def ndcg(scores: Sequence[float], gains: Sequence[float], k: int) -> float:
    ideal = dcg(sorted(range(len(gains)), key=lambda item: -gains[item]), gains, k)
    if ideal == 0:
        return math.nan
    found = [dcg(order, gains, k) for order in orders(scores)]
    return sum(found) / len(found) / ideal


def means_of_resamples(values: Sequence[float], draws: Sequence[Sequence[int]]) -> list[float]:
    """The mean of the values that each resample drew."""
    return [sum(values[place] for place in drawn) / len(drawn) for drawn in draws]


def expected_calibration_error(bins: Sequence[Sequence[tuple[float, bool]]]) -> float:
    """Of bins of (probability, is relevant)."""
    total = sum(map(len, bins))
    error = 0.0
    for found in filter(None, bins):
        said = sum(probability for probability, _ in found) / len(found)
        came_true = sum(relevant for _, relevant in found) / len(found)
        error += len(found) / total * abs(said - came_true)
    return error
