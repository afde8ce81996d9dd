"""What one row of an imported file says, checked: vectors before FAISS sees them, all else before SQLite does."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from trivium.encoders.base import Vectors
from trivium.pipeline.records import ITEM_KINDS, ItemKind, Role, is_role
from trivium.pipeline.tables.metadata import MAX_BYTES, MetadataError, encode, flatten, read_sidecar
from trivium.pipeline.upkeep.vector_files import AnyVectors

MAX_CAPTION = 10_000  # characters
MAX_PATH_BYTES = 4_096  # as Linux has it
LENGTH_TOLERANCE = 1e-2  # half precision moves the length of a unit vector by less than a tenth of it


class RowError(ValueError):
    """Why a row cannot be used; the message goes on where "row 7" stands."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedRow:
    """A row that can be used, as far as it tells by itself."""

    path: str  # absolute
    modality: ItemKind
    role: Role
    told: Mapping[str, str | None]  # caption and metadata (JSON), as far as the file has these columns
    sha256: bytes | None


def checked_row(fields: Mapping[str, object], *, folder: str, positions: bool) -> CheckedRow:
    """Check a row's fields.

    Args:
        fields: By column.
        folder: What relative paths are relative to.
        positions: Keep where the item was made, if the metadata say so.

    Raises:
        RowError: If a field is not what it should be.
    """
    modality, role = fields.get("modality"), fields.get("role")
    role = "content" if role is None else role
    if modality not in ITEM_KINDS:
        raise RowError(f"has the modality {_shown(modality)}, not one of {', '.join(ITEM_KINDS)}")
    if not isinstance(role, str) or not is_role(role):
        raise RowError(f"has the role {_shown(role)}, not content, caption, or as 'window 1.000 2.000'")
    told: dict[str, str | None] = {}
    if "caption" in fields:
        told["caption"] = _caption(fields["caption"])
    if "metadata" in fields:
        told["metadata"] = _metadata(fields["metadata"], positions=positions)
    return CheckedRow(
        path=_path(fields, folder), modality=modality, role=role, told=told, sha256=_sha256(fields.get("sha256"))
    )


def unit_vectors(vectors: AnyVectors, *, scale: bool) -> tuple[Vectors, list[str | None]]:
    """Check vectors before FAISS sees them.

    Args:
        vectors: Shape (n, d), of any float type.
        scale: Scale rows to length 1, instead of refusing those that are not.

    Returns:
        The vectors as float32, shape (n, d), zeros where they cannot be used, and for each None or why it cannot.
    """
    wide = vectors.astype(np.float64)
    faults: list[str | None] = [None] * len(wide)
    bad = ~np.isfinite(wide)
    for row in np.flatnonzero(bad.any(axis=1)).tolist():
        first = int(bad[row].argmax())
        faults[row] = f"has NaN or infinity in {int(bad[row].sum())} of {wide.shape[1]} numbers, first at {first}"
    wide[bad.any(axis=1)] = 0
    largest = np.abs(wide).max(axis=1, initial=0, keepdims=True)  # (n, 1): squares of large numbers overflow
    relative = wide / np.where(largest > 0, largest, 1)
    scaled_lengths = np.linalg.norm(relative, axis=1, keepdims=True)
    lengths = (largest * scaled_lengths)[:, 0]
    for row in np.flatnonzero(lengths == 0).tolist():
        faults[row] = faults[row] or "has a vector of zeros, which has no direction"
    if scale:
        wide = relative / np.where(scaled_lengths > 0, scaled_lengths, 1)
    else:
        for row in np.flatnonzero((np.abs(lengths - 1) > LENGTH_TOLERANCE) & (lengths > 0)).tolist():
            faults[row] = f"has a vector of length {lengths[row]:.4g}, 1 is needed"
            wide[row] = 0
    return wide.astype(np.float32), faults


def _path(fields: Mapping[str, object], folder: str) -> str:
    path, odd = fields.get("path"), fields.get("path_bytes")
    if isinstance(odd, str):
        try:
            odd = bytes.fromhex(odd)
        except ValueError:
            raise RowError(f"has path_bytes that are not hexadecimal: {_shown(odd)}") from None
    if isinstance(odd, bytes):
        path = os.fsdecode(odd)
    if not isinstance(path, str) or not path:
        raise RowError("names no path")
    path = os.path.normpath(os.path.join(folder, path))
    try:
        is_too_long = len(os.fsencode(path)) > MAX_PATH_BYTES
    except UnicodeEncodeError:
        raise RowError(f"has a path that is no file name: {path!a}") from None
    if "\0" in path or is_too_long:
        raise RowError(f"has a path with NUL or of more than {MAX_PATH_BYTES:,} bytes: {_shown(path)}")
    return path


def _caption(value: object) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str):
        raise RowError(f"has a caption that is no text: {_shown(value)}")
    if len(value) > MAX_CAPTION:
        raise RowError(f"has a caption of {len(value):,} characters, at most {MAX_CAPTION:,} are taken")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise RowError(f"has a caption with half characters, which no UTF-8 has: {value[:40]!a}") from None
    if "\0" in value:
        raise RowError(f"has a caption with NUL: {_shown(value)}")
    return value or None


def _metadata(value: object, *, positions: bool) -> str | None:
    if value is None:
        return None
    try:
        if isinstance(value, str):
            metadata = read_sidecar(value.encode("utf-8", "surrogatepass"), positions=positions)
        elif isinstance(value, Mapping):
            metadata = flatten(value, positions=positions)
        else:
            raise MetadataError(f"not a JSON object: {_shown(value)}")
        text = encode(metadata)
    except (MetadataError, RecursionError) as error:
        raise RowError(f"has metadata that cannot be used: {error}") from None
    if len(text.encode()) > MAX_BYTES:
        raise RowError(f"has metadata of {len(text.encode()):,} bytes, at most {MAX_BYTES:,} are taken")
    return text if metadata else None


def _sha256(value: object) -> bytes | None:
    if value is None:
        return None
    digest = value
    if isinstance(value, str):
        try:
            digest = bytes.fromhex(value)
        except ValueError:
            digest = None
    if not isinstance(digest, bytes) or len(digest) != 32:
        raise RowError(f"has a sha256 that is none: {_shown(value)}")
    return digest


def _shown(value: object) -> str:
    """Return a value for a message, short and without signs that a terminal would obey."""
    text = json.dumps(value, default=repr)
    return text if len(text) <= 60 else f"{text[:60]}…"
