"""What frozen backbones say of items, kept by content: training, grids and reruns encode nothing twice."""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from trivium.encoders import engine
from trivium.encoders.base import Backbone, DecodeError, Features, Modality, Prepared
from trivium.encoders.batching import BATCH_ITEMS, prepared
from trivium.encoders.files.reading import read_file
from trivium.encoders.machine import usable_cores
from trivium.encoders.sandbox.pool import DecodeSandbox
from trivium.pipeline.features.cache import FeatureCache
from trivium.pipeline.progress import Progress
from trivium.pipeline.space.joint import JointSpace

ROWS_PER_COMMIT = 2048  # to the cache: what is lost when a run is stopped


@dataclass(frozen=True, slots=True)
class FrozenFeatures:
    """Features of the items that could be encoded, and why others could not."""

    features: Features  # a row for each of ``places``
    places: NDArray[np.int64]  # positions among the items asked for
    failures: Mapping[int, str]  # position -> reason


def encode_items(
    space: JointSpace,
    modality: Modality,
    items: Sequence[str | bytes],
    *,
    cache: FeatureCache | None = None,
    progress: Progress | None = None,
) -> FrozenFeatures:
    """Encode items with a space's frozen backbone: each distinct one once, and none whose content is in the cache.

    Args:
        space: Its projections are not used.
        modality: Of the items.
        items: Texts; or paths, or files' bytes, of pictures or sounds. They may repeat.
        cache: Where features are kept; Trivium's own if None.
        progress: Called with the items done and their number.
    """
    distinct = list(dict.fromkeys(items))
    cache = cache or FeatureCache(space.features_revision(modality))
    found = frozen_features(partial(space.backbone, modality), cache, distinct, modality=modality, progress=progress)
    if len(distinct) == len(items):
        return found
    row_of = {distinct[place]: row for row, place in enumerate(found.places.tolist())}
    places = [place for place, item in enumerate(items) if item in row_of]
    reasons = {distinct[place]: reason for place, reason in found.failures.items()}
    failures = {place: reasons[item] for place, item in enumerate(items) if item in reasons}
    features = _rows(found.features, [row_of[items[place]] for place in places])
    return FrozenFeatures(features, np.array(places, np.int64), failures)


def frozen_features(
    backbone: Callable[[], Backbone],
    cache: FeatureCache,
    items: Sequence[str | bytes],
    *,
    modality: Modality,
    progress: Progress | None = None,
) -> FrozenFeatures:
    """Encode items with a frozen backbone, or take what is in the cache.

    Args:
        backbone: Called when something has to be encoded.
        cache: Of the backbone's revision.
        items: Texts; or paths, or files' bytes, of pictures or sounds.
        modality: Of the backbone.
        progress: Called with the items done and their number.
    """
    failures: dict[int, str] = {}
    keys: dict[int, bytes] = {}
    for place, item in enumerate(items):
        try:
            content = _content(item, modality)
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
    items: Sequence[str | bytes],
    new: Mapping[bytes, int],
    progress: Progress | None,
) -> Iterator[tuple[list[bytes], Features, dict[bytes, str]]]:
    """Yield the keys, features and failures of some contents at a time."""
    with nullcontext() if modality == "text" else DecodeSandbox() as sandbox:

        def load(job: tuple[bytes, int]) -> tuple[bytes, Prepared | str]:
            key, place = job
            try:
                return key, prepared(backbone, items[place], sandbox)
            except DecodeError as error:
                return key, error.reason

        def encode(batch: list[tuple[bytes, Prepared | str]]) -> Features | None:
            ready = [item for _, item in batch if not isinstance(item, str)]
            return backbone.features(ready) if ready else None

        batches = engine.run(
            new.items(),
            load=load,
            encode=[encode],
            batch_items=BATCH_ITEMS["cpu"][modality],
            loaders=usable_cores(),
            on_stop=(lambda: None) if sandbox is None else sandbox.close,
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
                if len(keys) >= ROWS_PER_COMMIT:
                    yield keys, Features.joined(parts), failed
                    keys, parts, failed = [], [], {}
        if keys or failed:
            yield keys, Features.joined(parts) if parts else Features(pooled=np.empty((0, 0), np.float32)), failed


def _content(item: str | bytes, modality: Modality) -> bytes:
    """Return what tells an item from others, and of a file all that it holds."""
    if isinstance(item, bytes):
        return item
    return item.encode("utf-8", "surrogateescape") if modality == "text" else read_file(item)


def _rows(features: Features, rows: Sequence[int]) -> Features:
    return features.each(lambda array: array[rows])
