"""Trivium: text, images and sound in one space.

    import trivium
    collection = trivium.Collection.open("holiday.trivium")
    collection.add(["photos", "sounds"])
    for hit in collection.search(text="a bird singing", k=5):
        print(f"{hit.score:.2f}", hit.modality, hit.path, hit.caption)

Importing this package loads nothing heavy; torch comes when something is first encoded.
"""

from typing import TYPE_CHECKING, Any

from trivium.version import __version__

if TYPE_CHECKING:
    from trivium.pipeline.collection import Collection
    from trivium.pipeline.fused.loading import load_classifier
    from trivium.pipeline.space.joint import load_space

__all__ = ["Collection", "__version__", "load_classifier", "load_space"]


def __getattr__(name: str) -> Any:
    if name == "Collection":
        from trivium.pipeline.collection import Collection

        return Collection
    if name == "load_classifier":
        from trivium.pipeline.fused.loading import load_classifier

        return load_classifier
    if name == "load_space":
        from trivium.pipeline.space.joint import load_space

        return load_space
    raise AttributeError(f"module 'trivium' has no attribute {name!r}")
