"""How well heads find held-out pairs: what chooses the epoch."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from trivium.encoders.base import Modality, Vectors
from trivium.pipeline.alignment_pairs import Two

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
            is_relevant = np.zeros((len(of_two[0][0]), len(of_two[1][0])), np.bool_)
            is_relevant[of_two[0][1], of_two[1][1]] = True
            scores = vectors[first][of_two[0][0]] @ vectors[second][of_two[1][0]].T
            found[f"{first}->{second}"] = _recalls(scores, is_relevant)
            found[f"{second}->{first}"] = _recalls(scores.T, is_relevant.T)
        return found

    def score(self, vectors: Mapping[Modality, Vectors]) -> float:
        """Return the mean of all recalls; 0 where nothing is held out."""
        recalls = [value for of_two in self.recall(vectors).values() for value in of_two.values()]
        return float(np.mean(recalls)) if recalls else 0.0


def _recalls(scores: NDArray[np.float32], is_relevant: NDArray[np.bool_]) -> dict[str, float]:
    best = np.where(is_relevant, scores, -np.inf).max(axis=1, keepdims=True)
    ranks = (np.where(is_relevant, -np.inf, scores) >= best).sum(axis=1)  # of the best right answer, from 0
    return {f"R@{k}": float((ranks < k).mean()) for k in (1, 5, 10)}


def _fewer(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    kept = np.unique(rows[:, 1])[:MOST_VALIDATED]
    return rows[np.isin(rows[:, 1], kept)]
