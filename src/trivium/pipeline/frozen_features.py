"""What frozen backbones say of items, kept by content: training, grids and reruns encode nothing twice.

Each backbone has a folder in the cache, named by its revision, with files of up to `ROWS_PER_FILE` items: safetensors
with the contents' SHA-256, the pooled features, the classifier's scores and inner layers. A damaged file is dropped and
made anew.
"""

import hashlib
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trivium.encoders import engine
from trivium.encoders.base import Backbone, DecodeError, Features, Modality, Prepared
from trivium.encoders.batching import BATCH_ITEMS
from trivium.encoders.cores import usable_cores
from trivium.encoders.files import read_file
from trivium.encoders.sandbox import DecodeSandbox
from trivium.encoders.weights import cache_folder

ROWS_PER_FILE = 2048
FORMAT = 2  # of the files: another one encodes all anew
LOGITS, LAYERS = "logits.", "layers."  # before the names of these in a file
Progress = Callable[[int, int], None]  # items done, of how many


@dataclass(frozen=True, slots=True)
class FrozenFeatures:
    """Features of the items that could be encoded, and why others could not."""

    features: Features  # a row for each of ``places``
    places: NDArray[np.int64]  # positions among the items asked for
    failures: Mapping[int, str]  # position -> reason


class FeatureCache:
    """Features of one backbone by content."""

    def __init__(self, revision: str, *, folder: Path | None = None) -> None:
        """Name the backbone's revision; ``folder`` is Trivium's cache if None."""
        self.folder = (folder or cache_folder() / f"features-{FORMAT}") / revision

    def load(self, wanted: Iterable[bytes]) -> tuple[dict[bytes, int], Features | None]:
        """Return the row of each content that is there, and the rows."""
        lacking = set(wanted)
        row_of: dict[bytes, int] = {}
        parts: list[Features] = []
        for path in sorted(self.folder.glob("*.safetensors")):
            if not lacking:
                break
            if (read := _read(path)) is None:
                path.unlink(missing_ok=True)
                continue
            keys, features = read
            rows = [row for row, key in enumerate(keys) if key in lacking]
            if not rows:
                continue
            start = sum(len(part.pooled) for part in parts)
            row_of |= {keys[row]: start + place for place, row in enumerate(rows)}
            lacking -= {keys[row] for row in rows}
            parts.append(_rows(features, rows))
        return row_of, Features.joined(parts) if parts else None

    def save(self, keys: Sequence[bytes], features: Features) -> None:
        """Add contents that are not there."""
        from safetensors.numpy import save_file

        self.folder.mkdir(parents=True, exist_ok=True)
        tensors: dict[str, NDArray[Any]] = {
            "pooled": features.pooled,
            **{f"{LOGITS}{head}": rows for head, rows in features.logits.items()},
            **{f"{LAYERS}{layer}": rows for layer, rows in features.layers.items()},
        }
        tensors["keys"] = np.frombuffer(b"".join(keys), np.uint8).reshape(len(keys), 32)
        name = hashlib.sha256(b"".join(keys)).hexdigest()[:24]
        descriptor, draft = tempfile.mkstemp(dir=self.folder)
        os.close(descriptor)
        try:
            save_file({name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}, draft)
            os.replace(draft, self.folder / f"{name}.safetensors")
        except BaseException:
            Path(draft).unlink(missing_ok=True)
            raise


