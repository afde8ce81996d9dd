"""Commands that make and describe a collection: `index`, `info` and `remove`."""

import argparse
import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from trivium.encoders.machine import keep_freed_memory
from trivium.indexes import Wish
from trivium.pipeline.cli.ends import EXIT_SKIPPED, Command
from trivium.pipeline.cli.options import add_device, add_json, add_wish, open_collection, wish_of
from trivium.pipeline.cli.terminal import counted, index_bars, print_problems, print_stats, progress_bars, say
from trivium.pipeline.collection import Collection
from trivium.pipeline.escaping import printable
from trivium.pipeline.records import IndexFile, ItemKind
from trivium.pipeline.store.database import CollectionError

if TYPE_CHECKING:
    from trivium.encoders.engine import StageStats, Stats
    from trivium.pipeline.ingest.ingestion import Summary


def index_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of `trivium index`."""
    parser.add_argument("collection", metavar="COLLECTION", help="the collection's folder; made if it does not exist")
    parser.add_argument("media", metavar="MEDIA", nargs="+", help="files and folders")
    parser.add_argument("--space", help="a space's name or folder (see `trivium spaces`)")
    parser.add_argument("--no-captions", action="store_true", help="show captions in hits, but do not search them")
    parser.add_argument(
        "--metadata",
        metavar="TABLE",
        action="append",
        default=[],
        help="CSV or JSON lines with a column 'path', for --where; beside NAME.json files, which are always read; of "
        "several, the last counts where they differ",
    )
    parser.add_argument("--positions", action="store_true", help="keep from metadata where media were made")
    parser.add_argument(
        "--windows",
        type=float,
        metavar="SECONDS",
        help="give sounds a vector for each stretch of so many seconds too, so that hits say where; 0: none again",
    )
    parser.add_argument("--stats", action="store_true", help="tell what each stage did, and which one limits the run")
    parser.add_argument("--strict", action="store_true", help="exit with 3 if a file was skipped")
    parser.add_argument("--json", action="store_true", help="print the summary as one JSON object")
    add_wish(parser)
    add_device(parser)


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


def info_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of `trivium info`."""
    parser.add_argument("collection", metavar="COLLECTION")
    add_json(parser)


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


def remove_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of `trivium remove`."""
    parser.add_argument("collection", metavar="COLLECTION")
    parser.add_argument("paths", metavar="PATH", nargs="+", help="files, or folders with all that is below them")


def remove(options: argparse.Namespace) -> int:
    """Forget items."""
    with Collection.open(options.collection) as collection:
        count = collection.remove(options.paths)
    say(f"forgot {count:,} {'item' if count == 1 else 'items'}; the files were not touched")
    return 0


def index_with_progress(
    collection: Collection,
    media: Sequence[str | os.PathLike[str]],
    *,
    captions: bool = True,
    metadata: Sequence[str] = (),
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


COMMANDS: Mapping[str, Command] = {
    "index": Command(index_options, index),
    "info": Command(info_options, info),
    "remove": Command(remove_options, remove),
}
