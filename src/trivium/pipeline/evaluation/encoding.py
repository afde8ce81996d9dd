"""A table's rows to vectors: each distinct item is encoded once, and a bad one costs the rows that name it.

By the space's encoders and not by `features.encode_items`: what is measured is what a collection would search, on the
device that was asked for, and nothing is kept on disk.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from trivium.encoders.base import Modality, Vectors
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
    failed: dict[Modality, dict[str, str]] = {}  # item -> why
    for modality in modalities:
        items = list(dict.fromkeys(item for row in rows if (item := row.item(modality)) is not None))
        vectors[modality], failed[modality] = _encoded(space, modality, items, progress)
        good = [item for item in items if item not in failed[modality]]
        places[modality] = {item: place for place, item in enumerate(good)}
        for place in np.flatnonzero(~np.isfinite(vectors[modality]).all(axis=1)).tolist():
            failed[modality][good[place]] = "the network gave no finite vector for it"
    usable: list[Row] = []
    refused: list[RefusedRow] = []
    for row in rows:
        held: list[tuple[Modality, str]]
        held = [(modality, item) for modality in modalities if (item := row.item(modality)) is not None]
        bad = next((each for each in held if each[1] in failed[each[0]]), None)
        if bad is None:
            usable.append(row)
        else:
            modality, item = bad
            what = "its text" if modality == "text" else item
            refused.append(RefusedRow(line=row.line, reason=f"{what}: {failed[modality][item]}"))
    return EncodedRows(rows=usable, refused=refused, vectors=vectors, places=places)


def _encoded(
    space: JointSpace, modality: Modality, items: Sequence[str], progress: Bars | None
) -> tuple[Vectors, dict[str, str]]:
    """Return vectors, without rows of items that failed, and why these did."""
    reasons: dict[str, str] = {}
    found = space.encode(
        modality,
        items,
        progress=None if progress is None else lambda done: progress(modality, done, len(items)),
        on_error=lambda place, error: reasons.update({items[place]: error.reason}),
    )
    return found, reasons
