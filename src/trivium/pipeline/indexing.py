"""Index files made from stored vectors, and named in the manifest when they are whole."""

import secrets
from collections.abc import Mapping

from trivium.encoders.base import Modality
from trivium.indexes import FaissIndex
from trivium.pipeline.durable import write_durably
from trivium.pipeline.records import IndexFile
from trivium.pipeline.store import INDEX, Store
from trivium.pipeline.writer import Writer


def build_index_file(writer: Writer, modality: Modality, *, kind: str) -> None:
    """Index all vectors of one modality and make that the index which searches use.

    Raises:
        CollectionError: If a shard is missing or damaged.
        ValueError: If there is no such kind, or a stored vector is not finite.
        OSError: If the disk is full or fails.
    """
    store = writer.store
    source = store.source(store.locations(modality))
    if source.count:
        index = FaissIndex.build(kind, source)
        writer.set_index_file(_write(store, modality, index, through=source.newest, report={}))


def _write(
    store: Store, modality: Modality, index: FaissIndex, *, through: int, report: Mapping[str, object]
) -> IndexFile:
    # A name of its own: readers may have the present file mapped.
    name = f"{modality}-{index.kind}-{secrets.token_hex(4)}.faiss"
    written = write_durably(store.folder / INDEX / name, index.write)
    return IndexFile(
        modality=modality,
        name=name,
        size=written.size,
        sha256=written.sha256,
        state=written.state,
        kind=index.kind,
        effort=index.effort,
        through=through,
        vectors=len(index),
        report=report,
    )
