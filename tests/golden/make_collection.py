"""Makes a small collection of the present format, and `NAME.json`, what it holds and how it answers.

Kept so that every later Trivium still reads what earlier ones wrote. The folders in git are the ones of the day that
their format was finished (2: `collection_v2`, by this script as it was then; 3: `collection_v3`), and are never made
again: a new format gets a folder of its own. From the root:

    python tests/golden/make_collection.py TARGET_FOLDER

No path of any machine is in the database. Names and bytes differ between runs (index files have random names, and know
their inode), the recorded answers do not.
"""

import hashlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from trivium.encoders.base import Modality, Space, Vectors, unit_rows
from trivium.pipeline.records import ContentKey, NewItem, Role, Traits
from trivium.pipeline.search.indexing import build_index_file
from trivium.pipeline.search.retrieval import Retrieval
from trivium.pipeline.store.database import LOCK
from trivium.pipeline.store.filters import Filter
from trivium.pipeline.store.roots import Root, RootSettings
from trivium.pipeline.store.store import Store
from trivium.pipeline.store.writer import writing

SPACE = Space(name="stub", dim=16, revision="1")
# (path, modality, caption, whether the caption is embedded, metadata)
ITEMS: Sequence[tuple[str, Modality, str | None, bool, str | None]] = (
    ("/media/photos/red.png", "image", "A red sign.", True, '{"camera":"Pocket","year":2019}'),
    ("/media/photos/blue.jpg", "image", None, False, '{"tags":["sea","sky"],"year":2021}'),
    ("/media/photos/deep/green.webp", "image", "Ein grünes Feld", True, None),
    ("/media/photos/copy of red.png", "image", None, False, None),
    ("/media/sounds/low.wav", "audio", None, False, None),
    ("/media/sounds/high.ogg", "audio", "A high tone.", True, '{"seconds":0.5}'),
    ("/media/notes/shopping.md", "text", "Shopping", False, None),
    ("/media/notes/gedicht.txt", "text", "Rosen sind rot,", False, '{"author":"unknown","draft":true}'),
)
LATER: Sequence[tuple[str, Modality, str | None, bool, str | None]] = (
    ("/media/photos/odd-\udcff.png", "image", None, False, None),  # bytes that are not UTF-8
    ("/media/photos/yellow.png", "image", "Something yellow", False, '{"year":2024}'),
)
REMOVED = "/media/photos/blue.jpg"  # its content is an orphan, and in the index file
MISSING = "/media/sounds/low.wav"
SAME_CONTENT = {"/media/photos/copy of red.png": "/media/photos/red.png"}
QUERIES = 4


def content_of(path: str, modality: Modality) -> ContentKey:
    """Return a content as if the path were the file's bytes."""
    name = SAME_CONTENT.get(path, path)
    return ContentKey(modality, hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest())


def vector_of(content: ContentKey) -> Vectors:
    """Draw a content's vector, shape (d,)."""
    seed = int.from_bytes(content.sha256[:8], "big")
    vector: Vectors = unit_rows(np.random.default_rng(seed).normal(size=(1, SPACE.dim)))[0]
    return vector


def add(store: Store, rows: Sequence[tuple[str, Modality, str | None, bool, str | None]]) -> None:
    """Commit some items as one batch."""
    items, keys = [], dict[ContentKey, None]()
    for path, modality, caption, is_embedded, metadata in rows:
        contents: dict[Role, ContentKey] = {"content": content_of(path, modality)}
        if is_embedded and caption is not None:
            contents["caption"] = ContentKey("text", hashlib.sha256(caption.encode()).digest())
        keys |= dict.fromkeys(contents.values())
        items.append(
            NewItem(
                path=path,
                modality=modality,
                fingerprint="1234-1700000000000000000-1700000000000000000-42",
                beside="",
                contents=contents,
                caption=caption,
                metadata=metadata,
                tabled=metadata,
                own='{"width":640}' if modality == "image" else None,
            )
        )
    with writing(store) as writer:
        traits = {
            key: Traits(looks=int.from_bytes(key.sha256[:8], "big", signed=True))
            for key in keys
            if key.modality == "image"
        }
        writer.commit(items, list(keys), np.stack([vector_of(key) for key in keys]), traits=traits)


def recorded(store: Store) -> dict[str, Any]:
    """Return what the collection holds, and how it answers."""
    queries = unit_rows(np.random.default_rng(2).normal(size=(QUERIES, SPACE.dim)))
    filters: Sequence[dict[str, Any]] = ({}, {"only": "image"}, {"where": "year >= 2019 and not has draft"})
    return {
        "items": [
            {
                "path": item.path,
                "modality": item.modality,
                "caption": item.caption,
                "metadata": item.metadata,
                "contents": {role: [key.modality, key.sha256.hex()] for role, key in sorted(item.contents.items())},
            }
            for item in store.items()
        ],
        "searches": [
            {
                "query": query.tolist(),
                "filter": wanted,
                "hits": [
                    {"path": hit.path, "score": round(hit.score, 6), "matched": hit.matched}
                    for hit in Retrieval(store).search(query[np.newaxis], k=5, filter=Filter(**wanted), fold="none")[0]
                ],
            }
            for query in queries
            for wanted in filters
        ],
    }


def main(target: Path) -> None:
    """Make the folder and the file beside it."""
    store = Store.create(target, SPACE, source="stub")
    add(store, ITEMS)
    with writing(store) as writer:
        build_index_file(writer, "image", kind="flat")
    add(store, LATER)  # the index file does not hold these
    removed = store.item_at(REMOVED)
    assert removed is not None
    with writing(store) as writer:
        writer.remove([removed.id])
        away = store.item_at(MISSING)
        assert away is not None
        writer.set_missing([away.id], missing=True)
        writer.set_windows(5.0)
        settings = RootSettings(captions=False, metadata=("/media/table.csv",), exclude=("*.tmp",))
        root = Root(path="/media", device=7, settings=settings, passed={".pdf": 2})
        writer.set_roots({"/media": root, "/media/sounds": Root(path="/media/sounds")})
        writer.set_skipped(["/media"], {"/media/photos/bad.png": "not a picture"})
    answers = recorded(store)
    store.close()
    (target / LOCK).unlink(missing_ok=True)
    target.with_suffix(".json").write_text(json.dumps(answers, indent=1) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