def frozen_features(
    backbone: Callable[[], Backbone],
    cache: FeatureCache,
    items: Sequence[str],
    *,
    modality: Modality,
    progress: Progress | None = None,
) -> FrozenFeatures:
    """Encode items with a frozen backbone, or take what is in the cache.

    Args:
        backbone: Called when something has to be encoded.
        cache: Of the backbone's revision.
        items: Texts; or paths of pictures or sounds.
        modality: Of the backbone.
        progress: Called with the items done and their number.
    """
    failures: dict[int, str] = {}
    keys: dict[int, bytes] = {}
    for place, item in enumerate(items):
        try:
            content = item.encode("utf-8", "surrogateescape") if modality == "text" else read_file(item)
        except DecodeError as error:
            failures[place] = error.reason
        else:
            keys[place] = hashlib.sha256(content).digest()
    row_of, found = cache.load(keys.values())
    new: dict[bytes, int] = {}  # the first item of each content that is not there
    for place, key in keys.items():
        if key not in row_of:
            new.setdefault(key, place)
    reasons: dict[bytes, str] = {}
    if new:
        parts = [] if found is None else [found]
        for part_keys, features, failed in _encoded(backbone(), modality, items, new, progress):
            if part_keys:
                cache.save(part_keys, features)
            start = sum(len(part.pooled) for part in parts)
            row_of |= {key: start + place for place, key in enumerate(part_keys)}
            parts.append(features)
            reasons |= failed
        parts = [part for part in parts if len(part.pooled)]
        found = Features.joined(parts) if parts else None
    failures |= {place: reasons[key] for place, key in keys.items() if key in reasons}
    places = [place for place, key in keys.items() if key in row_of]
    if found is None:
        found = Features(pooled=np.empty((0, 0), np.float32))
    return FrozenFeatures(_rows(found, [row_of[keys[place]] for place in places]), np.array(places, np.int64), failures)


def _encoded(
    backbone: Backbone,
    modality: Modality,
    items: Sequence[str],
    new: Mapping[bytes, int],
    progress: Progress | None,
) -> Iterator[tuple[list[bytes], Features, dict[bytes, str]]]:
    """Yield the keys, features and failures of some contents at a time."""
    with nullcontext() if modality == "text" else DecodeSandbox() as sandbox:

        def load(job: tuple[bytes, int]) -> tuple[bytes, Prepared | str]:
            key, place = job
            try:
                item: Any = items[place]
                if sandbox is not None:
                    item = sandbox.decode(modality, read_file(item), side=backbone.side)
                return key, backbone.prepare(item)
            except DecodeError as error:
                return key, error.reason

        def encode(batch: list[tuple[bytes, Prepared | str]]) -> Features | None:
            prepared = [item for _, item in batch if not isinstance(item, str)]
            return backbone.features(prepared) if prepared else None

        batches = engine.run(
            new.items(), load=load, encode=[encode], batch_items=BATCH_ITEMS["cpu"][modality], loaders=usable_cores()
        )
        keys: list[bytes] = []
        parts: list[Features] = []
        failed: dict[bytes, str] = {}
        done = 0
        with closing(batches):
            for batch, features in batches:
                done += len(batch)
                failed |= {key: item for key, item in batch if isinstance(item, str)}
                if features is not None:
                    keys += [key for key, item in batch if not isinstance(item, str)]
                    parts.append(features)
                if progress is not None:
                    progress(done, len(new))
                if len(keys) >= ROWS_PER_FILE:
                    yield keys, Features.joined(parts), failed
                    keys, parts, failed = [], [], {}
        if keys or failed:
            yield keys, Features.joined(parts) if parts else Features(pooled=np.empty((0, 0), np.float32)), failed


def _rows(features: Features, rows: Sequence[int]) -> Features:
    return features.each(lambda array: array[rows])


def _read(path: Path) -> tuple[list[bytes], Features] | None:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        tensors = load_file(path)
        keys = tensors.pop("keys")
        features = Features(
            pooled=tensors.pop("pooled"), logits=_named(tensors, LOGITS), layers=_named(tensors, LAYERS)
        )
    except (OSError, KeyError, ValueError, SafetensorError):
        return None
    counts = {len(keys), len(features.pooled), *map(len, tensors.values())}
    if len(counts) != 1 or keys.shape[1:] != (32,) or not np.isfinite(features.pooled).all():
        return None
    return [row.tobytes() for row in keys], features


def _named(tensors: Mapping[str, NDArray[Any]], prefix: str) -> dict[str, NDArray[np.float32]]:
    return {name.removeprefix(prefix): rows for name, rows in tensors.items() if name.startswith(prefix)}
