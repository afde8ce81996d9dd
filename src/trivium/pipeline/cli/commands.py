"""What the commands do that make, search and describe collections, and the table of all commands."""

import argparse
import json
import os
import sqlite3
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trivium.encoders.base import SandboxError, WeightsError
from trivium.encoders.machine import keep_freed_memory
from trivium.encoders.networks.weights import damaged_files, fetch_again, weights_folder
from trivium.encoders.sandbox.mode import asked_for
from trivium.indexes import Wish
from trivium.pipeline.cli import failures, interrupts, streams
from trivium.pipeline.cli.main import EXIT_FAILED, EXIT_LOCKED, EXIT_SKIPPED, EXIT_USAGE
from trivium.pipeline.cli.options import UsageError, device_of, filter_of, wish_of
from trivium.pipeline.cli.page import query_html, render_page
from trivium.pipeline.cli.terminal import (
    announce,
    counted,
    fail,
    index_bars,
    print_hits,
    print_problems,
    print_stats,
    progress_bars,
    say,
)
from trivium.pipeline.collection import Collection
from trivium.pipeline.escaping import printable
from trivium.pipeline.explain.lines import explanation_json
from trivium.pipeline.records import IndexFile, ItemKind
from trivium.pipeline.search.query import QueryError, QueryPart, parse_part
from trivium.pipeline.space.config import SpaceError, read_space_config
from trivium.pipeline.space.joint import DEFAULT_SPACE, load_space, space_folders
from trivium.pipeline.store.database import CollectionError, CollectionLockedError
from trivium.pipeline.store.filters import Filter, FilterError
from trivium.pipeline.tables.metadata import MetadataError
from trivium.pipeline.tables.reading import TableError

if TYPE_CHECKING:
    from trivium.encoders.engine import StageStats, Stats
    from trivium.pipeline.explain.drops import Explanation
    from trivium.pipeline.ingest.ingestion import Summary
    from trivium.pipeline.search.retrieval import Hit

PAGE_BEGINS = b"<!doctype html>"


def run(options: argparse.Namespace) -> int:
    """Run the command that was asked for; every failure becomes one message and an exit status."""
    try:
        with asked_for(getattr(options, "sandbox", None)):
            status = _command(options.command)(options)
        sys.stdout.flush()  # here, where a full disk can still be told
        return status
    except (QueryError, FilterError, UsageError) as error:
        return fail(error, EXIT_USAGE)
    except CollectionLockedError as error:
        return fail(error, EXIT_LOCKED)
    except (CollectionError, MetadataError, SandboxError, SpaceError, TableError, WeightsError, sqlite3.Error) as error:
        return fail(error, EXIT_FAILED)
    except BrokenPipeError:  # the reader of our output has seen enough
        streams.drop_output()
        return EXIT_FAILED
    except KeyboardInterrupt as error:
        streams.drop_output()  # half an answer is none
        return interrupts.ended(error)
    except Exception as error:
        streams.drop_output()  # else Python says once more at the end that it could not be written
        return fail(failures.told(error), EXIT_FAILED)


def open_collection(options: argparse.Namespace, *, space: str | None) -> Collection:
    """Open the collection of a command that encodes, on the device and with the precision that were asked for."""
    return Collection.open(
        options.collection, space=space, device=device_of(options), precision=options.precision, announce=announce
    )


def index(options: argparse.Namespace) -> int:
    """Make a collection or bring it up to date."""
    started = time.perf_counter()
    with open_collection(options, space=options.space) as collection:
        if not any(os.path.lexists(path) for path in options.media):
            raise CollectionError(f"no such file or folder: {', '.join(map(printable, options.media))}")
        summary = index_with_progress(
            collection,
            options.media,
            captions=not options.no_captions,
            metadata=options.metadata,
            positions=options.positions,
            windows=options.windows,
            index=wish_of(options),
        )
    seconds = time.perf_counter() - started
    if options.json:
        say(json.dumps(_summary_json(summary, seconds)))
    else:
        _print_summary(summary, seconds, collection)
        if options.stats:
            print_stats(summary.stats)
    return EXIT_SKIPPED if options.strict and summary.skipped else 0


def search(options: argparse.Namespace) -> int:
    """Find items and show them."""
    with open_collection(options, space=options.space) as collection:
        answer(collection, options)
    return 0


