"""Trivium: text, images and sound in one space.

    import trivium
    collection = trivium.Collection.open("holiday.trivium")
    collection.add(["photos", "sounds"])
    for hit in collection.search(text="a bird singing", k=5):
        print(f"{hit.score:.2f}", hit.modality, hit.path, hit.caption)

Importing this package loads nothing heavy; torch comes when something is first encoded.
"""

import importlib
from typing import TYPE_CHECKING, Any

from trivium.version import __version__

if TYPE_CHECKING:
    from trivium.encoders.base import DecodeError, SandboxError, WeightsError
    from trivium.encoders.devices import DeviceError
    from trivium.encoders.sandbox.pool import DecodeSandbox
    from trivium.encoders.text.own_models import TextModelError
    from trivium.indexes import Wish
    from trivium.pipeline.cli.main import main
    from trivium.pipeline.collection import Collection
    from trivium.pipeline.fused.loading import load_classifier
    from trivium.pipeline.fused.model_folder import ModelError
    from trivium.pipeline.ingest.settings import Summary
    from trivium.pipeline.search.query import QueryError
    from trivium.pipeline.search.retrieval import Hit
    from trivium.pipeline.space.config import SpaceError
    from trivium.pipeline.space.joint import JointSpace, load_space
    from trivium.pipeline.store.database import CollectionError, CollectionLockedError
    from trivium.pipeline.store.filters.expression import FilterError
    from trivium.pipeline.tables.metadata import MetadataError
    from trivium.pipeline.tables.reading import TableError

# What a user needs, each from where it lives, imported when it is first asked for.
_FROM = {
    "Collection": "trivium.pipeline.collection",
    "CollectionError": "trivium.pipeline.store.database",
    "CollectionLockedError": "trivium.pipeline.store.database",
    "DecodeError": "trivium.encoders.base",
    "DecodeSandbox": "trivium.encoders.sandbox.pool",
    "DeviceError": "trivium.encoders.devices",
    "FilterError": "trivium.pipeline.store.filters.expression",
    "Hit": "trivium.pipeline.search.retrieval",
    "JointSpace": "trivium.pipeline.space.joint",
    "MetadataError": "trivium.pipeline.tables.metadata",
    "ModelError": "trivium.pipeline.fused.model_folder",
    "QueryError": "trivium.pipeline.search.query",
    "SandboxError": "trivium.encoders.base",
    "SpaceError": "trivium.pipeline.space.config",
    "Summary": "trivium.pipeline.ingest.settings",
    "TableError": "trivium.pipeline.tables.reading",
    "TextModelError": "trivium.encoders.text.own_models",
    "WeightsError": "trivium.encoders.base",
    "Wish": "trivium.indexes",
    "load_classifier": "trivium.pipeline.fused.loading",
    "load_space": "trivium.pipeline.space.joint",
    "main": "trivium.pipeline.cli.main",
}

__all__ = [
    "Collection",
    "CollectionError",
    "CollectionLockedError",
    "DecodeError",
    "DecodeSandbox",
    "DeviceError",
    "FilterError",
    "Hit",
    "JointSpace",
    "MetadataError",
    "ModelError",
    "QueryError",
    "SandboxError",
    "SpaceError",
    "Summary",
    "TableError",
    "TextModelError",
    "WeightsError",
    "Wish",
    "__version__",
    "load_classifier",
    "load_space",
    "main",
]


def __getattr__(name: str) -> Any:
    if name not in _FROM:
        raise AttributeError(f"module 'trivium' has no attribute {name!r}")
    return getattr(importlib.import_module(_FROM[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
