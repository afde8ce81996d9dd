"""Frames of texts and files to tables of numbers: what each frozen encoder says, NaN where a modality is missing.

A frame is anything with named columns, such as a pandas DataFrame: `text` holds words, `image` and `audio` paths or
files' bytes. Other columns are passed over. A cell without a value, or a file that cannot be read, is missing.
"""

import math
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trivium.encoders.base import MODALITIES, Features, Modality, Vectors
from trivium.encoders.networks.contract import Precision
from trivium.encoders.several import path_of
from trivium.pipeline.features.cache import FeatureCache
from trivium.pipeline.features.frozen import encode_items
from trivium.pipeline.space.joint import JointSpace, load_space

REASONS_TOLD = 3


class MissingModalityWarning(UserWarning):
    """Some items could not be encoded and count as missing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodedFrame:
    """What the encoders say of a frame."""

    features: Mapping[Modality, Features]  # of the rows in ``rows``
    rows: Mapping[Modality, NDArray[np.int64]]  # that have the modality
    count: int  # rows of the frame
    failures: Mapping[Modality, Mapping[int, str]]  # row -> why its item counts as missing


@lru_cache(maxsize=4)
def space_named(
    source: str, device: str = "cpu", precision: Precision = "float32", *, is_named: bool = True
) -> JointSpace:
    """Load a space once: clones of an estimator, and folds of a search, share its encoders. See `load_space`."""
    return load_space(source, device=device, precision=precision, is_named=is_named)


def modalities_of(frame: Any, space: JointSpace) -> tuple[Modality, ...]:
    """Return which of a space's modalities a frame has columns for.

    Raises:
        TypeError: If it has no named columns.
        ValueError: If none of them is a modality's.
    """
    columns = getattr(frame, "columns", None)
    if columns is None:
        raise TypeError(
            f"X must be a DataFrame with columns among {', '.join(space.modalities)}, got {type(frame).__name__}: "
            "trivium.fusion.BlockClassifier takes tables of numbers"
        )
    found: list[Modality] = [m for m in MODALITIES if m in space.modalities and m in list(columns)]
    if not found:
        named = ", ".join(map(str, list(columns)[:20])) or "none"
        raise ValueError(f"X must have a column among {', '.join(space.modalities)}, its columns: {named}")
    return tuple(found)


def encode_frame(
    frame: Any,
    space: JointSpace,
    modalities: Sequence[Modality],
    *,
    cache: Path | None = None,
) -> EncodedFrame:
    """Encode the columns of a frame, or take from the cache what has the same content.

    Args:
        frame: With a column for each modality; another one may be passed over.
        space: Whose frozen encoders are used.
        modalities: Which columns are wanted; one that the frame lacks is missing in all rows.
        cache: Folder of kept features; Trivium's own if None.
    """
    features: dict[Modality, Features] = {}
    rows: dict[Modality, NDArray[np.int64]] = {}
    failures: dict[Modality, dict[int, str]] = {}
    for modality in modalities:
        if modality not in list(frame.columns):
            continue
        cells = _cells(frame[modality], modality)
        given = {row: cell for row, cell in enumerate(cells) if cell is not None}
        kept = FeatureCache(space.features_revision(modality), folder=cache)
        found = encode_items(space, modality, list(given.values()), cache=kept)
        row_of = np.array(list(given), np.int64)
        if len(found.places):
            features[modality] = found.features
            rows[modality] = row_of[found.places]
        failures[modality] = {int(row_of[place]): reason for place, reason in sorted(found.failures.items())}
        _warn(modality, failures[modality], len(given))
    return EncodedFrame(features=features, rows=rows, count=len(frame), failures=failures)


def views_of(encoded: EncodedFrame) -> dict[str, tuple[int, ...]]:
    """Return how many numbers each view of each modality has that is there at all."""
    return {str(m): tuple(view.shape[1] for view in _views(of)) for m, of in encoded.features.items()}


def table_of(encoded: EncodedFrame, blocks: Mapping[str, tuple[int, int]]) -> NDArray[np.float32]:
    """Put what the encoders say side by side, (n, width).

    Args:
        encoded: A frame.
        blocks: The columns of the modalities that are wanted, as many views of each as there is room for; NaN where
            one is missing.
    """
    table = np.full((encoded.count, max(stop for _, stop in blocks.values())), np.nan, np.float32)
    for modality, of in encoded.features.items():
        if modality in blocks:
            start, stop = blocks[modality]
            table[encoded.rows[modality], start:stop] = np.concatenate(_views(of), axis=1)[:, : stop - start]
    return table


def _views(of: Features) -> list[NDArray[np.float32]]:
    """Return what is said of items, (n, d) each: in the end, with what a classifier thinks, and by each inner layer."""
    end = np.concatenate([of.pooled, *(of.logits[head] for head in sorted(of.logits))], axis=1)
    return [end, *(of.layers[layer] for layer in sorted(of.layers))]


def vectors_of(encoded: EncodedFrame, space: JointSpace) -> dict[Modality, Vectors]:
    """Return the vectors of each modality's rows in the space."""
    return {m: space.projection(m, of.pooled.shape[1])(of) for m, of in encoded.features.items()}