def answer(collection: Collection, options: argparse.Namespace) -> None:
    """Answer one query, of a command line or of a line of the shell."""
    parts = [parse_part("text", text) for text in [*options.texts, *options.text]]
    parts += [parse_part("image", file) for file in options.image]
    parts += [parse_part("audio", file) for file in options.audio]
    filter = filter_of(options)
    (hits,) = collection.search_parts([parts], k=options.k, filter=filter, min_relevance=options.min_relevance)
    if not hits and options.min_relevance is None:
        _warn_of_keys(collection, filter)
    explained = _explained(collection, parts, hits, options) if options.explain is not None else None
    space = collection.space.space.name
    if options.html:
        note = f"{len(hits)} hits in {printable(str(options.collection))}, space {space}"
        _write_page(Path(options.html), parts, hits, explained or {}, note=note)
    if options.json:
        query = [{"modality": part.modality, "item": part.item, "weight": part.weight} for part in parts]
        fields = ("path", "modality", "score", "relevance", "caption", "matched", "start", "stop", "metadata")
        found = [{field: getattr(hit, field) for field in fields} for hit in hits]
        if explained is not None:
            for told in found:
                why = explained.get(told["path"])
                told["explanation"] = None if why is None else explanation_json(why)
        say(json.dumps({"query": query, "space": space, "hits": found}))
    else:
        print_hits(hits, explained, min_relevance=options.min_relevance)


def info(options: argparse.Namespace) -> int:
    """Tell what a collection holds."""
    with Collection.open(options.collection) as collection:
        found = collection.info()
        told, indexes = asdict(found), list(found.indexes.values())
    if options.json:
        say(json.dumps(told))
        return 0
    space = told["space"]
    say(f"collection  {printable(told['folder'])}")
    say(f"space       {space['name']} ({space['dim']} dimensions, revision {space['revision']})")
    say(f"items       {counted(told['items'])}")
    say(f"vectors     {told['vectors']:,}")
    for file in indexes:
        first, *rest = _described(file)
        say(f"index       {first}", *(f"            {line}" for line in rest))
    say(f"on disk     {told['size_bytes'] / 1e6:,.1f} MB")
    return 0


def remove(options: argparse.Namespace) -> int:
    """Forget items."""
    with Collection.open(options.collection) as collection:
        count = collection.remove(options.paths)
    say(f"forgot {count:,} {'item' if count == 1 else 'items'}; the files were not touched")
    return 0


def spaces(options: argparse.Namespace) -> int:
    """List the spaces."""
    listed = []
    for name, folder in space_folders().items():
        try:
            config = read_space_config(folder)
        except SpaceError as error:
            announce(f"warning: {error}")
            continue
        listed.append(
            {
                "name": name,
                "dim": config.space.dim,
                "revision": config.space.revision,
                "encoders": {modality: encoder.backbone for modality, encoder in config.encoders.items()},
                "description": config.description,
                "default": name == DEFAULT_SPACE,
            }
        )
    if options.json:
        say(json.dumps({"spaces": listed}))
        return 0
    for space in listed:
        encoders: Any = space["encoders"]
        say(f"{space['name']}{'  (default)' if space['default'] else ''}")
        say(f"    {space['dim']} dimensions, " + ", ".join(f"{m}: {b}" for m, b in encoders.items()))
        say(f"    {space['description']}")
    return 0


def pull(options: argparse.Namespace) -> int:
    """Fetch what a space needs; check every byte of what was fetched and made before."""
    from trivium.pipeline.cli.cache import drop_damaged

    space = load_space(options.space or DEFAULT_SPACE, announce=announce)
    for weights in space.weights():
        if weights_folder(weights).is_dir() and (damaged := damaged_files(weights)):
            announce(f"{weights.name} in the cache is damaged ({', '.join(damaged)}): fetching it again")
            fetch_again(weights, announce=announce)
    for path in drop_damaged():  # now that the weights they are made of are sound
        announce(f"{printable(str(path))} is damaged, or of an older Trivium: it is made again when needed")
    space.pull()
    for weights in space.weights():
        say(f"{weights.name:20} {weights.licence:42} {weights_folder(weights)}")
    return 0


COMMANDS: Mapping[str, Callable[[argparse.Namespace], int]] = {
    "index": index,
    "search": search,
    "info": info,
    "remove": remove,
    "spaces": spaces,
    "pull": pull,
}


def _command(name: str) -> Callable[[argparse.Namespace], int]:
    """Find what does a command; what a search does not need is imported only now."""
    if name in COMMANDS:
        return COMMANDS[name]
    if name == "shell":
        from trivium.pipeline.cli.shell import shell

        return shell
    if name == "bench":
        from trivium.pipeline.cli.benching import bench

        return bench
    if name == "cache":
        from trivium.pipeline.cli.cache import cache

        return cache
    if name == "align":
        from trivium.pipeline.cli.aligning import run_align

        return run_align
    if name in ("word-vectors", "train-text", "pretrain-text", "distill"):
        from trivium.pipeline.cli.learning import LEARNING

        return LEARNING[name]
    if name in ("evaluate", "zero-shot"):
        from trivium.pipeline.cli.evaluating import EVALUATION

        return EVALUATION[name]
    if name in ("features", "classify"):
        from trivium.pipeline.cli.fusing import FUSED

        return FUSED[name]
    from trivium.pipeline.cli.upkeep import UPKEEP

    return UPKEEP[name]


