"""Whether probabilities mean what they say: of the hits that are called 70 % likely relevant, 70 % should be.

Figures are the expected calibration error (ECE): the mean gap between what bins of probabilities say and the share that
was relevant, weighted by how many are in each bin.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from trivium.encoders.base import Modality

BINS = 15  # Guo et al. 2017
TOP_HITS = 10

Probabilities: TypeAlias = NDArray[np.float64]
# (query's modality, gallery's modality, scores of any shape, vectors searched) -> how likely each is relevant, of the
# same shape; None where nothing is known of these modalities.
Calibration: TypeAlias = Callable[[Modality, Modality, NDArray[np.float32], int], "NDArray[np.floating] | None"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bin:
    """Judgements of like probability."""

    count: int
    probability: float  # mean of what was said
    relevant: float  # share that was relevant


@dataclass(frozen=True, slots=True, kw_only=True)
class Reliability:
    """How far probabilities are from what came true."""

    count: int
    ece: float  # bins of equal mass: as many judgements in each, as far as equal probabilities let them be parted
    ece_equal_width: float  # bins of equal width in [0, 1]
    bins: Sequence[Bin]  # of equal mass, those that are not empty, by rising probability


def reliability(
    probabilities: NDArray[np.floating], is_relevant: NDArray[np.bool_], *, bins: int = BINS
) -> Reliability:
    """Compare probabilities with what came true.

    Args:
        probabilities: Shape (n,), 0 to 1.
        is_relevant: Shape (n,).
        bins: How many.

    Raises:
        ValueError: If the two differ in shape, or a probability is not between 0 and 1.

    Source:
        Guo et al., "On Calibration of Modern Neural Networks", 2017 (15 bins of equal width); equal mass: Nguyen,
        O'Connor, "Posterior calibration and exploratory analysis for NLP models", 2015. With equal width almost all
        judgements fall into the lowest bin where few are relevant, so equal mass is the figure that is told first.
    """
    said = np.asarray(probabilities, np.float64)
    if said.shape != is_relevant.shape or said.ndim != 1:
        raise ValueError(
            f"probabilities and is_relevant must be of one shape (n,), got {said.shape} and {is_relevant.shape}"
        )
    if not ((said >= 0) & (said <= 1)).all():  # NaN is neither
        raise ValueError("probabilities must be 0 to 1")
    if not len(said):
        return Reliability(count=0, ece=float("nan"), ece_equal_width=float("nan"), bins=())
    # Equal probabilities go into one bin: to part them by the order they came in would show gaps that are not there.
    edges = np.unique(np.quantile(said, np.arange(1, bins) / bins, method="higher"))
    by_mass = _binned(said, is_relevant, np.searchsorted(edges, said, side="right"))
    by_width = _binned(said, is_relevant, np.minimum((said * bins).astype(np.int64), bins - 1))
    return Reliability(count=len(said), ece=_ece(by_mass), ece_equal_width=_ece(by_width), bins=by_mass)


def _binned(said: Probabilities, is_relevant: NDArray[np.bool_], places: NDArray[np.int64]) -> list[Bin]:
    counts = np.bincount(places)
    sums = np.bincount(places, weights=said)
    relevant = np.bincount(places, weights=is_relevant)
    return [
        Bin(count=int(count), probability=float(total / count), relevant=float(right / count))
        for count, total, right in zip(counts, sums, relevant, strict=True)
        if count
    ]


def _ece(bins: Sequence[Bin]) -> float:
    total = sum(found.count for found in bins)
    return sum(found.count * abs(found.probability - found.relevant) for found in bins) / total


class CalibrationSample:
    """Takes what is needed to judge a calibration from blocks of scores: a few judgements of each query.

    Two samples, because neither alone tells enough: the ten best hits of each query, as users see them; and each right
    pair with one other pair of the same query, drawn at random, so that as many are relevant as not.
    """

    def __init__(self, *, seed: int) -> None:
        self._generator = np.random.default_rng(seed)
        self._hits: list[tuple[NDArray[np.float32], NDArray[np.bool_]]] = []
        self._pairs: list[tuple[NDArray[np.float32], NDArray[np.bool_]]] = []

    def add(self, scores: NDArray[np.float32], rows: NDArray[np.int64], columns: NDArray[np.int64]) -> None:
        """Take a block.

        Args:
            scores: Shape (q, m); -inf is no item of the gallery.
            rows: Of right pairs, shape (p,).
            columns: Of right pairs, shape (p,).
        """
        is_right = np.zeros(scores.shape, np.bool_)
        is_right[rows, columns] = True
        k = min(TOP_HITS, scores.shape[1])
        top = np.argpartition(-scores, k - 1, axis=1)[:, :k]
        self._take(self._hits, np.take_along_axis(scores, top, axis=1), np.take_along_axis(is_right, top, axis=1))
        others = self._generator.integers(scores.shape[1], size=len(rows))
        wrong = ~is_right[rows, others]
        self._take(self._pairs, scores[rows[wrong], columns[wrong]], np.ones(wrong.sum(), np.bool_))
        self._take(self._pairs, scores[rows[wrong], others[wrong]], np.zeros(wrong.sum(), np.bool_))

    def reliabilities(
        self, calibration: Callable[[NDArray[np.float32], int], NDArray[np.floating] | None], *, gallery: int
    ) -> dict[str, Reliability]:
        """Return how reliable a calibration is on each sample: "hits" and "pairs"; nothing if it does not know.

        Args:
            calibration: Told scores, and among how many vectors they were found.
            gallery: Vectors that hits were found among; a single pair was found among one.
        """
        found = {}
        for name, taken, searched in (("hits", self._hits, gallery), ("pairs", self._pairs, 1)):
            scores = np.concatenate([np.empty(0, np.float32), *(scores for scores, _ in taken)])
            is_right = np.concatenate([np.empty(0, np.bool_), *(right for _, right in taken)])
            said = calibration(scores, searched)
            if said is not None:
                found[name] = reliability(said, is_right)
        return found

    @staticmethod
    def _take(
        taken: list[tuple[NDArray[np.float32], NDArray[np.bool_]]],
        scores: NDArray[np.float32],
        right: NDArray[np.bool_],
    ) -> None:
        there = np.isfinite(scores)
        taken.append((scores[there], right[there]))