def revisions_of(space: JointSpace, modalities: Sequence[Modality]) -> dict[str, str]:
    """Return which frozen networks the features come from."""
    return {str(m): space.config_of(m).backbone_revision for m in modalities}


def _cells(column: Any, modality: Modality) -> list[str | bytes | None]:
    """Return each cell as text, a path or a file's bytes; None where there is nothing.

    Raises:
        TypeError: If one is none of these.
    """
    found: list[str | bytes | None] = []
    for row, cell in enumerate(column):
        item = cell if modality == "text" else file_of(cell)
        if (
            item is None
            or (isinstance(item, float) and math.isnan(item))
            or type(item).__name__ in ("NAType", "NaTType")
        ):
            found.append(None)
        elif isinstance(item, str):
            found.append(item if item.strip() else None)
        elif isinstance(item, bytes) and modality != "text":
            found.append(item or None)
        else:
            wanted = "a text" if modality == "text" else "a path, bytes"
            raise TypeError(
                f"'{modality}' must hold {wanted} or nothing in each row, got {type(cell).__name__} in row {row}"
            )
    return found


def file_of(cell: Any) -> Any:
    """Return what a cell has of a file: its path as text, or its bytes; anything else as it is.

    Parquet files of the Hugging Face's `datasets` keep a picture or a sound as a mapping with both, or one of them.
    """
    if isinstance(cell, Mapping) and cell.keys() <= {"bytes", "path"}:
        content, path = cell.get("bytes"), cell.get("path")
        cell = path if content is None else content
    if isinstance(cell, bytearray | memoryview):
        return bytes(cell)
    return os.fspath(cell) if isinstance(cell, os.PathLike) else cell


def _warn(modality: Modality, failures: Mapping[int, str], given: int) -> None:
    if failures:
        told = "; ".join(f"row {row}: {reason}" for row, reason in list(failures.items())[:REASONS_TOLD])
        warnings.warn(
            f"{len(failures):,} of {given:,} items of '{modality}' could not be encoded and count as missing ({told})",
            MissingModalityWarning,
            stacklevel=4,
        )


class FrameTags:
    """Tells scikit-learn that tables have columns of texts and files, with gaps."""

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()  # type: ignore[misc]  # of BaseEstimator, which stands behind
        tags.input_tags.allow_nan = True
        tags.input_tags.string = True
        tags.input_tags.two_d_array = False  # of numbers: what scikit-learn's generic checks would feed it
        return tags


class FrameColumns(FrameTags):
    """A frame's columns of a space's modalities, learnt by `fit`."""

    space: str | Path
    precision: Precision
    device: str
    cache: str | Path | None
    views_: dict[str, tuple[int, ...]]  # how many numbers each view of each modality has
    blocks_: dict[str, tuple[int, int]]  # their columns
    feature_names_in_: NDArray[np.object_]
    n_features_in_: int
    named_elsewhere_: str | None = None  # a space that a loaded model names, and nobody here

    def learn_columns(self, X: Any, *, layers: bool = True) -> EncodedFrame:
        """Encode a frame to learn from, and keep what it has; of each modality the last layer alone if not ``layers``.

        Raises:
            ValueError: If it has nothing that can be encoded.
        """
        modalities = modalities_of(X, self.joint_space())
        encoded = self._encode(X, modalities)
        views = views_of(encoded)
        self.views_ = views if layers else {name: widths[:1] for name, widths in views.items()}
        if not self.views_:
            raise ValueError(f"no row of X has anything in {', '.join(modalities)} that could be encoded")
        self.feature_names_in_ = np.array(modalities, object)
        self.n_features_in_ = len(modalities)
        self.blocks_ = blocks_of(self.views_)
        return encoded

    def encoded(self, X: Any) -> EncodedFrame:
        """Encode a frame's columns of what was learnt."""
        modalities_of(X, self.joint_space())
        return self._encode(X, [m for m in MODALITIES if m in self.views_])

    def joint_space(self) -> JointSpace:
        """Return the space, loaded once."""
        is_named = str(self.space) != self.named_elsewhere_
        return space_named(str(self.space), self.device, self.precision, is_named=is_named)

    def _encode(self, X: Any, modalities: Sequence[Modality]) -> EncodedFrame:
        cache = None if self.cache is None else Path(path_of(self.cache, "cache"))
        return encode_frame(X, self.joint_space(), modalities, cache=cache)


def blocks_of(views: Mapping[str, Sequence[int]]) -> dict[str, tuple[int, int]]:
    """Return the first column and the one after the last of each modality, side by side in the order of the views."""
    found, start = {}, 0
    for modality, widths in views.items():
        found[modality] = (start, start + sum(widths))
        start += sum(widths)
    return found