def index_with_progress(
    collection: Collection,
    media: Sequence[str | os.PathLike[str]],
    *,
    captions: bool = True,
    metadata: str | None = None,
    positions: bool = False,
    windows: float | None = None,
    index: Wish | None = None,
) -> "Summary":
    """Add media to a collection, with a progress bar for each modality on standard error."""
    keep_freed_memory()
    stats: dict[ItemKind, Stats] = {}
    with progress_bars(stats) as show:
        return collection.add(
            media,
            captions=captions,
            metadata=metadata,
            positions=positions,
            windows=windows,
            index=index,
            progress=show,
            index_progress=index_bars(show),
            stats=stats,
        )


def _warn_of_keys(collection: Collection, filter: Filter) -> None:
    """Tell of metadata that no item has: a slip of the pen is the likeliest reason for no hits."""
    for key in sorted(filter.metadata_keys - collection.metadata_keys()):
        announce(f"no item has metadata '{key}'")


def _described(file: IndexFile) -> list[str]:
    report = file.report
    effort = "" if file.effort is None else f", effort {file.effort}"
    lines = [f"{file.modality}: {file.kind}{effort}, {file.vectors:,} vectors, {file.size / 1e6:,.1f} MB"]
    if recall := report.get("recall"):
        queries = report["queries"]
        found = ", ".join(f"{share:.3f} ({queries[modality]} of {modality})" for modality, share in recall.items())
        lines.append(f"recall@10 {found}; {report['milliseconds']:.2g} ms a query")
    return lines + [str(line) for line in (report.get("reason"), *report.get("notes", ())) if line]


def _summary_json(summary: "Summary", seconds: float) -> dict[str, Any]:
    counts = ("added", "changed", "renamed", "unchanged", "removed", "ignored")
    return {
        "indexed": summary.indexed,
        **{name: getattr(summary, name) for name in counts},
        "skipped": [asdict(problem) for problem in summary.skipped],
        "notes": [asdict(note) for note in summary.notes],
        "encoded": dict(summary.encoded),
        "indexes": [{"modality": file.modality, "kind": file.kind, **file.report} for file in summary.indexes],
        "stages": {
            kind: [_stage_json(stage, stats) for stage in stats.stages] for kind, stats in summary.stats.items()
        },
        "stage_seconds": {stage: round(spent, 3) for stage, spent in summary.seconds.items()},
        "seconds": round(seconds, 3),
    }


def _stage_json(stage: "StageStats", stats: "Stats") -> dict[str, Any]:
    share = stats.processor_shares().get(stage.name)
    return {
        "name": stage.name,
        "items": stage.items,
        "workers": stage.workers,
        "busy_share": round(stage.busy_share(stats.seconds), 4),
        "processor_share": None if share is None else round(share, 4),
    }


def _print_summary(summary: "Summary", seconds: float, collection: Collection) -> None:
    done = f"{summary.indexed:,} indexed ({summary.added:,} new, {summary.changed:,} changed)"
    rest = {"unchanged": summary.unchanged, "renamed": summary.renamed, "removed": summary.removed}
    say(
        ", ".join(
            [
                done,
                *(f"{count:,} {what}" for what, count in rest.items()),
                f"{len(summary.skipped):,} skipped",
            ]
        )
    )
    print_problems([f"skipped {printable(problem.path)}: {printable(problem.reason)}" for problem in summary.skipped])
    print_problems([f"note on {printable(note.path)}: {printable(note.reason)}" for note in summary.notes])
    for file in summary.indexes:
        say(f"index of {file.modality}: {file.report['reason']}")
    if summary.ignored:
        say(f"{summary.ignored:,} files of other kinds were passed over")
    made = [f"{count:,} {modality}" for modality, count in summary.encoded.items() if count]
    took = f"{seconds:.1f} s" + (f" (vectors made: {', '.join(made)})" if made else "")
    say(f"{printable(str(collection.folder))} was brought up to date in {took}")


def _explained(
    collection: Collection, parts: list[QueryPart], hits: "list[Hit]", options: argparse.Namespace
) -> "dict[str, Explanation]":
    """Explain the first hits, by path, and write what is to be seen of it."""
    from trivium.pipeline.explain.plots import write_overlays

    found = collection.explain_parts(parts, hits[: options.explain_hits])
    return dict(zip((hit.path for hit in hits), write_overlays(found, hits, Path(options.explain)), strict=False))


def _require_page(target: Path) -> None:
    """Refuse to put a page in the place of somebody's letter."""
    if target.is_file() and not target.is_symlink():
        with target.open("rb") as file:
            begins = file.read(len(PAGE_BEGINS))
        if begins and begins.lower() != PAGE_BEGINS:
            raise UsageError(f"--html {target}: there is a file that is no page: name another one")


def _write_page(
    target: Path, parts: list[QueryPart], hits: "list[Hit]", explained: "Mapping[str, Explanation]", *, note: str
) -> None:
    heading = query_html([(part.weight, part.modality, part.item) for part in parts], target=target)
    page = render_page("Trivium search", [(heading, hits)], target=target, note=note, explained=explained)
    from trivium.encoders.files.whole_file import write_file

    _require_page(target)
    write_file(target, page)
    announce(f"wrote {printable(str(target))}")
