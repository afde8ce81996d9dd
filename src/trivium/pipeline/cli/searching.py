"""`trivium search`: hits told as lines, as JSON, and as a page that shows and plays them (`pages`)."""

import argparse
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from trivium.pipeline.cli.ends import Command
from trivium.pipeline.cli.options import UsageError, add_device, filter_of, open_collection, plain_of
from trivium.pipeline.cli.pages.hits import query_html, render_page
from trivium.pipeline.cli.pages.html import write_page
from trivium.pipeline.cli.query_words import add_query, name_texts
from trivium.pipeline.cli.terminal import announce, print_hits, say, say_bytes, say_paths
from trivium.pipeline.collection import Collection
from trivium.pipeline.escaping import printable
from trivium.pipeline.explain.lines import explanation_json
from trivium.pipeline.search.query import QueryPart, parse_part
from trivium.pipeline.search.retrieval import Hit
from trivium.pipeline.store.filters import Filter
from trivium.pipeline.tables.csv_text import csv_of, path_cells

if TYPE_CHECKING:
    from trivium.pipeline.explain.drops import Explanation

CSV_COLUMNS = (
    *("path", "path_bytes", "modality", "score", "relevance", "caption", "matched", "start", "stop", "metadata"),
)


def search_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of `trivium search`."""
    parser.allow_abbrev = False
    parser.description = "A query part may have a weight: '2:beach', '-0.5:crowd'; a leading '-' means less of it."
    parser.add_argument("collection", metavar="COLLECTION", help="the collection's folder")
    add_query(parser)
    parser.add_argument("--space", help="refuse the collection if it was made with another space")
    add_device(parser)


def search(options: argparse.Namespace) -> int:
    """Find items and show them."""
    with open_collection(options, space=options.space) as collection:
        answer(collection, options)
    return 0


def answer(collection: Collection, options: argparse.Namespace) -> None:
    """Answer one query, of a command line or of a line of the shell."""
    form = plain_of(options)
    if options.explain is not None and form not in (None, "json") and not options.html:
        raise UsageError(f"--{form} has no place for what --explain tells: give --json or --html")
    parts = [parse_part("text", text) for text in [*options.texts, *options.text]]
    parts += [parse_part("image", file) for file in options.image]
    parts += [parse_part("audio", file) for file in options.audio]
    parts += [parse_part("video", file) for file in options.video]
    filter = filter_of(options)
    (hits,) = collection.search_parts(
        [parts], k=options.k, filter=filter, min_relevance=options.min_relevance, fold=options.fold
    )
    if options.fold == "near" and (count := collection.unseen_pictures()):
        announce(
            f"{count:,} pictures and videos have no hash to tell near-equal ones by, and are folded only if they are "
            f"equal: `trivium duplicates --near {printable(str(options.collection))}` makes them"
        )
    if not hits and options.min_relevance is None:
        _warn_of_keys(collection, filter)
    explained = _explained(collection, parts, hits, options) if options.explain is not None else None
    space = collection.space.space.name
    if options.html:
        note = f"{len(hits)} hits in {printable(str(options.collection))}, space {space}"
        _write_page(collection, Path(options.html), parts, hits, explained or {}, note=note)
    if form in ("paths", "paths0"):
        say_paths((hit.path for hit in hits), end=b"\n" if form == "paths" else b"\0")
    elif form == "csv":
        say_bytes(csv_of([CSV_COLUMNS, *map(_csv_row, hits)]))
    elif form == "json":
        query = [{"modality": part.modality, "item": part.item, "weight": part.weight} for part in parts]
        fields = (
            "path",
            "modality",
            "score",
            "relevance",
            "caption",
            "matched",
            "start",
            "stop",
            "metadata",
            "copies",
            "is_missing",
        )
        found = [{field: getattr(hit, field) for field in fields} for hit in hits]
        if explained is not None:
            for told in found:
                why = explained.get(told["path"])
                told["explanation"] = None if why is None else explanation_json(why)
        say(json.dumps({"query": query, "space": space, "hits": found}))
    else:
        print_hits(hits, explained, min_relevance=options.min_relevance)


def _csv_row(hit: Hit) -> list[object]:
    metadata = json.dumps(hit.metadata, ensure_ascii=False) if hit.metadata else None
    return [*path_cells(os.fsencode(hit.path)), *(getattr(hit, name) for name in CSV_COLUMNS[2:-1]), metadata]


def _warn_of_keys(collection: Collection, filter: Filter) -> None:
    """Tell of metadata that no item has: a slip of the pen is the likeliest reason for no hits."""
    for key in sorted(filter.metadata_keys - collection.metadata_keys()):
        announce(f"no item has metadata '{key}'")


def _explained(
    collection: Collection, parts: list[QueryPart], hits: "list[Hit]", options: argparse.Namespace
) -> "dict[str, Explanation]":
    """Explain the first hits, by path, and write what is to be seen of it."""
    from trivium.pipeline.explain.plots import write_overlays

    found = collection.explain_parts(parts, hits[: options.explain_hits])
    return dict(zip((hit.path for hit in hits), write_overlays(found, hits, Path(options.explain)), strict=False))


def _write_page(
    collection: Collection,
    target: Path,
    parts: list[QueryPart],
    hits: "list[Hit]",
    explained: "Mapping[str, Explanation]",
    *,
    note: str,
) -> None:
    asked = collection.small_pictures([part.item for part in parts if part.modality == "image"])
    heading = query_html([(part.weight, part.modality, part.item) for part in parts], target=target, thumbnails=asked)
    thumbnails = collection.thumbnails({hit.path: hit.start if hit.matched == "frame" else None for hit in hits})
    page = render_page(
        "Trivium search",
        [(heading, hits)],
        target=target,
        note=note,
        explained=explained,
        thumbnails=thumbnails,
    )
    write_page(target, page)


COMMANDS: Mapping[str, Command] = {"search": Command(search_options, search, words=name_texts)}
