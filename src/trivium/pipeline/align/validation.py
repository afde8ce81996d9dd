"""How well heads find held-out pairs: what chooses the epoch."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from trivium.encoders.base import Modality, Vectors
from trivium.pipeline.align.pairs import Two
from trivium.pipeline.evaluation.metrics import Ranks, ranks_of_best

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
