"""What held-out pairs tell of heads: how well they find them, which chooses the epoch, and what scores mean."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trivium.encoders.base import Modality, Vectors
from trivium.pipeline.align.pairs import Two
from trivium.pipeline.evaluation.metrics import Ranks, ranks_of_best
from trivium.pipeline.space.relevance import LogOdds, Relevance, fit, from_background, simulate

LEAST_BACKGROUND = 100  # pairs of unrelated items that tell something
MOST_VALIDATED = 1_000  # pictures or sounds that each epoch is tried on


class Validation:
    """Recall of the validation pairs, of at most `MOST_VALIDATED` pictures or sounds."""

    def __init__(self, held_out: Mapping[Two, NDArray[np.int64]]) -> None:
        """Take the held-out pairs, places among the items."""
        self._pairs: dict[Two, NDArray[np.int64]] = {two: _fewer(rows) for two, rows in held_out.items()}
        used: dict[Modality, list[NDArray[np.int64]]] = {}
        for two, rows in self._pairs.items():
            for side, modality in enumerate(two):
                used.setdefault(modality, []).append(rows[:, side])
        self._places: dict[Modality, NDArray[np.int64]] = {
            modality: np.unique(np.concatenate(parts)) for modality, parts in used.items()
        }

    def picked(self, rows: Mapping[Modality, NDArray[np.float32]]) -> dict[Modality, NDArray[np.float32]]:
        """Return the rows of the items that are needed."""
        found: dict[Modality, NDArray[np.float32]] = {}
        for modality, places in self._places.items():
            if modality in rows:
                found[modality] = rows[modality][places]
        return found

    def recall(self, vectors: Mapping[Modality, Vectors]) -> dict[str, dict[str, float]]:
        """Return the recall at 1, 5 and 10 of each two modalities, both ways."""
        found = {}
        for (first, second), rows in self._pairs.items():
            places = [np.searchsorted(self._places[m], rows[:, side]) for side, m in enumerate((first, second))]
            of_two = [np.unique(side, return_inverse=True) for side in places]
            scores = vectors[first][of_two[0][0]] @ vectors[second][of_two[1][0]].T
            found[f"{first}->{second}"] = _recalls(ranks_of_best(scores, of_two[0][1], of_two[1][1]))
            found[f"{second}->{first}"] = _recalls(ranks_of_best(scores.T, of_two[1][1], of_two[0][1]))
        return found

    def score(self, vectors: Mapping[Modality, Vectors]) -> float:
        """Return the mean of all recalls; 0 where nothing is held out."""
        recalls = [value for of_two in self.recall(vectors).values() for value in of_two.values()]
        return float(np.mean(recalls)) if recalls else 0.0


def _recalls(ranks: Ranks) -> dict[str, float]:
    return {f"R@{k}": float(ranks.found_within(k).mean()) for k in (1, 5, 10)}


def _fewer(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    kept = np.unique(rows[:, 1])[:MOST_VALIDATED]
    return rows[np.isin(rows[:, 1], kept)]


def calibrate(
    vectors: Mapping[Modality, Vectors], held_out: Mapping[Two, NDArray[np.int64]], *, seed: int
) -> Relevance:
    """Fit how scores become probabilities, for any modality to any, by held-out pairs.

    Two items of one modality belong together if they share a partner. Where no pairs tell, the scores of items that
    have nothing to do with each other do (`from_background`).
    """
    places: dict[Modality, NDArray[np.int64]] = {m: used_places(m, held_out) for two in held_out for m in two}
    matrices = {two: _matrix(rows, places[two[0]], places[two[1]]) for two, rows in held_out.items()}
    found: dict[Two, LogOdds] = {}
    for query in places:
        for gallery in places:
            related = _related(query, gallery, matrices, len(places[query]), len(places[gallery]))
            asked, among = vectors[query][places[query]], vectors[gallery][places[gallery]]
            log_odds = fit(*simulate(asked, among, related, seed=seed, is_same=query == gallery))
            if log_odds is None:
                random = np.random.default_rng(seed)
                a, b = random.integers(len(asked), size=20_000), random.integers(len(among), size=20_000)
                unrelated = ~related[a, b] & ((a != b) | (query != gallery))
                if unrelated.sum() < LEAST_BACKGROUND:
                    continue
                log_odds = from_background((asked[a] * among[b]).sum(axis=1)[unrelated])
            if log_odds is not None:
                found[query, gallery] = log_odds
    return Relevance(found)


def _matrix(rows: NDArray[np.int64], first: NDArray[np.int64], second: NDArray[np.int64]) -> NDArray[np.bool_]:
    found = np.zeros((len(first), len(second)), np.bool_)
    found[np.searchsorted(first, rows[:, 0]), np.searchsorted(second, rows[:, 1])] = True
    return found


def _related(
    query: Modality, gallery: Modality, matrices: Mapping[Two, NDArray[np.bool_]], queries: int, items: int
) -> NDArray[np.bool_]:
    """Tell which items belong together, shape (queries, items)."""
    if query != gallery:
        if (query, gallery) in matrices:
            return matrices[query, gallery]
        if (gallery, query) in matrices:
            return matrices[gallery, query].T
        return np.zeros((queries, items), np.bool_)
    shared = np.zeros((queries, items), np.bool_)
    for (first, second), matrix in matrices.items():
        if query == first:
            shared |= matrix.astype(np.float32) @ matrix.T.astype(np.float32) > 0
        if query == second:
            shared |= matrix.T.astype(np.float32) @ matrix.astype(np.float32) > 0
    np.fill_diagonal(shared, False)
    return shared


def used_places(modality: Modality, pairs: Mapping[Two, Any]) -> NDArray[np.int64]:
    """Return which items of a modality occur in pairs, given as such or as rows."""
    parts = [getattr(of, "rows", of)[:, two.index(modality)] for two, of in pairs.items() if modality in two]
    return np.unique(np.concatenate(parts))
