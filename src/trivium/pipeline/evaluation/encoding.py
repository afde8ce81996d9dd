"""A table's rows to vectors: each distinct item is encoded once, and a bad one costs the rows that name it."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from trivium.encoders.base import DecodeError, Modality, Vectors
from trivium.pipeline.progress import Bars
from trivium.pipeline.space.joint import JointSpace
from trivium.pipeline.tables.pairs import RefusedRow, Row


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodedRows:
    """Rows all of whose items have vectors, and the others."""

    rows: Sequence[Row]
    refused: Sequence[RefusedRow]
    vectors: Mapping[Modality, Vectors]  # (n, d), with rows of refused ones too
    places: Mapping[Modality, Mapping[str, int]]  # item -> its row there

    def of(self, modality: Modality, items: Iterable[str]) -> Vectors:
        """Return the vectors of some items, in order, shape (n, d)."""
        places = self.places[modality]
        return self.vectors[modality][[places[item] for item in items]]


def encode_rows(
    space: JointSpace, rows: Sequence[Row], modalities: Sequence[Modality], *, progress: Bars | None = None
) -> EncodedRows:
    """Encode what rows hold of some modalities.

    Args:
        space: Has encoders for the modalities.
        rows: Of a table.
        modalities: Others are not looked at.
        progress: Called with the modality, the number of items done and their count.
    """
    vectors: dict[Modality, Vectors] = {}
    places: dict[Modality, dict[str, int]] = {}
    failed: dict[tuple[Modality, str], str] = {}
    for modality in modalities:
        items = list(dict.fromkeys(item for row in rows if (item := row.item(modality)) is not None))
        reasons: dict[int, str] = {}
        rows_made = space.encode(
            modality, items, progress=_shown(progress, modality, len(items)), on_error=_kept(reasons)
        )
        good = [item for place, item in enumerate(items) if place not in reasons]
        places[modality] = {item: place for place, item in enumerate(good)}
        vectors[modality] = rows_made
        failed.update({(modality, items[place]): reason for place, reason in reasons.items()})
        for place in np.flatnonzero(~np.isfinite(rows_made).all(axis=1)).tolist():
            failed[modality, good[place]] = "the network gave no finite vector for it"
    usable: list[Row] = []
    refused: list[RefusedRow] = []
    for row in rows:
        held: list[tuple[Modality, str]] = [
            (modality, item) for modality in modalities if (item := row.item(modality)) is not None
        ]
        bad = next((key for key in held if key in failed), None)
        if bad is None:
            usable.append(row)
        else:
            what = "its text" if bad[0] == "text" else bad[1]
            refused.append(RefusedRow(line=row.line, reason=f"{what}: {failed[bad]}"))
    return EncodedRows(rows=usable, refused=refused, vectors=vectors, places=places)


def _shown(progress: Bars | None, modality: Modality, count: int) -> Callable[[int], None] | None:
    return None if progress is None else lambda done: progress(modality, done, count)


def _kept(reasons: dict[int, str]) -> Callable[[int, DecodeError], None]:
    def keep(place: int, error: DecodeError) -> None:
        reasons[place] = error.reason

    return keep
