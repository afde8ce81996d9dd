"""A collection of media: indexed once, kept up to date, searched any by any."""

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from trivium.encoders.base import Modality, Space
from trivium.pipeline.database import DATABASE, CollectionError, is_free, what_is_missing
from trivium.pipeline.filters import Filter
from trivium.pipeline.ingestion import Progress, Summary, ingest
from trivium.pipeline.query import QueryPart, query_vector
from trivium.pipeline.retrieval import Hit, Retrieval
from trivium.pipeline.spaces import DEFAULT_SPACE, JointSpace, load_space, space_folders
from trivium.pipeline.store import Store
from trivium.pipeline.writer import writing

# An item as the space's encoder takes it, or a pair (weight, item), or a list of either.
Items: TypeAlias = Any


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectionInfo:
    """What `Collection.info` tells."""

    folder: str
    space: Space
    items: dict[Modality, int]
    vectors: int
    generation: int  # commits so far
    size_bytes: int  # of the collection's folder


class Collection:
    """A folder that holds what Trivium knows of a set of files; the files themselves are never touched.

    One object belongs to one thread; several may have the same collection open, also while one of them adds.
    """

    def __init__(
        self,
        folder: Path,
        *,
        space: str | os.PathLike[str] | JointSpace | None = None,
        device: str = "cpu",
        announce: Callable[[str], None] | None = None,
    ) -> None:
        self.folder = folder
        self._device = device
        self._announce = announce
        self._store = Store(folder) if _exists(folder) else None
        self._search: Retrieval | None = None
        self._source = self._space_source(space)
        self._space = space if isinstance(space, JointSpace) else None
        if space is not None and self._store is not None:
            self._store.require(self.space.space)

    @classmethod
    def open(
        cls,
        folder: str | os.PathLike[str],
        *,
        space: str | os.PathLike[str] | JointSpace | None = None,
        device: str = "cpu",
        announce: Callable[[str], None] | None = None,
    ) -> "Collection":
        """Open a collection; one that does not exist is made by the first `add`.

        Args:
            folder: Where it lies. Must not exist, be empty, or be a collection.
            space: A name, a space folder, or a loaded space, for a new collection (default: ``trivium-labels``). An
                existing collection knows its space; another one is refused.
            device: Where the networks run, as torch names it.
            announce: Called with one line before each download.

        Raises:
            CollectionError: If the folder is not a collection, damaged, of a newer format or another space.
            SpaceError: If there is no such space.
        """
        return cls(Path(os.path.abspath(folder)), space=space, device=device, announce=announce)

    @property
    def space(self) -> JointSpace:
        """The collection's space; its networks are loaded when they are first used."""
        if self._space is None:
            self._space = load_space(self._source, device=self._device, announce=self._announce)
        return self._space

    def add(
        self,
        media: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
        *,
        captions: bool = True,
        progress: Progress | None = None,
    ) -> Summary:
        """Index files and folders: what is new or changed is encoded, what is gone from them is dropped.

        Args:
            media: Files and folders.
            captions: Whether captions become vectors of their items too; they are shown in hits either way.
            progress: Called as ``progress(modality, files_done, files_to_do)``.

        Returns:
            Counts, timings, and every file that was left out with its reason.

        Raises:
            CollectionError: If the collection belongs to another space or is being written by another process.
            WeightsError: If the weights cannot be fetched.
        """
        paths = [media] if isinstance(media, str | os.PathLike) else list(media)
        if self._store is None:
            self._store = Store.create(self.folder, self.space.space, source=self._source)
        return ingest(self._store, self.space, paths, captions=captions, progress=progress)

    def search(
        self,
        *,
        text: Items = None,
        image: Items = None,
        audio: Items = None,
        k: int = 10,
        only: Modality | None = None,
    ) -> list[Hit]:
        """Find the items nearest to a query of any modality, or several at once.

        Args:
            text: A string, a pair (weight, string), or a list of these. A negative weight means less of it.
            image: The same with paths, bytes, PIL images or uint8 arrays (h, w, 3).
            audio: The same with paths, bytes or (waveform, rate in Hz) pairs of array and int.
            k: How many hits, at least 1.
            only: Restrict the hits to one modality.

        Returns:
            At most k hits, best first.

        Raises:
            CollectionError: If there is no collection, or it is damaged.
            QueryError: If the query is empty, cannot be decoded or cancels out, or ``k`` is below 1.
        """
        parts = [*_parts("text", text), *_parts("image", image), *_parts("audio", audio)]
        return self.search_parts(parts, k=k, only=only)

    def search_parts(self, parts: Sequence[QueryPart], *, k: int = 10, only: Modality | None = None) -> list[Hit]:
        """Do what `search` does, with the query's parts in one list."""
        store = self._existing()
        store.require(self.space.space)
        hits = self._retrieval(store).search(query_vector(self.space, parts)[np.newaxis], k=k, filter=Filter(only=only))
        return hits[0]

    def remove(self, paths: Iterable[str | os.PathLike[str]]) -> int:
        """Forget the items at these paths, and all items below those that are folders; the files stay.

        Returns:
            How many items were forgotten. A file that still lies in an indexed folder comes back with the next `add`.

        Raises:
            CollectionError: If there is no collection, or another process is writing to it.
        """
        store = self._existing()
        with writing(store) as writer:
            found = {item for path in paths for item in store.items_below(os.path.abspath(os.fspath(path)))}
            if found:
                writer.remove(found)
        return len(found)

    def info(self) -> CollectionInfo:
        """Tell what the collection holds.

        Raises:
            CollectionError: If there is no collection.
        """
        store = self._existing()
        return CollectionInfo(
            folder=str(self.folder),
            space=store.space,
            items=store.counts(),
            vectors=store.vector_count(),
            generation=store.generation,
            size_bytes=sum(path.stat().st_size for path in self.folder.rglob("*") if path.is_file()),
        )

    def close(self) -> None:
        """Release the database file."""
        if self._store is not None:
            self._store.close()

    def __enter__(self) -> "Collection":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __len__(self) -> int:
        return 0 if self._store is None else sum(self._store.counts().values())

    def __repr__(self) -> str:
        return f"<Collection {str(self.folder)!r}: {len(self)} items>"

    def _existing(self) -> Store:
        if self._store is None:
            self._store = Store(self.folder)  # made meanwhile, or an error that says what is missing
        return self._store

    def _retrieval(self, store: Store) -> Retrieval:
        if self._search is None:
            self._search = Retrieval(store)
        return self._search

    def _space_source(self, space: str | os.PathLike[str] | JointSpace | None) -> str:
        if isinstance(space, JointSpace):
            return space.source
        if space is not None:
            is_name = os.fspath(space) in space_folders()
            return os.fspath(space) if is_name else os.path.abspath(space)
        return DEFAULT_SPACE if self._store is None else self._store.space_source


def _exists(folder: Path) -> bool:
    if (folder / DATABASE).exists():
        return True
    if not is_free(folder):
        raise CollectionError(what_is_missing(folder))
    return False


def _parts(modality: Modality, items: Items) -> list[QueryPart]:
    if items is None:
        return []
    several = items if isinstance(items, list) else [items]
    return [
        QueryPart(modality=modality, weight=float(entry[0]), item=entry[1])
        if isinstance(entry, tuple) and isinstance(entry[0], int | float)
        else QueryPart(modality=modality, item=entry)
        for entry in several
    ]
